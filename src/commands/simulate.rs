use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use saker_generate::Shop;
use saker_serving::files;
use saker_serving::progress::Step;
use saker_serving::target::Target;
use saker_simulate::{Report, Settings, simulate};
use signal_hook::consts::{SIGINT, SIGTERM};

use saker_report::simulation;

/// Arguments of `saker simulate`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker simulate retail\n  saker simulate retail --seconds 120 --rate 50 --background 1000\n\n\
    Of a shop that `saker generate` made, behind a running gateway. Half of the shoppers get recommendations, half what is \
    popular. Writes simulation.json and simulation.html. What is clicked counts: the updater applies it."
)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Gateway to visit
    #[arg(long, env = "SAKER_GATEWAY", default_value = "http://127.0.0.1:8080", value_parser = NonEmptyStringValueParser::new())]
    gateway: String,
    /// Duration in seconds
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Visits per second
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// Number of shoppers
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(2..))]
    shoppers: u32,
    /// Share of the shoppers that are missing from the store, 0 to 1
    #[arg(long, default_value_t = 0.2)]
    newcomers: f64,
    /// Events per second of other visitors, in addition
    #[arg(long, default_value_t = 0.0)]
    background: f64,
    /// Maximum number of concurrent visits
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the shoppers and prints the results.
pub(super) fn run(args: &Args) -> Result<()> {
    let (pipeline, layout) = args.target.open()?;
    let name = &pipeline.pipeline.name;
    check(args)?;
    let source = pipeline
        .data
        .as_ref()
        .context("the definition has no [data]")?;
    let users = pipeline.resolve(&source.users.path)?;
    let folder = users.parent().unwrap_or(&users);
    let shop = Shop::open(folder).with_context(|| {
        format!("only a shop that `saker generate` made has shoppers with known preferences; {name} has no such source")
    })?;
    let settings = Settings {
        gateway: args.gateway.trim_end_matches('/').to_owned(),
        seconds: args.seconds,
        rate: args.rate,
        shoppers: args.shoppers as usize,
        newcomers: args.newcomers,
        background: args.background,
        threads: args.threads.into(),
        seed: args.seed,
    };
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    let step = Step::counted("let them shop", args.seconds.ceil() as u64);
    let report = simulate(&shop, &settings, |seconds| {
        step.at(seconds as u64);
        !stop.load(Ordering::Relaxed)
    })?;
    let visits: usize = report.arms.iter().map(|arm| arm.visits).sum();
    step.done(&format!("{visits} visits, {} events", report.events));

    print(&report);
    let page = layout.simulation();
    files::write(
        &page.with_extension("json"),
        format!("{:#}\n", serde_json::to_value(&report)?),
    )?;
    files::write(&page, simulation::html(name, &report))?;
    println!("{}", page.display());
    match report.first_errors.first() {
        Some(error) => bail!("{} requests failed, the first: {error}", report.errors),
        None => Ok(()),
    }
}

/// Refuses numbers outside their ranges.
fn check(args: &Args) -> Result<()> {
    for (option, value, least) in [
        ("--seconds", args.seconds, f64::MIN_POSITIVE),
        ("--rate", args.rate, f64::MIN_POSITIVE),
        ("--background", args.background, 0.0),
    ] {
        if !value.is_finite() || value < least {
            bail!(
                "{option} is {value}; accepted: a number {}",
                if least > 0.0 {
                    "above 0"
                } else {
                    "of 0 or more"
                }
            );
        }
    }
    if !(0.0..=1.0).contains(&args.newcomers) {
        bail!("--newcomers is {}; accepted: 0 to 1", args.newcomers);
    }
    Ok(())
}

/// Prints a row for each arm, and what is measured of all together.
fn print(report: &Report) {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header([
        "",
        "visits",
        "clicks",
        "click-through",
        "row p50 ms",
        "row p99 ms",
    ]);
    for arm in &report.arms {
        table.add_row([
            simulation::called(arm.arm).to_owned(),
            arm.visits.to_string(),
            arm.clicks.to_string(),
            format!("{:.2} %", 100.0 * arm.click_through),
            format!("{:.1}", 1e3 * arm.latency[0]),
            format!("{:.1}", 1e3 * arm.latency[1]),
        ]);
    }
    println!("{table}");
    if let Some([median, _, last, longest]) = report.freshness {
        println!(
            "click to changed row: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms ({} of {} watched), at {:.0} events/s",
            1e3 * median,
            1e3 * last,
            1e3 * longest,
            report.shown_effects,
            report.watched,
            report.events_per_second
        );
    }
    println!(
        "{} failed requests, {} degraded answers",
        report.errors, report.degraded
    );
}
