//! The commands. Each file has the arguments of one command and its control flow; the work is in the crates below `crates/`.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags)]

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use saker_serving::programs::{follow, gateway, updater};
use saker_train::device::Device;

mod assemble;
mod console;
mod evaluate;
mod evaluation_tables;
mod explain;
mod fetch;
mod finetune;
mod generate;
mod index;
mod materialize;
mod outputs;
mod preferences;
mod prepare;
mod promote;
mod prune;
mod publish;
mod recommend;
mod releases;
mod rollback;
mod serve;
mod simulate;
mod status;
mod stop;
mod train;
mod workflow;

/// Options of the commands that train.
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

/// All commands, in the order in which a new pipeline needs them.
#[derive(Subcommand)]
pub enum Command {
    /// Generate the data of a synthetic shop, of any size, with known preferences
    Generate(generate::Args),
    /// Clean and split the data, fit the feature workflows, encode everything
    Prepare(prepare::Args),
    /// Train the two towers and the ranker, and export them to ONNX
    Train(train::Args),
    /// Train existing models on newer interactions
    Finetune(finetune::Args),
    /// Measure retrieval and ranking on the test part, together with baselines
    Evaluate(evaluate::Args),
    /// Build the FAISS index of the items' vectors
    Index(index::Args),
    /// Write users, items and popularity to Valkey
    Materialize(materialize::Args),
    /// Write a release into Triton's model repository
    Assemble(assemble::Args),
    /// Write a release to a store that servers on other machines follow
    Publish(publish::Args),
    /// Copy a release from such a store to a model repository
    Fetch(fetch::Args),
    /// Keep a running Triton on the wanted release of such a store
    Follow(follow::Args),
    /// Make a release the serving one
    Promote(promote::Args),
    /// Go back to the release that served before
    Rollback(rollback::Args),
    /// Remove old releases from a store
    Prune(prune::Args),
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
    /// Apply visitors' events: seen items, top category, popularity, the offline store
    Updater(updater::Args),
    /// Let virtual shoppers visit a running gateway, and measure their clicks
    Simulate(simulate::Args),
    /// Show which artefacts exist and which processes run
    Status(status::Args),
    /// Convert feature workflows between Saker and NVTabular, and show them
    Workflow(workflow::Args),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// Returns an error that names the failure and the next step.
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
            Self::Publish(args) => publish::run(args),
            Self::Fetch(args) => fetch::run(args),
            Self::Follow(args) => follow::run(args),
            Self::Promote(args) => promote::run(args),
            Self::Rollback(args) => rollback::run(args),
            Self::Prune(args) => prune::run(args),
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
