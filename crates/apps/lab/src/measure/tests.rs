use super::*;
use crate::clock::MILLISECOND;
use crate::observe::Emission;

const MS: Nanos = MILLISECOND;
const WINDOW: Window = Window {
    from: 100 * MS,
    fault: 200 * MS,
    to: 1000 * MS,
};

fn probes(lost: impl Fn(Nanos) -> bool) -> Vec<Probe> {
    (0..1100)
        .map(|n| Probe {
            sent: n * MS,
            back: if lost(n) { 0 } else { n * MS + 50_000 },
        })
        .collect()
}

fn connection(arrivals: Vec<Nanos>) -> ConnectionLog {
    ConnectionLog {
        is_ipv6: false,
        by_balancer: None,
        arrivals,
        ended: None,
    }
}

#[test]
fn the_outage_is_the_longest_run_by_send_time() {
    let log = TrafficLog {
        // 43 in a row, 5 alone, and some before the window that do not count.
        probes_v4: probes(|n| n < 50 || (201..244).contains(&n) || (300..305).contains(&n)),
        ..TrafficLog::default()
    };
    let figures = figures(WINDOW, Gateway::Gw1, &log, &Sightings::default());
    assert!((figures.ipv4.outage_ms - 43.0).abs() < 1e-9);
    assert_eq!(figures.ipv4.probes_lost, 48);
    assert_eq!(figures.ipv4.probes_sent, 900);
}

#[test]
fn an_outage_that_does_not_end_lasts_to_the_end_of_the_window() {
    let log = TrafficLog {
        probes_v4: probes(|n| n >= 250),
        ..TrafficLog::default()
    };
    let figures = figures(WINDOW, Gateway::Gw1, &log, &Sightings::default());
    assert!((figures.ipv4.outage_ms - 750.0).abs() < 1e-9);
}

#[test]
fn a_pause_of_the_probe_is_shown_and_is_no_outage() {
    let mut all = probes(|n| (201..231).contains(&n));
    all.retain(|probe| !(231 * MS..281 * MS).contains(&probe.sent));
    let log = TrafficLog {
        probes_v4: all,
        ..TrafficLog::default()
    };
    let figures = figures(WINDOW, Gateway::Gw1, &log, &Sightings::default());
    assert!((figures.ipv4.outage_ms - 30.0).abs() < 1e-9);
    assert!((figures.ipv4.probe_pause_ms - 51.0).abs() < 1e-9);
}

#[test]
fn an_answer_after_a_second_is_a_loss() {
    let mut all = probes(|_| false);
    all[500].back = all[500].sent + ANSWER_LIMIT + 1;
    all[501].back = all[501].sent + ANSWER_LIMIT;
    let log = TrafficLog {
        probes_v4: all,
        ..TrafficLog::default()
    };
    let figures = figures(WINDOW, Gateway::Gw1, &log, &Sightings::default());
    assert_eq!(figures.ipv4.probes_lost, 1);
}

#[test]
fn alive_is_who_moved_data_before_the_fault_and_after_the_window() {
    let every_20_ms = |until: Nanos| (0..until / 20).map(|n| n * 20 * MS).collect::<Vec<_>>();
    let mut reset = connection(every_20_ms(1100));
    reset.ended = Some((1050 * MS, "connection reset".to_owned()));
    let mut stalled = every_20_ms(1200);
    stalled.retain(|at| !(210 * MS..410 * MS).contains(at));
    let log = TrafficLog {
        connections: vec![
            connection(stalled),
            connection(every_20_ms(900)),
            connection(vec![500 * MS, 1100 * MS]),
            reset,
        ],
        ..TrafficLog::default()
    };
    let figures = figures(WINDOW, Gateway::Gw1, &log, &Sightings::default());
    assert_eq!((figures.ipv4.tcp_alive, figures.ipv4.tcp_total), (1, 4));
    assert!((figures.ipv4.tcp_stall_ms - 220.0).abs() < 1e-9);
}

