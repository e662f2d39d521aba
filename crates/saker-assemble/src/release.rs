//! The release id that all artefacts of one repository carry.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use saker_pipeline::Pipeline;
use saker_serving::files::hex;
use saker_serving::releases::Repository;
use sha2::{Digest, Sha256};

use super::Artefacts;

/// `<pipeline>-<UTC time>-<hash of the artefacts>`, such as `movielens-20260314T150926Z-1f3a9c2b`. The time is `now`, or the
/// first second after it whose id the repository at `target` does not have.
///
/// # Errors
/// Returns an error if an artefact cannot be read.
pub fn release_id(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    now: SystemTime,
    target: &Path,
) -> Result<String> {
    let mut hash = Sha256::new();
    for (path, _) in artefacts.files() {
        add(&mut hash, path)?;
    }
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let short = &hex(&hash.finalize())[..8];
    let taken: HashSet<String> = Repository::open(target)
        .and_then(|repository| repository.index())
        .map(|index| index.releases.into_values().collect())
        .unwrap_or_default();
    let name = &pipeline.pipeline.name;
    (seconds..)
        .map(|second| format!("{name}-{}-{short}", utc(second)))
        .find(|id| !taken.contains(id))
        .context("every release id is taken")
}

fn add(hash: &mut Sha256, path: &Path) -> Result<()> {
    if path.is_dir() {
        let mut entries = fs::read_dir(path)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .with_context(|| format!("cannot read {}", path.display()))?;
        entries.sort();
        return entries.iter().try_for_each(|entry| add(hash, entry));
    }
    hash.update(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
    Ok(())
}

/// Unix seconds as `20260314T150926Z`. The date is Howard Hinnant's `civil_from_days`.
pub fn utc(seconds: u64) -> String {
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let time = seconds % 86_400;
    format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        time / 3600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn seconds_are_dates() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_773_500_966), "20260314T150926Z");
    }
}
