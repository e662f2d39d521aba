//! Installs a release of another machine in a repository.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use saker_contract::release::{self, DEPLOYMENT, STAMP, STAMP_FORMAT};
use serde_json::json;

use super::edit;
use super::manifest::{Manifest, Model};
use super::repository::{Index, Repository};
use crate::files::{create, remove, remove_folder, write, write_json};

/// The version number of a new repository's first release, and the one version folder of every ensemble.
const FIRST: u64 = 1;

/// The tensors of a release differ from those of the releases in a repository, so it cannot serve beside them.
#[derive(Debug, thiserror::Error)]
#[error(
    "release {release} has other tensors than the releases of this repository ({}): it cannot be loaded beside them. A server \
     that starts anew takes it", models.join(", ")
)]
pub struct Incompatible {
    /// Its id.
    pub release: String,
    /// The models whose tensors differ.
    pub models: Vec<String>,
}

/// Creates the file with this SHA-256 at a path.
pub type Place<'p> = dyn FnMut(&str, &Path) -> Result<()> + 'p;

/// Installs a release in the repository at `root`, which is created if it is missing. `configs` has the `config.pbtxt` of its models, and
/// `place` creates each artefact. A release that is installed already stays unchanged. Returns its version there.
///
/// The release is added to `releases.json` last, so a killed program leaves nothing that a server would load.
///
/// # Errors
/// Returns [`Incompatible`] if the tensors differ, unless `replace` is given: then the release replaces the existing ones. Returns an error
/// if an artefact cannot be created or a file cannot be written.
pub fn install(
    root: &Path,
    manifest: &Manifest,
    configs: &BTreeMap<String, String>,
    replace: bool,
    place: &mut Place<'_>,
) -> Result<u64> {
    create(root)?;
    let _lock = Repository::lock_folder(root)?;
    let Ok(repository) = Repository::open(root) else {
        return fresh(root, manifest, configs, place);
    };
    let index = repository.index()?;
    let known = index.releases.iter();
    let mut known = known.filter(|(_, release)| **release == manifest.release);
    if let Some((&version, _)) = known.next() {
        return Ok(version);
    }
    let interfaces = manifest.models.iter();
    let interfaces = interfaces.map(|(name, model)| (name.as_str(), model.interface.as_str()));
    let models = changed(&repository, interfaces);
    if models.is_empty() {
        return beside(&repository, index, manifest, configs, place);
    }
    if !replace {
        bail!(Incompatible {
            release: manifest.release.clone(),
            models,
        });
    }
    // The index comes first: a repository without it has no release.
    remove(&root.join(release::INDEX))?;
    for model in repository.models()? {
        remove_folder(&root.join(model))?;
    }
    for ensemble in repository.ensembles() {
        remove_folder(&root.join(ensemble))?;
    }
    for version in index.releases.keys() {
        remove(&root.join(release::manifest(*version)))?;
    }
    fresh(root, manifest, configs, place)
}

/// The models whose interfaces in the release differ from those of the serving one.
pub fn changed<'m>(
    repository: &Repository,
    models: impl Iterator<Item = (&'m str, &'m str)> + Clone,
) -> Vec<String> {
    let serving = repository
        .serving()
        .and_then(|version| repository.manifest(version));
    // A repository of an older saker has no manifest, so its tensors are unknown.
    let before = serving.map(|manifest| manifest.models).unwrap_or_default();
    let is_other = |(name, interface): &(&str, &str)| {
        before.get(*name).map(|model| model.interface.as_str()) != Some(*interface)
    };
    let names = models.clone().map(|(name, _)| name);
    let gone = before
        .keys()
        .map(String::as_str)
        .filter(|name| !names.clone().any(|now| now == *name));
    models
        .filter(is_other)
        .map(|(name, _)| name)
        .chain(gone)
        .map(str::to_owned)
        .collect()
}

