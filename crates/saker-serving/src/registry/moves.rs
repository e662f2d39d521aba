//! The wanted release.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use object_store::PutMode;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{FORMAT, Published, Registry, json};
use crate::releases::manifest::seconds;

const FOLDER: &str = "moves";
/// Number of moves that are kept.
const KEPT: u64 = 200;

/// The step that the servers should take with a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Load it and test it with canary requests; continue to serve the current release.
    Load,
    /// Serve it.
    Serve,
}

/// A release and the SHA-256 of its file in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub release: String,
    /// SHA-256 of `releases/<release>.json`.
    pub sha256: String,
}

/// `moves/<generation>.json`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// 1
    pub format: u32,
    /// Number of the move; the highest one counts.
    pub generation: u64,
    /// The step that the servers should take.
    pub stage: Stage,
    /// The release.
    #[serde(flatten)]
    pub to: Named,
    /// The release that was wanted before.
    pub before: Option<Named>,
    /// Time of the move in Unix seconds, by the writer's clock.
    pub time: u64,
}

impl Move {
    /// The release that a server should serve now: the previous one while the next one is loaded.
    pub fn served(&self) -> Option<&Named> {
        match self.stage {
            Stage::Serve => Some(&self.to),
            Stage::Load => self.before.as_ref(),
        }
    }
}

/// Another writer has moved first.
#[derive(Debug, thiserror::Error)]
#[error(
    "somebody else promotes: generation {0} was written meanwhile; look what is wanted now, and promote again"
)]
pub struct Overtaken(pub u64);

impl Registry {
    fn move_path(&self, generation: u64) -> Path {
        self.path(&[FOLDER, &format!("{generation:010}.json")])
    }

    /// The latest move; `None` before the first promotion.
    ///
    /// # Errors
    /// Returns an error if the storage does not answer or the move is damaged.
    pub fn wanted(&self) -> Result<Option<Move>> {
        self.newest(self.generations(None)?)
    }

    /// The latest move, if it is not `known`.
    ///
    /// # Errors
    /// Returns an error as [`wanted`](Self::wanted) does.
    pub fn wanted_after(&self, known: u64) -> Result<Option<Move>> {
        self.newest(self.generations(Some(known))?)
    }

    /// The release to serve; `None` before the first promotion.
    ///
    /// # Errors
    /// Returns an error as [`wanted`](Self::wanted) does, and if the release is damaged.
    pub fn served(&self) -> Result<Option<Published>> {
        let wanted = self.wanted()?;
        let served = wanted.as_ref().and_then(Move::served);
        let published = served.map(|named| self.release(&named.release, Some(&named.sha256)));
        Ok(published.transpose()?.map(|(published, _)| published))
    }

    /// Waits until the storage answers and wants a release, without a limit unless a time is given, or until `stop` is set. Prints to standard
    /// error what it waits for. Returns the move and the release.
    ///
    /// # Errors
    /// Returns an error that says what it waited for, if the time is over or `stop` is set.
    pub fn wait_for_served(
        &self,
        time: Option<Duration>,
        stop: &AtomicBool,
    ) -> Result<(Move, Named)> {
        const PAUSE: Duration = Duration::from_millis(100);
        const LOOK: Duration = Duration::from_secs(1);
        let start = Instant::now();
        let mut said = String::new();
        loop {
            let why = match self.wanted() {
                Ok(Some(wanted)) if wanted.served().is_some() => {
                    let served = wanted.served().cloned();
                    return Ok((wanted, served.context("a release is to be served")?));
                }
                Ok(_) => format!(
                    "{0} wants no release yet; `saker promote --to {0}` names one",
                    self.location
                ),
                Err(error) => format!("{error:#}"),
            };
            let is_over = time.is_some_and(|time| start.elapsed() > time);
            if is_over || stop.load(Ordering::Relaxed) {
                bail!("{why}");
            }
            if why != said {
                eprintln!("waiting: {why}");
                said = why;
            }
            let looked = Instant::now();
            while looked.elapsed() < LOOK && !stop.load(Ordering::Relaxed) {
                sleep(PAUSE);
            }
        }
    }

    fn newest(&self, generations: Vec<u64>) -> Result<Option<Move>> {
        generations
            .last()
            .map(|&generation| self.read_move(generation))
            .transpose()
    }

    fn read_move(&self, generation: u64) -> Result<Move> {
        let path = self.move_path(generation);
        let found: Move = self
            .read_json(&path)?
            .with_context(|| format!("{}: {path} went while it was read", self.location))?;
        if found.format != FORMAT || found.generation != generation {
            bail!(
                "{}: {path} has format {} and generation {}; accepted: format {FORMAT} and its own generation",
                self.location,
                found.format,
                found.generation
            );
        }
        Ok(found)
    }

    /// The existing generations, in order.
    fn generations(&self, after: Option<u64>) -> Result<Vec<u64>> {
        let after = after.map(|generation| self.move_path(generation));
        let found = self.list_after(FOLDER, after.as_ref())?;
        let number = |name: &str| name.strip_suffix(".json")?.parse().ok();
        let mut generations: Vec<u64> = found
            .iter()
            .filter_map(|meta| number(meta.location.filename()?))
            .collect();
        generations.sort_unstable();
        Ok(generations)
    }

    /// Makes `to` the wanted release, if `from` is still the latest move. Returns the new move and its time by the storage's clock.
    ///
    /// # Errors
    /// Returns [`Overtaken`], or an error if the storage does not answer.
    pub fn move_to(
        &self,
        from: Option<&Move>,
        to: Named,
        stage: Stage,
    ) -> Result<(Move, DateTime<Utc>)> {
        let generation = from.map_or(0, |from| from.generation) + 1;
        let next = Move {
            format: FORMAT,
            generation,
            stage,
            to,
            before: from.and_then(Move::served).cloned(),
            time: seconds(SystemTime::now()),
        };
        let path = self.move_path(generation);
        if !self.write(&path, json(&next)?, PutMode::Create)? {
            // If the answer to our write was lost and the write repeated, the existing object is our own.
            if self.read_move(generation)? != next {
                bail!(Overtaken(generation));
            }
        }
        if let Some(old) = generation.checked_sub(KEPT)
            && let Err(error) = self.delete(&self.move_path(old))
        {
            tracing::warn!("an old move stays: {error:#}");
        }
        Ok((next, self.modified(&path)?))
    }

    /// The release that was wanted before `now`.
    ///
    /// # Errors
    /// The storage does not answer.
    pub fn served_before(&self, now: &Move) -> Result<Option<Named>> {
        let Some(serving) = now.served() else {
            return Ok(None);
        };
        let generations = self.generations(None)?;
        for &generation in generations.iter().rev() {
            let other = self.read_move(generation)?;
            if other.generation < now.generation
                && other.stage == Stage::Serve
                && other.to.release != serving.release
            {
                return Ok(Some(other.to));
            }
        }
        Ok(None)
    }
}
