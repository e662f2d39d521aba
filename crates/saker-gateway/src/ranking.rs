//! Requests to Triton's ensemble for one user, with a deadline and a limit of concurrent requests.
//!
//! After several failures in a row, a circuit breaker opens: only one request per interval tries Triton, and the others return popular
//! items at once. With several Triton servers, the breaker opens only when all of them fail.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use saker_contract::RawId;
use saker_contract::ensemble::{ENSEMBLE, OLDER_OUTPUTS, OUTPUTS};
use saker_contract::tensor::{
    DEGRADED, DEVICE_TYPE, ORDERED_IDS, ORDERED_SCORES, RELEASE, TIMESTAMP,
};
use saker_traces::Span;
use tokio::sync::Semaphore;
use triton_client::balance::{self, Balanced};
use triton_client::grpc::Call as GrpcCall;
use triton_client::{Error, Tensor};

use crate::Settings;
use crate::call::Call;
use crate::metrics::Metrics;
use crate::rate_limited::RateLimited;

/// Duration for which a release without the output `degraded` is called without it.
const WITHOUT: Duration = Duration::from_secs(60);

/// The reason reported when Triton does not answer at all.
const UNREACHABLE: &str = "triton_unreachable";
/// Number of consecutive failures that open the circuit breaker.
const FAILURES: u32 = 5;
/// Duration for which the breaker stays open; then one request tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A user, device and time to recommend for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    pub(crate) user: i32,
    pub(crate) device_type: i32,
    pub(crate) timestamp: i32,
}

/// Triton's answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) release: Option<String>,
    /// Raw item ids with their scores, best first.
    pub(crate) items: Vec<(i32, f32)>,
    /// Bit mask of the user data that the steps could not read; `None` if the release does not report it.
    pub(crate) degraded: Option<i32>,
}

/// Why Triton gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unranked {
    /// The limit of concurrent requests was reached.
    Shed,
    /// Triton failed; holds the reason for answers and metrics.
    Failed(&'static str),
}

pub(crate) struct Ranking {
    servers: Balanced,
    free: Semaphore,
    most: usize,
    deadline: Duration,
    user_input: String,
    context_inputs: Vec<String>,
    start: Instant,
    failures: AtomicU32,
    /// When the next request may try a failing Triton, in milliseconds since `start`.
    try_at_ms: AtomicU64,
    /// Time until which releases are called without [`DEGRADED`], in milliseconds since `start`.
    without_until_ms: AtomicU64,
    /// Why the latest request failed.
    reason: Mutex<&'static str>,
    complaints: RateLimited,
}

impl Ranking {
    pub(crate) fn open(settings: &Settings) -> Result<Self, Error> {
        let servers = Balanced::open(&balance::Settings {
            connections: settings.connections,
            resolve_every: settings.resolve_every,
            resolver: settings.resolver.clone(),
            ..balance::Settings::new(&settings.triton, ENSEMBLE)
        })?;
        let most = settings.max_in_flight.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            servers,
            free: Semaphore::new(most),
            most,
            deadline: settings.deadline,
            user_input: settings.user_input.clone(),
            context_inputs: settings.context_inputs.clone(),
            start: Instant::now(),
            failures: AtomicU32::new(0),
            try_at_ms: AtomicU64::new(0),
            without_until_ms: AtomicU64::new(0),
            reason: Mutex::new(UNREACHABLE),
            complaints: RateLimited::default(),
        })
    }

    /// The Triton servers.
    pub(crate) fn servers(&self) -> &Balanced {
        &self.servers
    }

    /// The input tensors of the ensemble for a visit.
    pub(crate) fn inputs(&self, visit: Visit) -> Vec<Tensor> {
        let mut inputs = vec![Tensor::int32(&self.user_input, &[visit.user])];
        for (name, value) in [
            (DEVICE_TYPE, visit.device_type),
            (TIMESTAMP, visit.timestamp),
        ] {
            if self.context_inputs.iter().any(|taken| taken == name) {
                inputs.push(Tensor::int32(name, &[value]));
            }
        }
        inputs
    }

    pub(crate) async fn ask(
        &self,
        visit: Visit,
        call: &Call,
        metrics: &Metrics,
    ) -> Result<Ranked, Unranked> {
        if !self.may_try() {
            let reason = *self.reason.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(Unranked::Failed(reason));
        }
        let Ok(_permit) = self.free.try_acquire() else {
            metrics.shed();
            return Err(Unranked::Shed);
        };
        metrics.in_flight(self.most - self.free.available_permits());
        let start = Instant::now();
        let mut span = call.trace.call(ENSEMBLE);
        let call_of_grpc = GrpcCall {
            id: &call.id,
            traceparent: span.link().sampled_header().unwrap_or_default(),
            deadline: Some(self.deadline),
        };
        let answered = self.infer(visit, call_of_grpc, start).await;
        metrics.in_flight((self.most - self.free.available_permits()).saturating_sub(1));
        let (reason, why) = match answered {
            Ok(tensors) => match read(&tensors) {
                Ok(ranked) => {
                    describe(&mut span, &ranked);
                    metrics.triton_answered(start.elapsed());
                    self.failures.store(0, Ordering::Relaxed);
                    return Ok(ranked);
                }
                Err(error) => ("triton_answer", error.to_string()),
            },
            Err(error) => (
                reason(&error, start.elapsed() >= self.deadline),
                error.to_string(),
            ),
        };
        span.fail(|| why.clone());
        self.failed(reason);
        self.complaints.say(|| {
            tracing::warn!(
                request_id = &*call.id,
                reason,
                "popular items in place of Triton's: {why}"
            );
        });
        Err(Unranked::Failed(reason))
    }

    /// Requests all outputs, or only those that older releases have.
    async fn infer(
        &self,
        visit: Visit,
        call: GrpcCall<'_>,
        start: Instant,
    ) -> Result<Vec<Tensor>, Error> {
        let (servers, inputs) = (&self.servers, || self.inputs(visit));
        if self.now_ms() >= self.without_until_ms.load(Ordering::Relaxed) {
            let answer = servers.infer(ENSEMBLE, inputs, &OUTPUTS, call).await;
            let lacks = |message: &str| message.contains(&format!("'{DEGRADED}'"));
            match answer {
                Err(Error::Refused { message, .. }) if lacks(&message) => {
                    let until = self.now_ms() + WITHOUT.as_millis() as u64;
                    self.without_until_ms.store(until, Ordering::Relaxed);
                }
                answer => return answer,
            }
        }
        let left = self.deadline.saturating_sub(start.elapsed());
        let call = GrpcCall {
            deadline: Some(left),
            ..call
        };
        servers.infer(ENSEMBLE, inputs, &OLDER_OUTPUTS, call).await
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn may_try(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) < FAILURES {
            return true;
        }
        // One of several servers may hang and fail several requests at the same moment.
        if !self.servers.none_answers() {
            return true;
        }
        let now = self.now_ms();
        let at = self.try_at_ms.load(Ordering::Relaxed);
        let next = now + PAUSE.as_millis() as u64;
        // Of several concurrent requests, one gets to try.
        now >= at
            && self
                .try_at_ms
                .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    fn failed(&self, reason: &'static str) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES {
            let next = self.now_ms() + PAUSE.as_millis() as u64;
            self.try_at_ms.store(next, Ordering::Relaxed);
        }
    }
}