/// The config.pbtxt of every model, and whether the model is an ensemble.
fn config_of<'c>(configs: &'c BTreeMap<String, String>, model: &str) -> Result<(&'c str, bool)> {
    let text = configs
        .get(model)
        .with_context(|| format!("the release has no config.pbtxt of {model}"))?;
    Ok((text, !edit::steps(text).is_empty()))
}

fn fresh(
    root: &Path,
    manifest: &Manifest,
    configs: &BTreeMap<String, String>,
    place: &mut Place<'_>,
) -> Result<u64> {
    for (name, model) in &manifest.models {
        let (text, is_ensemble) = config_of(configs, name)?;
        let folder = root.join(name).join(FIRST.to_string());
        create(&folder)?;
        let text = match is_ensemble {
            true => edit::pin(text, FIRST),
            false => {
                let own = own_parameters(text, &model.parameters, None);
                version_folder(&folder, &manifest.release, model, &own, place)?;
                edit::admit(text, &[FIRST])?
            }
        };
        write(&root.join(name).join("config.pbtxt"), text)?;
    }
    let manifest = Manifest {
        version: FIRST,
        ..manifest.clone()
    };
    write_json(&root.join(release::manifest(FIRST)), &manifest)?;
    write_json(
        &root.join(release::INDEX),
        &Index::new(FIRST, &manifest.release),
    )?;
    Ok(FIRST)
}

fn beside(
    repository: &Repository,
    mut index: Index,
    manifest: &Manifest,
    configs: &BTreeMap<String, String>,
    place: &mut Place<'_>,
) -> Result<u64> {
    let version = index.next;
    let serving = repository.manifest(repository.serving()?)?;
    for (name, model) in &manifest.models {
        let (_, is_ensemble) = config_of(configs, name)?;
        if !is_ensemble {
            let folder = repository.version_folder(name, version);
            remove_folder(&folder)?;
            create(&folder)?;
            let shared = repository.config(name)?;
            let own = own_parameters(&shared, &model.parameters, serving.models.get(name));
            version_folder(&folder, &manifest.release, model, &own, place)?;
        }
    }
    repository.write_manifest(&Manifest {
        version,
        ..manifest.clone()
    })?;
    index.releases.insert(version, manifest.release.clone());
    index.next = version + 1;
    repository.write_index(&index)?;
    for name in manifest.models.keys() {
        let (text, is_ensemble) = config_of(configs, name)?;
        if !is_ensemble {
            repository.edit(name, |old| edit::deploy(old, text))?;
        }
    }
    Ok(version)
}

fn version_folder(
    folder: &Path,
    release: &str,
    model: &Model,
    own: &BTreeMap<String, Option<String>>,
    place: &mut Place<'_>,
) -> Result<()> {
    for (file, hash) in &model.files {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            create(parent)?;
        }
        place(hash, &path)?;
    }
    write_stamp(folder, release, &model.files, own)
}

/// Writes `release.json` of a version folder, which the backends read at load and compare.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write_stamp(
    folder: &Path,
    release: &str,
    files: &BTreeMap<String, String>,
    own: &BTreeMap<String, Option<String>>,
) -> Result<()> {
    let stamp =
        json!({ "format": STAMP_FORMAT, "release": release, "files": files, "parameters": own });
    write_json(&folder.join(STAMP), &stamp)
}

/// The parameters of a release that differ from the config.pbtxt that all versions share. `None` removes a parameter that this release
/// does not have.
pub fn own_parameters(
    shared: &str,
    parameters: &BTreeMap<String, String>,
    before: Option<&Model>,
) -> BTreeMap<String, Option<String>> {
    let shared = edit::parameters(shared);
    let travelling = |key: &str| !DEPLOYMENT.contains(&key);
    let mut own: BTreeMap<String, Option<String>> = parameters
        .iter()
        .filter(|(key, value)| travelling(key) && shared.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), Some(value.clone())))
        .collect();
    let gone = before
        .into_iter()
        .flat_map(|before| before.parameters.keys())
        .filter(|key| shared.contains_key(*key) && !parameters.contains_key(*key));
    own.extend(gone.map(|key| (key.clone(), None)));
    own
}
