//! The timeline of one step as inline SVG: colours come from the page's style sheet.

use std::fmt::Write as _;

use super::timeline::{Timeline, flow_bin_ms};

const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 39.0;
const ROW: f64 = 20.0;
const GAP: f64 = 8.0;
/// Where labels of marks stand, from below: those that are close to each other one above the other.
const LABELS: [f64; 2] = [30.0, 17.0];
/// What a letter of them takes at most.
const LETTER: f64 = 6.6;
const ROWS: [&str; 5] = ["UDP v4", "UDP v6", "gw1", "gw2", "TCP"];

/// Draws `timeline` between `range` (ms from the fault), `width` units wide.
pub(crate) fn panel(timeline: &Timeline, range: (f64, f64), width: f64, title: &str) -> String {
    let panel = Panel { range, width };
    let height = TOP + 5.0 * (ROW + GAP) + 24.0;
    let mut svg = String::new();
    let _infallible = write!(
        svg,
        r#"<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">"#
    );
    panel.axis(&mut svg);
    for (row, label) in (0_u8..).zip(ROWS) {
        let y = row_top(row);
        let _infallible = write!(
            svg,
            r#"<text class="row" x="{}" y="{}">{label}</text>"#,
            LEFT - 8.0,
            y + ROW * 0.7
        );
    }
    let probes = [
        (&timeline.sent_v4, &timeline.lost_v4),
        (&timeline.sent_v6, &timeline.lost_v6),
    ];
    for (row, (sent, lost)) in (0_u8..).zip(probes) {
        panel.rectangle(&mut svg, "empty", row, range, 1.0);
        for (class, spans) in [("ok", sent), ("lost", lost)] {
            for span in spans {
                panel.rectangle(&mut svg, class, row, *span, 1.0);
            }
        }
    }
    for (row, class, spans) in [
        (2, "gw1", &timeline.owners[0]),
        (3, "gw2", &timeline.owners[1]),
    ] {
        panel.rectangle(&mut svg, "empty", row, range, 1.0);
        for span in spans {
            panel.rectangle(&mut svg, class, row, *span, 1.0);
        }
    }
    panel.rectangle(&mut svg, "empty", 4, range, 1.0);
    for (at, share) in &timeline.flow {
        panel.rectangle(&mut svg, "tcp", 4, (*at, at + flow_bin_ms()), *share);
    }
    panel.marks(&mut svg, &timeline.marks);
    svg.push_str("</svg>");
    svg
}

struct Panel {
    range: (f64, f64),
    width: f64,
}

impl Panel {
    fn x(&self, at: f64) -> f64 {
        let (from, to) = self.range;
        LEFT + (at - from) / (to - from).max(1.0) * (self.width - LEFT - RIGHT)
    }

    /// A stretch of a row, `share` of its height from below; nothing outside the range.
    fn rectangle(&self, svg: &mut String, class: &str, row: u8, span: (f64, f64), share: f64) {
        let (from, to) = (span.0.max(self.range.0), span.1.min(self.range.1));
        if to <= from || share <= 0.0 {
            return;
        }
        let x = self.x(from);
        // What lasted shorter than a pixel is still to be seen.
        let width = (self.x(to) - x).max(1.2);
        let height = ROW * share.min(1.0);
        let y = row_top(row) + ROW - height;
        let _infallible = write!(
            svg,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        );
    }

    fn axis(&self, svg: &mut String) {
        let (from, to) = self.range;
        let step = tick_step(to - from);
        let mut tick = (from / step).ceil() * step;
        let bottom = row_top(4) + ROW;
        while tick <= to {
            let x = self.x(tick);
            let _infallible = write!(
                svg,
                r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/><text class="tick" x="{x:.1}" y="{}">{}</text>"#,
                bottom + 15.0,
                label_of(tick, step)
            );
            tick += step;
        }
    }

    fn marks(&self, svg: &mut String, marks: &[(f64, String)]) {
        let bottom = row_top(4) + ROW;
        for Label { x, y, side, text } in self.labels(marks) {
            let (anchor, shift) = match side {
                Side::Right => ("start", 4.0),
                Side::Left => ("end", -4.0),
            };
            let _infallible = write!(
                svg,
                r#"<line class="mark" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{bottom}"/><text class="mark" x="{:.1}" y="{y}" text-anchor="{anchor}">{text}</text>"#,
                y - 9.0,
                x + shift
            );
        }
    }

