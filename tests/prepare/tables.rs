//! Tables as shops export them: types of columns, missing values, ids, files and folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array,
    Int64Array, LargeListArray, LargeListViewArray, LargeStringArray, ListArray, ListViewArray,
    MapBuilder, StringArray, StringBuilder, StringViewArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, concat, take};
use arrow::datatypes::{DataType, Field};
use saker::code::CODE;
use saker_bulk::Settings;
use saker_dataset::prepare::{self, Summary};
use saker_pipeline::{Names, Pipeline};
use saker_prepare::table;
use saker_serving::layout::Layout;

const DEFINITION: &str = r#"
[pipeline]
name = "export"

[data]
format = "parquet"
users.path = "users.parquet"
items.path = "items.parquet"
interactions = { path = "events.parquet", rating = "rating" }

[user]
id = "user_id"
columns = [{ name = "age", default = 40 }, { name = "city", codes = "value" }]
features = [
    { name = "user_id", operators = [{ op = "Categorify" }] },
    { name = "age_norm", columns = ["age"], operators = [{ op = "Normalize" }] },
]

[context]
columns = [{ name = "device_type", empty = ["0"] }, { name = "timestamp", default = "now" }]
features = [{ name = "device_type", operators = [{ op = "Categorify" }] }]

[item]
id = "item_id"
columns = [
    { name = "price", type = "float32", default = "mean" },
    { name = "genre", source = "genres", codes = "first" },
    { name = "genres", codes = "set" },
]
features = [
    { name = "item_id", operators = [{ op = "Categorify", padding = -1 }] },
    { name = "genre", operators = [{ op = "Categorify" }] },
    { name = "price_norm", columns = ["price"], operators = [{ op = "LogOp" }, { op = "Normalize" }] },
]
"#;

type Columns = BTreeMap<&'static str, ArrayRef>;

/// A shop of four users, four items and 24 events, to be changed before it is written.
struct Shop {
    definition: String,
    users: Columns,
    items: Columns,
    events: Columns,
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

const EVENTS: usize = 24;

/// The users of the events: each of 1 to 4 six times.
fn event_users() -> Vec<i64> {
    (0..EVENTS as i64).map(|event| 1 + event % 4).collect()
}

fn event_items() -> Vec<i64> {
    (0..EVENTS as i64)
        .map(|event| 10 * (1 + event / 6))
        .collect()
}

/// Unix seconds, 1,000 apart.
fn event_times() -> Vec<i64> {
    (0..EVENTS as i64)
        .map(|event| 1_700_000_000 + 1000 * event)
        .collect()
}

/// The words of each item; an element has a blank.
const GENRES: [&[&str]; 4] = [
    &["Coffee Beans", "Tea"],
    &["Tea"],
    &["Tea", "Coffee Beans"],
    &[],
];

fn genres() -> (ArrayRef, Vec<usize>) {
    let words = GENRES.concat();
    let lengths = GENRES.iter().map(|words| words.len());
    (Arc::new(StringArray::from(words)), lengths.collect())
}

fn list(words: ArrayRef, lengths: Vec<usize>) -> ArrayRef {
    let field = Field::new_list_field(words.data_type().clone(), true);
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(ListArray::new(Arc::new(field), offsets, words, None))
}

impl Shop {
    fn new() -> Self {
        let (words, lengths) = genres();
        Self {
            definition: DEFINITION.to_owned(),
            users: Columns::from([
                ("user_id", ints([1, 2, 3, 4])),
                ("age", ints([20, 30, 40, 50])),
                (
                    "city",
                    texts(&[Some("Ulm"), Some("Bonn"), None, Some("Ulm")]),
                ),
            ]),
            items: Columns::from([
                ("item_id", ints([10, 20, 30, 40])),
                (
                    "price",
                    Arc::new(Float64Array::from(vec![1.0, 2.0, 4.0, 8.0])) as ArrayRef,
                ),
                ("genres", list(words, lengths)),
            ]),
            events: Columns::from([
                ("user_id", ints(event_users())),
                ("item_id", ints(event_items())),
                ("timestamp", ints(event_times())),
                ("rating", ints([4; EVENTS])),
                (
                    "device_type",
                    ints((0..EVENTS as i64).map(|event| event % 2)),
                ),
            ]),
        }
    }

    fn define(mut self, from: &str, to: &str) -> Self {
        assert!(self.definition.contains(from), "{from} is not there");
        self.definition = self.definition.replacen(from, to, 1);
        self
    }

    fn user(mut self, name: &'static str, column: ArrayRef) -> Self {
        self.users.insert(name, column);
        self
    }

    fn item(mut self, name: &'static str, column: ArrayRef) -> Self {
        self.items.insert(name, column);
        self
    }

