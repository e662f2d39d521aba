use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use clap::builder::RangedU64ValueParser;
use comfy_table::Table;
use saker_generate::{EventType, FirstDay, Pictures, Scale, Settings, Shop, Stage, Statistics};
use saker_serving::layout::Layout;
use saker_serving::progress::Step;

use super::preferences::Preferences;
use super::recommend::plain;

/// Arguments of `saker generate`.
#[derive(clap::Args)]
#[command(
    long_about = "Make a synthetic shop's data, of any size, with known preferences\n\n\
    Writes day_00.parquet, day_01.parquet …, users.parquet, items.parquet, item_descriptions.parquet, a picture of every item and \
    generator.json. The same arguments give the same files, byte for byte; files that are whole already are kept, so an \
    interrupted run goes on where it was. docs/retail.md describes the columns and the model of behaviour.",
    after_help = "Examples:\n  saker generate retail\n  saker generate retail --scale full --out /data/shop\n  \
    saker generate retail --users 1000 --interactions 50000 --seed 7 --out /tmp/shop\n  \
    saker generate retail --items 1000000 --users 3000000 --interactions 2500000 --no-pictures --out /data/large\n  \
    saker generate retail --preferences --user 1000044 --device 0 --timestamp 1760472000"
)]
pub struct Args {
    /// The data set to generate
    #[arg(value_enum, value_name = "DATASET")]
    dataset: Dataset,
    /// Base sizes: small has 6,000 users and 300,000 interactions, full 300,000 and 13,000,000; both have 2,465 items and 14 days
    #[arg(long, value_enum, default_value_t = Size::Small)]
    scale: Size,
    /// Number of users [default: that of --scale]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(Settings::USERS))]
    users: Option<usize>,
    /// Number of items [default: that of --scale]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(Settings::ITEMS))]
    items: Option<usize>,
    /// Total rows of all days [default: that of --scale]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(Settings::INTERACTIONS))]
    interactions: Option<u64>,
    /// Number of days [default: that of --scale]
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(Settings::DAYS))]
    days: Option<usize>,
    /// Seed of every random choice [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// First day, as YYYY-MM-DD [default: 2025-10-02]
    #[arg(long, value_name = "DAY")]
    first_day: Option<FirstDay>,
    /// Generate no pictures: for a large catalogue they take hours and gigabytes
    #[arg(long)]
    no_pictures: bool,
    /// Folder for the files [default: <STATE>/<DATASET>/source]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Folder for the outputs of all commands
    #[arg(
        long,
        value_name = "FOLDER",
        env = "SAKER_STATE",
        default_value = ".saker"
    )]
    state: PathBuf,
    /// Show the true preferences of a user of the generated shop, and write nothing
    #[arg(
        long,
        requires = "user",
        conflicts_with_all = ["scale", "users", "items", "interactions", "days", "seed", "first_day", "no_pictures"]
    )]
    preferences: bool,
    /// User id in users.parquet
    #[arg(long, requires = "preferences", allow_negative_numbers = true)]
    user: Option<i32>,
    /// Device: 0 mobile, 1 desktop, 2 tablet
    #[arg(long, requires = "preferences", default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..3))]
    device: i32,
    /// Unix seconds, UTC [default: noon of the last day]
    #[arg(long, requires = "preferences", value_parser = clap::value_parser!(i32).range(0..))]
    timestamp: Option<i32>,
    /// Show at most this many items
    #[arg(long, requires = "preferences", default_value_t = 10)]
    k: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The data sets.
#[derive(Clone, Copy, ValueEnum)]
enum Dataset {
    /// A fashion shop
    Retail,
}

