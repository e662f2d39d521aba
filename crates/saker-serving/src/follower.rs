//! Keeps one Triton on the wanted release.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::AtomicU64;
use triton_client::Triton;

use crate::registry::{Move, Named, Published, Registry, Report, Stage, State};
use crate::releases::install::Incompatible;
use crate::releases::manifest::seconds;
use crate::releases::promote::server_pins;
use crate::releases::{self, Repository};

/// Longest pause after consecutive failures.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Release {
    release: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Metrics of a follower, for Prometheus.
pub struct Counted {
    registry: prometheus_client::registry::Registry,
    serving: Family<Release, Gauge>,
    wanted: Family<Release, Gauge>,
    age: Gauge<f64, AtomicU64>,
    errors: Counter,
    promotions: Family<Outcome, Counter>,
    seconds: Gauge<f64, AtomicU64>,
    served: Mutex<Served>,
}

#[derive(Default)]
struct Served {
    release: Option<String>,
    created: u64,
    wanted: Option<String>,
}

impl Default for Counted {
    fn default() -> Self {
        Self::new()
    }
}

impl Counted {
    /// Metrics before the first poll.
    pub fn new() -> Self {
        let mut counted = Self {
            registry: prometheus_client::registry::Registry::default(),
            serving: Family::default(),
            wanted: Family::default(),
            age: Gauge::default(),
            errors: Counter::default(),
            promotions: Family::default(),
            seconds: Gauge::default(),
            served: Mutex::default(),
        };
        for outcome in ["served", "refused"] {
            drop(counted.promotions.get_or_create(&Outcome { outcome }));
        }
        let registry = &mut counted.registry;
        registry.register(
            "saker_release_info",
            "1 for the release that Triton serves",
            counted.serving.clone(),
        );
        registry.register(
            "saker_release_wanted_info",
            "1 for the release that is wanted",
            counted.wanted.clone(),
        );
        registry.register(
            "saker_release_age_seconds",
            "Time since the serving release was assembled",
            counted.age.clone(),
        );
        registry.register(
            "saker_follow_errors",
            "Polls that failed: the store or Triton did not answer, or a release is unavailable",
            counted.errors.clone(),
        );
        registry.register(
            "saker_promotions",
            "Releases that were switched to, and that were refused",
            counted.promotions.clone(),
        );
        registry.register(
            "saker_promotion_seconds",
            "Duration of the latest promotion, from the first byte fetched to the switch",
            counted.seconds.clone(),
        );
        counted
    }

    /// The metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        if let Ok(served) = self.served.lock()
            && served.created > 0
        {
            let age = seconds(SystemTime::now()).saturating_sub(served.created);
            self.age.set(age as f64);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Whether Triton serves a release.
    pub fn is_serving(&self) -> bool {
        let served = self.served.lock();
        served.is_ok_and(|served| served.release.is_some())
    }

    fn serves(&self, release: Option<&str>, created: u64) {
        let Ok(mut served) = self.served.lock() else {
            return;
        };
        if served.release.as_deref() != release {
            served.release = release.map(str::to_owned);
            served.created = created;
            show(&self.serving, release);
        }
    }

    fn wants(&self, release: &str) {
        let Ok(mut served) = self.served.lock() else {
            return;
        };
        if served.wanted.as_deref() != Some(release) {
            served.wanted = Some(release.to_owned());
            show(&self.wanted, Some(release));
        }
    }
}

/// Keeps only the series of this release.
fn show(family: &Family<Release, Gauge>, release: Option<&str>) {
    family.clear();
    if let Some(release) = release {
        let label = Release {
            release: release.to_owned(),
        };
        family.get_or_create(&label).set(1);
    }
}

/// Keeps one Triton on the wanted release.
pub struct Follower {
    registry: Registry,
    root: PathBuf,
    triton: Triton,
    name: String,
    every: Duration,
    keep: usize,
    counted: Arc<Counted>,
    wanted: Option<Move>,
    /// The releases that were read last.
    published: Vec<(Named, Published)>,
    /// The generation that is completed, and its result.
    ended: Option<(u64, State, Option<String>)>,
    failures: u32,
    said: Option<String>,
}

impl Follower {
    /// A follower before its first poll.
    pub fn new(
        registry: Registry,
        root: PathBuf,
        triton: Triton,
        name: String,
        every: Duration,
        keep: usize,
        counted: Arc<Counted>,
    ) -> Self {
        Self {
            registry,
            root,
            triton,
            name,
            every,
            keep,
            counted,
            wanted: None,
            published: Vec::new(),
            ended: None,
            failures: 0,
            said: None,
        }
    }

    /// Polls the wanted release once and switches to it. Returns the pause before the next poll.
    pub fn look(&mut self) -> Duration {
        match self.follow() {
            Ok(()) => {
                if self.said.take().is_some() {
                    tracing::warn!("{} and Triton answer again", self.registry.location());
                }
                self.failures = 0;
                self.every
            }
            Err(error) => {
                self.counted.errors.inc();
                self.failures += 1;
                let why = format!("{error:#}");
                if self.said.as_deref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                self.report(State::Working, Some(&why));
                self.said = Some(why);
                let factor = 1 << self.failures.saturating_sub(3).min(8);
                (self.every * factor).min(LONGEST.max(self.every))
            }
        }
    }

    /// Removes this server from the list of servers that a promotion waits for.
    pub fn leave(&self) {
        if let Err(error) = self.registry.leave(&self.name) {
            tracing::warn!("{} stays listed as a server: {error:#}", self.name);
        }
    }

