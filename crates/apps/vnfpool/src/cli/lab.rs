//! `vnfpool demo`, `vnfpool lab`, `vnfpool bench`: a thin front-end of the laboratory.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use vnfpool_lab::{
    BenchOptions, DemoOptions, GateCostOptions, MatrixOptions, RunOptions, Scheduling, StateOptions,
};

use super::args::{
    Bench, BenchCommand, BenchState, BenchTakeover, Demo, GateRules, LabCommand, LabGate,
    LabMatrix, LabRun, Profile, Rival, StateRival, StateRow, Vnf,
};
use super::gate_cost::OwnGate;
use super::output::Output;

/// Runs the demonstration; fails if a connection was lost or an address had two owners.
pub(super) fn demo(args: &Demo, output: &mut Output) -> anyhow::Result<ExitCode> {
    let options = DemoOptions {
        profile: profile(args.profile),
        vnf: match args.vnf {
            Vnf::Gateway => vnfpool_lab::Vnf::Gateway,
            Vnf::Lb => vnfpool_lab::Vnf::LoadBalancer,
        },
        rival: None,
        json: args.json,
        keep: args.keep,
        report: Some(args.report.clone()),
    };
    let all_well = vnfpool_lab::demo(&options, output.writer())?;
    Ok(if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs, lists or cleans scenarios. Lost connections are a result of `run`, and a failure of
/// `matrix`.
pub(super) fn lab(command: &LabCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        LabCommand::Run(args) => run(&options(args), output)?,
        LabCommand::Matrix(args) => return matrix(args, output),
        LabCommand::Gate(args) => return gate(args, output),
        LabCommand::List => vnfpool_lab::lab_list(output.writer())?,
        LabCommand::Clean => vnfpool_lab::clean(output.writer())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures the published figures: of takeovers, or of state replication.
pub(super) fn bench(args: &Bench, output: &mut Output) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(BenchCommand::State(state)) => bench_state(state, output),
        None => bench_takeover(&args.takeover, output),
    }
}

fn bench_state(args: &BenchState, output: &mut Output) -> anyhow::Result<ExitCode> {
    let row = |row: &StateRow| match row {
        StateRow::Rate => vnfpool_lab::StateRow::Rate,
        StateRow::Cpu => vnfpool_lab::StateRow::Cpu,
        StateRow::Lag => vnfpool_lab::StateRow::Lag,
        StateRow::Resync => vnfpool_lab::StateRow::Resync,
        StateRow::Takeover => vnfpool_lab::StateRow::Takeover,
        StateRow::Memory => vnfpool_lab::StateRow::Memory,
        StateRow::Burst => vnfpool_lab::StateRow::Burst,
        StateRow::Commit => vnfpool_lab::StateRow::Commit,
        StateRow::Sdk => vnfpool_lab::StateRow::Sdk,
    };
    let options = StateOptions {
        rows: args.only.iter().map(row).collect(),
        rival: args.rival == StateRival::Conntrackd,
        quick: args.quick,
        runs: args.runs,
        json: args.json,
        report: args.report.clone(),
    };
    let complete = vnfpool_lab::bench_state(&options, output.writer(), &mut io::stderr())?;
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs every scenario of the published figures, ours and the rival's.
fn bench_takeover(args: &BenchTakeover, output: &mut Output) -> anyhow::Result<ExitCode> {
    let options = BenchOptions {
        scenarios: args.scenarios.clone(),
        runs: args.runs,
        rival: !args.without_rival,
        json: args.json,
        report: args.report.clone(),
    };
    let complete = vnfpool_lab::bench(&options, output.writer(), &mut io::stderr())?;
    Ok(if complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn matrix(args: &LabMatrix, output: &mut Output) -> anyhow::Result<ExitCode> {
    let options = MatrixOptions {
        scenarios: args.scenarios.clone(),
        smoke: args.smoke,
        runs: args.runs,
        profile: profile(args.profile),
        rival: !args.without_rival,
        json: args.json,
        html: args.html.clone(),
        markdown: args.markdown.clone(),
    };
    let passed = vnfpool_lab::matrix(&options, output.writer(), &mut io::stderr())?;
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Measures the gate; fails if it does not gate.
fn gate(args: &LabGate, output: &mut Output) -> anyhow::Result<ExitCode> {
    let options = GateCostOptions {
        pairs: args.pairs,
        interval: Duration::from_millis(u64::from(args.interval_ms)),
        rules: match args.rules {
            GateRules::Nat => vnfpool_lab::GateRules::Nat,
            GateRules::None => vnfpool_lab::GateRules::Bare,
        },
        json: args.json,
    };
    let gate = Box::new(OwnGate::new(args.attach));
    let gates = vnfpool_lab::gate_cost(&options, gate, output.writer(), &mut io::stderr())?;
    Ok(if gates {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(options: &RunOptions, output: &mut Output) -> anyhow::Result<()> {
    vnfpool_lab::lab_run(options, output.writer(), &mut io::stderr()).map(drop)
}

fn options(args: &LabRun) -> RunOptions {
    let advert = Duration::from_millis(u64::from(args.advert_ms));
    let rival = |rival: &Rival| vnfpool_lab::Rival::Keepalived {
        advert,
        scheduling: match rival {
            Rival::Keepalived => Scheduling::RealTime,
            Rival::KeepalivedOrdinary => Scheduling::Ordinary,
        },
    };
    RunOptions {
        scenario: args.scenario.clone(),
        runs: args.runs,
        own: true,
        profile: profile(args.profile),
        rivals: args.rival.iter().map(rival).collect(),
        json: args.json,
        keep: args.keep,
    }
}

fn profile(profile: Profile) -> vnfpool_lab::Profile {
    match profile {
        Profile::Default => vnfpool_lab::Profile::Default,
        Profile::Fast => vnfpool_lab::Profile::Fast,
        Profile::Auto => vnfpool_lab::Profile::Auto,
        Profile::Commit => vnfpool_lab::Profile::Commit,
    }
}
