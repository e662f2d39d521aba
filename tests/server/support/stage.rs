//! A server with a model repository that the test fills.

use std::path::{Path, PathBuf};

use saker_testing::runtime;
use triton_testing::{
    repository::Repository,
    server::{Outputs, ServerError, TritonServer},
    tensor::Tensor,
};

use super::config::Config;

/// A running server and its repository.
pub(crate) struct Stage {
    // First, so that the server ends before its repository goes.
    pub(crate) server: TritonServer,
    pub(crate) repository: Repository,
}

impl Stage {
    /// A server without models.
    pub(crate) fn new() -> Self {
        let repository = Repository::new().expect("a model repository");
        let server = runtime::triton()
            .expect("an installed Triton and backends")
            .repository(repository.path())
            .start()
            .expect("a running Triton");
        Self { server, repository }
    }

    /// A server with one model.
    pub(crate) fn with(name: &str, config: &Config, files: &[(&str, &Path)]) -> Self {
        let stage = Self::new();
        stage.place(name, config, files);
        stage
            .server
            .load(name)
            .unwrap_or_else(|error| panic!("{error}\n{}", stage.server.log()));
        stage
    }

    /// Writes a model into the repository; `files` go into its version folder.
    pub(crate) fn place(&self, name: &str, config: &Config, files: &[(&str, &Path)]) {
        self.repository
            .model(name, &config.text(name))
            .expect("a model folder");
        for (place, source) in files {
            self.repository
                .copy(source, &format!("{name}/1/{place}"))
                .expect("an artefact");
        }
    }

    /// Writes a model that must not load, and gives the server's reason.
    pub(crate) fn refusal(&self, name: &str, config: &Config, files: &[(&str, &Path)]) -> String {
        self.place(name, config, files);
        match self.server.load(name) {
            Ok(()) => panic!(
                "model '{name}' loaded, but must not:\n{}",
                config.text(name)
            ),
            Err(error) => error.message,
        }
    }

    /// Asks a model for all its outputs.
    pub(crate) fn infer(&self, model: &str, inputs: &[Tensor]) -> Result<Outputs, ServerError> {
        self.server.infer(model, inputs, &[])
    }

    /// Asks a model for all its outputs, and gets them.
    pub(crate) fn answer(&self, model: &str, inputs: &[Tensor]) -> Outputs {
        self.infer(model, inputs)
            .unwrap_or_else(|error| panic!("{error}\n{}", self.server.log()))
    }
}

/// A file or folder of `tests/data`.
pub(crate) fn data(place: &str) -> PathBuf {
    runtime::workspace().join("tests/data").join(place)
}
