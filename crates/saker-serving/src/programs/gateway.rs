//! The gateway as a program: its arguments, and what it takes from a pipeline definition.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::builder::NonEmptyStringValueParser;
use saker_gateway::{Gateway, Keys, Operation, Settings};
use saker_pipeline::Pipeline;
use saker_store::events::Limits;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::control;
use crate::counters::Counters;
use crate::entities::Compare;
use crate::layout::Layout;
use crate::prepared_tables::PreparedTables;
use crate::programs::source::{Followed, Opened, Source};
use crate::programs::traces;
use crate::progress::Step;
use crate::releases::{Repository, list};
use crate::running::{Ports, Running};
use crate::target::{duration, settle};
use crate::views::{activity_views, user_view};

/// Arguments of `saker gateway`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  saker gateway\n  saker gateway retail --listen 0.0.0.0:8080 --cors-origin https://shop.example\n  \
    curl '127.0.0.1:8080/recommendations?user_id=42'\n\n\
    Stops on SIGINT, SIGTERM and SIGHUP, when the requests under way are answered. docs/gateway.md describes the routes."
)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "SAKER_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Address of the operators' routes: /metrics, /operators, /explain, /status.json. With it, they are nowhere else; without it,
    /// they are at --listen if that is on loopback, and nowhere otherwise
    #[arg(long, value_name = "HOST:PORT", env = "SAKER_ADMIN_LISTEN")]
    admin_listen: Option<SocketAddr>,
    /// Name that clients call the gateway by, such as shop.example, beside addresses and localhost; may be given several times.
    /// Without any, every name is accepted, but not on loopback
    #[arg(long, value_name = "NAME", env = "SAKER_HOSTS", value_delimiter = ',')]
    host: Vec<String>,
    /// Answer everything without keys even if --listen is not on loopback: a proxy or a firewall decides who reaches it
    #[arg(long, env = "SAKER_TRUST_NETWORK")]
    trust_network: bool,
    /// Connections that one address (of IPv6: one /64 network) may have open
    #[arg(long, value_name = "N", env = "SAKER_CONNECTIONS_PER_ADDRESS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    connections_per_address: u32,
    /// Seconds for which the gateway answers on, and is not ready, once it is told to stop [default: none]
    #[arg(long, value_name = "SECONDS", env = "SAKER_DRAIN", value_parser = duration)]
    drain: Option<Duration>,
    /// Triton's gRPC addresses, several of them separated by commas: HOST:PORT, or dns://NAME:PORT for all addresses of a name, which is
    /// resolved again every 5 seconds [default: where `saker serve` started it, else 127.0.0.1:8001]
    #[arg(long, value_name = "ADDRESSES", env = "SAKER_TRITON_GRPC", value_parser = NonEmptyStringValueParser::new())]
    triton: Option<String>,
    /// Triton's HTTP address, for explanations [default: where `saker serve` started it, else 127.0.0.1:8000]
    #[arg(long, value_name = "HOST:PORT", env = "SAKER_SERVER", value_parser = NonEmptyStringValueParser::new())]
    server: Option<String>,
    /// Milliseconds that Triton has before popular items are answered
    #[arg(long, value_name = "MS", env = "SAKER_DEADLINE_MS", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..))]
    deadline_ms: u64,
    /// Milliseconds that a call of the store may take
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    store_deadline_ms: u64,
    /// Requests that may be on their way to Triton; more are refused at once
    #[arg(long, value_name = "N", env = "SAKER_MAX_IN_FLIGHT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_in_flight: u32,
    /// gRPC connections to each Triton
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Events that may wait in the stream; while there are more, new ones are refused
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    max_backlog: u64,
    /// Ids of the latest events that are known, so that one that is sent again is not stored again; about 25 bytes each
    #[arg(
        long,
        value_name = "N",
        env = "SAKER_KNOWN_EVENTS",
        default_value_t = 10_000_000
    )]
    known_events: u64,
    /// File of API keys, a line each: name, key, requests per second, rights [default: everybody may ask on loopback; elsewhere
    /// nobody may write, delete, explain or read of users]
    #[arg(long, value_name = "FILE", env = "SAKER_API_KEYS")]
    api_key_file: Option<PathBuf>,
    /// Origin whose pages may ask, such as https://shop.example, or * for all; may be given several times
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "SAKER_CORS_ORIGIN",
        value_delimiter = ','
    )]
    cors_origin: Vec<String>,
    #[command(flatten)]
    traces: traces::Options,
}

