//! Training and fine-tuning through the command line: a killed run that goes on, a day that arrives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use saker_offline::{EVENT_TIMESTAMP, OfflineStore};
use saker_prepare::table;

/// A small shop of `saker generate`, without pictures and texts: what is tested here does not look at them.
struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    fn new(days: u32) -> Self {
        let shop = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let retail = fs::read_to_string("examples/retail/pipeline.toml").unwrap();
        let (features, rest) = retail.split_once("[[item.embeddings]]").unwrap();
        let (_, serving) = rest.split_once("[retrieval]").unwrap();
        let training =
            "[training.towers]\nepochs = 3\n\n[training.ranker]\nepochs = 2\n\n[retrieval]";
        fs::write(shop.definition(), format!("{features}{training}{serving}")).unwrap();
        let source = shop.source();
        let mut command = saker();
        command.args(["generate", "retail", "--users", "400", "--items", "120"]);
        command.args(["--interactions", "20000", "--days", &days.to_string()]);
        done(command.arg("--out").arg(&source));
        shop
    }

    fn definition(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn source(&self) -> PathBuf {
        self.state().join("retail/source")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state().join("retail").join(name)
    }

    /// `saker <step>` on this shop.
    fn command(&self, step: &str) -> Command {
        let mut command = saker();
        command.arg(step).arg("--pipeline").arg(self.definition());
        command.arg("--state").arg(self.state());
        command
    }

    fn run(&self, step: &str) -> String {
        done(&mut self.command(step))
    }

    /// Ninety events after `last`, of the first users.
    fn visit(&self, users: &[i32], last: i32) {
        let mut users = users.to_vec();
        users.sort_unstable();
        users.dedup();
        let items = table::read(&self.file("data/items.parquet")).unwrap();
        let items = table::int32s(&items, "item_id").unwrap().to_vec();
        let all = 0..90;
        let int32 = |of: &dyn Fn(usize) -> i32| table::int32(all.clone().map(of).collect());
        let text = |of: &dyn Fn(usize) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(all.clone().map(of)))
        };
        let micros = all
            .clone()
            .map(|event| (i64::from(last) + 1 + event as i64) * 1_000_000);
        let times = TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC");
        let kinds = ["view", "click", "purchase"];
        let events = table::table(vec![
            ("event_id", text(&|event| event.to_string())),
            ("user_id", int32(&|event| users[event % 30])),
            ("item_id", int32(&|event| items[event * 7 % items.len()])),
            ("event_type", text(&|event| kinds[event / 30].to_owned())),
            ("device_type", int32(&|event| event as i32 % 3)),
            (EVENT_TIMESTAMP, Arc::new(times)),
            ("entry", text(&|event| format!("{event:015}-000000000"))),
        ]);
        let offline = OfflineStore::open(&self.file("offline").display().to_string()).unwrap();
        offline
            .append("events", "applied-1", &events.unwrap())
            .unwrap();
    }

    fn models(&self) -> Vec<Vec<u8>> {
        ["query_tower", "candidate_tower", "dlrm_ranking"]
            .map(|model| fs::read(self.file(&format!("models/{model}.onnx"))).unwrap())
            .into()
    }
}

fn saker() -> Command {
    Command::new(env!("CARGO_BIN_EXE_saker"))
}

/// What a command that succeeds prints.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{error}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn towers_trained_alone_have_no_ranker_beside_them_until_the_next_training() {
    let shop = Shop::new(4);
    shop.run("prepare");
    shop.run("train");
    let expected = shop.models();
    done(shop.command("train").args(["--towers", "--force"]));
    assert!(!shop.file("models/dlrm_ranking.onnx").exists());
    let towers = fs::read(shop.file("models/query_tower.onnx")).unwrap();
    assert_eq!(towers, expected[0]);
    assert!(done(shop.command("train").arg("--towers")).contains("up to date"));

    shop.run("train");
    assert_eq!(shop.models(), expected);
}

