//! The arguments that select a pipeline.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use saker_pipeline::Pipeline;
use saker_store::address;

use crate::entities::{self, Compare};
use crate::layout::Layout;

/// The environment variable with the store's address.
pub const REDIS_URL: &str = "SAKER_REDIS_URL";

/// The pipeline that a command works on.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Dataset: reads the definition examples/<DATASET>/pipeline.toml
    #[arg(value_name = "DATASET", default_value = "movielens")]
    pub dataset: String,
    /// Pipeline definition, instead of a dataset's
    #[arg(long, value_name = "FILE", env = "SAKER_PIPELINE")]
    pub pipeline: Option<PathBuf>,
    /// Folder for all outputs of the commands
    #[arg(
        long,
        value_name = "FOLDER",
        env = "SAKER_STATE",
        default_value = ".saker"
    )]
    pub state: PathBuf,
    /// Address of Valkey or Redis, instead of the definition's. Every user of the machine can read an argument, so put an address with
    /// a password into the variable, or into a file that SAKER_REDIS_URL_FILE names
    #[arg(
        long,
        value_name = "URL",
        env = "SAKER_REDIS_URL",
        hide_env_values = true
    )]
    pub redis_url: Option<String>,
}

impl Target {
    /// Reads the definition. Returns it with the layout of its files.
    ///
    /// # Errors
    /// Returns an error if the definition is missing or invalid.
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
        self.settle(&mut pipeline)?;
        let layout = Layout::new(&self.state, &pipeline.pipeline.name);
        Ok((pipeline, layout))
    }

    /// Sets the state folder and the store's address of this machine in a definition.
    ///
    /// # Errors
    /// Returns an error if the store's address is invalid.
    pub fn settle(&self, pipeline: &mut Pipeline) -> Result<()> {
        pipeline.state = Some(self.state.clone());
        let url = match &self.redis_url {
            Some(url) => Some(url.clone()),
            None => address::from_environment(REDIS_URL)?,
        };
        if let Some(url) = url {
            pipeline.store.redis_url = url;
            pipeline.validate().context("--redis-url")?;
        }
        Ok(())
    }

    /// The arguments that give another command of ours the same target. Every user of the machine can read arguments, so they do not contain
    /// the store's address, which may have a password: see [`Target::environment`].
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![self.dataset.clone().into()];
        if let Some(pipeline) = &self.pipeline {
            arguments.extend(["--pipeline".into(), pipeline.into()]);
        }
        arguments.extend(["--state".into(), self.state.clone().into()]);
        arguments
    }

    /// The environment variables that complete [`Target::arguments`].
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let url = self.redis_url.iter();
        url.map(|url| (REDIS_URL, url.into())).collect()
    }
}

/// Compares the store's entities with the definition, and takes the types of their ids from the store. Logs a warning about everything
/// that cannot be compared.
///
/// # Errors
/// Returns an error as [`entities::settle`] does.
pub fn settle(pipeline: &mut Pipeline, compare: Compare) -> Result<()> {
    for note in entities::settle(pipeline, compare)? {
        tracing::warn!("{note}");
    }
    Ok(())
}

/// Reads a time above 0: a number of seconds, or a number with the unit `s`, `m` or `h`. The number may have decimals.
///
/// # Errors
/// Returns a message with the accepted forms.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit_seconds) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1.0),
        Some((end, 'm')) => (&text[..end], 60.0),
        Some((end, 'h')) => (&text[..end], 3600.0),
        _ => (text, 1.0),
    };
    let seconds = number
        .parse::<f64>()
        .ok()
        .map(|number| number * unit_seconds);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "accepted: a number of seconds above 0, or one with s, m or h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_seconds_or_a_unit() {
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
    }

    #[test]
    fn another_text_is_refused() {
        for text in ["", "0", "-1", "m", "10d", "5 m", "inf", "nan", "é"] {
            let error = duration(text).unwrap_err();
            assert!(
                error.contains("above 0, or one with s, m or h"),
                "{text}: {error}"
            );
        }
    }
}