    fn follow(&mut self) -> Result<()> {
        let news = match &self.wanted {
            Some(known) => self.registry.wanted_after(known.generation)?,
            None => self.registry.wanted()?,
        };
        if let Some(news) = news {
            self.counted.wants(&news.to.release);
            self.wanted = Some(news);
        }
        let Some(wanted) = self.wanted.clone() else {
            return Ok(());
        };
        let serving = self.serving()?;
        let asked = wanted.served().map(|named| named.release.as_str());
        let ended = self.ended.clone();
        match ended {
            // A restarted Triton serves the release in its files, which is the one that served last.
            Some((generation, state, why))
                if generation == wanted.generation
                    && (state == State::Refused || serving.as_deref() == asked) =>
            {
                self.report(state, why.as_deref());
                Ok(())
            }
            _ => self.go(&wanted, serving.as_deref()),
        }
    }

    /// Carries out a move.
    fn go(&mut self, wanted: &Move, serving: Option<&str>) -> Result<()> {
        self.report(State::Working, None);
        let start = Instant::now();
        let tried = self.serve_and_load(wanted, serving);
        let (state, why) = match tried {
            Ok(state) => (state, None),
            Err(error) if self.is_refusal(wanted, &error) => {
                let why = format!("{error:#}");
                tracing::error!("{why}");
                self.counted
                    .promotions
                    .get_or_create(&Outcome { outcome: "refused" })
                    .inc();
                (State::Refused, Some(why))
            }
            Err(error) => return Err(error),
        };
        if state == State::Serving && serving != Some(wanted.to.release.as_str()) {
            self.counted.seconds.set(start.elapsed().as_secs_f64());
            self.counted
                .promotions
                .get_or_create(&Outcome { outcome: "served" })
                .inc();
            tracing::info!("release {} serves", wanted.to.release);
        }
        self.serving()?;
        self.ended = Some((wanted.generation, state, why.clone()));
        self.report(state, why.as_deref());
        Ok(())
    }

    fn serve_and_load(&mut self, wanted: &Move, serving: Option<&str>) -> Result<State> {
        let before = wanted.served().filter(|_| wanted.stage == Stage::Load);
        if let Some(before) = before.cloned()
            && serving != Some(before.release.as_str())
        {
            self.serve(&before)?;
        }
        match wanted.stage {
            Stage::Load if serving == Some(wanted.to.release.as_str()) => Ok(State::Serving),
            Stage::Load => {
                let version = self.fetch(&wanted.to)?;
                let repository = Repository::open(&self.root)?;
                releases::try_out(&repository, &self.triton, version, &mut |_| {})?;
                Ok(State::Loaded)
            }
            Stage::Serve if serving == Some(wanted.to.release.as_str()) => {
                // Unload other releases that are no longer wanted.
                releases::withdraw(&Repository::open(&self.root)?, &self.triton)?;
                Ok(State::Serving)
            }
            Stage::Serve => {
                self.serve(&wanted.to)?;
                Ok(State::Serving)
            }
        }
    }

    fn serve(&mut self, named: &Named) -> Result<()> {
        let version = self.fetch(named)?;
        let repository = Repository::open(&self.root)?;
        let triton = Some(&self.triton);
        releases::promote(&repository, triton, version, self.keep, &mut |_| {})?;
        Ok(())
    }

    /// Puts a release into the repository. Returns its version there.
    fn fetch(&mut self, named: &Named) -> Result<u64> {
        let published = match self.published.iter().find(|(known, _)| known == named) {
            Some((_, published)) => published,
            None => {
                let read = self.registry.release(&named.release, Some(&named.sha256))?;
                self.published.truncate(2);
                self.published.insert(0, (named.clone(), read.0));
                &self.published[0].1
            }
        };
        Ok(self.registry.fetch(published, &self.root, false)?.version)
    }

    /// Whether another attempt would fail in the same way, because the release is the cause and not the store or Triton.
    fn is_refusal(&self, wanted: &Move, error: &anyhow::Error) -> bool {
        if error.downcast_ref::<Incompatible>().is_some() {
            return true;
        }
        let noted = || -> Result<bool> {
            let index = Repository::open(&self.root)?.index()?;
            let version = index.find(&wanted.to.release)?;
            Ok(index.failed.contains_key(&version))
        };
        noted().unwrap_or(false) && server_pins(&self.triton).is_ok()
    }

    /// The release that Triton serves.
    fn serving(&self) -> Result<Option<String>> {
        let serving = || -> Result<(Option<String>, u64)> {
            let repository = Repository::open(&self.root)?;
            let version = server_pins(&self.triton)?;
            let release = repository.index()?.releases.remove(&version);
            let created = repository
                .manifest(version)
                .map(|manifest| manifest.created);
            Ok((release, created.unwrap_or_default()))
        };
        match serving() {
            Ok((release, created)) => {
                self.counted.serves(release.as_deref(), created);
                Ok(release)
            }
            Err(error) => {
                self.counted.serves(None, 0);
                Err(error)
            }
        }
    }

    fn report(&self, state: State, error: Option<&str>) {
        let serving = self.counted.served.lock();
        let serving = serving.ok().and_then(|served| served.release.clone());
        let report = Report {
            server: self.name.clone(),
            generation: self.wanted.as_ref().map_or(0, |wanted| wanted.generation),
            state,
            serving,
            error: error.map(str::to_owned),
            every: self.every.as_secs_f64(),
        };
        if let Err(error) = self.registry.report(&report) {
            tracing::warn!("the report of {} is not written: {error:#}", self.name);
        }
    }
}
