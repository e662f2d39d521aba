//! What lies in a folder after `generate`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use saker_generate::{
    Manifest, Pictures, Scale, Settings, Shop, generate, is_complete, statistics,
};

type Tested = Result<(), Box<dyn std::error::Error>>;

fn settings() -> Settings {
    Settings {
        users: 300,
        items: 120,
        interactions: 20_000,
        days: 3,
        ..Settings::new(Scale::Small)
    }
}

fn make(settings: &Settings, folder: &Path) -> saker_generate::Result<()> {
    generate(
        &Shop::new(settings)?,
        Pictures::Drawn,
        folder,
        &|_, _, _| {},
    )
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> std::io::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            let below = contents(&path)?;
            files.extend(
                below
                    .into_iter()
                    .map(|(file, bytes)| (format!("{name}/{file}"), bytes)),
            );
        } else {
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<RecordBatch, Box<dyn std::error::Error>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(path)?)?.build()?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

fn columns(table: &RecordBatch) -> Vec<(String, DataType)> {
    let schema = table.schema();
    let fields = schema.fields().iter();
    fields
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect()
}

#[test]
fn the_bytes_do_not_depend_on_the_threads() -> Tested {
    let folder = tempfile::tempdir()?;
    let made = [1, 3].map(|threads| -> Result<_, Box<dyn std::error::Error>> {
        let place = folder.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()?;
        pool.install(|| make(&settings(), &place))?;
        Ok(contents(&place)?)
    });
    let [one, three] = made;
    let (one, three) = (one?, three?);
    assert_eq!(one.len(), 3 + 3 + 1 + 120);
    assert!(one == three, "the folders differ");
    let other = folder.path().join("other seed");
    make(
        &Settings {
            seed: 2,
            ..settings()
        },
        &other,
    )?;
    assert!(contents(&other)?["day_00.parquet"] != one["day_00.parquet"]);
    Ok(())
}

#[test]
fn the_tables_have_the_documented_columns_and_rows() -> Tested {
    let folder = tempfile::tempdir()?;
    make(&settings(), folder.path())?;
    let int32 = |name: &str| (name.to_owned(), DataType::Int32);
    let text = |name: &str| (name.to_owned(), DataType::Utf8);
    let mut rows = 0;
    for day in 0..3 {
        let table = read(&folder.path().join(format!("day_{day:02}.parquet")))?;
        let session = ("session_id".to_owned(), DataType::Int64);
        let expected = [
            int32("user_id"),
            int32("item_id"),
            int32("timestamp"),
            int32("device_type"),
            text("event_type"),
            session,
        ];
        assert_eq!(columns(&table), expected);
        let times = table["timestamp"].as_primitive::<Int32Type>().values();
        assert!(times.is_sorted());
        let midnight = settings().midnight(day);
        assert!(midnight <= times[0] && times[times.len() - 1] < midnight + 86_400);
        check_sessions(&table);
        rows += table.num_rows();
    }
    assert_eq!(rows, 20_000);
    let table = read(&folder.path().join("users.parquet"))?;
    assert_eq!(
        columns(&table),
        ["user_id", "age", "gender", "signup_day"].map(int32)
    );
    assert_eq!(table.num_rows(), 300);
    let table = read(&folder.path().join("items.parquet"))?;
    let price = ("price".to_owned(), DataType::Float32);
    let expected = [
        int32("item_id"),
        text("title"),
        price,
        int32("category_l1"),
        int32("category_l2"),
        int32("item_gender"),
        text("category_l1_name"),
        text("category_l2_name"),
        int32("launch_day"),
    ];
    assert_eq!(columns(&table), expected);
    let ids = table["item_id"].as_primitive::<Int32Type>().values();
    for id in ids {
        assert!(folder.path().join(format!("pictures/{id}.png")).is_file());
    }
    let table = read(&folder.path().join("item_descriptions.parquet"))?;
    assert_eq!(columns(&table), [int32("item_id"), text("description")]);
    assert_eq!(table["item_id"].as_primitive::<Int32Type>().values(), ids);
    let texts = table["description"].as_string::<i32>();
    let distinct: std::collections::HashSet<&str> = texts.iter().flatten().collect();
    assert!(
        distinct.len() > 110
            && distinct
                .iter()
                .all(|text| text.len() > 60 && text.ends_with('.'))
    );
    Ok(())
}

/// Each step of the funnel follows the one above it, by the same user on the same device.
fn check_sessions(table: &RecordBatch) {
    let numbers = |name: &str| table[name].as_primitive::<Int32Type>().values();
    let sessions = table["session_id"].as_primitive::<Int64Type>().values();
    let kinds = table["event_type"].as_string::<i32>();
    let steps = ["view", "click", "cart", "purchase"];
    let mut reached = BTreeMap::new();
    let mut who = BTreeMap::new();
    for row in 0..table.num_rows() {
        let visitor = (numbers("user_id")[row], numbers("device_type")[row]);
        assert_eq!(*who.entry(sessions[row]).or_insert(visitor), visitor);
        let step = steps.iter().position(|step| *step == kinds.value(row));
        let before = reached.insert((sessions[row], numbers("item_id")[row]), step);
        if step != Some(0) {
            let before = before.flatten().map(|before| before + 1);
            assert_eq!(before, step, "row {row} follows another step");
        }
    }
}

