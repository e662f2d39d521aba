//! `generator.json`: the settings of a folder's shop, and its complete files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// Name of the file in the shop's folder.
pub const FILE: &str = "generator.json";
/// Version of this file's format.
const FORMAT: u32 = 1;
/// Version of the model of behaviour. It changes whenever the same settings give another shop.
const MODEL: u32 = 1;
const GENERATOR: &str = "retail";

/// The content of `generator.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// `retail`
    pub generator: String,
    /// Version of the model of behaviour.
    pub model: u32,
    /// All settings of the shop.
    pub settings: Settings,
    /// Size in bytes of each complete file; `pictures` is the entry for that whole folder.
    pub files: BTreeMap<String, u64>,
}

impl Manifest {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            format: FORMAT,
            generator: GENERATOR.to_owned(),
            model: MODEL,
            settings: settings.clone(),
            files: BTreeMap::new(),
        }
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// Returns an error if it is missing, damaged, or written by another version of the model.
    pub fn read(folder: &Path) -> Result<Self> {
        let manifest = Self::find(folder)?.ok_or_else(|| Error::Manifest {
            path: folder.join(FILE),
            reason: "the file does not exist; run `saker generate retail` to make it".to_owned(),
        })?;
        if manifest.model != MODEL {
            return Err(Error::Manifest {
                path: folder.join(FILE),
                reason: format!(
                    "model = {}: this version of Saker generates model {MODEL}; run `saker generate retail` again",
                    manifest.model
                ),
            });
        }
        Ok(manifest)
    }

    /// The manifest of a folder, for any version of the model; `None` if the file does not exist.
    pub(crate) fn find(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(Error::file(&path))?;
        let refused = |reason: String| Error::Manifest {
            path: path.clone(),
            reason,
        };
        // Read the format first, since another format may have other fields.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
            generator: String,
        }
        let header: Header = serde_json::from_slice(&text)
            .map_err(|error| refused(format!("not a manifest of `saker generate`: {error}")))?;
        if header.format != FORMAT || header.generator != GENERATOR {
            return Err(refused(format!(
                "generator = {}, format = {}: accepted is {GENERATOR}, {FORMAT}",
                header.generator, header.format
            )));
        }
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| refused(error.to_string()))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| Error::Manifest {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        let beside = folder.join(format!("{FILE}.new"));
        fs::write(&beside, text).map_err(Error::file(&beside))?;
        fs::rename(&beside, &path).map_err(Error::file(&path))
    }

    /// Whether a file is listed and has the listed size.
    pub(crate) fn holds(&self, folder: &Path, name: &str) -> bool {
        let size = size(&folder.join(name)).ok();
        size.is_some() && self.files.get(name).copied() == size
    }
}

/// Size in bytes of a file, or of all files of a folder together.
pub(crate) fn size(path: &Path) -> Result<u64> {
    let about = fs::metadata(path).map_err(Error::file(path))?;
    if about.is_file() {
        return Ok(about.len());
    }
    let mut sum = 0;
    for entry in fs::read_dir(path).map_err(Error::file(path))? {
        let entry = entry.map_err(Error::file(path))?;
        sum += entry.metadata().map_err(Error::file(&entry.path()))?.len();
    }
    Ok(sum)
}
