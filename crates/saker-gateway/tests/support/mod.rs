//! A stub of Triton with answers that a test sets, and a gateway in front of it. tests/server/gateway.rs tests the gateway with a real
//! Triton.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response};
use axum::serve::ListenerExt;
use http_body::Frame;
use prost::Message;
use saker_gateway::catalogue::{Column, Item};
use saker_gateway::{DisplayCatalogue, Gateway, Operation, Settings};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use triton_client::grpc::messages::{
    InferTensor, ModelInferRequest, ModelInferResponse, ModelStatisticsResponse, ReadyResponse,
};

/// How the stub answers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mode {
    /// Answers with ten items.
    #[default]
    Answer,
    /// Answers with an error.
    Refuse,
    /// Answers `UNAVAILABLE`, and reports no model as ready.
    Unavailable,
    /// Answers that the model does not exist.
    Missing,
    /// Answers `UNAVAILABLE` because its queue is full.
    Full,
    /// Answers with bytes that are not a valid message.
    Garbage,
}

/// The requests that the stub received, and its answers.
#[derive(Default)]
pub(crate) struct Stub {
    pub(crate) mode: Mutex<Mode>,
    pub(crate) delay_us: AtomicU64,
    pub(crate) asked: AtomicUsize,
    /// Headers and message of the latest request.
    pub(crate) latest: Mutex<Option<(HeaderMap, ModelInferRequest)>>,
}