    fn event(mut self, name: &'static str, column: ArrayRef) -> Self {
        self.events.insert(name, column);
        self
    }

    fn write(&self, folder: &Path) {
        write(&folder.join("users.parquet"), &self.users);
        write(&folder.join("items.parquet"), &self.items);
        write(&folder.join("events.parquet"), &self.events);
    }

    fn prepare(&self) -> Prepared {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        self.prepare_in(folder).unwrap()
    }

    fn error(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        match self.prepare_in(folder) {
            Ok(_) => panic!("the shop is prepared"),
            Err(error) => format!("{error:#}"),
        }
    }

    fn prepare_in(&self, folder: tempfile::TempDir) -> anyhow::Result<Prepared> {
        let path = folder.path().join("pipeline.toml");
        fs::write(&path, &self.definition).unwrap();
        let pipeline = Pipeline::load(&path)?;
        let layout = Layout::new(&folder.path().join("state"), "export");
        prepare::fingerprint(&pipeline, CODE)?;
        let summary = prepare::prepare(&pipeline, &layout, Settings::default())?;
        Ok(Prepared {
            summary,
            layout,
            folder,
        })
    }
}

fn write(path: &Path, columns: &Columns) {
    let columns = columns
        .iter()
        .map(|(name, array)| (*name, Arc::clone(array)));
    table::write(path, &table::table(columns.collect()).unwrap()).unwrap();
}

struct Prepared {
    summary: Summary,
    layout: Layout,
    folder: tempfile::TempDir,
}

impl Prepared {
    fn int32s(&self, of: &str, column: &str) -> Vec<i32> {
        let table = table::read(&self.layout.data(of)).unwrap();
        table::int32s(&table, column).unwrap().to_vec()
    }

    fn float32s(&self, of: &str, column: &str) -> Vec<f32> {
        let table = table::read(&self.layout.data(of)).unwrap();
        table::float32s(&table, column).unwrap().to_vec()
    }

    fn names(&self, column: &str) -> Vec<String> {
        let names = fs::read(self.layout.names()).unwrap();
        let mut names: Names = serde_json::from_slice(&names).unwrap();
        names.remove(column).unwrap()
    }

    fn events(&self) -> usize {
        self.summary.events.iter().sum()
    }
}

fn contains(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "\"{error}\" lacks \"{part}\"");
    }
}

/// Every type of list, of every type of text.
fn genres_of_every_type() -> Vec<ArrayRef> {
    let (words, lengths) = genres();
    let dictionary = |key: DataType| DataType::Dictionary(key.into(), DataType::Utf8.into());
    let kinds = [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        dictionary(DataType::Int8),
        dictionary(DataType::Int32),
        dictionary(DataType::UInt16),
    ];
    let mut arrays = Vec::new();
    for kind in kinds {
        let words = cast(&words, &kind).unwrap();
        let field = Arc::new(Field::new_list_field(kind, true));
        let offsets: Vec<usize> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            })
            .collect();
        let starts =
            |of: &[usize]| -> ScalarBuffer<i32> { of.iter().map(|&at| at as i32).collect() };
        let long = |of: &[usize]| -> ScalarBuffer<i64> { of.iter().map(|&at| at as i64).collect() };
        arrays.push(list(Arc::clone(&words), lengths.clone()));
        arrays.push(Arc::new(LargeListArray::new(
            Arc::clone(&field),
            OffsetBuffer::from_lengths(lengths.clone()),
            Arc::clone(&words),
            None,
        )) as ArrayRef);
        arrays.push(Arc::new(ListViewArray::new(
            Arc::clone(&field),
            starts(&offsets),
            starts(&lengths),
            Arc::clone(&words),
            None,
        )));
        arrays.push(Arc::new(LargeListViewArray::new(
            Arc::clone(&field),
            long(&offsets),
            long(&lengths),
            Arc::clone(&words),
            None,
        )));
        // Two elements an item, null where it has fewer.
        let places = lengths.iter().zip(&offsets).flat_map(|(&length, &from)| {
            (0..2).map(move |place| (place < length).then_some((from + place) as i32))
        });
        let padded = take(&words, &places.collect::<Int32Array>(), None).unwrap();
        arrays.push(Arc::new(FixedSizeListArray::new(field, 2, padded, None)));
    }
    arrays
}

#[test]
fn lists_of_every_type_give_the_same_categories() {
    let mut written = 0;
    for genres in genres_of_every_type() {
        let kind = genres.data_type().clone();
        let shop = Shop::new().item("genres", genres);
        let prepared = shop.prepare();
        assert_eq!(prepared.names("genre"), ["Coffee Beans", "Tea"], "{kind}");
        assert_eq!(prepared.int32s("items", "genre"), [0, 1, 1, -1], "{kind}");
        assert_eq!(
            prepared.names("genres"),
            ["\"Coffee Beans\" Tea", "Tea"],
            "{kind}"
        );
        assert_eq!(prepared.int32s("items", "genres"), [0, 1, 0, -1], "{kind}");
        written += 1;
    }
    assert_eq!(written, 30);
}

