//! What Triton hands to a backend: tensors, configs, parameters, releases; through the SDK's own entry points.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Deserialize;
use triton_backend::{
    Batch, DataType, Error, Instance, Model, ModelConfig, ModelContext, Signature, Tensor,
    entry_points,
};
use triton_testing::fake::{Config, Failure, Input, Request, Server};

use crate::store::cut;
use crate::{file, scratch};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct Parameters {
    #[serde(default)]
    topk: u16,
    #[serde(default)]
    rate: f32,
    #[serde(default)]
    flag: bool,
    seed: Option<i64>,
    #[serde(default)]
    name: String,
}

struct Reader;
struct Worker;

thread_local! {
    static READ: RefCell<Option<Result<Vec<Vec<u8>>, String>>> = const { RefCell::new(None) };
    static PARAMETERS: RefCell<Option<Parameters>> = const { RefCell::new(None) };
}

impl Model for Reader {
    type Parameters = Parameters;
    type Instance = Worker;

    fn signature(_: &Parameters) -> Signature {
        Signature::any()
    }

    fn load(_: &Arc<ModelContext>, parameters: Parameters) -> Result<Self, Error> {
        PARAMETERS.set(Some(parameters));
        Ok(Self)
    }

    fn instance(self: &Arc<Self>) -> Result<Worker, Error> {
        Ok(Worker)
    }
}

impl Instance<Reader> for Worker {
    fn execute(&mut self, _: &Reader, batch: &Batch<'_>) -> Result<(), Error> {
        batch.respond_each(|request, _| {
            let read = request.input("x").and_then(elements);
            READ.set(Some(match &read {
                Ok(elements) => Ok(elements.clone()),
                Err(error) => Err(error.message().to_owned()),
            }));
            read.map(drop)
        });
        Ok(())
    }
}

/// The bytes of each element.
fn elements(tensor: Tensor<'_>) -> Result<Vec<Vec<u8>>, Error> {
    macro_rules! numbers {
        ($($variant:ident: $type:ty),*) => {
            match tensor.data_type() {
                $(DataType::$variant => tensor
                    .as_slice::<$type>()?
                    .iter()
                    .map(|number| number.to_ne_bytes().to_vec())
                    .collect(),)*
                DataType::Bool => tensor
                    .as_slice::<bool>()?
                    .iter()
                    .map(|bit| vec![u8::from(*bit)])
                    .collect(),
                DataType::Bytes => tensor.strings()?.iter().map(<[u8]>::to_vec).collect(),
                _ => tensor.raw()?.chunks(2).map(<[u8]>::to_vec).collect(),
            }
        };
    }
    let elements: Vec<Vec<u8>> = numbers!(
        Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64,
        Int8: i8, Int16: i16, Int32: i32, Int64: i64, Fp32: f32, Fp64: f64
    );
    if elements.len() != tensor.len() {
        return Err(Error::internal(format!(
            "{} of {} elements",
            elements.len(),
            tensor.len()
        )));
    }
    Ok(elements)
}

fn server() -> Server {
    Server::start("reader", entry_points::<Reader>())
        .unwrap_or_else(|failure| panic!("{failure:?}"))
}

