//! Clients that share memory with the server, and do in it what they like.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use saker_testing::onnx::{FLOAT, Graph, INT64, STRING};
use serde_json::{Value, json};
use triton_testing::server::{ServerError, TritonServer};

use crate::support::{checks::is_clients_fault, config::Config, stage::Stage};

/// Shared memory under a name of its own.
struct Region {
    name: String,
    place: PathBuf,
    file: File,
}

impl Region {
    fn new(server: &TritonServer, bytes: &[u8]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("saker-test-{}-{number}", std::process::id());
        let place = PathBuf::from("/dev/shm").join(&name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&place);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        let region = Self { name, place, file };
        region.file.write_all_at(bytes, 0).unwrap();
        let key = format!("/{}", region.name);
        server.share(&region.name, &key, bytes.len()).unwrap();
        region
    }

    fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    fn parameters(&self, offset: usize, len: usize) -> Value {
        json!({
            "shared_memory_region": self.name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": len,
        })
    }

    fn input(
        &self,
        name: &str,
        data_type: &str,
        shape: &[usize],
        (at, len): (usize, usize),
    ) -> Value {
        let parameters = self.parameters(at, len);
        json!({ "name": name, "datatype": data_type, "shape": shape, "parameters": parameters })
    }

    fn output(&self, name: &str, (at, len): (usize, usize)) -> Value {
        json!({ "name": name, "parameters": self.parameters(at, len) })
    }

    /// Writes the one and the other bytes in turns while `requests` run.
    fn written_while<R>(&self, at: u64, turns: [&[u8]; 2], requests: impl FnOnce() -> R) -> R {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for bytes in turns {
                        self.file.write_all_at(bytes, at).unwrap();
                    }
                }
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(requests));
            over.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.place);
    }
}

/// Asks until both kinds of answers have come, at least `ROUNDS` times.
fn ask(mut request: impl FnMut() -> Result<(), ServerError>) -> Vec<ServerError> {
    const ROUNDS: usize = 300;
    let (mut answered, mut refused) = (0, Vec::new());
    for round in 0.. {
        match request() {
            Ok(()) => answered += 1,
            Err(error) => refused.push(error),
        }
        if round >= ROUNDS && answered > 0 && !refused.is_empty() {
            break;
        }
        assert!(round < 100 * ROUNDS, "{answered} answers; {refused:?}");
    }
    refused
}

const ITEMS: usize = 100_000;

/// `unroll` gives back what belongs to items.
fn unroll(data_type: &str) -> Stage {
    let config = Config::new("unroll")
        .input("user_id", "INT32", &[-1])
        .input("item", data_type, &[-1])
        .output("user_id", "INT32", &[-1])
        .output("item", data_type, &[-1])
        .parameter("ITEM_INPUT", "item");
    Stage::with("unroll", &config, &[])
}

fn user() -> Value {
    json!({ "name": "user_id", "datatype": "INT32", "shape": [1], "data": [7] })
}

#[test]
fn a_bool_that_a_client_keeps_writing_is_true_false_or_refused() {
    let stage = unroll("BOOL");
    let flags = Region::new(&stage.server, &[1; ITEMS]);
    let answer = Region::new(&stage.server, &[0; ITEMS]);
    let request = json!({
        "inputs": [user(), flags.input("item", "BOOL", &[ITEMS], (0, ITEMS))],
        "outputs": [answer.output("item", (0, ITEMS))],
    });
    let ask_once = || {
        stage.server.infer_json("unroll", &request)?;
        let answer = answer.bytes(0, ITEMS);
        assert_eq!(answer.iter().find(|&&flag| flag > 1), None);
        Ok(())
    };
    let refused = flags.written_while(ITEMS as u64 / 2, [&[2], &[0]], || ask(ask_once));
    for error in refused {
        is_clients_fault(&error);
        assert!(error.message.contains("accepted: 0 or 1"), "{error}");
    }
    flags.file.write_all_at(&[1], ITEMS as u64 / 2).unwrap();
    ask_once().unwrap();
    assert_eq!(answer.bytes(0, ITEMS), [1; ITEMS]);
}

fn graph(name: &str, graph: &Graph, config: &Config) -> Stage {
    let stage = Stage::new();
    stage.place(name, config, &[]);
    let place = format!("{name}/1/model.onnx");
    stage.repository.write(&place, &graph.model()).unwrap();
    stage.server.load(name).unwrap();
    stage
}

