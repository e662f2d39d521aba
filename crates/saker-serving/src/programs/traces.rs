//! The options of traces, which several programs share.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

use std::ffi::OsString;

use anyhow::{Context, Result};
use clap::builder::NonEmptyStringValueParser;
use saker_traces::{Exports, Settings, Traces};

/// Destination of traces.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Collector of OpenTelemetry traces (OTLP over HTTP): its base address, such as http://127.0.0.1:4318 [default: trace contexts
    /// are passed on, and nothing is recorded]
    #[arg(long, value_name = "URL", env = "SAKER_TRACE", value_parser = NonEmptyStringValueParser::new())]
    trace: Option<String>,
    /// Part of the traces that is recorded, 0 to 1; all whose client says so are, where everybody is answered without keys
    #[arg(
        long,
        value_name = "RATE",
        env = "SAKER_TRACE_RATE",
        default_value_t = 0.01
    )]
    trace_rate: f64,
}

impl Options {
    /// The traces of a program; `instance` distinguishes it from others of its service.
    ///
    /// # Errors
    /// Returns an error if the address or the rate is invalid.
    pub fn open(&self, service: &'static str, instance: Option<&str>) -> Result<Traces> {
        let Some(endpoint) = &self.trace else {
            return Ok(Traces::off());
        };
        Traces::open(&Settings {
            endpoint: endpoint.clone(),
            rate: self.trace_rate,
            service,
            instance: instance.map(str::to_owned),
        })
        .context("--trace and --trace-rate")
    }

    /// Triton's arguments: it records the requests with a `traceparent`, and sends them to the same collector.
    ///
    /// # Errors
    /// Returns an error if the address is invalid.
    pub fn of_triton(&self) -> Result<Vec<String>> {
        let Some(endpoint) = &self.trace else {
            return Ok(Vec::new());
        };
        let url = saker_traces::address(endpoint)?;
        // Triton samples requests without a trace at this interval, which is practically never.
        let settings = [
            "mode=opentelemetry".to_owned(),
            "level=TIMESTAMPS".to_owned(),
            format!("rate={}", u32::MAX / 2),
            "count=-1".to_owned(),
            format!("opentelemetry,url={url}"),
            "opentelemetry,resource=service.name=triton".to_owned(),
        ];
        Ok(settings
            .map(|setting| format!("--trace-config={setting}"))
            .into())
    }

    /// The environment variables for our programs that this one starts.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let trace = self.trace.iter().flat_map(|endpoint| {
            [
                ("SAKER_TRACE", endpoint.into()),
                ("SAKER_TRACE_RATE", self.trace_rate.to_string().into()),
            ]
        });
        trace.collect()
    }
}

/// The number of exports, in Prometheus' text format.
#[must_use]
pub fn prometheus(program: &str, exports: &Exports) -> String {
    let name = format!("saker_{program}_trace_exports_total");
    let (sent, failed) = (exports.sent(), exports.failed());
    format!(
        "# HELP {name} Requests to the collector of traces, by whether it took them.\n# TYPE {name} counter\n\
         {name}{{outcome=\"sent\"}} {sent}\n{name}{{outcome=\"failed\"}} {failed}\n"
    )
}