#[test]
fn pictures_can_be_left_out_and_drawn_later() -> Tested {
    let folder = tempfile::tempdir()?;
    let (bare, whole) = (folder.path().join("bare"), folder.path().join("whole"));
    let shop = Shop::new(&settings())?;
    make(&settings(), &whole)?;
    let drawn = contents(&whole)?;
    generate(&shop, Pictures::LeftOut, &bare, &|_, _, _| {})?;
    let tables = contents(&bare)?;
    assert!(!bare.join("pictures").exists());
    assert_eq!(tables.len(), 3 + 3 + 1);
    for (name, bytes) in tables.iter().filter(|(name, _)| name.ends_with("parquet")) {
        assert!(drawn[name] == *bytes, "{name} differs");
    }
    assert!(is_complete(&settings(), Pictures::LeftOut, &bare)?);
    assert!(!is_complete(&settings(), Pictures::Drawn, &bare)?);

    make(&settings(), &bare)?;
    assert!(contents(&bare)? == drawn, "the folders differ");
    // Another shop without pictures keeps none of this one's.
    let other = Settings {
        seed: 2,
        ..settings()
    };
    generate(&Shop::new(&other)?, Pictures::LeftOut, &bare, &|_, _, _| {})?;
    assert!(!bare.join("pictures").exists());
    Ok(())
}

#[test]
fn what_is_whole_is_kept_and_what_is_not_is_made_again() -> Tested {
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    assert!(!is_complete(&settings(), Pictures::Drawn, folder)?);
    make(&settings(), folder)?;
    assert!(is_complete(&settings(), Pictures::Drawn, folder)?);
    let before = contents(folder)?;
    let written = |name: &str| fs::metadata(folder.join(name)).and_then(|about| about.modified());
    let (kept, picture) = (written("day_00.parquet")?, written("pictures")?);

    // As a run leaves it that is killed while it writes the second day.
    let mut manifest = Manifest::read(folder)?;
    manifest
        .files
        .retain(|name, _| !["day_01.parquet", "day_02.parquet"].contains(&name.as_str()));
    fs::write(
        folder.join("generator.json"),
        serde_json::to_vec(&manifest)?,
    )?;
    fs::write(folder.join("day_01.parquet"), "half")?;
    fs::remove_file(folder.join("day_02.parquet"))?;
    assert!(!is_complete(&settings(), Pictures::Drawn, folder)?);
    make(&settings(), folder)?;
    assert!(contents(folder)? == before, "the files differ");
    assert_eq!(
        (written("day_00.parquet")?, written("pictures")?),
        (kept, picture)
    );

    // A lost picture is noticed too.
    let lost = before
        .keys()
        .find(|name| name.starts_with("pictures/"))
        .ok_or("no pictures")?;
    fs::remove_file(folder.join(lost))?;
    assert!(!is_complete(&settings(), Pictures::Drawn, folder)?);
    make(&settings(), folder)?;
    assert!(contents(folder)? == before, "the files differ");

    // Another shop in the same folder: no day of the first stays, and nobody else's file goes.
    fs::write(folder.join("notes.txt"), "mine")?;
    let shorter = Settings {
        days: 2,
        interactions: 5_000,
        ..settings()
    };
    make(&shorter, folder)?;
    let after = contents(folder)?;
    assert!(after.contains_key("notes.txt") && !after.contains_key("day_02.parquet"));
    assert!(is_complete(&shorter, Pictures::Drawn, folder)?);
    assert_eq!(Shop::open(folder)?.settings(), &shorter);
    Ok(())
}

#[test]
fn statistics_count_the_files() -> Tested {
    let folder = tempfile::tempdir()?;
    let shop = Shop::new(&settings())?;
    generate(&shop, Pictures::Drawn, folder.path(), &|_, _, _| {})?;
    let counted = statistics(&shop, folder.path())?;
    assert_eq!(counted.interactions, 20_000);
    assert_eq!(counted.by_device.iter().sum::<u64>(), 20_000);
    assert_eq!(counted.by_hour.iter().sum::<u64>(), 20_000);
    assert!(counted.by_event.is_sorted_by(|above, below| above > below));
    let sessions: usize = (0..3).map(|day| shop.first_choices(day).len()).sum();
    assert_eq!(counted.sessions, sessions as u64);
    assert!(counted.top_1_percent_users > 0.03 && counted.top_1_percent_users < 0.2);
    fs::write(folder.path().join("day_01.parquet"), "half")?;
    let message = statistics(&shop, folder.path()).map_err(|error| error.to_string());
    assert!(message.is_err_and(|message| message.contains("day_01.parquet")));
    Ok(())
}

#[test]
fn a_manifest_is_read_by_its_format() -> Tested {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("generator.json");
    let golden = include_str!("data/generator.json");
    fs::write(&path, golden)?;
    let manifest = Manifest::read(folder.path())?;
    assert_eq!(manifest.settings, settings());
    assert_eq!(manifest.files["day_01.parquet"], 84_211);
    assert_eq!(
        format!("{}\n", serde_json::to_string_pretty(&manifest)?),
        golden
    );

    let refused = |text: &str| {
        fs::write(&path, text)?;
        let refused = Manifest::read(folder.path())
            .map(|_| ())
            .map_err(|error| error.to_string());
        Ok::<_, std::io::Error>(refused.err().unwrap_or_default())
    };
    let message = refused(&golden.replace("\"format\": 1", "\"format\": 9"))?;
    assert!(
        message.ends_with("generator = retail, format = 9: accepted is retail, 1"),
        "{message}"
    );
    let message = refused(&golden.replace("\"model\": 1", "\"model\": 0"))?;
    assert!(
        message.contains("model = 0: this version of Saker generates model 1"),
        "{message}"
    );
    let message = refused("{}")?;
    assert!(
        message.contains("not a manifest of `saker generate`"),
        "{message}"
    );
    fs::remove_file(&path)?;
    let message = refused(golden)
        .and_then(|_| fs::remove_file(&path))
        .map(|()| Manifest::read(folder.path()));
    assert!(message?.is_err_and(|error| {
        error
            .to_string()
            .contains("run `saker generate retail` to make it")
    }));
    Ok(())
}