#[test]
fn texts_of_every_type_are_one() {
    let cities = texts(&[Some("Ulm"), Some("Bonn"), None, Some("Ulm")]);
    let dictionary = |key: DataType| DataType::Dictionary(key.into(), DataType::Utf8.into());
    for kind in [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        dictionary(DataType::Int8),
        dictionary(DataType::UInt32),
        dictionary(DataType::Int64),
    ] {
        let prepared = Shop::new()
            .user("city", cast(&cities, &kind).unwrap())
            .prepare();
        assert_eq!(prepared.names("city"), ["Bonn", "Ulm"], "{kind}");
        assert_eq!(prepared.int32s("users", "city"), [1, 0, -1, 1], "{kind}");
    }
}

#[test]
fn nan_in_a_column_of_numbers_is_missing() {
    let ages: [ArrayRef; 5] = [
        texts(&[Some("nan"), Some("30"), Some("NaN"), Some(" 50.0 ")]),
        texts(&[Some(""), Some("30.0"), None, Some("50")]),
        Arc::new(Float64Array::from(vec![f64::NAN, 30.0, f64::NAN, 50.0])),
        Arc::new(Float32Array::from(vec![None, Some(30.0), None, Some(50.0)])),
        Arc::new(LargeStringArray::from(vec!["nan", "30", "-nan", "50"])),
    ];
    for ages in ages {
        let kind = ages.data_type().clone();
        let prepared = Shop::new().user("age", ages).prepare();
        assert_eq!(prepared.int32s("users", "age"), [40, 30, 40, 50], "{kind}");
    }
    let prices: ArrayRef = Arc::new(StringViewArray::from(vec!["nan", "2", "2.0", "2e0"]));
    let prepared = Shop::new().item("price", prices).prepare();
    assert_eq!(prepared.float32s("items", "price"), [2.0; 4]);
}

#[test]
fn events_of_nobody_are_counted_and_left_out() {
    // The events of user 3, an item, are without one.
    let without = |of: Vec<i64>, id: i64| -> [ArrayRef; 3] {
        let missing = |id_here: &i64| *id_here == id;
        let ints: Int64Array = of
            .iter()
            .map(|id| Some(*id).filter(|id| !missing(id)))
            .collect();
        let floats = of.iter().map(|id| match missing(id) {
            true => f64::NAN,
            false => *id as f64,
        });
        let written = of.iter().map(|id| match missing(id) {
            true => "nan".to_owned(),
            false => format!("{id}.0"),
        });
        [
            Arc::new(ints),
            Arc::new(Float64Array::from_iter_values(floats)),
            Arc::new(StringArray::from_iter_values(written)),
        ]
    };
    for users in without(event_users(), 3) {
        let kind = users.data_type().clone();
        let prepared = Shop::new().event("user_id", users).prepare();
        assert_eq!(
            (prepared.summary.dropped, prepared.events()),
            (6, 18),
            "{kind}"
        );
        let users = prepared.int32s("interactions", "user_id");
        assert!(
            users.iter().all(|user| [1, 2, 4].contains(user)),
            "{users:?}"
        );
    }
    for items in without(event_items(), 20) {
        let prepared = Shop::new().event("item_id", items).prepare();
        assert_eq!((prepared.summary.dropped, prepared.events()), (6, 18));
    }
    // A row of the users must have an id.
    let users: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
    contains(
        &Shop::new().user("user_id", users).error(),
        &["users.parquet, column user_id, row 2", "the id is missing"],
    );
}

