//! `simulation.html`: the results of `saker simulate`.

use std::fmt::Write;

use saker_simulate::{Arm, Report};

use super::svg::{Lines, Series, escape, number};
use super::{head, plot, section};

/// The page's HTML.
pub fn html(name: &str, report: &Report) -> String {
    let settings = &report.settings;
    let mut page = head(
        &format!("{name}: simulation"),
        &format!(
            "{:.0} seconds, {} visits per second of {} shoppers, {:.0} % of them unknown to the store, {} additional events per second.",
            settings.seconds,
            settings.rate,
            settings.shoppers,
            100.0 * settings.newcomers,
            settings.background
        ),
    );
    section(&mut page, "Click-through");
    page.push_str("<table><tr><th>shown<th>visits<th>products shown<th>clicks<th>click-through<th>row, p50 ms<th>p99 ms");
    for arm in &report.arms {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{}<td>{:.2} %<td>{:.1}<td>{:.1}",
            called(arm.arm),
            arm.visits,
            arm.shown,
            arm.clicks,
            100.0 * arm.click_through,
            1e3 * arm.latency[0],
            1e3 * arm.latency[1]
        );
    }
    page.push_str("</table>\n<div class=\"plots\">");
    let series = report.arms.iter().map(|arm| {
        let parts = arm.over_time.len() as f64;
        let points = arm.over_time.iter().enumerate();
        Series {
            name: called(arm.arm).to_owned(),
            points: points
                .filter_map(|(part, rate)| {
                    let middle = (part as f64 + 0.5) * settings.seconds / parts;
                    Some((middle, 100.0 * (*rate)?))
                })
                .collect(),
            reference: arm.arm == Arm::Popular,
        }
    });
    let lines = Lines {
        x_label: "seconds",
        logarithmic: false,
        from_zero: true,
        series: series.collect(),
    };
    plot(&mut page, "Clicks per 100 products shown", &lines.svg());
    page.push_str("</div>\n");
    section(&mut page, "From a click to a changed row");
    match report.freshness {
        Some([median, ninety, last, longest]) => {
            let _ = writeln!(
                page,
                "<p>Of {} clicks that were watched, {} showed: half of them within {} s, 90 % within {} s, 99 % within {} s, the \
                 slowest after {} s, with {:.0} events a second in all.</p>",
                report.watched,
                report.shown_effects,
                number(median),
                number(ninety),
                number(last),
                number(longest),
                report.events_per_second
            );
        }
        None => page.push_str("<p>No click was watched.</p>\n"),
    }
    section(&mut page, "Errors");
    let _ = writeln!(
        page,
        "<p>{} failed requests, {} degraded recommendations.</p>",
        report.errors, report.degraded
    );
    for error in &report.first_errors {
        let _ = writeln!(page, "<p class=\"quiet\">{}</p>", escape(error));
    }
    page.push_str("</body></html>\n");
    page
}

/// Display name of an arm.
pub fn called(arm: Arm) -> &'static str {
    match arm {
        Arm::Recommended => "recommended",
        Arm::Popular => "popular",
    }
}
