//! Writes a shop into a folder. Complete files are kept.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::picture;
use crate::settings::Settings;
use crate::shop::Shop;
use crate::tables;

const PICTURES: &str = "pictures";

/// Whether a shop is written with its pictures, which take minutes and gigabytes for a large catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pictures {
    /// Write a picture of every item.
    Drawn,
    /// Write no pictures; keep existing ones.
    LeftOut,
}

/// The current phase of [`generate()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Users, items, descriptions.
    Entities,
    /// Pictures, counted one by one.
    Pictures,
    /// Days, counted in rows.
    Interactions,
}

/// Receives the progress: the stage, its finished part, and its size. Several threads call it.
pub type Report<'a> = dyn Fn(Stage, u64, u64) + Sync + 'a;

/// Name of a day's file: `day_00.parquet`.
pub fn day_file(day: usize) -> String {
    format!("day_{day:02}.parquet")
}

/// The table files of a shop, in the order in which they are written.
fn tables(settings: &Settings) -> Vec<String> {
    let mut names: Vec<String> = ["users", "items", "item_descriptions"]
        .iter()
        .map(|name| format!("{name}.parquet"))
        .collect();
    names.extend((0..settings.days).map(day_file));
    names
}

/// Whether a folder holds the complete shop of these settings, with or without its pictures.
///
/// # Errors
/// Returns an error if its `generator.json` is damaged or comes from another program.
pub fn is_complete(settings: &Settings, pictures: Pictures, folder: &Path) -> Result<bool> {
    let Some(manifest) = Manifest::find(folder)? else {
        return Ok(false);
    };
    let mut names = tables(settings);
    if pictures == Pictures::Drawn {
        names.push(PICTURES.to_owned());
    }
    Ok(manifest.is_of(settings) && names.iter().all(|name| manifest.holds(folder, name)))
}

/// Writes every file of a shop that the folder lacks.
///
/// Files of another shop in the folder are removed, but no other files. An interrupted run resumes with the first incomplete file. The
/// bytes depend only on the settings, not on the number of threads.
///
/// # Errors
/// Returns an error if the folder cannot be written, or if its `generator.json` comes from another program.
pub fn generate(shop: &Shop, pictures: Pictures, folder: &Path, report: &Report<'_>) -> Result<()> {
    let settings = shop.settings();
    fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut manifest = match Manifest::find(folder)? {
        Some(manifest) if manifest.is_of(settings) => manifest,
        Some(other) => {
            remove(&other, folder)?;
            Manifest::new(settings)
        }
        None => Manifest::new(settings),
    };
    manifest
        .files
        .retain(|name, size| manifest::size(&folder.join(name)).is_ok_and(|found| found == *size));
    manifest.write(folder)?;

    report(Stage::Entities, 0, 3);
    type Write = fn(&Path, &Shop) -> Result<()>;
    let entities: [(&str, Write); 3] = [
        ("users.parquet", tables::write_users),
        ("items.parquet", tables::write_items),
        ("item_descriptions.parquet", tables::write_descriptions),
    ];
    for (done, (name, write)) in entities.into_iter().enumerate() {
        if !manifest.files.contains_key(name) {
            write(&folder.join(name), shop)?;
            manifest.finish(folder, name)?;
        }
        report(Stage::Entities, done as u64 + 1, 3);
    }
    if pictures == Pictures::Drawn && !manifest.files.contains_key(PICTURES) {
        draw_pictures(shop, folder, report)?;
        manifest.finish(folder, PICTURES)?;
    }
    days(shop, folder, &mut manifest, report)
}

/// Draws a day while the previous one is written, so that at most two are in memory.
fn days(shop: &Shop, folder: &Path, manifest: &mut Manifest, report: &Report<'_>) -> Result<()> {
    let all = shop.settings().interactions;
    let days = 0..shop.settings().days;
    let missing: Vec<usize> = days
        .filter(|&day| !manifest.files.contains_key(&day_file(day)))
        .collect();
    let mut done = all - missing.iter().map(|&day| shop.rows(day)).sum::<u64>();
    report(Stage::Interactions, done, all);
    let mut events = missing.first().map(|&day| shop.events(day));
    for (place, &day) in missing.iter().enumerate() {
        let name = day_file(day);
        let path = folder.join(&name);
        let drawn = events.take().unwrap_or_default();
        let (written, next) = rayon::join(
            || tables::write_day(&path, shop, &drawn),
            || missing.get(place + 1).map(|&day| shop.events(day)),
        );
        written?;
        manifest.finish(folder, &name)?;
        events = next;
        done += shop.rows(day);
        report(Stage::Interactions, done, all);
    }
    Ok(())
}

/// Draws all pictures into a temporary folder, which is renamed when it is complete.
fn draw_pictures(shop: &Shop, folder: &Path, report: &Report<'_>) -> Result<()> {
    let beside = folder.join(format!("{PICTURES}.new"));
    let finished = folder.join(PICTURES);
    for stale in [&beside, &finished] {
        if stale.exists() {
            fs::remove_dir_all(stale).map_err(Error::file(stale))?;
        }
    }
    fs::create_dir_all(&beside).map_err(Error::file(&beside))?;
    let all = shop.items().len() as u64;
    let done = AtomicU64::new(0);
    shop.items().par_iter().try_for_each(|item| {
        let path = beside.join(format!("{}.png", item.id));
        fs::write(&path, picture::png(item)?).map_err(Error::file(&path))?;
        report(
            Stage::Pictures,
            done.fetch_add(1, Ordering::Relaxed) + 1,
            all,
        );
        Ok(())
    })?;
    fs::rename(&beside, &finished).map_err(Error::file(&finished))
}

/// Removes the files that another shop's manifest lists. It ignores names that the generator does not use.
fn remove(manifest: &Manifest, folder: &Path) -> Result<()> {
    for name in tables(&manifest.settings) {
        let path = folder.join(name);
        if path.is_file() {
            fs::remove_file(&path).map_err(Error::file(&path))?;
        }
    }
    let pictures = folder.join(PICTURES);
    if manifest.files.contains_key(PICTURES) && pictures.exists() {
        fs::remove_dir_all(&pictures).map_err(Error::file(&pictures))?;
    }
    Ok(())
}

impl Manifest {
    fn is_of(&self, settings: &Settings) -> bool {
        let fresh = Self::new(settings);
        (&self.settings, self.model) == (&fresh.settings, fresh.model)
    }

    fn finish(&mut self, folder: &Path, name: &str) -> Result<()> {
        let size = manifest::size(&folder.join(name))?;
        self.files.insert(name.to_owned(), size);
        self.write(folder)
    }
}