#[test]
fn what_is_no_integer_is_refused() {
    let item =
        |third: &str| -> ArrayRef { texts(&[Some("10"), Some("20"), Some(third), Some("40")]) };
    let float =
        |third: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![10.0, 20.0, third, 40.0])) };
    for (ids, value) in [
        (item("5.5"), "\"5.5\""),
        (item("1e1"), "\"1e1\""),
        (item("thirty"), "\"thirty\""),
        (item("inf"), "\"inf\""),
        (item("2147483648"), "\"2147483648\""),
        (float(5.5), "5.5"),
        (float(1e10), "10000000000"),
        (float(f64::INFINITY), "inf"),
        (
            Arc::new(UInt64Array::from(vec![10, 20, u64::MAX, 40])),
            "18446744073709551615",
        ),
        (ints([10, 20, -30, 40]), "-30"),
        (ints([10, 20, (1 << 32) + 30, 40]), "4294967326"),
    ] {
        let parts = [
            "items.parquet, column item_id, row 3",
            value,
            "an id must be 0 to 2147483647",
        ];
        contains(
            &Shop::new().item("item_id", Arc::clone(&ids)).error(),
            &parts,
        );
        // The same ids among the events.
        let places = event_items().into_iter().map(|item| (item / 10 - 1) as i32);
        let of_events = take(&ids, &Int32Array::from_iter_values(places), None).unwrap();
        let parts = [
            "events.parquet, column item_id, row 13",
            value,
            "an id must be 0 to",
        ];
        contains(&Shop::new().event("item_id", of_events).error(), &parts);
    }
    for (ages, value) in [
        (
            Arc::new(Float64Array::from(vec![20.0, 30.5, 1.0, 1.0])) as ArrayRef,
            "30.5",
        ),
        (
            Arc::new(UInt64Array::from(vec![20, u64::MAX, 1, 1])),
            "18446744073709551615",
        ),
        (texts(&[Some("20"), Some("30,5"), None, None]), "\"30,5\""),
        (ints([20, 1 << 40, 1, 1]), "1099511627776"),
    ] {
        let parts = [
            "users.parquet, column age, row 2",
            value,
            "accepted are -2147483648 to 2147483647",
        ];
        contains(&Shop::new().user("age", ages).error(), &parts);
    }
    let devices = Float64Array::from_iter_values((0..EVENTS).map(|event| event as f64 / 2.0));
    contains(
        &Shop::new().event("device_type", Arc::new(devices)).error(),
        &["events.parquet, column device_type, row 2", "0.5"],
    );
    contains(
        &Shop::new().define("default = 40", "default = 40.5").error(),
        &["user.columns.age.default = 40.5", "an integer of 32 bits"],
    );
}

#[test]
fn values_that_stand_for_none_are_missing_in_the_context_too() {
    let prepared = Shop::new().prepare();
    let devices = prepared.int32s("interactions", "device_type");
    assert!(devices.contains(&1) && devices.contains(&-1) && !devices.contains(&0));
}

#[test]
fn what_is_not_finite_is_refused() {
    let float =
        |third: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![1.0, 2.0, third, 8.0])) };
    for (prices, value) in [
        (float(f64::INFINITY), "inf"),
        (float(f64::NEG_INFINITY), "-inf"),
        (float(1e39), "exceeds the numbers of 32 bits"),
        (
            Arc::new(Float32Array::from(vec![1.0, 2.0, f32::INFINITY, 8.0])),
            "inf",
        ),
        (
            texts(&[Some("1"), Some("2"), Some("inf"), Some("8")]),
            "\"inf\"",
        ),
        (
            texts(&[Some("1"), Some("2"), Some("1e999"), Some("8")]),
            "\"1e999\"",
        ),
    ] {
        let parts = ["items.parquet, column price, row 3", value, "accepted are"];
        contains(&Shop::new().item("price", prices).error(), &parts);
    }
    let mut ratings = vec![4.0; EVENTS];
    ratings[4] = f64::INFINITY;
    contains(
        &Shop::new()
            .event("rating", Arc::new(Float64Array::from(ratings)))
            .error(),
        &["events.parquet, column rating, row 5", "inf is not finite"],
    );
    // What stands for no value may be named.
    let shop = Shop::new()
        .item("price", float(f64::INFINITY))
        .define("default = \"mean\"", "default = 3, empty = [\"inf\"]");
    assert_eq!(
        shop.prepare().float32s("items", "price"),
        [1.0, 2.0, 3.0, 8.0]
    );
}

#[test]
fn vectors_of_a_file_are_finite() {
    let shop = Shop::new().define(
        "[item]",
        "[[item.embeddings]]\nname = \"vectors\"\ndim = 2\nsource = { from = \"file\", path = \"vectors.npy\" }\n\n[item]",
    );
    let prepare = |number: f32| {
        let folder = tempfile::tempdir().unwrap();
        shop.write(folder.path());
        let vectors = ndarray::arr2(&[[1.0, 0.5], [2.0, 0.5], [3.0, number], [4.0, 0.5]]);
        ndarray_npy::write_npy(folder.path().join("vectors.npy"), &vectors).unwrap();
        shop.prepare_in(folder)
            .map_err(|error| format!("{error:#}"))
    };
    assert!(prepare(0.5).is_ok());
    for number in [f32::NAN, f32::INFINITY] {
        let error = prepare(number).err().unwrap();
        contains(&error, &["vectors.npy, row 3", "is not finite"]);
    }
}

