//! One trace from a click to an answer: a real Triton, a gateway and an updater hand their spans to a collector.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::Parser;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message;
use saker_serving::programs::traces::Options;
use saker_store::seen::Mode;
use saker_store::seen::bitmap::Geometry;
use saker_traces::Traces;
use saker_updater::Updater;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use triton_testing::server::TritonServer;

use crate::support::gateway::Served;
use crate::support::golden::{Golden, RELEASE};

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A span as the collector got it.
#[derive(Clone, Debug)]
struct Got {
    service: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    start: u64,
    end: u64,
    attributes: Vec<(String, String)>,
}

impl Got {
    fn attribute(&self, key: &str) -> &str {
        let found = self.attributes.iter().find(|(name, _)| name == key);
        found.map_or("", |(_, value)| value)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn read(body: &[u8]) -> Vec<Got> {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut all = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let service = attributes.into_iter().find(|it| it.key == "service.name");
        let service = text(service.and_then(|it| it.value).and_then(|it| it.value));
        for span in resource.scope_spans.into_iter().flat_map(|it| it.spans) {
            let attributes = span.attributes.into_iter();
            all.push(Got {
                service: service.clone(),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes
                    .map(|it| (it.key, text(it.value.and_then(|it| it.value))))
                    .collect(),
            });
        }
    }
    all
}

/// Triton sends JSON, as OTLP allows.
fn read_json(body: &[u8]) -> Vec<Got> {
    let request: Value = serde_json::from_slice(body).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let attributes = |of: &Value| -> Vec<(String, String)> {
        let read = |it: &Value| {
            let value = it["value"].as_object().and_then(|of| of.values().next());
            (word(&it["key"]), value.map_or_else(String::new, word))
        };
        list(&of["attributes"]).iter().map(read).collect()
    };
    let nanoseconds = |value: &Value| word(value).parse().expect("nanoseconds");
    let mut all = Vec::new();
    for resource in list(&request["resourceSpans"]) {
        let of_resource = attributes(&resource["resource"]);
        let service = of_resource
            .into_iter()
            .find(|(key, _)| key == "service.name");
        let service = service.map_or_else(String::new, |(_, name)| name);
        let scopes = list(&resource["scopeSpans"]);
        for span in scopes.iter().flat_map(|scope| list(&scope["spans"])) {
            all.push(Got {
                service: service.clone(),
                name: word(&span["name"]),
                trace: word(&span["traceId"]).to_lowercase(),
                id: word(&span["spanId"]).to_lowercase(),
                parent: span["parentSpanId"]
                    .as_str()
                    .unwrap_or_default()
                    .to_lowercase(),
                start: nanoseconds(&span["startTimeUnixNano"]),
                end: nanoseconds(&span["endTimeUnixNano"]),
                attributes: attributes(&span),
            });
        }
    }
    all
}

/// Takes traces until its runtime ends.
struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Got>>>,
    runtime: Runtime,
}

