//! The figures as Markdown: the tables of `docs/performance.md`.

use std::fs;

use super::{Spread, Summary};

const HEADER: &str = "\
| scenario | system | runs | outage | probes lost p50 / max | TCP alive | two owners | takeover | command |
|---|---|---|---|---|---|---|---|---|
";

/// The whole report of a bench: the machine, one row a summary, what could not be measured.
pub(crate) fn bench_page(summaries: &[Summary], failures: &[String]) -> String {
    let mut page = format!(
        "Machine: {}.\n\nms; spreads are min / median / p99 / max.\n\n{HEADER}",
        machine()
    );
    for summary in summaries {
        page.push_str(&row(summary));
    }
    page.push_str("\n| scenario | system | takeovers | role changes p50 / max | decisions p50 / max | no owner | TCP stall p50 / max | probe's own pause p50 / max | stale frames | manager MB | gateway MB |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for summary in summaries {
        page.push_str(&second_row(summary));
    }
    for failure in failures {
        page.push_str(&format!("\nNot measured: {failure}\n"));
    }
    page
}

fn row(summary: &Summary) -> String {
    format!(
        "| {} | {} | {} | {} | {} | {} / {} | {} | {} | {} |\n",
        summary.scenario,
        system(summary),
        summary.runs,
        four(summary.outage_ms),
        two(summary.probes_lost),
        summary.tcp_alive + summary.ipv6.tcp_alive,
        summary.tcp_total + summary.ipv6.tcp_total,
        summary.two_owners_ms,
        four(summary.takeover_ms),
        four(summary.command_ms),
    )
}

fn second_row(summary: &Summary) -> String {
    format!(
        "| {} | {} | {} of {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
        summary.scenario,
        system(summary),
        summary.takeovers,
        summary.runs,
        two(summary.role_changes),
        two(summary.decisions),
        summary.no_owner_ms,
        two(summary.tcp_stall_ms),
        two(summary.probe_pause_ms),
        summary.stale_frames,
        summary.resident.manager_kib / 1024,
        summary.resident.gateway_kib / 1024,
    )
}

fn system(summary: &Summary) -> String {
    format!("{} {}", summary.system, summary.profile)
}

fn four(spread: Option<Spread>) -> String {
    let all = |s: Spread| [s.min, s.p50, s.p99, s.max].map(number).join(" / ");
    spread.map_or_else(|| "–".to_owned(), all)
}

fn two(spread: Option<Spread>) -> String {
    let both = |s: Spread| [s.p50, s.max].map(number).join(" / ");
    spread.map_or_else(|| "–".to_owned(), both)
}

/// Two significant digits are what such a measurement is good for.
pub(super) fn number(value: f64) -> String {
    if value < 9.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

/// Processor, memory and kernel of this machine, without anything that names it.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let unknown = || "unknown".to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown);
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or_else(unknown, |kib| format!("{} GiB", kib.div_ceil(1 << 20)));
    let kernel = read("/proc/sys/kernel/osrelease");
    let release = kernel.trim().split('-').next().unwrap_or_default();
    format!("{processors} processors ({model}), {memory}, Linux {release}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_two_digits() {
        assert_eq!(
            [0.0, 9.94, 9.96, 45.4].map(number),
            ["0.0", "9.9", "10", "45"]
        );
    }

    #[test]
    fn a_page_names_the_machine_and_what_failed() {
        let page = bench_page(&[], &["stop: not armed".to_owned()]);
        assert!(
            page.contains("processors (") && page.contains("Linux "),
            "{page}"
        );
        assert!(page.contains("Not measured: stop: not armed"), "{page}");
    }
}
