//! Old releases out of the store.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};

use super::{Registry, Reported};

/// How long a list of the releases counts while files are removed: a release that is published meanwhile must be seen.
const LISTED: Duration = Duration::from_secs(1);

/// What [`Registry::prune`] removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Releases that stay.
    pub kept: usize,
    /// Ids of the removed releases, the oldest first.
    pub releases: Vec<String>,
    /// Removed files that no remaining release has.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Removed reports of servers that no longer report.
    pub reports: usize,
}

impl Registry {
    /// Removes all but the newest `keep` releases, with the files that no other release has.
    ///
    /// These stay in any case: the wanted release, the one that serves until it is loaded, the one that a rollback goes back to, and
    /// each release that a server serves. Files and reports that are younger than `age` stay, too: a publication in progress has
    /// files of no release yet. `dry` removes nothing and returns the same.
    ///
    /// Killed at any point, it leaves whole releases and perhaps files of none, which the next run removes. A publication at the same
    /// time uploads again what it misses ([`Registry::publish`]).
    ///
    /// # Errors
    /// Returns an error if `keep` is 0, a release is damaged (its files are unknown), or the storage does not answer.
    pub fn prune(&self, keep: usize, age: Duration, dry: bool) -> Result<Pruned> {
        ensure!(keep > 0, "at least one release must be kept");
        let is_old = |at: DateTime<Utc>| {
            let passed = Utc::now().signed_duration_since(at);
            passed.to_std().is_ok_and(|passed| passed >= age)
        };
        let (gone, reporting): (Vec<Reported>, Vec<Reported>) =
            self.reports()?.into_iter().partition(|it| is_old(it.at));
        let mut all = self.releases()?;
        let needed = self.needed(reporting)?;
        let newest = all.split_off(all.len().saturating_sub(keep));
        let (older, needed): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|id| !needed.contains(id));
        let mut kept: Vec<String> = needed.into_iter().chain(newest).collect();
        let mut pruned = Pruned {
            kept: kept.len(),
            reports: gone.len(),
            ..Pruned::default()
        };
        // Read before anything is removed: a damaged release ends this here.
        let mut used = self.files_of(&kept)?;
        if !dry {
            for it in &gone {
                self.leave(&it.report.server)?;
            }
            for id in &older {
                self.delete(&self.release_path(id))?;
            }
        }
        pruned.releases = older;