impl Collector {
    fn start() -> Self {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&spans);
        let take = async move |headers: HeaderMap, body: Bytes| {
            let is_json = headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
            let read = if is_json { read_json } else { read };
            taken.lock().expect("spans").extend(read(&body));
            StatusCode::OK
        };
        let runtime = Runtime::new().expect("a runtime");
        let url = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let routes = Router::new().route("/v1/traces", post(take));
            tokio::spawn(async move { axum::serve(listener, routes).await });
            format!("http://{address}")
        });
        Self {
            url,
            spans,
            runtime,
        }
    }

    fn of_trace(&self, trace: &str) -> Vec<Got> {
        let spans = self.spans.lock().expect("spans");
        spans
            .iter()
            .filter(|it| it.trace == trace)
            .cloned()
            .collect()
    }

    fn until(&self, trace: &str, wished: impl Fn(&[Got]) -> bool) -> Vec<Got> {
        let start = Instant::now();
        loop {
            let spans = self.of_trace(trace);
            if wished(&spans) {
                return spans;
            }
            assert!(start.elapsed() < PATIENCE, "{spans:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    traces: Options,
}

fn options(url: &str, rate: &str) -> Options {
    Program::parse_from(["program", "--trace", url, "--trace-rate", rate]).traces
}

struct Shop(Served);

impl Shop {
    fn open(golden: &Golden, server: &TritonServer, traces: Traces) -> Self {
        Self(Served::start(golden, PATIENCE, |settings| {
            settings.triton = format!("127.0.0.1:{}", server.grpc_port);
            settings.deadline = Duration::from_secs(10);
            settings.traces = traces;
        }))
    }

    fn recommend(&self, user: i32, header: &str) -> String {
        let url = format!("{}/recommendations?user_id={user}", self.0.url);
        let answer = self.0.agent.get(url).header("traceparent", header).call();
        let mut answer = answer.expect("an answer");
        answer.body_mut().read_to_string().expect("a text")
    }

    fn click(&self, header: &str) {
        let url = format!("{}/events", self.0.url);
        let event = json!({ "user_id": 7, "item_id": 1, "type": "click" });
        let sent = self.0.agent.post(url).header("traceparent", header);
        assert_eq!(sent.send_json(event).expect("an answer").status(), 202);
    }

    fn metrics(&self) -> String {
        let answer = self.0.agent.get(format!("{}/metrics", self.0.url)).call();
        let mut answer = answer.expect("metrics");
        answer.body_mut().read_to_string().expect("a text")
    }
}

fn updater(golden: &Golden, traces: Traces) -> Updater {
    let item = saker_updater::item_categories::Item {
        top: Some(1),
        trending: [None, None],
    };
    let settings = saker_updater::Settings {
        store: saker_store::Settings::parse(&golden.valkey.url(0), None).expect("a URL"),
        group: "updater".to_owned(),
        name: "a".to_owned(),
        workers: 1,
        batch: 16,
        claim_after: Duration::from_secs(5),
        half_life: None,
        items: [(1, item)].into_iter().collect(),
        top_category: None,
        mode: Mode::Auto,
        geometry: Geometry::new(1000, 0.001).expect("a geometry"),
        offline: None,
        drain: saker_updater::Settings::DRAIN,
        traces,
    };
    Updater::start(settings).expect("an updater")
}

#[test]
fn one_trace_leads_from_a_click_to_the_answer() {
    let collector = Collector::start();
    // No trace but those that are asked for.
    let options = options(&collector.url, "0");
    // Its own store, since an event is applied there.
    let golden = Golden::start(2000);
    let server = golden.another(&options.of_triton().expect("arguments"));
    let open = |service| options.open(service, None).expect("traces");
    let shop = Shop::open(&golden, &server, open("saker-gateway"));
    let updater = updater(&golden, open("saker-updater"));

    shop.click(&format!("00-{TRACE}-{PARENT}-01"));
    let answer = shop.recommend(7, &format!("00-{TRACE}-{PARENT}-01"));
    assert!(answer.contains(RELEASE), "{answer}");
    let spans = collector.until(TRACE, |spans| {
        let has = |service: &str| spans.iter().any(|span| span.service == service);
        let steps = spans.iter().filter(|span| span.service == "triton");
        has("saker-gateway") && has("saker-updater") && steps.count() > 14
    });
    let find = |service: &str, name: &str| {
        let mut found = spans
            .iter()
            .filter(|it| it.service == service && it.name == name);
        found
            .next()
            .unwrap_or_else(|| panic!("no span {name} of {service}: {spans:#?}"))
    };
    let (events, asked) = (
        find("saker-gateway", "POST /events"),
        find("saker-gateway", "GET /recommendations"),
    );
    for span in [events, asked] {
        assert_eq!(span.parent, PARENT);
    }
    assert_eq!(asked.attribute("http.response.status_code"), "200");
    let applied = find("saker-updater", "apply event");
    assert_eq!(applied.parent, events.id);
    assert_eq!(applied.attribute("saker.event_type"), "click");
    let call = find("saker-gateway", "ensemble_model");
    assert_eq!(call.parent, asked.id);
    assert_eq!(call.attribute("saker.release"), RELEASE);
    assert!(asked.start <= call.start && call.end <= asked.end);
    let ensemble = spans
        .iter()
        .find(|it| it.service == "triton" && it.parent == call.id);
    let ensemble =
        ensemble.unwrap_or_else(|| panic!("no span of Triton below {call:?}: {spans:#?}"));
    // Triton's clock is counted on from its start, and its span ends when it has put the answer away.
    let slack = 50_000_000;
    assert!(call.start <= ensemble.start + slack && ensemble.start <= call.end);

    // A client that does not ask for it has nothing recorded.
    let other = TRACE.replace("4bf9", "5bf9");
    shop.recommend(7, &format!("00-{other}-{PARENT}-00"));
    let third = TRACE.replace("4bf9", "6bf9");
    shop.recommend(7, &format!("00-{third}-{PARENT}-01"));
    collector.until(&third, |spans| {
        spans.iter().any(|span| span.service == "triton")
            && spans.iter().any(|span| span.service == "saker-gateway")
    });
    assert!(collector.of_trace(&other).is_empty());
    assert!(
        shop.metrics()
            .contains("saker_gateway_trace_exports_total{outcome=\"failed\"} 0")
    );
    updater.stop();

    // Without its collector the shop goes on, and counts what is lost.
    collector.runtime.shutdown_timeout(Duration::from_secs(5));
    let start = Instant::now();
    loop {
        let answer = shop.recommend(7, &format!("00-{TRACE}-{PARENT}-01"));
        assert!(answer.contains(RELEASE), "{answer}");
        let metrics = shop.metrics();
        if !metrics.contains("trace_exports_total{outcome=\"failed\"} 0") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{metrics}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