/// Serves until a signal.
///
/// # Errors
/// Returns an error if the arguments, the definition or the prepared data cannot be used, or if an address cannot be listened on.
pub fn run(args: &Args) -> Result<()> {
    let Opened {
        mut pipeline,
        layout,
        followed,
    } = args.source.open()?;
    settle(&mut pipeline, Compare::Types)?;
    let settings = settings(args, &pipeline, &layout)?;
    let traces = settings.traces.clone();
    warn_of_missing_keys(args);
    let step = Step::start("read the catalogue");
    let catalogue = PreparedTables::read(&pipeline, &layout).for_gateway(&pipeline)?;
    step.done("read");
    let (triton, http) = (settings.triton.clone(), settings.triton_http.clone());
    let repository = layout.repository();
    let places = layout.clone();
    let metrics = Running::find(&layout, "triton").and_then(|running| running.ports);
    let metrics = metrics.map(|ports| format!("127.0.0.1:{}", ports.metrics));
    let registry = args.source.registry()?;
    let releases = move || -> Value {
        let listed = match &registry {
            Some(registry) => registry.rows().map(|rows| list::all(&rows)),
            // Another machine's repository cannot be listed.
            None => Repository::open(&repository).and_then(|repository| {
                list::list(&repository, Some(&control::patient_client(&places, &http)))
                    .or_else(|_| list::list(&repository, None))
            }),
        };
        listed.unwrap_or_else(|error| {
            tracing::debug!("releases: {error:#}");
            json!([])
        })
    };
    let hidden = move || {
        let counters = Counters::read(metrics.as_deref()?).ok()?;
        Some(counters.sum("saker_bloom_filter_filtered_total"))
    };
    let operations = move || Operation {
        releases: releases(),
        hidden: hidden(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let stop = stop_signal()?;
    runtime.block_on(async {
        let gateway = Arc::new(Gateway::open(settings, catalogue, Arc::new(operations))?);
        if let Some(followed) = followed {
            follow(followed, &pipeline, gateway.clone())?;
        }
        let listener = bind(args.listen).await?;
        let operators = match args.admin_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let mut said = format!("gateway  http://{}/\n", listener.local_addr()?);
        if let Some(operators) = &operators {
            let address = operators.local_addr()?;
            said += &format!("operators http://{address}/operators\n");
        }
        // Write all lines at once. A reader that waits for the addresses may close the pipe, and a later write would end this program.
        said += &format!("Triton   {triton}\n");
        print!("{said}");
        gateway
            .serve_apart(listener, operators, async { drop(stop.await) })
            .await
            .context("the gateway's listener failed")
    })?;
    // Do not wait for calls that hang: their requests are answered.
    runtime.shutdown_timeout(Duration::from_secs(1));
    traces.close();
    Ok(())
}

/// Replaces the gateway's catalogue whenever another release is to be served.
fn follow(followed: Followed, opened: &Pipeline, gateway: Arc<Gateway>) -> Result<()> {
    let asked = asked(opened);
    followed.keep_up(move |pipeline, layout| {
        let catalogue = PreparedTables::read(pipeline, layout).for_gateway(pipeline)?;
        gateway.replace_catalogue(catalogue);
        if self::asked(pipeline) != asked {
            tracing::warn!(
                "the definition of the new release asks Triton or the store in another way; start the gateway again"
            );
        }
        Ok(())
    })
}

/// The settings of a definition that a running gateway cannot change: those of its calls to Triton and the store.
fn asked(pipeline: &Pipeline) -> (String, Vec<String>, usize, Vec<String>) {
    let columns = pipeline.context.columns.iter();
    let stored = pipeline.user.stored();
    (
        pipeline.user.id.clone(),
        columns.map(|column| column.name.clone()).collect(),
        pipeline.retrieval.topk,
        stored.map(|column| column.name.clone()).collect(),
    )
}

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// Prints to standard error which requests a gateway without keys refuses.
fn warn_of_missing_keys(args: &Args) {
    if !args.listen.ip().to_canonical().is_loopback()
        && args.api_key_file.is_none()
        && !args.trust_network
    {
        eprintln!(
            "{} is not on loopback and there are no API keys: nobody may send events, read or forget users, or ask for \
             explanations; --api-key-file gives keys, --trust-network answers everybody",
            args.listen
        );
    }
}

/// Completes when the process receives a signal to stop.
fn stop_signal() -> Result<oneshot::Receiver<()>> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot handle signals")?;
    let (sender, stop) = oneshot::channel();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            signals.forever().next();
            let _ = sender.send(());
        })
        .context("no thread for signals")?;
    Ok(stop)
}

fn settings(args: &Args, pipeline: &Pipeline, layout: &Layout) -> Result<Settings> {
    let ports = Running::find(layout, "triton").and_then(|running| running.ports);
    let address = |given: &Option<String>, of: fn(Ports) -> u16, usual: u16| {
        let port = ports.map_or(usual, of);
        given.clone().unwrap_or_else(|| format!("127.0.0.1:{port}"))
    };
    let store = saker_store::Settings::parse(&pipeline.store.redis_url, None)
        .map_err(|error| anyhow!("{error}"))?;
    let columns = pipeline.context.columns.iter();
    Ok(Settings {
        triton: address(&args.triton, |ports| ports.grpc, 8001),
        triton_http: address(&args.server, |ports| ports.http, 8000),
        connections: args.connections as usize,
        store_deadline: Duration::from_millis(args.store_deadline_ms),
        users: Some(user_view(pipeline)?),
        activity: activity_views(pipeline),
        user_input: pipeline.user.id.clone(),
        context_inputs: columns.map(|column| column.name.clone()).collect(),
        candidates: pipeline.retrieval.topk,
        deadline: Duration::from_millis(args.deadline_ms),
        max_in_flight: args.max_in_flight as usize,
        events: Limits {
            backlog: args.max_backlog,
            ids: args.known_events,
        },
        keys: args.api_key_file.as_deref().map(Keys::read).transpose()?,
        origins: args.cors_origin.clone(),
        hosts: args.host.clone(),
        trust_network: args.trust_network,
        connections_per_address: args.connections_per_address as usize,
        drain: args.drain.unwrap_or_default(),
        traces: args.traces.open("saker-gateway", None)?,
        ..Settings::new(store)
    })
}
