//! The part of `vnfpool status` about what a slot without an armed standby waits for.

use vnfpool_northbound::{ClassStatus, ElementStatus, PoolStatus, SlotStatus};

/// A line for each thing that keeps a standby from being armed; none of a slot that is armed, or that
/// nobody serves.
pub(super) fn remarks(pool: &PoolStatus, slot: &SlotStatus) -> Vec<String> {
    let Some(active) = slot
        .active
        .as_ref()
        .filter(|_| !slot.armed && !pool.closing)
    else {
        return Vec::new();
    };
    let line = |what: String| format!("  {}: not armed: {what}", slot.name);
    let of_elements = no_candidate(pool, slot);
    if let Some(what) = of_elements {
        return vec![line(what)];
    }
    let mut lines: Vec<_> = slot.state.iter().filter_map(|class| {
        let name = &class.class;
        Some(line(match (class.restoring, &class.standby) {
            (true, _) => format!(
                "the function at {active} was asked to put '{name}' again and has not said that it is \
                 restored"
            ),
            (false, Some(standby)) if is_awaited(class) => {
                format!("class {name} is not in sync at {standby}")
            }
            (false, _) => return None,
        }))
    }).collect();
    // A class may stand at several standbys.
    lines.dedup();
    if lines.is_empty() {
        lines.push(line(
            "a standby is armed once it has all state and is heard in both directions".to_owned(),
        ));
    }
    lines
}

/// Whether a standby has to have the class before it is armed, and does not.
fn is_awaited(class: &ClassStatus) -> bool {
    !class.in_sync && matches!(class.demanded.as_str(), "bounded" | "commit")
}

/// Why no element can be a standby of the slot; none if one can.
fn no_candidate(pool: &PoolStatus, slot: &SlotStatus) -> Option<String> {
    let is_active = |element: &&ElementStatus| Some(&element.id) == slot.active.as_ref();
    let host = pool
        .elements
        .iter()
        .find(is_active)
        .map(|element| &element.host);
    let others = pool.elements.iter().filter(|element| !is_active(element));
    let able: Vec<_> = others
        .filter(|e| e.able && e.incarnation.is_some())
        .collect();
    let apart: Vec<_> = able.iter().filter(|e| Some(&e.host) != host).collect();
    let in_quarantine = |e: &ElementStatus| e.quarantines.iter().any(|q| q.slot == slot.name);
    if able.is_empty() {
        Some("no other element could serve".to_owned())
    } else if apart.is_empty() {
        Some("no other element that could serve is on another host".to_owned())
    } else if apart.iter().all(|e| in_quarantine(e)) {
        Some("every other element that could serve is in quarantine".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool in which gw1 serves alone and gw2 has these further fields; the slot has this state.
    fn pool(gw2: &str, state: &str) -> PoolStatus {
        let text = format!(
            r#"{{"handle": "edge", "function": "f", "profile": "default", "on_quorum_loss": "serve",
            "slots": [{{"id": 1, "name": "main", "epoch": "3.0", "active": "gw1", "standby": null,
             "armed": false, "state": {state}}}],
            "elements": [
             {{"id": "gw1", "incarnation": 5, "role": "active", "able": true, "host": "one"}},
             {{"id": "gw2", "role": "spare", {gw2}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn said(pool: &PoolStatus) -> String {
        remarks(pool, &pool.slots[0]).join("\n")
    }

    const ABLE: &str = r#""incarnation": 6, "able": true, "host": "two""#;

    #[test]
    fn an_armed_slot_waits_for_nothing() {
        let mut pool = pool(ABLE, "[]");
        assert_ne!(said(&pool), "");
        pool.slots[0].armed = true;
        assert_eq!(said(&pool), "");
        pool.slots[0].armed = false;
        pool.slots[0].active = None;
        assert_eq!(said(&pool), "");
    }

    /// Goal: whose turn it is stands there: the function's that has yet to put its state again, or that
    /// of the stream to the standby. What no standby has to have is not waited for.
    #[test]
    fn a_class_that_is_not_whole_is_named() {
        let class = |more: &str| {
            format!(
                r#"[{{"class": "conntrack", "standby": "gw2", "demanded": "bounded", "in_sync": true}},
                {{"class": "hints", "standby": "gw2", "demanded": "eventual", "in_sync": false}},
                {{"class": "counts", "standby": "gw2", "demanded": "commit", "in_sync": false {more}}}]"#
            )
        };
        assert_eq!(
            said(&pool(ABLE, &class(""))),
            "  main: not armed: class counts is not in sync at gw2"
        );
        assert_eq!(
            said(&pool(ABLE, &class(r#", "restoring": true"#))),
            "  main: not armed: the function at gw1 was asked to put 'counts' again and has not said \
             that it is restored"
        );
    }

    #[test]
    fn who_cannot_be_a_standby_is_said_first() {
        let state = r#"[{"class": "c", "standby": "gw2", "demanded": "commit", "in_sync": false}]"#;
        let quarantine = r#""quarantines": [{"slot": "main", "reason": "it flaps",
            "until": "2026-01-02T03:04:05Z", "at_latest": "2026-01-02T03:07:05Z"}]"#;
        let in_quarantine = format!("{ABLE}, {quarantine}");
        for (gw2, what) in [
            (r#""able": false"#, "no other element could serve"),
            (
                r#""incarnation": 6, "able": true, "host": "one""#,
                "is on another host",
            ),
            (&in_quarantine, "is in quarantine"),
        ] {
            let said = said(&pool(gw2, state));
            assert!(said.contains(what) && said.lines().count() == 1, "{said}");
        }
    }
}