/// Columns of types that hold no value of ours.
fn unreadable(rows: usize) -> [(&'static str, ArrayRef); 3] {
    let all = |array: ArrayRef| -> ArrayRef {
        let arrays: Vec<&dyn Array> = std::iter::repeat_n(array.as_ref(), rows).collect();
        concat(&arrays).unwrap()
    };
    let field = Arc::new(Field::new("street", DataType::Int32, true));
    let address = StructArray::from(
        vec![(field, ints([1]))]
            .into_iter()
            .map(|(field, array)| (field, cast(&array, &DataType::Int32).unwrap()))
            .collect::<Vec<_>>(),
    );
    let mut attributes = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    attributes.keys().append_value("colour");
    attributes.values().append_value("red");
    attributes.append(true).unwrap();
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![0.5, f32::INFINITY]));
    let vector = list(floats, vec![2]);
    [
        ("address", all(Arc::new(address))),
        ("attributes", all(Arc::new(attributes.finish()))),
        ("vector", all(vector)),
    ]
}

#[test]
fn only_named_columns_are_read() {
    let mut shop = Shop::new();
    for (name, column) in unreadable(4) {
        shop = shop.user(name, Arc::clone(&column)).item(name, column);
    }
    for (name, column) in unreadable(EVENTS) {
        shop = shop.event(name, column);
    }
    assert_eq!(shop.prepare().events(), EVENTS);
    for (column, parts) in [
        ("address", ["column address", "Struct"]),
        ("attributes", ["column attributes", "Map"]),
        ("vector", ["column vector, row 1", "a list of 2 elements"]),
    ] {
        let named = format!("name = \"age\", source = \"{column}\"");
        let shop = Shop {
            definition: DEFINITION.replacen("name = \"age\"", &named, 1),
            users: shop.users.clone(),
            items: shop.items.clone(),
            events: shop.events.clone(),
        };
        contains(&shop.error(), &parts);
    }
}

#[test]
fn times_are_read_in_their_unit() {
    let times = event_times();
    let text = |format: &dyn Fn(&i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(times.iter().map(format)))
    };
    let iso = |zone: &str| {
        let zone = zone.to_owned();
        move |time: &i64| {
            let time = chrono::DateTime::from_timestamp(*time, 0).unwrap();
            format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S"))
        }
    };
    let scaled = |by: i64| ints(times.iter().map(move |time| time * by + by / 2));
    let cases: [(&str, ArrayRef); 8] = [
        ("s", ints(times.clone())),
        ("ms", scaled(1_000)),
        ("us", scaled(1_000_000)),
        ("ns", scaled(1_000_000_000)),
        ("ms", text(&|time| (time * 1000).to_string())),
        ("s", text(&iso("Z"))),
        ("s", text(&iso(".5"))),
        // A timestamp has a unit of its own.
        (
            "s",
            Arc::new(TimestampMillisecondArray::from_iter_values(
                times.iter().map(|time| time * 1000),
            )),
        ),
    ];
    let expected = Shop::new().prepare().int32s("interactions", "timestamp");
    for (unit, column) in cases {
        let kind = column.data_type().clone();
        let shop = Shop::new().event("timestamp", column).define(
            "rating = \"rating\"",
            &format!("rating = \"rating\", unit = \"{unit}\""),
        );
        let read = shop.prepare().int32s("interactions", "timestamp");
        assert_eq!(read, expected, "{kind} in {unit}");
    }
    contains(
        &Shop::new().event("timestamp", scaled(1_000)).error(),
        &[
            "events.parquet, column timestamp, row 1",
            "1700000000500",
            "data.interactions.unit = \"ms\"",
        ],
    );
    contains(
        &Shop::new()
            .define("rating = \"rating\"", "rating = \"rating\", unit = \"h\"")
            .error(),
        &["unit", "`h`", "`ms`"],
    );
}

#[test]
fn what_visitors_did_keeps_its_own_unit() {
    let times = ints(event_times().into_iter().map(|time| time * 1000));
    let kinds = vec![Some("view"); EVENTS];
    let shop = Shop::new()
        .event("timestamp", times)
        .event("rating", texts(&kinds))
        .define(
            "rating = \"rating\"",
            "rating = \"rating\", ratings = { view = 1 }, unit = \"ms\"",
        );
    let prepared = shop.prepare();
    let pipeline = Pipeline::load(&prepared.folder.path().join("pipeline.toml")).unwrap();
    // An event of user 1 with item 40, as the updater writes it.
    let time = TimestampMicrosecondArray::from(vec![1_800_000_000_750_000]);
    let live = table::table(vec![
        ("user_id", table::int32(vec![1])),
        ("item_id", table::int32(vec![40])),
        ("event_type", table::text(vec!["view".to_owned()])),
        ("device_type", table::int32(vec![1])),
        ("event_timestamp", Arc::new(time.with_timezone("UTC"))),
    ]);
    let store = saker_offline::OfflineStore::open(&prepared.layout.offline().display().to_string());
    store
        .unwrap()
        .append("events", "live", &live.unwrap())
        .unwrap();
    let layout = &prepared.layout;
    let summary = prepare::encode_again(&pipeline, layout, Settings::default()).unwrap();
    assert_eq!(summary.events.iter().sum::<usize>(), EVENTS + 1);
    let read = prepared.int32s("interactions", "timestamp");
    let mut expected = event_times()
        .into_iter()
        .map(|time| time as i32)
        .collect::<Vec<_>>();
    expected.push(1_800_000_000);
    let mut sorted = read;
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
}

