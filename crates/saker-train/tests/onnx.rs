//! The exported graphs, run by ONNX Runtime, answer what the trained models answer.

mod common;

use std::path::PathBuf;
use std::sync::LazyLock;

use common::{ITEMS, USERS, dataset, sizes, training};
use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;
use saker_train::candidates::Candidates;
use saker_train::data::{Dataset, Table};
use saker_train::onnx::{self, Items, ROWS_INPUT};
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;

/// ONNX Runtime allows one a process.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let cache = || std::env::var_os("SAKER_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/saker");
    let library = std::env::var_os("ORT_DYLIB_PATH")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            cache()
                .unwrap_or_else(home)
                .join("runtime/onnxruntime/libonnxruntime.so")
        });
    assert!(
        library.exists(),
        "{} is missing; `scripts/install` puts it there",
        library.display()
    );
    ort::init_from(&library).unwrap().build().unwrap()
});

type Inputs = Vec<(String, SessionInputValue<'static>)>;

fn table(table: &Table, rows: &[usize]) -> Inputs {
    let count = rows.len();
    let codes = table.categorical.iter().map(|column| {
        let values: Vec<i32> = rows.iter().map(|&row| column.codes.get(row)).collect();
        (
            column.name.clone(),
            Tensor::from_array(([count], values)).unwrap().into(),
        )
    });
    let numbers = table.continuous.iter().map(|column| {
        let values: Vec<f32> = rows.iter().map(|&row| column.values.get(row)).collect();
        (
            column.name.clone(),
            Tensor::from_array(([count], values)).unwrap().into(),
        )
    });
    codes.chain(numbers).collect()
}

fn pretrained(data: &Dataset, items: &[usize]) -> Inputs {
    let of = |table: &saker_train::data::Pretrained| {
        let values: Vec<f32> = items
            .iter()
            .flat_map(|&item| {
                let code = data.items.categorical[0].codes.get(item) as usize;
                table.values[code * table.dim..][..table.dim].to_vec()
            })
            .collect();
        (
            table.name.clone(),
            Tensor::from_array(([items.len(), table.dim], values))
                .unwrap()
                .into(),
        )
    };
    data.pretrained.iter().map(of).collect()
}

fn run(session: &mut Session, inputs: Inputs, output: &str) -> (Vec<i64>, Vec<f32>) {
    let outputs = session.run(inputs).unwrap();
    let (shape, values) = outputs[output].try_extract_tensor::<f32>().unwrap();
    (shape.to_vec(), values.to_vec())
}

fn assert_close(a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} is not {b}");
    }
}

/// The catalogue as a hoisted ranker is made for it.
fn catalogue(data: &Dataset) -> Items {
    let all = || 0..data.items.rows;
    let codes = data.items.categorical.iter();
    let numbers = data.items.continuous.iter();
    let vectors = data.pretrained.iter().map(|table| {
        let vector = |item| {
            let code = data.items.categorical[0].codes.get(item) as usize;
            table.values[code * table.dim..][..table.dim]
                .iter()
                .copied()
        };
        (table.name.clone(), all().flat_map(vector).collect())
    });
    Items {
        rows: data.items.rows,
        codes: codes
            .map(|column| {
                (
                    column.name.clone(),
                    all().map(|row| column.codes.get(row)).collect(),
                )
            })
            .collect(),
        numbers: numbers
            .map(|column| {
                (
                    column.name.clone(),
                    all().map(|row| column.values.get(row)).collect(),
                )
            })
            .collect(),
        vectors: vectors.collect(),
    }
}