fn reason(error: &Error, late: bool) -> &'static str {
    match error {
        Error::Unreachable { .. } if late => "triton_deadline",
        Error::Unreachable { .. } => UNREACHABLE,
        Error::Refused { .. } => "triton_error",
        _ => "triton_answer",
    }
}

/// Adds attributes of Triton's answer to the span.
fn describe(span: &mut Span, ranked: &Ranked) {
    span.set("rpc.system", || "grpc");
    span.set("saker.items", || {
        i64::try_from(ranked.items.len()).unwrap_or(i64::MAX)
    });
    if let Some(release) = &ranked.release {
        span.set("saker.release", || release.clone());
    }
    if let Some(degraded) = ranked.degraded {
        span.set("saker.degraded", || i64::from(degraded));
    }
}

/// The items of an answer for one user, without the padding.
fn read(tensors: &[Tensor]) -> Result<Ranked, Error> {
    let tensor = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let missing = |name: &str| Error::Answer(format!("it has no {name}"));
    let ids = tensor(ORDERED_IDS)
        .ok_or_else(|| missing(ORDERED_IDS))?
        .int32s()?;
    let scores = tensor(ORDERED_SCORES)
        .ok_or_else(|| missing(ORDERED_SCORES))?
        .float32s()?;
    if ids.len() != scores.len() {
        return Err(Error::Answer(format!(
            "{} items with {} scores",
            ids.len(),
            scores.len()
        )));
    }
    // A repository that another program made may lack the release.
    let release = tensor(RELEASE).and_then(|release| release.texts().ok()?.into_iter().next());
    let degraded = tensor(DEGRADED).and_then(|degraded| degraded.int32s().ok()?.first().copied());
    let items = ids
        .into_iter()
        .zip(scores)
        .filter(|(id, _)| RawId::is_item(*id));
    Ok(Ranked {
        release,
        items: items.collect(),
        degraded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_item() {
        let scores = Tensor {
            name: ORDERED_SCORES.to_owned(),
            data_type: "FP32".to_owned(),
            shape: vec![2],
            data: [0.5f32, 0.0]
                .iter()
                .flat_map(|score| score.to_le_bytes())
                .collect(),
        };
        let ids = Tensor::int32(ORDERED_IDS, &[7, RawId::NONE_INT32]);
        let ranked = read(&[ids, scores.clone()]).unwrap();
        assert_eq!(ranked.items, [(7, 0.5)]);
        assert_eq!((ranked.release, ranked.degraded), (None, None));
        let mask = Tensor::int32(DEGRADED, &[3]);
        let ranked = read(&[Tensor::int32(ORDERED_IDS, &[7, 8]), scores.clone(), mask]);
        assert_eq!(ranked.unwrap().degraded, Some(3));
        assert!(read(std::slice::from_ref(&scores)).is_err());
        assert!(read(&[Tensor::int32(ORDERED_IDS, &[7]), scores]).is_err());
    }
}
