//! Sends inference requests to a server at an interval, to detect that it hangs.
//!
//! A hung Triton still has a process, open ports and health endpoints that report success. Only an inference shows that it hangs.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Weak};
use std::time::Duration;

use triton_client::{Error, Tensor, Triton};

/// Time between two inferences.
const INTERVAL: Duration = Duration::from_secs(1);
/// Duration of an inference after which the server's progress is checked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum wait for the server's statistics.
const STATISTICS: Duration = Duration::from_millis(500);

/// Watches one server until it is dropped.
pub struct Watchdog {
    hung: Receiver<String>,
    /// The watching threads end when this is dropped.
    _watched: Arc<()>,
}

impl Watchdog {
    /// Watches these ensembles of the server at `host:port`; `user_id` names their input for the users.
    #[must_use]
    pub fn start(address: &str, ensembles: &[&'static str], user_id: &str) -> Self {
        let watched = Arc::new(());
        let (say, hung) = mpsc::channel();
        for ensemble in ensembles {
            let probe = Probe {
                inference: Triton::with_timeout(address, PATIENCE),
                progress: Triton::with_timeout(address, STATISTICS),
                ensemble,
                user: Tensor::int32(user_id, &[-1]),
            };
            let (say, watched) = (say.clone(), Arc::downgrade(&watched));
            std::thread::spawn(move || watch(&probe, &watched, &say));
        }
        Self {
            hung,
            _watched: watched,
        }
    }

    /// The reason why the server counts as hung, if it does.
    pub fn complaint(&self) -> Option<String> {
        self.hung.try_recv().ok()
    }
}

fn watch(probe: &Probe, watched: &Weak<()>, say: &mpsc::Sender<String>) {
    while watched.strong_count() > 0 {
        std::thread::sleep(INTERVAL);
        if let Some(complaint) = probe.complaint() {
            // The receiver is gone if the server was replaced in the meantime.
            let _ = say.send(complaint);
            return;
        }
    }
}

struct Probe {
    inference: Triton,
    progress: Triton,
    ensemble: &'static str,
    user: Tensor,
}

impl Probe {
    /// A server hangs if it answers neither this request nor any other one. A busy server answers others.
    fn complaint(&self) -> Option<String> {
        let before = self.answered();
        match self
            .inference
            .infer(self.ensemble, std::slice::from_ref(&self.user))
        {
            // An error counts as an answer: during a switch of releases, a model may be missing.
            Ok(_) | Err(Error::Refused { .. }) => return None,
            Err(_) => {}
        }
        let after = self.answered();
        match (before, after) {
            (Some(before), Some(after)) if after > before => None,
            (_, None) => Some(format!(
                "{} does not answer, nor does the server",
                self.ensemble
            )),
            _ => Some(format!(
                "{} has answered no request for {} s",
                self.ensemble,
                PATIENCE.as_secs()
            )),
        }
    }

    /// Number of requests that the ensemble has answered, with success or an error.
    fn answered(&self) -> Option<u64> {
        let statistics = self.progress.statistics().ok()?;
        let of_ensemble = |name: &str| {
            name.rsplit_once('/')
                .is_some_and(|(model, _)| model == self.ensemble)
        };
        let models = statistics.iter().filter(|(name, _)| of_ensemble(name));
        let count = |model: &serde_json::Value, what: &str| {
            model["inference_stats"][what]["count"]
                .as_u64()
                .unwrap_or(0)
        };
        Some(
            models
                .map(|(_, model)| count(model, "success") + count(model, "fail"))
                .sum(),
        )
    }
}