/// Nothing that is trained, fitted or indexed depends on what the held-out parts hold: whatever happens on those days, every file is
/// the same, byte for byte.
#[test]
fn what_is_trained_does_not_depend_on_the_held_out_parts() {
    let shop = Shop::new(6);
    let files = |shop: &Shop| {
        for step in ["prepare", "train", "index"] {
            shop.run(step);
        }
        let mut files = BTreeMap::new();
        for folder in ["models", "features", "index"] {
            collect(&shop.file(folder), &mut files);
        }
        // What is measured on the held-out parts, or is encoded of them; users.parquet holds what users are served with today.
        files.retain(|path, _| {
            let name = path.strip_prefix(shop.file("")).unwrap();
            !(name.starts_with("models/run")
                || name.starts_with("features/interactions.parquet")
                || name.starts_with("features/users.parquet"))
        });
        files
    };
    let compare = |days: &[u32]| {
        let before = files(&shop);
        assert!(before.len() > 10, "{:?}", before.keys());
        let encoded = || table::read(&shop.file("features/interactions.parquet")).unwrap();
        let (users, rows) = (
            fs::read(shop.file("features/users.parquet")).unwrap(),
            encoded(),
        );
        for day in days {
            shuffle(&shop.source().join(format!("day_{day:02}.parquet")));
        }
        let after = files(&shop);
        assert_ne!(rows, encoded(), "the shuffling does not show");
        assert_ne!(
            users,
            fs::read(shop.file("features/users.parquet")).unwrap()
        );
        assert!(before.keys().eq(after.keys()));
        for (path, bytes) in before {
            assert!(
                bytes == after[&path],
                "{} differs after other days {days:?}",
                path.display()
            );
        }
    };
    // The test part, the last day.
    compare(&[5]);
    // With the validation part, which chooses among epochs: of one there is no choice.
    let definition = fs::read_to_string(shop.definition()).unwrap();
    let one = definition
        .replace("epochs = 3", "epochs = 1")
        .replace("epochs = 2", "epochs = 1");
    fs::write(shop.definition(), one).unwrap();
    compare(&[4, 5]);
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => {
                let bytes = fs::read(&path).unwrap();
                files.insert(path, bytes);
            }
        }
    }
}

