//! Makes another release the visible one.
//!
//! In a running server, in this order:
//!
//! 1. **Check** every artefact against the manifest.
//! 2. **Load** the release's version of each model beside the serving one. Only the server's memory changes: the version is
//!    named in a configuration sent along with the load, so a server that starts again knows nothing of it.
//! 3. **Ask** the canary. From here on config.pbtxt names both versions, since both are known to load.
//! 4. **Switch**: the ensemble's config.pbtxt, replaced by a rename, pins the new version, and the ensemble alone is reloaded.
//!    Triton swaps it in one step; a request that is under way ends in the ensemble that it began in. Where there is a fused
//!    ensemble, it is switched in the same way right before.
//! 5. **Prune** old releases. config.pbtxt names the serving version alone again, and the one before stays loaded for a
//!    rollback.
//!
//! Without a server the files change in the same order, and its next start serves the release.

use anyhow::{Context, Result, bail, ensure};
use saker_contract::ensemble::{CANARY, ENSEMBLE};
use serde_json::{Value, json};

use super::canary;
use super::repository::{Index, Repository};
use triton_client::Triton;

/// Stage of a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The artefacts are compared with the manifest.
    Check,
    /// The models are loaded beside the serving ones.
    Load,
    /// The canary requests are sent.
    Canary,
    /// The release becomes the visible one.
    Switch,
    /// Old releases are removed.
    Prune,
}

/// The result of [`promote`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The release that serves now.
    pub version: u64,
    /// Its id.
    pub release: String,
    /// The version that served until now.
    pub before: u64,
    /// Number of answered canary requests; 0 without a server.
    pub canary: Option<usize>,
    /// Versions that were removed.
    pub pruned: Vec<u64>,
}

/// Makes `version` the serving release, in the running server if there is one. Keeps the newest `keep` releases and the
/// one that served before.
///
/// # Errors
/// Returns an error if an artefact is damaged, if a model does not load, or if the answers to canary requests are wrong. The previous release
/// then continues to serve, and `releases.json` records the reason. Also returns an error if the server cannot be reached.
pub fn promote(
    repository: &Repository,
    triton: Option<&Triton>,
    version: u64,
    keep: usize,
    on: &mut dyn FnMut(Stage),
) -> Result<Outcome> {
    let _lock = repository.lock()?;
    let index = repository.index()?;
    let release = index.releases.get(&version).cloned();
    let release = release.with_context(|| format!("there is no version {version}"))?;
    let serving = repository.serving()?;

    on(Stage::Check);
    if let Err(error) = repository.verify(version) {
        return Err(failed(repository, &index, version, error));
    }
    let (before, canary) = match triton {
        Some(triton) => {
            let switch = Switch::new(repository, triton, serving, version)?;
            let asked = switch.try_out(&release, on).and_then(|asked| {
                on(Stage::Switch);
                switch.show()?;
                Ok(asked)
            });
            let asked = asked.map_err(|error| {
                switch.withdraw();
                failed(repository, &index, version, error)
            })?;
            (switch.held, Some(asked))
        }
        None => {
            on(Stage::Switch);
            repository.admit(&[serving, version])?;
            repository.pin(version)?;
            (serving, None)
        }
    };
    repository.admit(&[version])?;
    let mut index = repository.index()?;
    index.note(version);
    repository.write_index(&index)?;

    on(Stage::Prune);
    let mut held = vec![version, before];
    held.extend(index.before(version));
    let pruned = repository.prune(keep, &held)?;
    Ok(Outcome {
        version,
        release,
        before,
        canary,
        pruned,
    })
}

/// Loads `version` beside the serving release and tests it with canary requests. It stays loaded, so a later [promotion](promote()) only
/// switches. Returns the number of answered requests.
///
/// # Errors
/// Returns an error as [`promote()`] does.
pub fn try_out(
    repository: &Repository,
    triton: &Triton,
    version: u64,
    on: &mut dyn FnMut(Stage),
) -> Result<usize> {
    let _lock = repository.lock()?;
    let index = repository.index()?;
    let release = index.releases.get(&version).cloned();
    let release = release.with_context(|| format!("there is no version {version}"))?;
    on(Stage::Check);
    if let Err(error) = repository.verify(version) {
        return Err(failed(repository, &index, version, error));
    }
    let switch = Switch::new(repository, triton, repository.serving()?, version)?;
    switch.try_out(&release, on).map_err(|error| {
        switch.withdraw();
        failed(repository, &index, version, error)
    })
}

/// Unloads all releases from the server except the serving one.
///
/// # Errors
/// Returns an error if another process changes the repository or the server does not answer.
pub fn withdraw(repository: &Repository, triton: &Triton) -> Result<()> {
    let _lock = repository.lock()?;
    let serving = repository.serving()?;
    Switch::new(repository, triton, serving, serving)?.withdraw();
    Ok(())
}

/// Records why a release cannot serve.
fn failed(
    repository: &Repository,
    index: &Index,
    version: u64,
    error: anyhow::Error,
) -> anyhow::Error {
    let mut noted = index.clone();
    noted.failed.insert(version, format!("{error:#}"));
    if let Err(error) = repository.write_index(&noted) {
        tracing::warn!("{error:#}");
    }
    let serving = repository.serving().map(|version| index.name(version));
    error.context(format!(
        "release {} is not promoted, {} serves on",
        index.name(version),
        serving.unwrap_or_else(|_| "the one before".to_owned())
    ))
}