impl Dataset {
    const fn name(self) -> &'static str {
        match self {
            Self::Retail => "retail",
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Size {
    Small,
    Full,
}

/// Generates the data, or shows preferences.
pub(super) fn run(args: &Args) -> Result<()> {
    let folder = args.out.clone().unwrap_or_else(|| {
        Layout::new(&args.state, args.dataset.name())
            .root()
            .join("source")
    });
    if args.preferences {
        return preferences(args, &folder);
    }
    let settings = settings(args);
    let pictures = match args.no_pictures {
        true => Pictures::LeftOut,
        false => Pictures::Drawn,
    };
    let complete = saker_generate::is_complete(&settings, pictures, &folder)?;
    if complete && !args.json {
        println!("{} already holds this shop", folder.display());
        return Ok(());
    }
    let step = Step::start("shop drawn");
    let shop = Shop::new(&settings)?;
    step.done(&format!(
        "{} users, {} items",
        shop.users().len(),
        shop.items().len()
    ));
    if !complete {
        write(&shop, pictures, &folder)?;
    }
    let step = Step::start("interactions counted");
    let statistics = saker_generate::statistics(&shop, &folder)?;
    step.done(&format!("{} sessions", statistics.sessions));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&statistics)?);
    } else {
        println!("{}", overview(&statistics));
        println!("{}", folder.display());
    }
    Ok(())
}

fn settings(args: &Args) -> Settings {
    let mut settings = Settings::new(match args.scale {
        Size::Small => Scale::Small,
        Size::Full => Scale::Full,
    });
    settings.users = args.users.unwrap_or(settings.users);
    settings.items = args.items.unwrap_or(settings.items);
    settings.interactions = args.interactions.unwrap_or(settings.interactions);
    settings.days = args.days.unwrap_or(settings.days);
    settings.seed = args.seed.unwrap_or(settings.seed);
    settings.first_day = args.first_day.unwrap_or(settings.first_day);
    settings
}

/// Writes the files. Rows and pictures share one progress bar, in which a picture counts by its duration.
fn write(shop: &Shop, pictures: Pictures, folder: &Path) -> Result<()> {
    const PICTURE_ROWS: u64 = 600;
    let before = match pictures {
        Pictures::Drawn => shop.items().len() as u64 * PICTURE_ROWS,
        Pictures::LeftOut => 0,
    };
    let interactions = shop.settings().interactions;
    let step = Step::counted("shop written", before + interactions);
    saker_generate::generate(shop, pictures, folder, &|stage, done, _| match stage {
        Stage::Entities => {}
        Stage::Pictures => step.at(done * PICTURE_ROWS),
        Stage::Interactions => step.at(before + done),
    })?;
    step.done(&format!(
        "{interactions} interactions of {} days",
        shop.settings().days
    ));
    Ok(())
}

/// A table of the written data.
fn overview(statistics: &Statistics) -> Table {
    let all = statistics.interactions as f64;
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    let shares = |names: &[&str], counts: &[u64]| {
        let texts: Vec<String> = names
            .iter()
            .zip(counts)
            .map(|(name, &count)| format!("{name} {}", percent(count as f64 / all)))
            .collect();
        texts.join(", ")
    };
    let mut table = plain();
    let mut row = |name: &str, value: String| {
        table.add_row([name.to_owned(), value]);
    };
    row("interactions", statistics.interactions.to_string());
    row("sessions", statistics.sessions.to_string());
    row("users who came", statistics.active_users.to_string());
    row(
        "items that were chosen",
        statistics.active_items.to_string(),
    );
    row(
        "by device",
        shares(&["mobile", "desktop", "tablet"], &statistics.by_device),
    );
    row(
        "by event",
        shares(&EventType::ALL.map(EventType::name), &statistics.by_event),
    );
    row("by hour, 0 to 23 UTC", bars(&statistics.by_hour));
    row(
        "share of the top 100 items",
        percent(statistics.top_100_items),
    );
    row(
        "share of the top 1 % of users",
        percent(statistics.top_1_percent_users),
    );
    table
}

fn bars(counts: &[u64]) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or_default().max(1);
    let level = |&count: &u64| LEVELS[(count * 7).div_ceil(most) as usize];
    counts.iter().map(level).collect()
}