#[test]
fn an_event_without_a_rating_counts_what_the_definition_says() {
    let ratings: [ArrayRef; 3] = [
        Arc::new(Int64Array::from_iter(
            (0..EVENTS as i64).map(|event| (event % 4 != 0).then_some(4)),
        )),
        Arc::new(Float64Array::from_iter_values(
            (0..EVENTS).map(|event| if event % 4 != 0 { 4.0 } else { f64::NAN }),
        )),
        Arc::new(StringArray::from_iter_values(
            (0..EVENTS).map(|event| if event % 4 != 0 { "4" } else { "" }),
        )),
    ];
    for ratings in ratings {
        let kind = ratings.data_type().clone();
        let prepared = Shop::new().event("rating", Arc::clone(&ratings)).prepare();
        assert_eq!(
            (prepared.summary.unrated, prepared.events()),
            (6, 18),
            "{kind}"
        );
        assert_eq!(
            prepared.float32s("interactions", "rating"),
            [4.0; 18],
            "{kind}"
        );
        let shop = Shop::new().event("rating", ratings);
        let shop = shop.define(
            "rating = \"rating\"",
            "rating = \"rating\", missing_rating = 2.5",
        );
        let prepared = shop.prepare();
        assert_eq!(
            (prepared.summary.unrated, prepared.events()),
            (0, 24),
            "{kind}"
        );
        let counted = prepared.float32s("interactions", "rating");
        assert_eq!(
            counted.iter().filter(|rating| **rating == 2.5).count(),
            6,
            "{kind}"
        );
    }
    let kinds = StringArray::from_iter(
        (0..EVENTS).map(|event| ["view", "scroll", ""].get(event % 4).copied()),
    );
    let of_kinds = |more: &str| {
        let keys = format!("rating = \"rating\", ratings = {{ view = 1 }}{more}");
        let shop = Shop::new().event("rating", Arc::new(kinds.clone()));
        shop.define("rating = \"rating\"", &keys).prepare()
    };
    let prepared = of_kinds("");
    assert_eq!((prepared.summary.unrated, prepared.events()), (12, 6));
    let prepared = of_kinds(", missing_rating = 3");
    assert_eq!((prepared.summary.unrated, prepared.events()), (0, 18));
    contains(
        &Shop::new()
            .define("rating = \"rating\"", "missing_rating = 1")
            .error(),
        &["data.interactions.missing_rating = 1", "beside rating"],
    );
}

#[test]
fn booleans_are_zero_and_one() {
    let ages: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true, false]));
    let prepared = Shop::new().user("age", ages).prepare();
    assert_eq!(prepared.int32s("users", "age"), [1, 0, 1, 0]);
}

/// Writes a table as Hive does: `of` is the name of a folder for each row; its files hold the rest.
fn partitioned(folder: &Path, columns: &Columns, of: &dyn Fn(usize) -> String) {
    let rows = columns.values().next().unwrap().len();
    let mut parts: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for row in 0..rows {
        parts.entry(of(row)).or_default().push(row as i32);
    }
    for (name, rows) in parts {
        let rows = Int32Array::from(rows);
        let part = columns
            .iter()
            .map(|(name, array)| (*name, take(array, &rows, None).unwrap()));
        write(&folder.join(name).join("part-0.parquet"), &part.collect());
    }
    fs::write(folder.join("_SUCCESS"), "").unwrap();
    fs::create_dir_all(folder.join("_temporary/day=9")).unwrap();
    fs::write(folder.join("_temporary/day=9/part-0.parquet"), "half").unwrap();
}

