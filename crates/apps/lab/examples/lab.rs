//! The laboratory alone: `lab run SCENARIO [--rival keepalived] [--advert SECONDS] [--runs N]
//! [--profile fast] [--json] [--only-rival]`, `lab demo [the same]`, `lab list`, `lab clean`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use vnfpool_lab::{
    DemoOptions, Profile, Rival, RunOptions, Scheduling, clean, demo, lab_list, lab_run,
};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (mut output, mut progress) = (std::io::stdout(), std::io::stderr());
    match words.next().as_deref() {
        Some("list") => lab_list(&mut output),
        Some("clean") => clean(&mut progress),
        Some("run") => {
            let options = run_options(words)?;
            lab_run(&options, &mut output, &mut progress).map(drop)
        }
        Some("demo") => {
            let options = run_options(std::iter::once("demo".to_owned()).chain(words))?;
            let options = DemoOptions {
                profile: options.profile,
                vnf: vnfpool_lab::Vnf::Gateway,
                rival: options.rivals.first().copied(),
                json: options.json,
                keep: options.keep,
                report: None,
            };
            let passed = demo(&options, &mut output)?;
            std::process::exit(if passed { 0 } else { 1 });
        }
        _ => bail!("usage: lab run SCENARIO [options] | list | clean"),
    }
}

fn run_options(mut words: impl Iterator<Item = String>) -> Result<RunOptions> {
    let mut options = RunOptions {
        scenario: words.next().context("which scenario?")?,
        runs: 1,
        own: true,
        profile: Profile::Default,
        rivals: Vec::new(),
        json: false,
        keep: false,
    };
    let mut advert = 0.01;
    let mut rival = false;
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .with_context(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--runs" => options.runs = value()?.parse()?,
            "--advert" => advert = value()?.parse()?,
            "--profile" => options.profile = Profile::from_name(&value()?)?,
            "--rival" => rival = value()? == "keepalived",
            "--only-rival" => {
                rival = true;
                options.own = false;
            }
            "--keep" => options.keep = true,
            "--json" => options.json = true,
            _ => bail!("unknown option {word}"),
        }
    }
    if rival {
        options.rivals.push(Rival::Keepalived {
            advert: Duration::from_secs_f64(advert),
            scheduling: Scheduling::RealTime,
        });
    }
    Ok(options)
}
