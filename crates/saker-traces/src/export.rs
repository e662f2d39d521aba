//! The requests to the collector, over the HTTP client that the rest of Saker uses, counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};

use crate::Exports;

/// Maximum time for the collector's answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Used from the thread that sends spans, which may wait.
#[derive(Debug)]
pub(crate) struct Client {
    agent: ureq::Agent,
    exports: Arc<Exports>,
    service: &'static str,
    /// Whether the last request failed: a log line at the first failure, and one when it is over.
    fails: AtomicBool,
}

impl Client {
    pub(crate) fn new(exports: Arc<Exports>, service: &'static str) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .max_redirects(0)
            .build()
            .into();
        Self {
            agent,
            exports,
            service,
            fails: AtomicBool::new(false),
        }
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (parts, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(parts, &body[..]))?;
        let (parts, mut body) = answer.into_parts();
        Ok(Response::from_parts(parts, body.read_to_vec()?.into()))
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        let why = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        match why {
            None => {
                self.exports.sent.fetch_add(1, Ordering::Relaxed);
                if self.fails.swap(false, Ordering::Relaxed) {
                    tracing::info!(service = self.service, "the collector takes traces again");
                }
            }
            Some(why) => {
                self.exports.failed.fetch_add(1, Ordering::Relaxed);
                if !self.fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        service = self.service,
                        "the collector does not take traces, so that spans are lost: {why}"
                    );
                }
            }
        }
        Ok(answer?)
    }
}
