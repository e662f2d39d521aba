//! Moves to a release and waits for the servers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, TimeDelta, Utc};

use super::Registry;
use super::moves::{Move, Named, Overtaken, Stage};
use super::reports::{Reported, State};

/// Interval at which the servers' reports are read.
const LOOK: Duration = Duration::from_millis(500);

/// Time and servers that a promotion waits for.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// Time limit of each of the two stages.
    pub time: Duration,
    /// Number of servers that must report.
    pub servers: usize,
    /// Number of servers that may refuse the release.
    pub refusals: usize,
}

/// State of the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Number of servers that report.
    pub servers: usize,
    /// Number of servers that have completed the stage.
    pub ready: usize,
    /// Number of servers that refuse the release.
    pub refused: usize,
}

/// Makes a release the wanted one. With `waiting`, it has two stages: all servers load and test the release, then all switch. If too many
/// refuse or the time is over, the servers go back. Without `waiting`, each server switches when it can. Returns the last move.
///
/// # Errors
/// Returns an error if servers refuse the release, if the time is over, if another promotion runs, or if the store does not answer.
pub fn promote(
    registry: &Registry,
    to: &Named,
    waiting: Option<Waiting>,
    on: &mut dyn FnMut(Stage, Standing),
) -> Result<Move> {
    let from = registry.wanted()?;
    let Some(waiting) = waiting else {
        return Ok(registry.move_to(from.as_ref(), to.clone(), Stage::Serve)?.0);
    };
    let before = from.as_ref().and_then(Move::served).cloned();
    // Before the first release of a store, no other release could serve.
    let stages: &[Stage] = match &before {
        Some(_) => &[Stage::Load, Stage::Serve],
        None => &[Stage::Serve],
    };
    let mut last = from;
    for &stage in stages {
        let (made, at) = registry.move_to(last.as_ref(), to.clone(), stage)?;
        let waited = wait(registry, &made, at, waiting, on);
        if let Err(error) = waited {
            if error.downcast_ref::<Overtaken>().is_some() {
                return Err(error);
            }
            let Some(before) = before else {
                return Err(error.context(format!(
                    "release {} is promoted, and no release before it could take its place",
                    to.release
                )));
            };
            let name = before.release.clone();
            return Err(match registry.move_to(Some(&made), before, Stage::Serve) {
                Ok(_) => error.context(format!(
                    "release {} is not promoted; the servers go back to {name}",
                    to.release
                )),
                Err(other) => error.context(format!(
                    "release {} is not promoted, and the servers could not be sent back to {name} ({other:#})",
                    to.release
                )),
            });
        }
        last = Some(made);
    }
    last.context("a promotion has a stage")
}

/// Waits until every server that reports has completed a move.
fn wait(
    registry: &Registry,
    made: &Move,
    at: DateTime<Utc>,
    waiting: Waiting,
    on: &mut dyn FnMut(Stage, Standing),
) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(other) = registry.wanted_after(made.generation)? {
            bail!(Overtaken(other.generation));
        }
        // The time of the move is by the storage's clock.
        let now = at + TimeDelta::from_std(start.elapsed()).unwrap_or_default();
        let reports = registry.reports()?;
        let current: Vec<&Reported> = reports.iter().filter(|it| it.is_current(now)).collect();
        let standing = standing(&current, made);
        on(made.stage, standing);
        if standing.refused > waiting.refusals {
            bail!("{}", complaints(&current, made));
        }
        let enough = standing.servers >= waiting.servers.max(1);
        if enough && standing.ready + standing.refused == standing.servers {
            return Ok(());
        }
        if start.elapsed() > waiting.time {
            let (ready, servers) = (standing.ready, standing.servers);
            let seconds = waiting.time.as_secs();
            bail!(
                "after {seconds} s {ready} of {servers} servers that report have {}; at least {} must. {}",
                match made.stage {
                    Stage::Load => "loaded it",
                    Stage::Serve => "switched to it",
                },
                waiting.servers.max(1),
                complaints(&current, made)
            );
        }
        sleep(LOOK);
    }
}

fn standing(reports: &[&Reported], made: &Move) -> Standing {
    let has_done = |it: &&&Reported| {
        let report = &it.report;
        report.generation == made.generation
            && match made.stage {
                Stage::Load => matches!(report.state, State::Loaded | State::Serving),
                Stage::Serve => report.state == State::Serving,
            }
    };
    Standing {
        servers: reports.len(),
        ready: reports.iter().filter(has_done).count(),
        refused: refusals(reports, made).count(),
    }
}

fn refusals<'r>(reports: &'r [&Reported], made: &'r Move) -> impl Iterator<Item = &'r Reported> {
    let refuses = |it: &&Reported| {
        it.report.generation == made.generation && it.report.state == State::Refused
    };
    reports.iter().copied().filter(refuses)
}

/// The errors in the servers' reports.
fn complaints(reports: &[&Reported], made: &Move) -> String {
    let seen = reports
        .iter()
        .filter(|it| it.report.generation == made.generation);
    let said: Vec<String> = seen
        .filter_map(|it| {
            Some(format!(
                "{}: {}",
                it.report.server,
                it.report.error.as_ref()?
            ))
        })
        .collect();
    match &said[..] {
        [] => "No server says why".to_owned(),
        said => said.join("; "),
    }
}