#[test]
fn hive_partitions_and_part_files_are_read() {
    let expected = Shop::new().prepare();
    let mut shop = Shop::new()
        .define("users.parquet", "users")
        .define("items.parquet", "items")
        .define("events.parquet", "events");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    // The city and the device are in the names of the folders alone.
    shop.users.remove("city").unwrap();
    shop.events.remove("device_type").unwrap();
    let cities = ["Ulm", "Bonn", "__HIVE_DEFAULT_PARTITION__", "Ulm"];
    partitioned(&root.join("users"), &shop.users, &|row| {
        format!("city={}", cities[row])
    });
    partitioned(&root.join("items"), &shop.items, &|row| {
        format!("part={row}")
    });
    partitioned(&root.join("events"), &shop.events, &|row| {
        // As Hive escapes names, and as it does not.
        let day = ["a%2Fb 50%25", "Köln, [2]", "#3?"][row / 10];
        format!("day={day}/device_type={}", row % 2)
    });
    let fingerprint = |root: &Path| {
        let path = root.join("pipeline.toml");
        fs::write(&path, &shop.definition).unwrap();
        prepare::fingerprint(&Pipeline::load(&path).unwrap(), CODE).unwrap()
    };
    let before = fingerprint(root);
    assert_eq!(before, fingerprint(root));
    fs::rename(root.join("users/city=Bonn"), root.join("users/city=Köln")).unwrap();
    assert_ne!(before, fingerprint(root), "a folder's name is a value");
    fs::rename(root.join("users/city=Köln"), root.join("users/city=Bonn")).unwrap();

    let prepared = shop.prepare_in(folder).unwrap();
    assert_eq!(prepared.summary, expected.summary);
    assert_eq!(prepared.names("city"), expected.names("city"));
    for (of, column) in [
        ("users", "city"),
        ("users", "age"),
        ("items", "genres"),
        ("interactions", "user_id"),
        ("interactions", "timestamp"),
        ("interactions", "device_type"),
    ] {
        assert_eq!(
            prepared.int32s(of, column),
            expected.int32s(of, column),
            "{column}"
        );
    }
}

#[test]
fn errors_of_folders_name_the_file() {
    let shop = Shop::new()
        .define("users.parquet", "users")
        .define("events.parquet", "events/day=*");
    let failed = |change: &dyn Fn(&Path), parts: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("items.parquet"), &shop.items);
        partitioned(&root.join("users"), &shop.users, &|row| {
            format!("shard={}", row % 2)
        });
        partitioned(&root.join("events"), &shop.events, &|row| {
            format!("day={}", row % 3)
        });
        change(root);
        let error = shop.prepare_in(folder).err().expect("an error");
        contains(&format!("{error:#}"), parts);
    };
    let part = |root: &Path, path: &str, column: &'static str, values: ArrayRef| {
        let path = root.join(path);
        let table = table::read(&path).unwrap();
        let mut columns: BTreeMap<String, ArrayRef> = BTreeMap::new();
        for (field, array) in table.schema().fields().iter().zip(table.columns()) {
            columns.insert(field.name().clone(), Arc::clone(array));
        }
        columns.insert(column.to_owned(), values);
        let columns = columns
            .iter()
            .map(|(name, array)| (name.as_str(), Arc::clone(array)));
        table::write(&path, &table::table(columns.collect()).unwrap()).unwrap();
    };
    failed(
        &|root| {
            part(
                root,
                "users/shard=1/part-0.parquet",
                "age",
                ints([1, 1 << 40]),
            )
        },
        &["shard=1/part-0.parquet, column age, row 2", "1099511627776"],
    );
    failed(
        &|root| {
            part(
                root,
                "users/shard=1/part-0.parquet",
                "user_id",
                ints([2, 1]),
            )
        },
        &[
            "user_id 1 is in",
            "shard=0/part-0.parquet, row 1",
            "shard=1/part-0.parquet, row 2",
        ],
    );
    failed(
        &|root| {
            part(
                root,
                "events/day=2/part-0.parquet",
                "item_id",
                ints([5 << 40; 8]),
            )
        },
        &["day=2/part-0.parquet, column item_id, row 1"],
    );
    failed(
        &|root| fs::remove_dir_all(root.join("events")).unwrap(),
        &["events is missing", "data.interactions.path"],
    );
    failed(
        &|root| {
            fs::remove_dir_all(root.join("users")).unwrap();
            fs::create_dir_all(root.join("users/archive")).unwrap();
        },
        &[
            "users holds no file called *.parquet",
            "Hive",
            "data.users.path",
        ],
    );
    failed(
        &|root| fs::remove_file(root.join("items.parquet")).unwrap(),
        &["items.parquet is missing", "data.items.path"],
    );
}

const ATOMIC: &str = "item_id:token\ttitle:token_seq\tprice:float\tgenres:token_seq\n\
    10\tCafé\t1\tCoffee Tea\n20\tMüsli\t2\tTea\n30\tTea\t4\tTea Coffee\n40\tNothing\t\t\n";