impl Stub {
    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_us
            .store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A gRPC answer: one message, then the status among the trailers.
fn grpc(message: &[u8], status: &'static str) -> Response<Body> {
    struct Answer(Vec<Frame<Bytes>>);
    impl http_body::Body for Answer {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready(self.0.pop().map(Ok))
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let mut frames = vec![Frame::trailers(trailers)];
    if status == "0" {
        frames.push(Frame::data(framed.into()));
    }
    let mut response = Response::new(Body::new(Answer(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

async fn call(
    State(stub): State<Arc<Stub>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    match method.as_str() {
        "ModelReady" | "ServerReady" => {
            let mode = *stub.mode.lock().unwrap();
            let ready = !matches!(mode, Mode::Unavailable | Mode::Missing);
            grpc(&ReadyResponse { ready }.encode_to_vec(), "0")
        }
        "ModelStatistics" => grpc(&ModelStatisticsResponse::default().encode_to_vec(), "0"),
        "ModelInfer" => {
            stub.asked.fetch_add(1, Ordering::Relaxed);
            let request = ModelInferRequest::decode(&body[5..]).expect("a request");
            let id = request.id.clone();
            *stub.latest.lock().unwrap() = Some((headers, request));
            let delay = Duration::from_micros(stub.delay_us.load(Ordering::Relaxed));
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let mode = *stub.mode.lock().unwrap();
            match mode {
                Mode::Answer => grpc(&answer(id).encode_to_vec(), "0"),
                Mode::Refuse => grpc(&[], "3"),
                Mode::Unavailable => grpc(&[], "14"),
                Mode::Missing => grpc(&[], "5"),
                Mode::Full => {
                    let mut response = grpc(&[], "14");
                    let said = HeaderValue::from_static("Exceeds maximum queue size");
                    response
                        .headers_mut()
                        .insert("grpc-status", "14".parse().unwrap());
                    response.headers_mut().insert("grpc-message", said);
                    response
                }
                Mode::Garbage => grpc(&[0xff; 7], "0"),
            }
        }
        _ => grpc(&[], "12"),
    }
}

/// Ten items of the release `stub`; the last one is padding.
fn answer(id: String) -> ModelInferResponse {
    let output = |name: &str, datatype: &str, rows: i64| InferTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![rows],
    };
    let ids = (1..=9).chain([-1]).flat_map(i32::to_le_bytes);
    let scores = (0..10).flat_map(|place| (0.9 - 0.05 * place as f32).to_le_bytes());
    ModelInferResponse {
        id,
        outputs: vec![
            output("ordered_ids", "INT32", 10),
            output("ordered_scores", "FP32", 10),
            output("release", "BYTES", 1),
        ],
        raw_output_contents: vec![
            ids.collect::<Vec<u8>>().into(),
            scores.collect::<Vec<u8>>().into(),
            Bytes::from_static(b"\x04\0\0\0stub"),
        ],
        ..ModelInferResponse::default()
    }
}

/// A stub that listens until it is dropped.
pub(crate) struct Triton {
    pub(crate) stub: Arc<Stub>,
    pub(crate) address: String,
    server: JoinHandle<()>,
}

impl Triton {
    pub(crate) async fn start() -> Self {
        let port = triton_testing::ports::free_port().expect("a port");
        let stub = Arc::new(Stub::default());
        Self::again(stub, port).await
    }

    pub(crate) async fn again(stub: Arc<Stub>, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let router = Router::new()
            .route(
                "/inference.GRPCInferenceService/{method}",
                axum::routing::post(call),
            )
            .with_state(Arc::clone(&stub));
        let server = tokio::spawn(async move {
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
            axum::serve(listener, router)
                .await
                .expect("the stub serves");
        });
        Self {
            stub,
            address,
            server,
        }
    }
}

impl Drop for Triton {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Twelve items of two categories, three users.
pub(crate) fn catalogue() -> DisplayCatalogue {
    catalogue_of(1..=12, "Item")
}

/// Items of two categories, whose titles begin with `title`; three users.
pub(crate) fn catalogue_of(ids: impl IntoIterator<Item = i32>, title: &str) -> DisplayCatalogue {
    let column = Column {
        name: "category_l1".to_owned(),
        names: vec!["Shoes".to_owned(), "Hats".to_owned()],
    };
    let items = ids.into_iter().map(|id| Item {
        id,
        title: Some(format!("{title} {id}")),
        categories: vec![id % 2],
        price: Some(id as f32 + 0.5),
        picture: None,
        known: Map::from_iter([("item_id".to_owned(), id.into())]),
    });
    DisplayCatalogue::new(vec![column], items, 1..=3, |_| {
        Map::from_iter([("age".to_owned(), 30.into())])
    })
}

/// A gateway, and a runtime for it and the stub.
pub(crate) struct Fixture {
    pub(crate) triton: Option<Triton>,
    pub(crate) address: String,
    pub(crate) gateway: Arc<Gateway>,
    agent: ureq::Agent,
    pub(crate) runtime: Runtime,
}

/// The address of a Valkey that is not running.
pub(crate) const NO_STORE: &str = "redis://127.0.0.1:1";

/// How the gateway of a fixture is served.
enum Served {
    /// On loopback, unchanged.
    Plainly,
    /// As if it listened at another address. Tests only listen on loopback.
    AsIfAt(IpAddr),
    /// With a listener for operators, and a signal that stops both listeners.
    Apart(oneshot::Sender<String>, oneshot::Receiver<()>),
}

impl Fixture {
    pub(crate) fn start(redis_url: &str, change: impl FnOnce(&mut Settings)) -> Self {
        Self::served(redis_url, change, Served::Plainly)
    }

    /// Starts a gateway that answers as if it listened at `address`.
    pub(crate) fn start_as_if_at(address: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let served = Served::AsIfAt(address.parse().expect("an address"));
        Self::served(NO_STORE, change, served)
    }

    /// Starts a gateway with a second listener for operators; returns its address and the stop signal.
    pub(crate) fn start_apart(
        change: impl FnOnce(&mut Settings),
    ) -> (Self, String, oneshot::Sender<()>) {
        let (told, operators) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let fixture = Self::served(NO_STORE, change, Served::Apart(told, stopped));
        let operators = operators.blocking_recv().expect("an address");
        (fixture, operators, stop)
    }

    fn served(redis_url: &str, change: impl FnOnce(&mut Settings), served: Served) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (triton, address, gateway) = runtime.block_on(async {
            let triton = Triton::start().await;
            let store = saker_store::Settings::parse(redis_url, None).expect("a URL");
            let mut settings = Settings::new(store);
            settings.triton.clone_from(&triton.address);
            change(&mut settings);
            let gateway = Gateway::open(settings, catalogue(), Arc::new(Operation::default))
                .expect("a gateway");
            let open = Arc::new(gateway);
            let gateway = Arc::clone(&open);
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address").to_string();
            match served {
                Served::Plainly => {
                    tokio::spawn(
                        async move { gateway.serve(listener, std::future::pending()).await },
                    );
                }
                Served::AsIfAt(address) => {
                    let router = gateway.router(address);
                    tokio::spawn(async move { axum::serve(listener, router).await });
                }
                Served::Apart(told, stopped) => {
                    let operators = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                    let _ = told.send(operators.local_addr().expect("an address").to_string());
                    let stop = async { drop(stopped.await) };
                    tokio::spawn(async move {
                        gateway.serve_apart(listener, Some(operators), stop).await
                    });
                }
            }
            (triton, address, open)
        });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        Self {
            triton: Some(triton),
            address,
            gateway,
            agent,
            runtime,
        }
    }

    pub(crate) fn stub(&self) -> &Stub {
        &self.triton.as_ref().expect("a stub").stub
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.ask("POST", path, &json, &body.to_string())
    }

    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.to_owned()).expect("a request");
        let mut response = self.agent.run(request).expect("an answer");
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            text,
        }
    }

    /// Sends the request until the answer is as wished.
    pub(crate) fn until(&self, path: &str, wished: impl Fn(&Answer) -> bool) -> Answer {
        let start = std::time::Instant::now();
        loop {
            let answer = self.get(path);
            if wished(&answer) {
                return answer;
            }
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{path} stays {}: {}",
                answer.status,
                answer.text
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// Asserts that the answer is a problem document with this status, about this field.
    pub(crate) fn is_problem(&self, status: u16, field: Option<&str>) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json["status"], status, "{}", self.text);
        assert_eq!(self.json["field"].as_str(), field, "{}", self.text);
        assert!(
            self.json["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        assert!(!self.header("x-request-id").is_empty());
    }
}
