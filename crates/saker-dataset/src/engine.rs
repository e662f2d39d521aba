//! The engine that prepares tables and features: this machine, or a Ballista cluster, whose client is a program of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::{env, fmt};

use anyhow::{Context, Result, anyhow, bail};
use saker_bulk::Settings;
use saker_pipeline::Pipeline;
use saker_prepare::Summary;
use saker_serving::layout::Layout;
use saker_serving::target::Target;

use crate::prepare;

/// The program with Ballista's client.
const PROGRAM: &str = "saker-ballista";

/// Where interactions are read, sorted and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// On this machine.
    #[default]
    Local,
    /// By the cluster of a Ballista scheduler.
    Ballista {
        /// The scheduler's address, `host:port`.
        scheduler: String,
        /// The number of parts that the cluster divides its work into.
        partitions: Option<u32>,
    },
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || {
            anyhow!(
                "{text:?} is no engine; accepted are local, ballista://HOST:PORT and ballista://HOST:PORT?partitions=COUNT"
            )
        };
        if text == "local" {
            return Ok(Self::Local);
        }
        let rest = text.strip_prefix("ballista://").ok_or_else(refused)?;
        let (scheduler, query) = match rest.split_once('?') {
            Some((scheduler, query)) => (scheduler, Some(query)),
            None => (rest, None),
        };
        let partitions = query.map(|query| {
            let count = query.strip_prefix("partitions=")?.parse().ok();
            count.filter(|&count: &u32| count > 0)
        });
        let partitions = match partitions {
            Some(count) => Some(count.ok_or_else(refused)?),
            None => None,
        };
        let (host, port) = scheduler.rsplit_once(':').ok_or_else(refused)?;
        if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
            return Err(refused());
        }
        Ok(Self::Ballista {
            scheduler: scheduler.to_owned(),
            partitions,
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Ballista { scheduler, .. } => write!(f, "ballista://{scheduler}"),
        }
    }
}

impl Engine {
    /// Prepares data, features and embedding tables. The files do not depend on the engine. `code` is the hash over the sources of this
    /// program, which the cluster's program must share.
    ///
    /// # Errors
    /// As [`prepare::prepare`]; or the cluster cannot be reached, or its program is missing or was built from other sources.
    pub fn prepare(
        &self,
        target: &Target,
        pipeline: &Pipeline,
        layout: &Layout,
        settings: &Settings,
        code: &str,
    ) -> Result<Summary> {
        let Self::Ballista {
            scheduler,
            partitions,
        } = self
        else {
            return prepare::prepare(pipeline, layout, settings.clone());
        };
        let program = program()?;
        let mut command = Command::new(&program);
        command.args(target.arguments()).envs(target.environment());
        let memory = (settings.memory_bytes >> 20).to_string();
        let threads = settings.threads.to_string();
        command.args(["--scheduler", scheduler, "--memory-mib", &memory]);
        command.args(["--threads", &threads, "--code", code]);
        if let Some(partitions) = partitions {
            command.args(["--partitions", &partitions.to_string()]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        let ended = command
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        if !ended.status.success() {
            bail!("{PROGRAM} ended with {}; see its error above", ended.status);
        }
        let summary = serde_json::from_slice(&ended.stdout)
            .with_context(|| format!("{PROGRAM} printed no summary"))?;
        prepare::complete(pipeline, layout, settings)?;
        Ok(summary)
    }
}

/// The program: `SAKER_BALLISTA`, beside this one, or in a folder of `PATH`.
fn program() -> Result<PathBuf> {
    let named = env::var_os("SAKER_BALLISTA").filter(|path| !path.is_empty());
    if let Some(path) = named.map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        bail!(
            "SAKER_BALLISTA names {}, which is not a file",
            path.display()
        );
    }
    let beside = env::current_exe().ok();
    let beside = beside.and_then(|program| Some(program.parent()?.to_owned()));
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    let mut places = beside.into_iter().chain(env::split_paths(&path));
    let found = places.find_map(|folder| Some(folder.join(PROGRAM)).filter(|path| path.is_file()));
    found.with_context(|| {
        format!(
            "the program {PROGRAM} is missing beside saker and in PATH; build it with `scripts/build --ballista`, or set SAKER_BALLISTA to its path"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_named() {
        let engine = |text: &str| text.parse::<Engine>();
        let ballista = |scheduler: &str, partitions| Engine::Ballista {
            scheduler: scheduler.to_owned(),
            partitions,
        };
        assert_eq!(engine("local").unwrap(), Engine::Local);
        assert_eq!(
            engine("ballista://scheduler:50050").unwrap(),
            ballista("scheduler:50050", None)
        );
        assert_eq!(
            engine("ballista://[::1]:50050?partitions=64").unwrap(),
            ballista("[::1]:50050", Some(64))
        );
        for refused in [
            "",
            "spark",
            "ballista",
            "ballista://",
            "ballista://scheduler",
            "ballista://:50050",
            "ballista://scheduler:port",
            "ballista://scheduler:50050/path",
            "ballista://scheduler:50050?partitions=0",
            "ballista://scheduler:50050?parts=3",
        ] {
            let error = engine(refused).unwrap_err().to_string();
            assert!(error.contains("ballista://HOST:PORT"), "{refused}: {error}");
        }
    }
}
