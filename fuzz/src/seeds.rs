//! Inputs to start from, all made by this workspace's own code.

use std::cell::RefCell;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array};
use arrow::record_batch::RecordBatch;
use ndarray::{Array2, ShapeBuilder};
use ndarray_npy::WriteNpyExt;
use saker_pipeline::Pipeline;
use saker_store::events::{Event, Kind};
use saker_store::feast::{EntityId, EntityKeyVersion, Timestamp, Value, entity_key, list};
use saker_store::seen::bitmap::{Geometry, insert};
use saker_train::checkpoint::Checkpoint;
use saker_train::onnx;
use saker_train::ranker::Ranker;
use saker_train::towers::Towers;
use saker_workflow::{Chain, Definition, WORKFLOW_FILE, Workflow};

use crate::gateway::NOW_US;
use crate::{scratch, world};

type Inputs = Vec<Vec<u8>>;

fn texts<const N: usize>(texts: [&str; N]) -> Inputs {
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn good<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn tensors() -> Inputs {
    let strings = |dims: &[u8], elements: &[&str]| {
        let mut bytes = vec![triton_rs_sys::TRITONSERVER_TYPE_BYTES as u8, 0];
        bytes.push(dims.len() as u8);
        bytes.extend(dims);
        for element in elements {
            bytes.extend((element.len() as u32).to_le_bytes());
            bytes.extend(element.as_bytes());
        }
        bytes
    };
    let mut inputs = vec![
        strings(&[2], &["a", "gruß"]),
        strings(&[1, 3], &["", "x", ""]),
        strings(&[0], &[]),
        strings(&[255], &["x"]),
        strings(&[2], &["a"]),
    ];
    // Every type: two elements of up to 8 bytes, whole and cut.
    for kind in 0..15 {
        inputs.push([&[kind, 0, 1, 2][..], &[1; 16]].concat());
        inputs.push([&[kind, 5, 1, 2][..], &[1; 8]].concat());
    }
    inputs
}

pub(crate) fn parameters() -> Inputs {
    texts([
        "TOPK=300\nRATE=0.5\nFLAG=true\nSEED=-7\nNAME=Grüße",
        "TOPK=70000",
        "RATE=nan\nFLAG=yes",
        "OTHER=1",
        "FORCE_CPU_ONLY_INPUT_TENSORS=yes",
    ])
}

pub(crate) fn model_config() -> Inputs {
    texts([
        r#"{"max_batch_size":8,"input":[{"name":"x","data_type":"TYPE_STRING","dims":["-1"]}],"output":[{"name":"y","data_type":"TYPE_FP32","dims":[-1,64]}],"parameters":{"TOPK":{"string_value":"10"}}}"#,
        r#"{"input":[{"name":"x","data_type":"TYPE_INVALID"}]}"#,
        "[]",
    ])
}

pub(crate) fn defaults() -> Inputs {
    texts([
        r#"{"device_type":-1,"timestamp":"now"}"#,
        r#"{"x":1e400}"#,
        "{",
    ])
}

pub(crate) fn release() -> Inputs {
    texts([
        "{\"format\":1,\"release\":\"A\",\"files\":{\"x.bin\":\"00\"}}\0{\"format\":1,\"releases\":{\"1\":\"A\",\"2\":\"B\"}}",
        "{\"format\":2,\"release\":\"A\",\"parameters\":{\"TOPK\":\"7\",\"SEED\":null}}\0{\"format\":1,\"releases\":{\"1\":\"A\"}}",
        "{\"format\":2,\"release\":\"A\"}\0{\"format\":1,\"releases\":{\"2\":\"A\"}}",
        "{\"format\":3,\"release\":\"A\"}\0{\"format\":9,\"releases\":{}}",
    ])
}

pub(crate) fn feast_key() -> Inputs {
    let ids = [
        EntityId::Int32(-7),
        EntityId::Int64(1 << 40),
        EntityId::String("u7".to_owned()),
        EntityId::Bytes(vec![0, 255]),
    ];
    let mut inputs = Inputs::new();
    for version in [EntityKeyVersion::V2, EntityKeyVersion::V3] {
        for id in &ids {
            let one = [("user_id", id.clone())];
            let two = [("shop", EntityId::Int32(2)), ("user_id", id.clone())];
            for key in [
                entity_key(version, "p", &one),
                entity_key(version, "p", &two),
            ] {
                inputs.push([b"p\0", &key[..]].concat());
            }
        }
    }
    inputs
}

pub(crate) fn feast_value() -> Inputs {
    let values = [
        Value::Bytes(vec![1, 2]),
        Value::String("é".to_owned()),
        Value::Int32(i32::MIN),
        Value::Int64(i64::MIN),
        Value::Double(f64::NAN),
        Value::Float(f32::INFINITY),
        Value::Bool(true),
        Value::UnixTimestamp(1_777_636_800),
        Value::StringList(list::String {
            val: vec!["a".to_owned(), String::new()],
        }),
        Value::Int64List(list::Int64 { val: vec![-1, 7] }),
        Value::FloatList(list::Float {
            val: vec![0.5, 1.0],
        }),
        Value::BoolList(list::Bool {
            val: vec![true, false],
        }),
    ];
    let mut inputs: Inputs = values
        .iter()
        .map(|value| Value::to_bytes(Some(value)))
        .collect();
    inputs.push(Timestamp::from_micros(NOW_US).to_bytes());
    inputs
}

pub(crate) fn bitmap() -> Inputs {
    let geometry = good(Geometry::new(10, 0.01));
    let mut stored = geometry.header().to_vec();
    let mut inputs = Inputs::new();
    for item in 0..30_i64 {
        inputs.push([&item.to_le_bytes()[..], &stored].concat());
        for bit in good(insert(Some(&stored), geometry, &[item])).bits {
            let byte = (bit / 8) as usize;
            stored.resize(stored.len().max(byte + 1), 0);
            stored[byte] |= 0x80 >> (bit % 8);
        }
    }
    inputs
}

pub(crate) fn event() -> Inputs {
    let event = Event {
        id: "e-1".to_owned(),
        user: -7,
        item: 42,
        kind: Kind::Cart,
        time_us: NOW_US,
        device_type: Some(2),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
    };
    let lines = |event: &Event| {
        let fields = event.fields();
        let lines: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.join("\n").into_bytes()
    };
    let without = Event {
        device_type: None,
        traceparent: None,
        ..event.clone()
    };
    vec![lines(&event), lines(&without)]
}

pub(crate) fn store_url() -> Inputs {
    texts([
        "127.0.0.1:6379/3",
        "[::1]:6379",
        "a:1,b:2,c",
        "shop.example",
        "host:99999/x#insecure",
    ])
}

pub(crate) fn gateway_query() -> Inputs {
    texts([
        "k=10&user=42&device=tablet",
        "k=100&device=1",
        "k=101",
        "user=%F0%9F%98%80&user=1",
        "q=1",
    ])
}

pub(crate) fn gateway_events() -> Inputs {
    texts([
        r#"{"event_id":"é","user_id":-1,"item_id":7,"type":"view","timestamp":1700000000.25,"device_type":"tablet"}"#,
        r#"[{"user_id":1,"item_id":7.0,"type":"cart"},{"user_id":2,"item_id":7,"type":"purchase","device_type":0}]"#,
        r#"{"user_id":1,"item_id":8,"type":"wish"}"#,
        "[[]]",
    ])
}

pub(crate) fn pipeline() -> Inputs {
    let definitions = [
        include_str!("../../examples/retail/pipeline.toml"),
        include_str!("../../examples/movielens/pipeline.toml"),
    ];
    let mut inputs = texts(definitions);
    for text in definitions {
        let read = good(Pipeline::parse(text));
        inputs.push(good(toml::to_string(&read)).into_bytes());
    }
    inputs
}

pub(crate) fn workflow() -> Inputs {
    let operators = [
        r#"[{"op":"FillMissing","value":0.0},{"op":"Normalize"}]"#,
        r#"[{"op":"LogOp"},{"op":"Clip","min":0.0,"max":3.0}]"#,
        r#"[{"op":"Bucketize","boundaries":[1.5,3.0]}]"#,
        r#"[{"op":"LambdaOp","function":"sine","period":24.0}]"#,
    ];
    let column: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0, 4.0]));
    let batch = good(RecordBatch::try_from_iter([("x", column)]));
    let mut inputs = Inputs::new();
    for operators in operators {
        let Ok(operators) = serde_json::from_str(operators) else {
            panic!("{operators}");
        };
        let chain = Chain::feature("y", "x", operators);
        let fitted = Workflow::fit(Definition::new(vec![chain]), std::slice::from_ref(&batch));
        let folder = scratch("seed");
        good(good(fitted).save(&folder));
        inputs.push(good(std::fs::read(folder.join(WORKFLOW_FILE))));
    }
    inputs
}

