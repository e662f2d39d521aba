//! The source of a program's pipeline: a definition and the outputs of `saker prepare`, or the releases of a store.

// Help texts: clap prints them unchanged.
#![allow(rustdoc::invalid_html_tags, rustdoc::bare_urls)]

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use saker_pipeline::Pipeline;

use super::stop_flag;
use crate::files::create;
use crate::layout::Layout;
use crate::registry::{Named, Registry};
use crate::target::{Target, duration};

/// A definition, or a store of releases.
#[derive(clap::Args, Clone, Debug)]
pub struct Source {
    #[command(flatten)]
    target: Target,
    /// Store of releases: a folder, file:// or s3://bucket/prefix. Definition and catalogue are then those of its wanted release,
    /// instead of a dataset's
    #[arg(long, value_name = "URL", env = "SAKER_RELEASES")]
    releases: Option<String>,
    /// Seconds between two polls of the wanted release
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = duration)]
    every: Duration,
}

/// The content of a source.
pub struct Opened {
    /// The definition.
    pub pipeline: Pipeline,
    /// Layout of the catalogue.
    pub layout: Layout,
    /// The source of other releases' catalogues.
    pub followed: Option<Followed>,
}

/// The releases that a program follows.
pub struct Followed {
    registry: Registry,
    target: Target,
    /// Interval of the polls.
    pub every: Duration,
    generation: u64,
    served: Named,
    catalogues: Catalogues,
}

/// A folder for catalogues that only this program uses while it runs. Gateway and updater of one machine share their state folder.
struct Catalogues {
    folder: PathBuf,
    _locked: File,
}

impl Catalogues {
    fn take(state: &Path) -> Result<Self> {
        let all = state.join("catalogues");
        create(&all)?;
        let mut number = 0;
        loop {
            let folder = all.join(number.to_string());
            let lock = folder.with_added_extension("lock");
            let cannot = || format!("cannot lock {}", lock.display());
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&lock);
            let file = file.with_context(cannot)?;
            match file.try_lock() {
                Ok(()) => {
                    return Ok(Self {
                        folder,
                        _locked: file,
                    });
                }
                Err(TryLockError::WouldBlock) => number += 1,
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
        }
    }
}

impl Source {
    /// Layout of the program's files that do not belong to a release.
    pub fn own_layout(&self, pipeline: &Pipeline) -> Layout {
        Layout::new(&self.target.state, &pipeline.pipeline.name)
    }

    /// The store of releases, if the arguments name one.
    ///
    /// # Errors
    /// Returns an error if the address is invalid.
    pub fn registry(&self) -> Result<Option<Registry>> {
        self.releases.as_deref().map(Registry::open).transpose()
    }

    /// Reads the definition.
    ///
    /// # Errors
    /// Returns an error if the definition is missing or invalid, if a file of the release is damaged, or if the program receives a signal while
    /// it waits for a release.
    pub fn open(&self) -> Result<Opened> {
        let Some(location) = &self.releases else {
            let (pipeline, layout) = self.target.open()?;
            return Ok(Opened {
                pipeline,
                layout,
                followed: None,
            });
        };
        let registry = Registry::open(location)?;
        // A program that starts before the first release, or while the store is unavailable, waits: if it exited, it would only be
        // restarted.
        let (wanted, served) = registry.wait_for_served(None, &*stop_flag()?)?;
        let followed = Followed {
            target: self.target.clone(),
            every: self.every,
            generation: wanted.generation,
            served,
            registry,
            catalogues: Catalogues::take(&self.target.state)?,
        };
        let (pipeline, layout) = followed.fetch(&followed.served)?;
        Ok(Opened {
            pipeline,
            layout,
            followed: Some(followed),
        })
    }
}

impl Followed {
    /// Calls `take` with the definition and catalogue of each new release, as long as the program runs, in its own thread. A failure is logged
    /// once and tried again.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be started.
    pub fn keep_up(
        mut self,
        take: impl Fn(&Pipeline, &Layout) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let keep_up = move || {
            let mut said = None;
            loop {
                std::thread::sleep(self.every);
                let looked = self.look().and_then(|news| match news {
                    Some((pipeline, layout)) => take(&pipeline, &layout).map(|()| true),
                    None => Ok(false),
                });
                match looked {
                    Ok(true) => tracing::info!("the catalogue of release {}", self.release()),
                    Ok(false) => said = None,
                    Err(error) => {
                        let why = format!("{error:#}");
                        if said.as_ref() != Some(&why) {
                            tracing::warn!("the catalogue stays that of before: {why}");
                        }
                        said = Some(why);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("releases".into());
        thread
            .spawn(keep_up)
            .context("no thread for the releases")?;
        Ok(())
    }

    /// The release whose catalogue was read last.
    pub fn release(&self) -> &str {
        &self.served.release
    }

    /// The definition and the catalogue of the release to serve, if it has changed.
    ///
    /// # Errors
    /// Returns an error if the store of releases does not answer or a file of the catalogue is damaged. The next poll tries again.
    pub fn look(&mut self) -> Result<Option<(Pipeline, Layout)>> {
        let Some(wanted) = self.registry.wanted_after(self.generation)? else {
            return Ok(None);
        };
        let next = wanted.served().filter(|next| **next != self.served);
        let Some(next) = next.cloned() else {
            self.generation = wanted.generation;
            return Ok(None);
        };
        let fetched = self.fetch(&next)?;
        self.generation = wanted.generation;
        self.served = next;
        Ok(Some(fetched))
    }

    fn fetch(&self, named: &Named) -> Result<(Pipeline, Layout)> {
        let (published, _) = self.registry.release(&named.release, Some(&named.sha256))?;
        let mut pipeline = published.pipeline()?;
        self.target.settle(&mut pipeline)?;
        let layout = self
            .registry
            .fetch_catalogue(&published, &self.catalogues.folder)?;
        Ok((pipeline, layout))
    }
}

#[cfg(test)]
mod tests {
    use super::Catalogues;

    #[test]
    fn each_program_has_a_folder_of_its_own() {
        let state = tempfile::tempdir().unwrap();
        let take = || Catalogues::take(state.path()).unwrap();
        let (first, second) = (take(), take());
        assert_ne!(first.folder, second.folder);
        let left = first.folder.clone();
        drop(first);
        assert_eq!(take().folder, left);
    }
}
