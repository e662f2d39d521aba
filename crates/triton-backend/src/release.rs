//! The release check: artefacts of two training runs must not serve together.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Formats of `release.json`: 1 has no parameters.
const RELEASE_FORMATS: RangeInclusive<u32> = 1..=2;
/// Formats of `releases.json`.
const RELEASES_FORMATS: RangeInclusive<u32> = 1..=1;

/// The content of `<model>/<version>/release.json`, which describes the artefacts in the same folder.
///
/// ```json
/// {"format": 2, "release": "<id>", "files": {"<file>": "<sha256>"}, "parameters": {"<KEY>": "<value>"}}
/// ```
///
/// - **One run.** At load the SDK compares the id with `<repository>/releases.json`, `{"format": 1, "releases": {"<version>": "<id>"}}`.
///   The load fails if they differ, or if the list lacks the version. If either file is absent, nothing is compared.
/// - **No damage.** The load fails if a file's SHA-256 differs from the one in `files`. The smallest files, at most a gigabyte in total and
///   half a gigabyte each, are checked before the load. The others are checked while the model serves. If one is damaged, the model answers
///   every further request with an error that names it.
/// - **Its own settings.** Versions of a model share one config.pbtxt. Values that differ between two releases, such as a mean of the
///   training rows, are in `parameters`. They replace the value of config.pbtxt for this version only; `null` removes the key.
/// - **In every answer.** Each response carries the id as the parameter `release`. Triton's ensembles do not forward parameters of their
///   steps, so a model may also declare one more output, `{ name: "release" data_type: TYPE_STRING dims: [ 1 ] }`. The SDK writes the id
///   there (empty without a release), and the backend does not see that output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    format: u32,
    /// The id of the training run, as `release.json` has it.
    #[serde(rename = "release")]
    pub id: String,
    /// SHA-256 of each artefact, lower-case hexadecimal, by file name.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Values that replace those of config.pbtxt's `parameters`; `None` removes the key.
    #[serde(default)]
    pub parameters: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize)]
struct Releases {
    format: u32,
    releases: BTreeMap<String, String>,
}

impl Release {
    /// Reads and checks the release. Arguments: the model's folder, its version folder, the version.
    pub(crate) fn of(
        model_dir: &Path,
        version_dir: &Path,
        version: u64,
    ) -> Result<Option<Self>, Error> {
        let Some(release) = read::<Self>(&version_dir.join("release.json"))? else {
            return Ok(None);
        };
        check_format(
            &version_dir.join("release.json"),
            release.format,
            &RELEASE_FORMATS,
        )?;
        let Some(root) = model_dir.parent().map(|root| root.join("releases.json")) else {
            return Ok(Some(release));
        };
        let Some(served) = read::<Releases>(&root)? else {
            return Ok(Some(release));
        };
        check_format(&root, served.format, &RELEASES_FORMATS)?;
        match served.releases.get(&version.to_string()) {
            Some(id) if *id == release.id => Ok(Some(release)),
            Some(id) => Err(Error::invalid_argument(format!(
                "version {version} holds release {}, but the repository serves release {id} as version \
                 {version}; assemble the repository from one training run",
                release.id
            ))),
            None => {
                let listed: Vec<&str> = served.releases.keys().map(String::as_str).collect();
                Err(Error::invalid_argument(format!(
                    "version {version} holds release {}, but {} does not list version {version}; listed: {}; \
                     remove the version folder, or assemble the release with `saker assemble`",
                    release.id,
                    root.display(),
                    if listed.is_empty() {
                        "no version".to_owned()
                    } else {
                        listed.join(", ")
                    }
                )))
            }
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::unavailable(format!(
                "{} cannot be read: {e}",
                path.display()
            )));
        }
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Error::invalid_argument(format!("{} is not a release file: {e}", path.display()))
    })
}

fn check_format(path: &Path, format: u32, read: &RangeInclusive<u32>) -> Result<(), Error> {
    if read.contains(&format) {
        return Ok(());
    }
    let (first, last) = (read.start(), read.end());
    let known = if first == last {
        format!("format {last}")
    } else {
        format!("formats {first} to {last}")
    };
    Err(Error::unsupported(format!(
        "{} has format {format}; this version reads {known}",
        path.display()
    )))
}
