use super::*;
use crate::report::{FamilySummary, Resident};

fn summary(system: &str) -> Summary {
    let none = Spread::of([0.0]);
    Summary {
        scenario: "kill".to_owned(),
        system: system.to_owned(),
        profile: "default".to_owned(),
        runs: 2,
        outage_ms: Spread::of([1.0, 2.5]),
        probe_pause_ms: none,
        probes_lost: none,
        tcp_alive: 40,
        tcp_total: 40,
        tcp_stall_ms: none,
        two_owners_ms: 0,
        two_owners_max_ms: 0,
        no_owner_ms: 5,
        takeover_ms: None,
        takeover_steps: None,
        takeovers: 0,
        command_ms: None,
        role_changes: Spread::of([1.0, 1.0]),
        decisions: None,
        stale_frames: 0,
        recovery_ms: Spread::of([400.0, 1200.0]),
        recoveries: 2,
        loss: None,
        not_ready: None,
        ipv6: FamilySummary {
            outage_ms: Spread::of([1.0, 1.0]),
            probes_lost: none,
            tcp_alive: 8,
            tcp_total: 8,
        },
        tap_missed: 0,
        resident: Resident::default(),
    }
}

fn report(change: impl FnOnce(&mut Summary), keeps_connections: bool) -> MatrixReport {
    let mut own = summary(OWN);
    change(&mut own);
    let mut rival = summary(RIVAL);
    rival.two_owners_ms = 3865;
    MatrixReport {
        runs: 2,
        scenarios: 1,
        rows: vec![MatrixRow {
            scenario: "kill",
            about: "kill -9 of <everything>",
            keeps_connections,
            breaks_nothing: false,
            own: Outcome::Measured(Box::new(own)),
            rival: Some(Outcome::Measured(Box::new(rival))),
        }],
    }
}

/// Goal: each promise that is broken fails the matrix, and only ours do.
#[test]
fn a_broken_promise_fails_the_matrix() {
    assert!(
        report(|_| {}, true).passed(),
        "the rival's owners are not ours"
    );
    let lost = |summary: &mut Summary| summary.ipv6.tcp_alive = 7;
    assert!(!report(lost, true).passed());
    assert!(report(lost, false).passed(), "nobody promised them");
    assert!(!report(|summary| summary.two_owners_ms = 5, true).passed());
    assert!(!report(|summary| summary.stale_frames = 1, true).passed());
    assert!(!report(|summary| summary.recoveries = 1, true).passed());
    let mut moved = report(|summary| summary.takeovers = 1, true);
    assert!(moved.passed(), "a fault moves the service");
    moved.rows[0].breaks_nothing = true;
    assert!(!moved.passed(), "nothing was broken");
    let mut broken = report(|_| {}, true);
    broken.rows[0].own = Outcome::NotMeasured("it did not start".to_owned());
    assert!(!broken.passed());
    let mut unfinished = report(|_| {}, true);
    unfinished.scenarios = 2;
    assert!(!unfinished.passed());
}

#[test]
fn all_forms_say_what_was_measured_and_what_failed() {
    let failed = report(|summary| summary.ipv6.tcp_alive = 7, true);
    for text in [
        matrix_table(&failed),
        matrix_markdown(&failed),
        matrix_page(&failed),
    ] {
        for part in [
            "47 / 48",
            "1 of 48 connections lost",
            "3865 ms",
            "1.0 / 2.5 ms",
            "1.2 s",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
    let page = matrix_page(&failed);
    assert!(page.contains("kill -9 of &lt;everything&gt;") && page.ends_with("</html>"));
    for load in ["http:", "https:", "src=", "url(", "<script"] {
        assert!(!page.contains(load), "self-contained: {load}");
    }
}

#[test]
fn the_objects_carry_the_verdict() {
    let report = report(|summary| summary.two_owners_ms = 5, true);
    let objects = report.rows[0].objects().unwrap();
    let own: serde_json::Value = serde_json::from_str(&objects[0]).unwrap();
    assert_eq!(own["failures"], json!(["two owners for 5 ms"]));
    assert_eq!(own["recoveries"], 2);
    let rival: serde_json::Value = serde_json::from_str(&objects[1]).unwrap();
    assert_eq!(rival["two_owners_ms"], 3865);
    assert_eq!(rival.get("failures"), None);
}