#[test]
fn a_text_that_a_client_keeps_writing_is_a_text_or_refused() {
    let same = Graph::new()
        .input("x", STRING, &["N"])
        .output("y", STRING, &["N"])
        .node("Identity", &["x"], &["y"], &[]);
    let config = Config::new("onnxruntime")
        .input("x", "STRING", &[-1])
        .output("y", "STRING", &[-1]);
    let stage = graph("same", &same, &config);
    let texts = b"\x03\0\0\0\xe2\x82\xac".repeat(1000);
    let region = Region::new(&stage.server, &texts);
    let request = json!({
        "inputs": [region.input("x", "BYTES", &[1000], (0, texts.len()))],
    });
    let ask_once = || {
        let answer = stage.server.infer_json("same", &request)?;
        assert_eq!(answer["outputs"][0]["data"], json!(["€"; 1000][..]));
        Ok(())
    };
    // A length beyond the tensor, then a text that is not UTF-8.
    for (at, turns) in [
        (3500, [&b"\xff\xff\xff\xff"[..], b"\x03\0\0\0"]),
        (3504, [b"\xe2\x82\xff", b"\xe2\x82\xac"]),
    ] {
        let refused = region.written_while(at, turns, || ask(ask_once));
        for error in refused {
            is_clients_fault(&error);
            assert!(error.message.contains("'x'"), "{error}");
        }
        region.file.write_all_at(turns[1], at).unwrap();
        ask_once().unwrap();
    }
}

#[test]
fn a_place_in_a_table_that_a_client_keeps_writing_is_never_read_beyond_the_table() {
    let rows = Graph::new()
        .input("row", INT64, &["N"])
        .output("y", FLOAT, &["N"])
        .floats("table", &[2], &[1.0, 1.0])
        .node("Gather", &["table", "row"], &["y"], &[]);
    let config = Config::new("onnxruntime")
        .input("row", "INT64", &[-1])
        .output("y", "FP32", &[-1]);
    let stage = graph("rows", &rows, &config);
    let region = Region::new(&stage.server, &[0; 8 * ITEMS]);
    let answer = Region::new(&stage.server, &[0; 4 * ITEMS]);
    let request = json!({
        "inputs": [region.input("row", "INT64", &[ITEMS], (0, 8 * ITEMS))],
        "outputs": [answer.output("y", (0, 4 * ITEMS))],
    });
    let expected = 1.0f32.to_le_bytes().repeat(ITEMS);
    let ask_once = || {
        stage.server.infer_json("rows", &request)?;
        assert!(
            answer.bytes(0, 4 * ITEMS) == expected,
            "a row that the table does not have"
        );
        Ok(())
    };
    let beyond = (1i64 << 20).to_le_bytes();
    let turns = [&beyond[..], &[0; 8]];
    let refused = region.written_while(4 * ITEMS as u64, turns, || ask(ask_once));
    for error in refused {
        assert_eq!(error.status, 500, "{error}");
        assert!(error.message.contains("out of data bounds"), "{error}");
    }
    assert!(stage.server.is_alive());
}

#[test]
fn an_output_in_the_memory_of_an_input_is_what_it_is_elsewhere() {
    let stage = unroll("INT32");
    let items: Vec<u8> = (0..ITEMS as i32).flat_map(i32::to_le_bytes).collect();
    let len = items.len();
    for at in [0, 4, 5, 64, 4096] {
        let region = Region::new(&stage.server, &[&items[..], &[0; 4096]].concat());
        let request = json!({
            "inputs": [user(), region.input("item", "INT32", &[ITEMS], (0, len))],
            "outputs": [region.output("item", (at, len))],
        });
        stage.server.infer_json("unroll", &request).unwrap();
        assert!(
            region.bytes(at as u64, len) == items,
            "{at} bytes behind the input"
        );
    }
    // An output of another name is written before this input is read.
    let region = Region::new(&stage.server, &items);
    let request = json!({
        "inputs": [user(), region.input("item", "INT32", &[ITEMS], (0, len))],
        "outputs": [region.output("user_id", (0, len)), { "name": "item" }],
    });
    let error = stage.server.infer_json("unroll", &request).unwrap_err();
    is_clients_fault(&error);
    assert!(
        error.message.contains("tensor 'item' overlaps an output"),
        "{error}"
    );
}
