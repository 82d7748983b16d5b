//! The demonstration as one self-contained page.

use std::fmt::Write as _;

use super::step::{DemoReport, StepReport};
use super::svg;
use crate::vnfpool::Vnf;

pub(super) const STYLE: &str = include_str!("page.css");
/// The close-up shows at least this much around the fault, in ms.
const CLOSE_UP: (f64, f64) = (-40.0, 200.0);
/// It is that much longer than the takeover, so that its end is to be seen.
const CLOSE_UP_MARGIN: f64 = 1.5;

/// Writes the page.
pub(crate) fn page(report: &DemoReport) -> String {
    let mut html = String::new();
    let _infallible = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>vnfpool demo</title><style>{STYLE}</style></head><body><main>\
         <h1>{}</h1>\
         <p class=\"soft\">{}</p>",
        report.title(),
        escape(&report.subtitle())
    );
    let (class, verdict) = if report.passed() {
        ("good", format!("Passed: {}", report.shown()))
    } else {
        ("bad", "Failed: see the steps marked below".to_owned())
    };
    let _infallible = write!(html, "<p class=\"verdict {class}\">{verdict}</p>");
    cards(&mut html, report);
    overview(&mut html, report);
    key(&mut html);
    for (number, step) in (1..).zip(&report.steps) {
        section(&mut html, number, step);
    }
    let _infallible = write!(
        html,
        "<footer><p>How it was measured: {}one UDP probe a millisecond from the client through the \
         gateways' NAT to the server and back, for IPv4 and IPv6; TCP connections in which client \
         or server write each 20 ms; an ARP question for the virtual address each 5 ms. Owners are \
         told apart by the switch port that an answer or a forwarded packet came through. All \
         times are of one clock. {}</p></footer></main></body></html>",
        match report.vnf {
            Vnf::Gateway => "",
            Vnf::LoadBalancer =>
                "each backend of the load balancer notes which connections it gets data of; ",
        },
        escape(&report.machine)
    );
    html
}

fn cards(html: &mut String, report: &DemoReport) {
    let alive = report.connections_alive();
    let mut cards = vec![
        (
            format!("{:.0} ms", report.longest_outage_ms()),
            "longest outage of all steps".to_owned(),
            true,
        ),
        (
            format!("{} of {}", alive, report.connections_total()),
            "TCP connections alive at the end".to_owned(),
            alive == report.connections_total(),
        ),
        (
            format!("{} ms", report.two_owners_ms()),
            "with two owners of the virtual address".to_owned(),
            report.two_owners_ms() == 0,
        ),
        match &report.download {
            Some(download) => (
                format!("{} MB", download.bytes / 1_000_000),
                if download.intact {
                    "downloaded through all of it, checksum right".to_owned()
                } else {
                    "downloaded, then it broke".to_owned()
                },
                download.intact,
            ),
            None => ("none".to_owned(), "download did not run".to_owned(), false),
        },
    ];
    if let Some(balanced) = report.balanced() {
        let card = (
            format!("{} of {}", balanced.kept, balanced.total),
            format!(
                "of them through the load balancer, still at their backend ({} at the three)",
                balanced.spread()
            ),
            balanced.is_kept(),
        );
        // Beside all connections.
        cards.insert(2, card);
    }
    html.push_str("<div class=\"cards\">");
    for (value, text, is_good) in cards {
        let class = if is_good { "" } else { " class=\"bad\"" };
        let _infallible = write!(
            html,
            "<div class=\"card\"><b{class}>{value}</b><span>{text}</span></div>"
        );
    }
    html.push_str("</div>");
}

fn overview(html: &mut String, report: &DemoReport) {
    html.push_str(
        "<section><div class=\"scroll\"><table><thead><tr><th>step</th><th>outage v4 ms</th>\
         <th>outage v6 ms</th><th>probes lost</th><th>takeover ms</th><th>TCP alive</th>\
         <th>two owners ms</th><th>no owner ms</th></tr></thead><tbody>",
    );
    for step in &report.steps {
        let figures = &step.figures;
        let lost = figures.ipv4.probes_lost + figures.ipv6.probes_lost;
        let takeover = figures
            .takeover_ms
            .map_or_else(|| "–".to_owned(), |takeover| format!("{takeover:.1}"));
        let class = if step.passed() { "good" } else { "bad" };
        let sign = if step.passed() { "✓" } else { "✗" };
        let _infallible = write!(
            html,
            "<tr><td><span class=\"{class}\">{sign}</span> {}</td><td>{:.0}</td><td>{:.0}</td>\
             <td>{lost}</td><td>{takeover}</td><td>{}/{}</td><td>{}</td><td>{}</td></tr>",
            escape(&step.title),
            figures.ipv4.outage_ms,
            figures.ipv6.outage_ms,
            step.tcp_alive(),
            step.tcp_total(),
            figures.two_owners_ms,
            figures.no_owner_ms
        );
    }
    html.push_str("</tbody></table></div></section>");
}

fn key(html: &mut String) {
    html.push_str("<div class=\"key\">");
    for (colour, text) in [
        ("ok", "probes answered"),
        ("lost", "probes lost"),
        ("empty", "no probe sent, not the owner"),
        ("gw1", "gw1 emits as owner"),
        ("gw2", "gw2 emits as owner"),
        ("tcp", "share of TCP connections that move data"),
    ] {
        let _infallible = write!(
            html,
            "<span><i style=\"background:var(--{colour})\"></i>{text}</span>"
        );
    }
    html.push_str("</div>");
}

fn section(html: &mut String, number: usize, step: &StepReport) {
    let _infallible = write!(
        html,
        "<section><div class=\"head\"><h2>{number}. {}</h2><p class=\"facts\">{}</p></div>\
         <div class=\"panels\">",
        escape(&step.title),
        escape(&step.facts())
    );
    let timeline = &step.timeline;
    let longest = step
        .figures
        .takeover_ms
        .unwrap_or(0.0)
        .max(step.outage_ms().min(1000.0));
    let end = (longest * CLOSE_UP_MARGIN)
        .max(CLOSE_UP.1)
        .min(timeline.range.1);
    let _infallible = write!(
        html,
        "<figure class=\"wide\">{}<figcaption>the whole step</figcaption></figure>\
         <figure>{}<figcaption>close-up</figcaption></figure>",
        svg::panel(timeline, timeline.range, 720.0, "the whole step"),
        svg::panel(timeline, (CLOSE_UP.0, end), 480.0, "close-up")
    );
    html.push_str("</div>");
    if let Some(note) = step.note {
        let _infallible = write!(html, "<p class=\"soft\">{}</p>", escape(note));
    }
    if let Some(problem) = &step.problem {
        let _infallible = write!(html, "<p class=\"bad\">{}</p>", escape(problem));
    }
    html.push_str("</section>");
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