/// Prints the items that a user most likely chooses.
fn preferences(args: &Args, folder: &Path) -> Result<()> {
    let shop = Shop::open(folder)?;
    let id = args.user.context("--user is missing")?;
    let Some(user) = shop.user_index(id) else {
        let ids: Vec<i32> = [shop.users().first(), shop.users().last()]
            .into_iter()
            .flatten()
            .map(|user| user.id)
            .collect();
        bail!(
            "--user {id} is not in users.parquet of {}, whose ids are {ids:?} and some between",
            folder.display()
        );
    };
    let last = shop.settings().days - 1;
    let timestamp = args
        .timestamp
        .unwrap_or_else(|| shop.settings().midnight(last) + 12 * 3600);
    let context = shop
        .context(args.device, timestamp)
        .with_context(|| format!("--device {}: accepted is 0, 1 or 2", args.device))?;
    let preferences = Preferences {
        shop: &shop,
        user: &shop.users()[user],
        context,
        best: shop.favourites(user, context, args.k),
    };
    if args.json {
        println!("{:#}", preferences.json(args.device, timestamp));
    } else {
        println!("{}", preferences.heading());
        println!("{}", preferences.table());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Result<Args, String> {
        Line::try_parse_from(line.split(' '))
            .map(|line| line.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_refused_argument_is_named_with_its_value_and_what_is_accepted() {
        for (line, parts) in [
            ("generate books", ["'books'", "DATASET", "retail"]),
            (
                "generate retail --scale huge",
                ["'huge'", "--scale", "small, full"],
            ),
            (
                "generate retail --users 0",
                ["0 is not in 100..=10000000", "--users", "'0'"],
            ),
            (
                "generate retail --items 7",
                ["7 is not in 50..=10000000", "--items", "'7'"],
            ),
            (
                "generate retail --days 366",
                ["366 is not in 1..=365", "--days", "'366'"],
            ),
            (
                "generate retail --interactions 1",
                ["1 is not in 1000..=1000000000", "--interactions", "'1'"],
            ),
            (
                "generate retail --first-day monday",
                ["'monday'", "--first-day", "YYYY-MM-DD"],
            ),
            (
                "generate retail --user 5",
                ["required", "--preferences", "generate"],
            ),
            (
                "generate retail --preferences",
                ["required", "--user", "generate"],
            ),
            (
                "generate retail --preferences --user 5 --device 3",
                ["3 is not in 0..3", "--device", "'3'"],
            ),
            (
                "generate retail --preferences --user 5 --days 3",
                ["cannot be used with", "--preferences", "--days"],
            ),
        ] {
            let message = parse(line).err().unwrap_or_default();
            for part in parts {
                assert!(message.contains(part), "{line}: {message}");
            }
        }
    }

    #[test]
    fn arguments_replace_numbers_of_the_scale() -> Result<(), String> {
        let full = settings(&parse("generate retail --scale full")?);
        assert_eq!(
            (full.users, full.interactions, full.days),
            (300_000, 13_000_000, 14)
        );
        let own = settings(&parse(
            "generate retail --users 200 --items 60 --interactions 5000 --days 3 --seed 9 --first-day 2024-02-29",
        )?);
        assert_eq!(
            (own.users, own.items, own.interactions, own.days, own.seed),
            (200, 60, 5000, 3, 9)
        );
        assert_eq!(own.first_day.to_string(), "2024-02-29");
        Ok(())
    }

    #[test]
    fn a_shop_is_made_once_and_asked_for_preferences() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (state, source) = (folder.path().display(), folder.path().join("retail/source"));
        let line = format!(
            "generate retail --users 100 --items 50 --interactions 1000 --days 2 --state {state}"
        );
        let args = |line: &str| parse(line).map_err(anyhow::Error::msg);
        run(&args(&format!("{line} --no-pictures"))?)?;
        assert!(!source.join("pictures").exists());
        run(&args(&line)?)?;
        assert!(source.join("pictures").is_dir());
        let manifest = std::fs::metadata(source.join("generator.json"))?.modified()?;
        run(&args(&line)?)?;
        assert_eq!(
            std::fs::metadata(source.join("generator.json"))?.modified()?,
            manifest
        );
        let user = Shop::open(&source)?.users()[3].id;
        run(&args(&format!(
            "generate retail --state {state} --preferences --user {user} --json"
        ))?)?;
        let stranger = args(&format!(
            "generate retail --state {state} --preferences --user 5"
        ))?;
        let message = run(&stranger).map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("--user 5 is not in users.parquet")));
        Ok(())
    }
}
