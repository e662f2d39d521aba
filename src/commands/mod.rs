//! The commands. Each file holds the arguments of one command and what it does; the work itself is in the modules of the
//! library.

// Help texts: clap prints them as they stand.
#![allow(rustdoc::invalid_html_tags)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use saker_pipeline::Pipeline;
use saker_store::address;
use saker_train::device::Device;

use crate::entities::{self, Compare};
use crate::layout::Layout;
use crate::server::REDIS_URL;

mod assemble;
mod evaluate;
mod finetune;
mod gateway;
mod generate;
mod index;
mod materialize;
mod prepare;
mod promote;
mod recommend;
mod releases;
mod rollback;
mod serve;
mod simulate;
mod status;
mod stop;
mod train;
mod updater;
mod workflow;

/// Which pipeline a command works on.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Dataset, which is the definition examples/<DATASET>/pipeline.toml
    #[arg(value_name = "DATASET", default_value = "movielens")]
    pub dataset: String,
    /// Pipeline definition, in place of a dataset's
    #[arg(long, value_name = "FILE", env = "SAKER_PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Folder for all that the commands make
    #[arg(
        long,
        value_name = "FOLDER",
        env = "SAKER_STATE",
        default_value = ".saker"
    )]
    pub state: PathBuf,
    /// Address of Valkey or Redis, in place of the definition's. Everybody on the machine can read an argument: an address with
    /// a password belongs in the variable, or in a file that SAKER_REDIS_URL_FILE names
    #[arg(
        long,
        value_name = "URL",
        env = "SAKER_REDIS_URL",
        hide_env_values = true
    )]
    pub redis_url: Option<String>,
}

impl Target {
    /// Reads the definition and says where its files lie.
    ///
    /// # Errors
    /// There is no such definition, or it is not accepted.
    pub fn open(&self) -> Result<(Pipeline, Layout)> {
        let path = match &self.pipeline {
            Some(path) => path.clone(),
            None => PathBuf::from("examples")
                .join(&self.dataset)
                .join("pipeline.toml"),
        };
        if !path.is_file() {
            bail!(
                "there is no pipeline definition {}; give a dataset of examples/, or a file with --pipeline",
                path.display()
            );
        }
        let mut pipeline = Pipeline::load(&path)?;
        pipeline.state = Some(self.state.clone());
        let url = match &self.redis_url {
            Some(url) => Some(url.clone()),
            None => address::from_environment(REDIS_URL)?,
        };
        if let Some(url) = url {
            pipeline.store.redis_url = url;
            pipeline.validate().context("--redis-url")?;
        }
        let layout = Layout::new(&self.state, &pipeline.pipeline.name);
        Ok((pipeline, layout))
    }

    /// The same target for another command of ours. The store's address, which may hold a password, is not among the arguments,
    /// which everybody on the machine can read: see [`Target::environment`].
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![self.dataset.clone().into()];
        if let Some(pipeline) = &self.pipeline {
            arguments.extend(["--pipeline".into(), pipeline.into()]);
        }
        arguments.extend(["--state".into(), self.state.clone().into()]);
        arguments
    }

    /// The environment that goes with [`Target::arguments`].
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let url = self.redis_url.iter();
        url.map(|url| (REDIS_URL, url.into())).collect()
    }
}

/// Compares the store's entities with the definition and takes their types from there; what cannot be compared is a warning.
fn settle(pipeline: &mut Pipeline, compare: Compare) -> Result<()> {
    for note in entities::settle(pipeline, compare)? {
        tracing::warn!("{note}");
    }
    Ok(())
}

/// How a command that trains computes.
#[derive(Args, Clone, Debug)]
struct Learning {
    /// Where to compute: cpu, or cuda[:NUMBER] in a build with the feature cuda
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Seconds between two checkpoints within an epoch
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    checkpoint_every: u64,
}

impl Learning {
    fn device(&self) -> Result<Device> {
        Device::from_str(&self.device).context("--device")
    }

    fn checkpoint_every(&self) -> Duration {
        Duration::from_secs(self.checkpoint_every)
    }
}

/// Seconds, which may have decimals.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "accepted: a number of seconds above 0".to_owned())
}

/// All commands, in the order in which a new pipeline needs them.
#[derive(Subcommand)]
pub enum Command {
    /// Make a synthetic shop's data, of any size, with known preferences
    Generate(generate::Args),
    /// Clean and split the data, fit the feature workflows, encode everything
    Prepare(prepare::Args),
    /// Train the two towers and the ranker, and export them to ONNX
    Train(train::Args),
    /// Let trained models take in what is newer than they are
    Finetune(finetune::Args),
    /// Measure retrieval and ranking on the test part, beside two baselines
    Evaluate(evaluate::Args),
    /// Build the FAISS index of the items' vectors
    Index(index::Args),
    /// Write users, items and popularity to Valkey
    Materialize(materialize::Args),
    /// Write a release into Triton's model repository
    Assemble(assemble::Args),
    /// Make a release the one that serves
    Promote(promote::Args),
    /// Go back to the release that served before
    Rollback(rollback::Args),
    /// List the releases, their metrics and their state
    Releases(releases::Args),
    /// Start Valkey and Triton
    Serve(serve::Args),
    /// Answer a shop's visitors over HTTP, in front of Triton and Valkey
    Gateway(gateway::Args),
    /// Stop what `saker serve --detach` started
    Stop(stop::Args),
    /// Ask the running Triton for a user's recommendations
    Recommend(recommend::Args),
    /// Apply what visitors do: seen items, top category, popularity, the offline store
    Updater(updater::Args),
    /// Let virtual shoppers visit a running gateway, and measure what they click
    Simulate(simulate::Args),
    /// Show what is made and what runs
    Status(status::Args),
    /// Convert feature workflows from and to NVTabular's, and show them
    Workflow(workflow::Args),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, and what to do about it.
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Generate(args) => generate::run(args),
            Self::Prepare(args) => prepare::run(args),
            Self::Train(args) => train::run(args),
            Self::Finetune(args) => finetune::run(args),
            Self::Evaluate(args) => evaluate::run(args),
            Self::Index(args) => index::run(args),
            Self::Materialize(args) => materialize::run(args),
            Self::Assemble(args) => assemble::run(args),
            Self::Promote(args) => promote::run(args),
            Self::Rollback(args) => rollback::run(args),
            Self::Releases(args) => releases::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Gateway(args) => gateway::run(args),
            Self::Stop(args) => stop::run(args),
            Self::Recommend(args) => recommend::run(args),
            Self::Updater(args) => updater::run(args),
            Self::Simulate(args) => simulate::run(args),
            Self::Status(args) => status::run(args),
            Self::Workflow(args) => workflow::run(args),
        }
    }
}