pub(crate) fn npy() -> Inputs {
    let write = |array: Array2<f32>| {
        let mut bytes = Cursor::new(Vec::new());
        good(array.write_npy(&mut bytes));
        bytes.into_inner()
    };
    let mut doubles = Cursor::new(Vec::new());
    good(Array2::<f64>::zeros((1, 2)).write_npy(&mut doubles));
    vec![
        write(Array2::from_elem((3, 2), 1.5)),
        write(Array2::zeros((2, 3).f())),
        write(Array2::zeros((0, 4))),
        doubles.into_inner(),
    ]
}

thread_local! {
    static RANKER: RefCell<Option<Ranker>> = const { RefCell::new(None) };
}

/// A small ranker, not trained.
pub(crate) fn ranker() -> Ranker {
    RANKER.with_borrow_mut(|ranker| {
        let new = || Ranker::new(&world::sizes().1, &world::dataset(), 1);
        ranker.get_or_insert_with(new).clone()
    })
}

fn towers() -> Towers {
    Towers::new(&world::sizes().0, &world::dataset(), 1)
}

pub(crate) fn safetensors() -> Inputs {
    let path = scratch("seed.safetensors");
    good(ranker().save(&path));
    let of_ranker = good(std::fs::read(&path));
    good(towers().save(&path));
    vec![of_ranker, good(std::fs::read(&path))]
}

pub(crate) fn onnx() -> Inputs {
    let ranker = onnx::ranker(&ranker());
    let mut released = ranker.clone();
    onnx::set_release(&mut released, "r-1");
    vec![ranker, released, onnx::tower(&towers().query, "query")]
}