/// The same shop in atomic files, of which that of the items holds these bytes.
fn atomic(definition: &str, items: &[u8]) -> Result<Prepared, String> {
    let folder = tempfile::tempdir().unwrap();
    let mut events =
        "user_id:token\titem_id:token\ttimestamp:float\trating:float\tdevice_type:token\n"
            .to_owned();
    for (event, user) in event_users().into_iter().enumerate() {
        let (item, time) = (event_items()[event], event_times()[event]);
        events += &format!("{user}\t{item}\t{time}\t4\t{}\n", event % 2);
    }
    let users =
        "user_id:token\tage:token\tcity:token\n1\t20\tUlm\n2\t30\tBonn\n3\t40\t\n4\t50\tUlm\n";
    fs::write(folder.path().join("users.parquet"), users).unwrap();
    fs::write(folder.path().join("events.parquet"), events).unwrap();
    fs::write(folder.path().join("items.parquet"), items).unwrap();
    let shop = Shop::new()
        .define("format = \"parquet\"", definition)
        .define("columns = [\n    { name = \"price\"", "title = \"title\"\ncolumns = [\n    { name = \"title\", type = \"text\" },\n    { name = \"price\"");
    shop.prepare_in(folder)
        .map_err(|error| format!("{error:#}"))
}

fn titles(prepared: &Prepared) -> Vec<String> {
    let items = table::read(&prepared.layout.data("items")).unwrap();
    let titles = table::texts(&items, "title").unwrap();
    titles.iter().flatten().map(str::to_owned).collect()
}

const UTF8: &str = "format = \"atomic\"";
const LATIN1: &str = "format = \"atomic\"\nencoding = \"latin1\"";

#[test]
fn bytes_are_read_in_the_encoding_of_the_definition() {
    let latin1: Vec<u8> = ATOMIC
        .chars()
        .map(|letter| u8::try_from(letter).unwrap())
        .collect();
    let expected = ["Café", "Müsli", "Tea", "Nothing"];
    assert_eq!(titles(&atomic(UTF8, ATOMIC.as_bytes()).unwrap()), expected);
    assert_eq!(titles(&atomic(LATIN1, &latin1).unwrap()), expected);
    contains(
        &atomic(UTF8, &latin1).err().unwrap(),
        &[
            "items.parquet, line 2, byte 7",
            "0xE9",
            "encoding = \"latin1\"",
        ],
    );
    let mut windows = latin1;
    let last = windows.iter().rposition(|byte| *byte == b'N').unwrap();
    windows[last] = 0x80;
    contains(
        &atomic(LATIN1, &windows).err().unwrap(),
        &["items.parquet, line 5, byte 4", "0x80", "ISO 8859-1"],
    );
    let shop = Shop::new().define(
        "format = \"parquet\"",
        "format = \"parquet\"\nencoding = \"latin1\"",
    );
    contains(&shop.error(), &["data.encoding", "format = \"parquet\""]);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_header() {
    let marked = format!("\u{FEFF}{ATOMIC}").replace('\n', "\r\n");
    let prepared = atomic(UTF8, marked.as_bytes()).unwrap();
    assert_eq!(prepared.int32s("items", "item_id"), [10, 20, 30, 40]);
    assert_eq!(prepared.names("genres"), ["Coffee Tea", "Tea"]);
}

#[test]
fn atomic_rows_have_the_fields_of_the_header() {
    for (row, parts) in [
        (
            "20\tMüsli\tBio\t2\tTea",
            ["line 3: 5 fields", "more than the 4"],
        ),
        (
            "20\tMüsli\t2\tTea\t",
            ["line 3: 5 fields", "more than the 4"],
        ),
        ("20\tMüsli\tTea", ["line 3: 3 fields", "fewer than the 4"]),
    ] {
        let items = ATOMIC.replacen("20\tMüsli\t2\tTea", row, 1);
        contains(&atomic(UTF8, items.as_bytes()).err().unwrap(), &parts);
    }
    for (from, to, parts) in [
        (
            "title:token_seq",
            "title:token_seq\tprice:float",
            ["2 columns called price", "items.parquet"],
        ),
        (
            "20\tMüsli",
            "2e1\tMüsli",
            ["column item_id, row 2", "\"2e1\""],
        ),
        ("\t2\tTea", "\tinf\tTea", ["column price, row 2", "\"inf\""]),
        ("\t2\tTea", "\ttwo\tTea", ["column price, row 2", "\"two\""]),
    ] {
        let items = ATOMIC.replacen(from, to, 1);
        contains(&atomic(UTF8, items.as_bytes()).err().unwrap(), &parts);
    }
    // A column that the definition does not name may hold anything.
    let items = ATOMIC.replace("\tgenres:token_seq", "\tgenres:token_seq\tweight:float");
    let items = items
        .replace("Tea\n", "Tea\theavy\n")
        .replace("Coffee\n", "Coffee\theavy\n");
    let items = items.replace("\t\t\n", "\t\t\theavy\n");
    assert_eq!(atomic(UTF8, items.as_bytes()).unwrap().events(), EVENTS);
}