/// A hoisted ranker scores every item for some users as the exported one does.
fn hoisted_scores_are_the_exported(
    environment: &ort::environment::Environment,
    data: &Dataset,
    ranker: &Ranker,
) {
    let mut exported = onnx::ranker(ranker);
    onnx::set_release(&mut exported, "r-0");
    let hoisted = onnx::hoist(&exported, &catalogue(data), "items.bin").unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), &hoisted.model).unwrap();
    std::fs::write(folder.path().join("items.bin"), &hoisted.tables).unwrap();
    let open = || Session::builder(environment).unwrap();
    let mut exported = open().commit_from_memory(&exported).unwrap();
    let path = folder.path().join("model.onnx");
    let said = hoisted.inputs;
    let mut hoisted = open().commit_from_file(&path).unwrap();
    let metadata = hoisted.metadata().unwrap().custom("saker.inputs").unwrap();
    let written: onnx::Inputs = serde_json::from_str(&metadata).unwrap();
    assert_eq!(written, said);
    let items: Vec<usize> = (0..data.items.rows).collect();
    let rows: Vec<i32> = items.iter().rev().map(|&row| row as i32).collect();
    let reversed: Vec<usize> = items.iter().rev().copied().collect();
    for user in [0, 3, USERS - 1] {
        let mut inputs: Inputs = Vec::new();
        let of = [(&data.users, user), (&data.context, 7 * user)];
        let code = |(name, cardinality): &(String, usize)| {
            let of = of.iter().find_map(|(table, row)| {
                let mut columns = table.categorical.iter();
                Some((columns.find(|column| column.name == *name)?, *row))
            });
            let (column, row) = of.unwrap();
            assert_eq!(column.cardinality, *cardinality);
            column.codes.get(row)
        };
        let number = |name: &String| {
            let of = of.iter().find_map(|(table, row)| {
                let mut columns = table.continuous.iter();
                Some(
                    columns
                        .find(|column| column.name == *name)?
                        .values
                        .get(*row),
                )
            });
            of.unwrap()
        };
        let codes: Vec<i32> = said.codes.iter().map(code).collect();
        let codes = Tensor::from_array(([codes.len()], codes)).unwrap();
        inputs.push((onnx::CODES_INPUT.to_owned(), codes.into()));
        if !said.numbers.is_empty() {
            let numbers: Vec<f32> = said.numbers.iter().map(number).collect();
            let numbers = Tensor::from_array(([1, numbers.len()], numbers)).unwrap();
            inputs.push((onnx::NUMBERS_INPUT.to_owned(), numbers.into()));
        }
        let candidates = Tensor::from_array(([rows.len()], rows.clone())).unwrap();
        inputs.push((ROWS_INPUT.to_owned(), candidates.into()));
        let (shape, scores) = run(&mut hoisted, inputs, onnx::RANKER_OUTPUT);
        assert_eq!(shape, [rows.len() as i64, 1]);
        let inputs = [
            table(&data.users, &vec![user; rows.len()]),
            table(&data.context, &vec![7 * user; rows.len()]),
            table(&data.items, &reversed),
            pretrained(data, &reversed),
        ];
        let inputs = inputs.into_iter().flatten().collect();
        let (_, expected) = run(&mut exported, inputs, onnx::RANKER_OUTPUT);
        for (score, expected) in scores.iter().zip(&expected) {
            assert!(
                (score - expected).abs() <= 1e-6,
                "{score} is not {expected}"
            );
        }
    }
}