/// A tensor: its type, where its buffers are cut, its dimensions and bytes. What is read is what was sent.
pub(crate) fn tensors(data: &[u8]) {
    let [kind, cut, dims, rest @ ..] = data else {
        return;
    };
    let kind = u32::from(kind % 15);
    let (dims, bytes) = rest.split_at(usize::from(dims % 4).min(rest.len()));
    // A dimension of 255 is a client's word that its bytes cannot keep.
    let shape: Vec<i64> = dims
        .iter()
        .map(|dim| match dim {
            255 => 1 << 40,
            254 => -1,
            dim => i64::from(*dim),
        })
        .collect();
    let mut input = Input::raw("x", kind, &shape, bytes.to_vec());
    if cut % 4 != 0 && !bytes.is_empty() {
        input = input.split(&[usize::from(*cut) % bytes.len()]);
    }
    if cut % 8 > 3 {
        input = input.unaligned();
    }
    let server = server();
    let config = Config::new().input("x", "TYPE_STRING", &[-1]);
    let model = server.load("m", config);
    let model = model.unwrap_or_else(|failure| panic!("{failure:?}"));
    READ.set(None);
    let report = model.execute([Request::new().input(input)]);
    match report.answer(0) {
        Ok(_) => {
            let read = READ.take().and_then(Result::ok);
            let read = read.unwrap_or_else(|| panic!("an answer without its elements"));
            let sent = match kind == triton_rs_sys::TRITONSERVER_TYPE_BYTES {
                true => read
                    .iter()
                    .flat_map(|element| {
                        [&(element.len() as u32).to_le_bytes()[..], element].concat()
                    })
                    .collect(),
                false => read.concat(),
            };
            assert_eq!(sent, bytes);
        }
        Err(failure) => names(failure, "'x'"),
    }
}

fn names(failure: &Failure, what: &str) {
    let message = &failure.message;
    assert!(message.contains(what), "{message}");
    assert!(!message.contains("panic"), "{message}");
}

/// Parameters, a line `KEY=VALUE` each: an error names the key; texts come as they are.
pub(crate) fn parameters(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let pairs: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let config = pairs.iter().fold(Config::new(), |config, (key, value)| {
        config.parameter(key, value)
    });
    PARAMETERS.set(None);
    let server = server();
    match server.load("m", config) {
        Ok(_) => {
            let read = PARAMETERS.take();
            let read = read.unwrap_or_else(|| panic!("a model without parameters"));
            let last = |key| pairs.iter().rev().find(|pair| pair.0 == key);
            let text = |key| last(key).map(|pair| pair.1);
            assert_eq!(read.name, text("NAME").unwrap_or_default());
            assert_eq!(read.seed.is_some(), text("SEED").is_some());
            assert!(read.topk == 0 || text("TOPK").is_some());
            assert!(!read.flag || text("FLAG").is_some());
            assert!(read.rate == 0.0 || text("RATE").is_some());
        }
        Err(failure) => {
            let message = &failure.message;
            let named = pairs
                .iter()
                // A message is a C string.
                .any(|(key, _)| message.contains(&format!("'{}'", key.replace('\0', " "))));
            assert!(named && message.contains("accepted"), "{message}");
        }
    }
}

/// A model's config as JSON.
pub(crate) fn model_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = ModelConfig::from_json(text) else {
        return;
    };
    for (place, tensor) in config.inputs().iter().enumerate() {
        assert!(config.input(&tensor.name).is_ok());
        assert!(config.input_index(&tensor.name) <= Some(place));
    }
}

/// The parameter `DEFAULTS`.
pub(crate) fn defaults(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(error) = saker_steps::defaults::parse("DEFAULTS", Some(text))
    {
        assert!(error.message().contains("accepted"), "{error}");
    }
}

/// `release.json`, a 0, `releases.json`: a version that is served is one that both know by the same id.
pub(crate) fn release(data: &[u8]) {
    let (own, index) = cut(data);
    file("repository/m/1/release.json", own);
    let path = file("repository/releases.json", index);
    let folder = scratch("repository/m");
    let server = server();
    match server.load_from("m", 1, &folder, Config::new()) {
        Ok(_) => {
            let id = |bytes: &[u8], place: &str| {
                let json: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                json.pointer(place)?.as_str().map(str::to_owned)
            };
            let (own, listed) = (id(own, "/release"), id(index, "/releases/1"));
            assert!(own.is_some() && own == listed, "{own:?} {listed:?}");
        }
        Err(failure) => {
            let message = &failure.message;
            assert!(
                message.contains("release") || message.contains("parameter"),
                "{message}"
            );
        }
    }
    let _ = std::fs::remove_file(path);
}