        let mut listed = Instant::now();
        let files = self.list("files")?;
        for meta in files.iter().filter(|meta| is_old(meta.last_modified)) {
            if !dry && listed.elapsed() > LISTED {
                let now = self.releases()?;
                if now != kept {
                    used = self.files_of(&now)?;
                    kept = now;
                }
                listed = Instant::now();
            }
            let hash = meta.location.filename().unwrap_or_default();
            if used.contains(hash) {
                continue;
            }
            if !dry {
                self.delete(&meta.location)?;
            }
            pruned.files += 1;
            pruned.bytes += meta.size;
        }
        Ok(pruned)
    }

    /// Ids of the releases that these servers serve, and of those that servers may be told to serve.
    fn needed(&self, reporting: Vec<Reported>) -> Result<BTreeSet<String>> {
        let serving = reporting.into_iter().filter_map(|it| it.report.serving);
        let mut needed: BTreeSet<String> = serving.collect();
        if let Some(wanted) = self.wanted()? {
            let back = self.served_before(&wanted)?;
            needed.extend(back.map(|named| named.release));
            needed.extend(wanted.before.map(|named| named.release));
            needed.insert(wanted.to.release);
        }
        Ok(needed)
    }

    /// SHA-256 of every file of these releases.
    fn files_of(&self, releases: &[String]) -> Result<BTreeSet<String>> {
        let mut used = BTreeSet::new();
        for id in releases {
            used.extend(self.release(id, None)?.0.sizes.into_keys());
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread::sleep;

    use object_store::{ObjectMeta, PutMode};
    use serde_json::json;

    use super::super::{Named, Published, Report, Stage, State, json as text};
    use super::*;
    use crate::releases::Manifest;

    /// A store with a release for each name; each has a file of its own, and all have the file `shared`.
    fn store(folder: &tempfile::TempDir, releases: &[&str]) -> Registry {
        let registry = Registry::open(&folder.path().display().to_string()).expect("a store");
        for id in releases {
            publish(&registry, id);
            // The order of the releases is that of their times.
            sleep(Duration::from_millis(5));
        }
        registry
    }

    fn publish(registry: &Registry, id: &str) {
        let manifest: Manifest = serde_json::from_value(json!({
            "format": 1, "release": id, "version": 1, "created": 0, "saker": "0", "pipeline": {}, "models": {}
        }))
        .expect("a manifest");
        let sizes = BTreeMap::from([(format!("of-{id}"), 3), ("shared".to_owned(), 3)]);
        for hash in sizes.keys() {
            let written = registry.write(&registry.file(hash), b"abc".to_vec(), PutMode::Overwrite);
            written.expect("a file");
        }
        let published = Published {
            format: 1,
            manifest,
            configs: BTreeMap::new(),
            sizes,
        };
        let content = text(&published).expect("a release as text");
        let written = registry.write(&registry.release_path(id), content, PutMode::Create);
        written.expect("a release");
    }

    fn promote(registry: &Registry, id: &str) {
        let (_, sha256) = registry.release(id, None).expect("a release");
        let to = Named {
            release: id.to_owned(),
            sha256,
        };
        let wanted = registry.wanted().expect("what is wanted");
        let moved = registry.move_to(wanted.as_ref(), to, Stage::Serve);
        moved.expect("a move");
    }

    fn report(registry: &Registry, server: &str, serving: &str) {
        let report = Report {
            server: server.to_owned(),
            generation: 1,
            state: State::Serving,
            serving: Some(serving.to_owned()),
            error: None,
            every: 1.0,
        };
        registry.report(&report).expect("a report");
    }

    fn files(registry: &Registry) -> Vec<String> {
        let listed = registry.list("files").expect("the files");
        let name = |meta: &ObjectMeta| meta.location.filename().map(str::to_owned);
        let mut names: Vec<String> = listed.iter().filter_map(name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_newest_releases_stay_with_their_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = store(&folder, &["a", "b", "c", "d"]);
        let dry = registry.prune(2, Duration::ZERO, true).expect("a look");
        assert_eq!(registry.releases().expect("all").len(), 4);
        let pruned = registry.prune(2, Duration::ZERO, false).expect("a prune");
        assert_eq!(pruned, dry);
        assert_eq!(pruned.releases, ["a", "b"]);
        assert_eq!((pruned.kept, pruned.files, pruned.bytes), (2, 2, 6));
        assert_eq!(registry.releases().expect("the rest"), ["c", "d"]);
        assert_eq!(files(&registry), ["of-c", "of-d", "shared"]);
        let again = registry.prune(2, Duration::ZERO, false).expect("a prune");
        assert_eq!((again.releases.len(), again.files), (0, 0));
    }

    #[test]
    fn what_serves_or_may_serve_again_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = store(&folder, &["a", "b", "c", "d", "e"]);
        for id in ["a", "b", "c"] {
            promote(&registry, id);
        }
        // A server that has not followed yet.
        report(&registry, "slow", "a");
        let age = Duration::from_secs(3600);
        let pruned = registry.prune(1, age, false).expect("a prune");
        // Wanted: c. A rollback goes to b. One server serves a. The newest is e.
        assert_eq!(pruned.releases, ["d"]);
        assert_eq!(pruned.files, 0, "the file is younger than an hour");
        let pruned = registry.prune(1, Duration::ZERO, false).expect("a prune");
        assert_eq!(pruned.reports, 1);
        assert_eq!(pruned.releases, ["a"], "the server no longer reports");
        assert_eq!(files(&registry), ["of-b", "of-c", "of-e", "shared"]);
        assert!(registry.reports().expect("reports").is_empty());
    }

    #[test]
    fn a_damaged_release_ends_it_before_anything_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let registry = store(&folder, &["a", "b", "c"]);
        let path = registry.release_path("c");
        let written = registry.write(&path, b"{".to_vec(), PutMode::Overwrite);
        written.expect("a damaged release");
        let error = registry.prune(2, Duration::ZERO, false);
        let error = format!("{:#}", error.expect_err("an error"));
        assert!(error.contains("releases/c.json is damaged"), "{error}");
        assert_eq!(registry.releases().expect("all").len(), 3);
        assert!(registry.prune(0, Duration::ZERO, false).is_err());
    }
}