// One test, as a process can have one environment of ONNX Runtime.
#[test]
fn onnx_runtime_answers_what_was_trained() {
    let open = |bytes: &[u8]| {
        Session::builder(&ENVIRONMENT)
            .unwrap()
            .commit_from_memory(bytes)
            .unwrap()
    };
    let data = dataset();
    let (mut tower_sizes, ranker_sizes) = sizes();
    let training = training();
    for normalize in [false, true] {
        tower_sizes.normalize = normalize;
        let mut towers = Towers::new(&tower_sizes, &data, 1);
        towers
            .train(
                &data,
                &tower_sizes,
                &training,
                &mut saker_train::learning::Session::new(&mut ()),
            )
            .unwrap();

        let users: Vec<usize> = (0..USERS).collect();
        let mut model = onnx::tower(&towers.query, "query_tower");
        onnx::set_release(&mut model, "r-0");
        onnx::set_release(&mut model, "r-1");
        let mut session = open(&model);
        assert_eq!(
            session
                .metadata()
                .unwrap()
                .custom(onnx::RELEASE_KEY)
                .as_deref(),
            Some("r-1")
        );
        let (shape, vectors) = run(&mut session, table(&data.users, &users), onnx::TOWER_OUTPUT);
        assert_eq!(shape, [USERS as i64, 8]);
        assert_close(&vectors, &towers.user_vectors(&data));

        let items: Vec<usize> = (0..ITEMS).collect();
        let mut session = open(&onnx::tower(&towers.candidate, "candidate_tower"));
        let inputs = [table(&data.items, &items), pretrained(&data, &items)]
            .into_iter()
            .flatten()
            .collect();
        let (_, vectors) = run(&mut session, inputs, onnx::TOWER_OUTPUT);
        assert_close(&vectors, &towers.item_vectors(&data));
    }

    let mut ranker = Ranker::new(&ranker_sizes, &data, 1);
    let towers = Towers::new(&tower_sizes, &data, 1);
    let candidates = Candidates::new(&towers, &data, &training, 10);
    ranker
        .train(
            &data,
            &training,
            &candidates,
            &mut saker_train::learning::Session::new(&mut ()),
        )
        .unwrap();
    let mut session = open(&onnx::ranker(&ranker));
    for rows in [300, 1, 0] {
        let requests: Vec<(u32, u32, u32)> = (0..rows as u32)
            .map(|i| (i % USERS as u32, i * 7, i % ITEMS as u32))
            .collect();
        let of = |pick: fn(&(u32, u32, u32)) -> u32| {
            requests
                .iter()
                .map(|r| pick(r) as usize)
                .collect::<Vec<_>>()
        };
        let items = of(|r| r.2);
        let inputs = [
            table(&data.users, &of(|r| r.0)),
            table(&data.context, &of(|r| r.1)),
            table(&data.items, &items),
            pretrained(&data, &items),
        ];
        let (shape, scores) = run(
            &mut session,
            inputs.into_iter().flatten().collect(),
            onnx::RANKER_OUTPUT,
        );
        assert_eq!(shape, [rows as i64, 1]);
        assert_close(&scores, &ranker.scores(&data, &requests));
    }

    hoisted_scores_are_the_exported(&ENVIRONMENT, &data, &ranker);
    // With features of every kind missing on one side, not trained: the first weights tell as much.
    let without = |change: fn(&mut Dataset, &mut saker_pipeline::training::Ranker)| {
        let (mut data, mut sizes) = (dataset(), ranker_sizes.clone());
        change(&mut data, &mut sizes);
        hoisted_scores_are_the_exported(&ENVIRONMENT, &data, &Ranker::new(&sizes, &data, 5));
    };
    without(|data, _| data.items.continuous.clear());
    without(|data, _| {
        data.users.continuous.clear();
        data.context.continuous.clear();
    });
    without(|data, _| {
        for table in [&mut data.users, &mut data.context, &mut data.items] {
            table.continuous.clear();
        }
    });
    without(|data, _| data.pretrained.clear());
    without(|_, sizes| sizes.top_layers.clear());
    without(|_, sizes| sizes.bottom_layers = vec![sizes.embedding_dim]);

    let exported = onnx::ranker(&ranker);
    let refused = |model: &[u8], items: &Items| {
        let refused = onnx::hoist(model, items, "items.bin");
        refused.unwrap_err().to_string()
    };
    let tower = onnx::tower(&towers.query, "query_tower");
    assert!(refused(&tower, &catalogue(&data)).contains("not a ranker"));
    let mut items = catalogue(&data);
    if let Some(codes) = items.codes.values_mut().next() {
        codes[1] = 1_000_000;
    }
    assert!(refused(&exported, &items).contains("an item has the code 1000000"));
    let mut items = catalogue(&data);
    items.rows += 1;
    assert!(refused(&exported, &items).contains("values for"));

    // A code beyond the table is refused by ONNX Runtime; memory is never read out of bounds.
    let mut query = open(&onnx::tower(
        &Towers::new(&tower_sizes, &data, 1).query,
        "query_tower",
    ));
    let mut inputs = table(&data.users, &[0]);
    inputs[0].1 = Tensor::from_array(([1], vec![i32::MAX])).unwrap().into();
    assert!(query.run(inputs).is_err());
}

#[test]
fn large_tables_lie_beside_the_model() {
    let mut data = dataset();
    let (tower_sizes, _) = sizes();
    let small = onnx::tower(&Towers::new(&tower_sizes, &data, 1).query, "query_tower");
    assert!(onnx::tables_apart(&small, "tables").is_none());

    // A table of 1.2 MB at the least.
    data.users.categorical[0].cardinality = 300_000;
    let model = onnx::tower(&Towers::new(&tower_sizes, &data, 1).query, "query_tower");
    let (apart, tables) = onnx::tables_apart(&model, "tables").expect("a large table");
    assert!(apart.len() < 1 << 20 && apart.len() + tables.len() >= model.len());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, &apart).unwrap();
    std::fs::write(folder.path().join("tables"), tables).unwrap();
    let builder = || Session::builder(&ENVIRONMENT).unwrap();
    let mut whole = builder().commit_from_memory(&model).unwrap();
    let mut mapped = builder().commit_from_file(&path).unwrap();
    let answer =
        |session: &mut Session| run(session, table(&data.users, &[0, 1, 2]), onnx::TOWER_OUTPUT);
    assert_eq!(answer(&mut whole), answer(&mut mapped));

    // What somebody else wrote into a model must not get lost: field 1000 of the format, of which nobody here knows.
    let foreign = [&model[..], &[0xc0, 0x3e, 0x01]].concat();
    assert!(onnx::tables_apart(&foreign, "tables").is_none());
    assert!(onnx::tables_apart(b"not a model", "tables").is_none());
}