/// Other users meet other items at the same times: every column but the time is put into an order of its own.
fn shuffle(path: &Path) {
    let day = table::read(path).unwrap();
    let rows = day.num_rows() as u32;
    // A number without a common factor visits every row once.
    let strides = (0u32..)
        .map(|place| 7919 + 2 * place)
        .filter(|stride| gcd(*stride, rows) == 1);
    let columns = day.schema();
    let columns = columns.fields().iter().zip(day.columns()).zip(strides);
    let columns = columns.map(|((field, column), stride)| {
        let order =
            (0..rows).map(|row| (u64::from(row) * u64::from(stride) % u64::from(rows)) as u32);
        let column = match field.name().as_str() {
            "timestamp" => column.clone(),
            _ => take(column, &UInt32Array::from_iter_values(order), None).unwrap(),
        };
        (field.name().as_str(), column)
    });
    let shuffled = table::table(columns.collect()).unwrap();
    table::write(path, &shuffled).unwrap();
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn a_training_that_is_killed_again_and_again_ends_in_the_same_models() {
    let shop = Shop::new(4);
    shop.run("prepare");
    shop.run("train");
    let expected = shop.models();
    fs::remove_dir_all(shop.file("models")).unwrap();
    fs::remove_dir_all(shop.file("stamps")).unwrap();

    let mut killed = 0;
    for attempt in 1.. {
        assert!(attempt < 100, "it does not get anywhere");
        let mut command = shop.command("train");
        // A checkpoint after every batch, so that a kill may fall into its writing.
        command.args(["--checkpoint-every", "0"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Longer and longer, so that every stage is met and the last one gets to its end.
        std::thread::sleep(Duration::from_millis(60 * attempt));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        if child.wait().unwrap().success() {
            break;
        }
    }
    assert!(killed > 2, "killed {killed} times only");
    assert!(
        shop.models() == expected,
        "other models after {killed} kills"
    );
}

#[test]
fn a_new_day_is_learned_without_touching_the_candidates() {
    let shop = Shop::new(6);
    // The last day has not come yet.
    let (last, aside) = (
        shop.source().join("day_05.parquet"),
        shop.folder.path().join("day_05.parquet"),
    );
    fs::rename(&last, &aside).unwrap();
    shop.run("prepare");
    let too_early = shop.command("finetune").output().unwrap();
    assert!(!too_early.status.success());
    let error = String::from_utf8_lossy(&too_early.stderr).into_owned();
    assert!(error.contains("saker train retail"), "{error}");
    shop.run("train");
    shop.run("index");
    let before = shop.models();
    let workflow = fs::read(shop.file("features/user/workflow.json")).unwrap();

    // It comes, and the updater has written what it made of the clicks of one user.
    fs::rename(&aside, &last).unwrap();
    let day = table::read(&last).unwrap();
    let user = table::int32s(&day, "user_id").unwrap()[0];
    let first = table::int32s(&day, "timestamp").unwrap()[0];
    let micros = vec![i64::from(first - 60) * 1_000_000];
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"));
    let written = table::table(vec![
        ("user_id", table::int32(vec![user])),
        ("top_category", table::int32(vec![4])),
        (EVENT_TIMESTAMP, times),
    ]);
    let offline = OfflineStore::open(&shop.file("offline").display().to_string()).unwrap();
    offline
        .append("user_activity", "updater-1", &written.unwrap())
        .unwrap();

    let output = shop.run("finetune");
    assert!(output.contains("ranked list after"), "{output}");
    assert!(
        output.contains("the index holds the items' vectors"),
        "{output}"
    );
    let after = shop.models();
    assert_eq!(before[1], after[1], "the candidate tower");
    assert_eq!(
        workflow,
        fs::read(shop.file("features/user/workflow.json")).unwrap()
    );
    assert!(shop.run("index").contains("up to date"));

    let rounds = fs::read(shop.file("models/finetuned.json")).unwrap();
    let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
    let round = &rounds[0];
    // Days 3 and 4: day 3 was validated on, day 4 tested on, before day 5 came.
    const DAY: i64 = 24 * 60 * 60;
    let of_day = |key: &str| round[key].as_i64().unwrap() / DAY;
    assert_eq!(of_day("until") - of_day("since"), 2, "{round}");
    assert!(round["new"].as_u64() > Some(1000) && round["replayed"] == round["new"]);
    for (model, kept) in [(0, "query_tower"), (2, "ranker")] {
        let is_kept = !round["kept"][kept].is_null();
        assert_eq!(is_kept, before[model] != after[model], "{kept}: {round}");
    }

    // The user's first event of the day met what serving had written.
    let interactions = table::read(&shop.file("data/interactions.parquet")).unwrap();
    let column = |name: &str| table::int32s(&interactions, name).unwrap().to_vec();
    let (users, times, met) = (
        column("user_id"),
        column("timestamp"),
        column("top_category"),
    );
    let row = (0..users.len()).find(|&row| users[row] == user && times[row] == first);
    assert_eq!(met[row.unwrap()], 4);

    // Once more: there is nothing, but the day that was measured on.
    let output = shop.run("finetune");
    assert!(output.starts_with("nothing is newer than "), "{output}");
    let output = done(shop.command("finetune").arg("--all"));
    assert!(
        output.starts_with("learned what happened after "),
        "{output}"
    );
    assert!(!output.contains("ranked list"), "{output}");

    // What visitors did since, as the updater writes it, is newer still.
    shop.visit(&users, times.iter().copied().max().unwrap());
    let output = done(shop.command("finetune").arg("--all"));
    assert!(
        output.starts_with("learned what happened after "),
        "{output}"
    );
    let rounds = fs::read(shop.file("models/finetuned.json")).unwrap();
    let rounds: serde_json::Value = serde_json::from_slice(&rounds).unwrap();
    let round = rounds.as_array().unwrap().last().unwrap();
    // All but those of the users who are held out.
    assert!(round["new"].as_u64() > Some(60), "{round}");

    // The next whole run fits anew.
    assert!(!shop.run("prepare").contains("already"));
    shop.run("train");
    assert!(!Path::new(&shop.file("models/finetuned.json")).exists());
}