/// The version that the running server's ensemble is pinned to.
///
/// # Errors
/// Returns an error if the server does not answer or has no ensemble, or if the ensemble's steps have several versions.
pub fn server_pins(triton: &Triton) -> Result<u64> {
    pins(triton, ENSEMBLE)
}

/// The repository's ensembles that the server has loaded. The ensemble of 14 steps, which every promotion needs, is always included.
fn loaded(repository: &Repository, triton: &Triton) -> Result<Vec<&'static str>> {
    let known = triton.models()?;
    let ready = |name: &str| known.iter().any(|model| model.model == name && model.ready);
    let mut ensembles = repository.ensembles();
    ensembles.retain(|name| *name == ENSEMBLE || ready(name));
    Ok(ensembles)
}

fn pins(triton: &Triton, ensemble: &str) -> Result<u64> {
    let config = triton.config(ensemble)?;
    let steps = config["ensemble_scheduling"]["step"].as_array();
    let versions = steps
        .into_iter()
        .flatten()
        .map(|step| version_of(&step["model_version"]));
    let mut versions = versions.collect::<Option<Vec<u64>>>().unwrap_or_default();
    versions.dedup();
    match versions[..] {
        [version] => Ok(version),
        _ => bail!(
            "{ensemble} of the server at {} is pinned to no version, or to several; was it assembled by `saker \
             assemble`?",
            triton.address()
        ),
    }
}

fn version_of(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// A promotion in a running server.
struct Switch<'p> {
    repository: &'p Repository,
    triton: &'p Triton,
    /// The ensembles that the server has loaded, the one of 14 steps first.
    ensembles: Vec<&'static str>,
    /// The models of their steps.
    models: Vec<String>,
    /// The serving version according to the files.
    serving: u64,
    /// The serving version of the server. It differs from the files if a promotion was killed between the two changes.
    held: u64,
    version: u64,
}

impl<'s> Switch<'s> {
    fn new(
        repository: &'s Repository,
        triton: &'s Triton,
        serving: u64,
        version: u64,
    ) -> Result<Self> {
        let ensembles = loaded(repository, triton)?;
        let mut models = Vec::new();
        for ensemble in &ensembles {
            models.extend(repository.steps(ensemble)?);
        }
        models.sort_unstable();
        models.dedup();
        Ok(Self {
            repository,
            triton,
            ensembles,
            models,
            serving,
            held: server_pins(triton)?,
            version,
        })
    }

    /// Loads the release beside the serving one and sends the canary requests. Returns their number.
    fn try_out(&self, release: &str, on: &mut dyn FnMut(Stage)) -> Result<usize> {
        on(Stage::Load);
        ensure!(
            self.repository.index()?.releases.contains_key(&self.held),
            "the server at {} serves version {}, which this repository does not hold: it serves another one, or this one was \
             assembled anew. Start it again on this one",
            self.triton.address(),
            self.held
        );
        let known = self.triton.models()?;
        let is_ready = |model: &str, version: u64| {
            let mut known = known.iter();
            known.any(|known| known.model == model && known.version == version && known.ready)
        };
        // An ensemble that a killed promotion left would keep its pinned versions loaded.
        if is_ready(CANARY, 1) {
            self.triton.unload(CANARY)?;
        }
        for model in &self.models {
            ensure!(
                is_ready(model, self.held),
                "{model} is not ready as version {} in the server at {}",
                self.held,
                self.triton.address()
            );
            if !is_ready(model, self.version) {
                self.hold(model, &[self.held, self.version])?;
            }
        }
        // Both versions have loaded, so the files may name both.
        self.repository
            .admit(&[self.serving, self.held, self.version])?;
        on(Stage::Canary);
        let mut asked = 0;
        for ensemble in &self.ensembles {
            asked += canary::run(
                self.repository,
                self.triton,
                ensemble,
                self.version,
                release,
            )?;
        }
        Ok(asked)
    }

    /// Has the server load these versions of a model, without a change of its files. Versions that are loaded already stay unchanged.
    fn hold(&self, model: &str, versions: &[u64]) -> Result<()> {
        let mut config = self.triton.config(model)?;
        config["version_policy"] = json!({ "specific": { "versions": versions } });
        Ok(self.triton.load_config(model, &config)?)
    }

    /// Unloads the release from the server. An error is logged and ignored; the serving release stays unchanged.
    fn withdraw(&self) {
        let files = self.repository.admit(&[self.serving]);
        let models = self
            .models
            .iter()
            .map(|model| self.hold(model, &[self.held]));
        for error in std::iter::once(files).chain(models).filter_map(Result::err) {
            tracing::warn!("after the failed promotion: {error:#}");
        }
    }

    /// Pins the ensemble to the release, in its file and then in the server. If the server refuses it, both are restored.
    fn show(&self) -> Result<()> {
        self.repository.pin(self.version)?;
        let load = || -> Result<()> {
            for ensemble in self.ensembles.iter().rev() {
                self.triton.load(ensemble)?;
            }
            Ok(())
        };
        let shown = load().and_then(|()| {
            for ensemble in &self.ensembles {
                let pins = pins(self.triton, ensemble)?;
                ensure!(
                    pins == self.version,
                    "{ensemble} of the server is still pinned to version {pins}"
                );
            }
            Ok(())
        });
        let Err(error) = shown else {
            return Ok(());
        };
        let back = self.repository.pin(self.serving).and_then(|()| load());
        match back {
            Ok(()) => Err(error.context("the ensemble does not take the release; it is as before")),
            Err(other) => Err(error.context(format!(
                "the ensemble does not take the release, nor the one before ({other:#})"
            ))),
        }
    }
}