#[test]
fn two_owners_and_none_are_counted_by_question() {
    let questions: Vec<Nanos> = (0..200).map(|n| n * 5 * MS).collect();
    let emission = |question: u32, gateway, late: Nanos| Emission {
        at: Nanos::from(question) * 5 * MS + late,
        gateway,
        question: Some(question),
        forwarded: false,
    };
    let mut emissions = Vec::new();
    // gw1 answers until 250 ms and gw2 from 240 ms; from 300 to 320 ms nobody does.
    emissions.extend((0..50).map(|n| emission(n, Gateway::Gw1, 1)));
    emissions.extend(
        (48..200)
            .filter(|n| !(60..64).contains(n))
            .map(|n| emission(n, Gateway::Gw2, 2)),
    );
    emissions.sort_by_key(|emission| emission.at);
    let sightings = Sightings {
        questions,
        emissions,
        missed: 0,
    };
    let figures = figures(WINDOW, Gateway::Gw1, &TrafficLog::default(), &sightings);
    assert_eq!((figures.two_owners_ms, figures.no_owner_ms), (10, 20));
    assert_eq!(figures.stale_frames, 2);
    assert_eq!(figures.role_changes, 1);
    assert!((figures.takeover_ms.unwrap() - 40.000_002).abs() < 1e-9);
    assert!((figures.overlap_ms - 4.999_999).abs() < 1e-9);
}

/// Goal: the last step of a takeover begins with the first frame of the new owner, whatever that is.
#[test]
fn traffic_flows_from_the_first_packet_that_is_passed_on() {
    let emission = |ms: Nanos, gateway, forwarded| Emission {
        at: ms * MS,
        gateway,
        question: None,
        forwarded,
    };
    let mut emissions = vec![
        emission(150, Gateway::Gw1, true),
        emission(210, Gateway::Gw1, true),
        emission(240, Gateway::Gw2, false),
        emission(241, Gateway::Gw2, false),
    ];
    let forwarding = |emissions: &[Emission]| {
        let sightings = Sightings {
            emissions: emissions.to_vec(),
            ..Sightings::default()
        };
        figures(WINDOW, Gateway::Gw1, &TrafficLog::default(), &sightings).forwarding_ms
    };
    assert_eq!(forwarding(&emissions), None);
    emissions.push(emission(243, Gateway::Gw2, true));
    emissions.push(emission(244, Gateway::Gw2, true));
    assert_eq!(forwarding(&emissions), Some(3.0));
}

/// Goal: a burst of a resumed gateway is seen, and a planned way there and back is none.
#[test]
fn a_burst_of_the_old_active_is_stale_and_a_way_back_is_not() {
    let emission = |ms: Nanos, gateway| Emission {
        at: ms * MS,
        gateway,
        question: None,
        forwarded: false,
    };
    let serves = |range: std::ops::Range<Nanos>, gateway| range.map(move |n| emission(n, gateway));
    let mut emissions: Vec<Emission> = serves(200..400, Gateway::Gw2).collect();
    emissions.extend(serves(401..600, Gateway::Gw1));
    emissions.extend(serves(601..1000, Gateway::Gw2));
    let there_and_back = Sightings {
        emissions: emissions.clone(),
        ..Sightings::default()
    };
    let log = TrafficLog::default();
    let judged = figures(WINDOW, Gateway::Gw1, &log, &there_and_back);
    assert_eq!((judged.stale_frames, judged.overlap_ms), (0, 0.0));

    emissions.extend((0..7).map(|n| Emission {
        at: 800 * MS + n,
        gateway: Gateway::Gw1,
        question: None,
        forwarded: false,
    }));
    emissions.sort_by_key(|emission| emission.at);
    let burst = Sightings {
        emissions,
        ..Sightings::default()
    };
    let judged = figures(WINDOW, Gateway::Gw1, &log, &burst);
    assert!((7..=8).contains(&judged.stale_frames), "{judged:?}");
}
