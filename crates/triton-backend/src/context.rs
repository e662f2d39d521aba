//! The description of a model during its load.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::artefacts::Artefacts;
use crate::ffi::c_string;
use crate::metrics::{self, Counter, Gauge};
use crate::release::Release;
use crate::{Error, ModelConfig};

/// Name, version, folder and config of a model that is being loaded.
///
/// The context is shared: keep a clone of the `Arc` if the model needs it after the load.
///
/// ```no_run
/// use std::fs;
/// use std::sync::Arc;
/// use triton_backend::{Counter, Error, ModelContext};
///
/// struct Table {
///     rows: Vec<u8>,
///     misses: Counter,
/// }
///
/// fn load(context: &Arc<ModelContext>) -> Result<Table, Error> {
///     let path = context.version_dir().join("table.bin");
///     let rows = fs::read(&path)
///         .map_err(|error| Error::not_found(format!("{}: {error}", path.display())))?;
///     let misses = context.counter("table_misses_total", "Requested rows that do not exist", &[])?;
///     Ok(Table { rows, misses })
/// }
/// ```
#[derive(Debug)]
pub struct ModelContext {
    name: String,
    version: u64,
    repository: PathBuf,
    version_dir: PathBuf,
    config: ModelConfig,
    release: Option<Release>,
    /// Keys of the parameters for which the release replaces the value of config.pbtxt.
    release_parameters: Vec<String>,
    /// The release's id as a C string, so that no response has to convert it.
    release_id: Option<CString>,
    artefacts: Artefacts,
}

impl ModelContext {
    /// Creates a context, checks its release, and applies the release's own parameters, see [`Release`]. Tests of a backend's `load` use
    /// it; in the server the SDK calls it.
    ///
    /// ```
    /// use triton_backend::{ModelConfig, ModelContext};
    ///
    /// # fn main() -> Result<(), triton_backend::Error> {
    /// let config = ModelConfig::from_json("{}")?;
    /// let context = ModelContext::new("double", 1, "/models/double", config)?;
    /// assert!(context.version_dir().ends_with("double/1"));
    /// assert!(context.release().is_none(), "the folder has no release.json");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns an error if the release file of the version folder is invalid or belongs to another release. It also returns an error if a
    /// file that it names is missing or damaged.
    pub fn new(
        name: impl Into<String>,
        version: u64,
        repository: impl Into<PathBuf>,
        mut config: ModelConfig,
    ) -> Result<Arc<Self>, Error> {
        let (name, repository) = (name.into(), repository.into());
        let version_dir = repository.join(version.to_string());
        let release = Release::of(&repository, &version_dir, version)?;
        let mut release_parameters = Vec::new();
        if let Some(release) = &release {
            let written = config.parameters();
            let own = release.parameters.iter();
            let own = own.filter(|(key, value)| written.get(*key) != value.as_ref());
            release_parameters = own.map(|(key, _)| key.clone()).collect();
            config.override_parameters(&release.parameters);
        }
        let artefacts = match &release {
            Some(release) => Artefacts::check(&name, &version_dir, &release.files)?,
            None => Artefacts::default(),
        };
        let release_id = release.as_ref().map(|release| c_string(&release.id));
        Ok(Arc::new(Self {
            name,
            version,
            repository,
            version_dir,
            config,
            release,
            release_parameters,
            release_id,
            artefacts,
        }))
    }

    /// The model's name, that of its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the version that is being loaded.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The model's folder in the repository.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The version's folder, which contains the artefacts.
    pub fn version_dir(&self) -> &Path {
        &self.version_dir
    }

    /// The config.pbtxt of the model, with the parameters of the release.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The release of this version, if the version folder names one.
    pub fn release(&self) -> Option<&Release> {
        self.release.as_ref()
    }

    /// # Errors
    /// Returns an error if a file of the version was found to be damaged after the model was loaded.
    pub(crate) fn intact(&self) -> Result<(), Error> {
        self.artefacts.intact()
    }

    pub(crate) fn release_parameters(&self) -> &[String] {
        &self.release_parameters
    }

    pub(crate) fn release_id(&self) -> Option<&CStr> {
        self.release_id.as_deref()
    }

    /// A counter on Triton's metrics page. The labels `model` and `version` are added.
    ///
    /// All models of this library share the family of this name. If the server runs without metrics, the counter counts nothing.
    ///
    /// # Errors
    /// Returns an error if the name is invalid for Prometheus, or if a metric of another kind has it.
    pub fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
    ) -> Result<Counter, Error> {
        metrics::counter(name, help, self.labels(labels))
    }

    /// A gauge on Triton's metrics page; otherwise like [`counter`](Self::counter).
    ///
    /// # Errors
    /// Returns an error if the name is invalid for Prometheus, or if a metric of another kind has it.
    pub fn gauge(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Result<Gauge, Error> {
        metrics::gauge(name, help, self.labels(labels))
    }

    fn labels(&self, labels: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = [
            ("model", self.name.clone()),
            ("version", self.version.to_string()),
        ];
        let own = own.into_iter().map(|(k, v)| (k.to_owned(), v));
        own.chain(
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
        .collect()
    }
}