    /// The labels of the marks in range, none over another one or over the line of another one.
    fn labels<'t>(&self, marks: &'t [(f64, String)]) -> Vec<Label<'t>> {
        let (from, to) = self.range;
        let in_range = marks.iter().filter(|(at, _)| (from..=to).contains(at));
        let mut labels: Vec<Label<'t>> = in_range
            .map(|(at, text)| Label::new(self.x(*at), self.width, text))
            .collect();
        // Outwards, so that the line of the one that stands higher is not in the way of the lower one.
        labels.sort_by(|a, b| a.outwards().total_cmp(&b.outwards()));
        for index in 0..labels.len() {
            let (before, rest) = labels.split_at_mut(index);
            let label = &mut rest[0];
            let is_free = |y: &f64| {
                before
                    .iter()
                    .all(|other| other.y != *y || !other.meets(label))
            };
            // A third one at the same place would stand over the second.
            let free = LABELS.into_iter().find(is_free);
            label.y = free.unwrap_or(LABELS[1]);
        }
        labels
    }
}

/// The label of a mark.
struct Label<'t> {
    /// Of the mark.
    x: f64,
    y: f64,
    side: Side,
    text: &'t str,
}

/// On which side of its mark a label stands.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

impl<'t> Label<'t> {
    fn new(x: f64, width: f64, text: &'t str) -> Self {
        let side = if x > width * 0.75 {
            Side::Left
        } else {
            Side::Right
        };
        let [y, _] = LABELS;
        Self { x, y, side, text }
    }

    /// From the mark on, away from where its label stands.
    fn outwards(&self) -> f64 {
        match self.side {
            Side::Left => self.x,
            Side::Right => -self.x,
        }
    }

    fn meets(&self, other: &Self) -> bool {
        let ((from, to), (other_from, other_to)) = (self.extent(), other.extent());
        from < other_to && other_from < to
    }

    /// From where to where it goes, its mark included.
    fn extent(&self) -> (f64, f64) {
        let letters: f64 = self.text.chars().map(|_| LETTER).sum();
        match self.side {
            Side::Left => (self.x - 4.0 - letters, self.x),
            Side::Right => (self.x, self.x + 4.0 + letters),
        }
    }
}

fn row_top(row: u8) -> f64 {
    TOP + f64::from(row) * (ROW + GAP)
}

/// A round step that gives five to ten ticks.
fn tick_step(length: f64) -> f64 {
    [
        10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0,
    ]
    .into_iter()
    .find(|step| length / step <= 9.0)
    .unwrap_or(10_000.0)
}

fn label_of(tick: f64, step: f64) -> String {
    if tick.abs() < 0.5 {
        "0".to_owned()
    } else if step >= 500.0 {
        format!("{:.1} s", tick / 1000.0)
    } else {
        format!("{tick:.0} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_range_is_drawn() {
        let timeline = Timeline {
            range: (-100.0, 1000.0),
            marks: vec![(0.0, "fault".into()), (900.0, "healed".into())],
            lost_v4: vec![(5.0, 60.0), (700.0, 701.0)],
            ..Timeline::default()
        };
        let zoom = panel(&timeline, (-50.0, 150.0), 400.0, "zoom");
        assert_eq!(zoom.matches(r#"class="lost""#).count(), 1);
        assert!(zoom.contains("fault") && !zoom.contains("healed"));
        let whole = panel(&timeline, timeline.range, 400.0, "whole");
        assert_eq!(whole.matches(r#"class="lost""#).count(), 2);
        assert!(whole.contains("healed"));
    }

    /// Goal: labels that are close stand on two heights, and one that is alone stands where it did.
    #[test]
    fn close_labels_do_not_overprint() {
        let heights = |marks: [(f64, &str); 3]| {
            let marks = marks.map(|(at, text)| (at, text.to_owned()));
            let panel = Panel {
                range: (0.0, 1000.0),
                width: 720.0,
            };
            let labels = panel.labels(&marks);
            let y_of = |(_, text): &(f64, String)| {
                let found = labels.iter().find(|label| label.text == text);
                found.map(|label| label.y)
            };
            [y_of(&marks[0]), y_of(&marks[1]), y_of(&marks[2])]
        };
        let [low, high] = LABELS.map(Some);
        let at_the_end = [(100.0, "SIGSTOP"), (900.0, "healed"), (910.0, "ready")];
        assert_eq!(heights(at_the_end), [low, low, high]);
        let before = [(100.0, "SIGSTOP"), (400.0, "healed"), (410.0, "ready")];
        assert_eq!(heights(before), [low, high, low]);
        let apart = [(100.0, "SIGSTOP"), (400.0, "healed"), (900.0, "ready")];
        assert_eq!(heights(apart), [low, low, low]);
    }
}
