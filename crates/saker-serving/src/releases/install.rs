//! A release that comes from elsewhere, put into a repository.

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

/// A release whose tensors are not those of the releases that stand in a repository: it cannot serve beside them.
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

/// Brings the file with this SHA-256 to a path.
pub type Place<'p> = dyn FnMut(&str, &Path) -> Result<()> + 'p;

/// Puts a release into the repository at `root`: beside those that stand there, or as the first of a new one. `configs` are the
/// `config.pbtxt` of its models; `place` brings each artefact. Where it stands there already, nothing is done. Returns its
/// version there.
///
/// The release is named last, so a program that is killed leaves nothing that a server would see.
///
/// # Errors
/// [`Incompatible`] models, unless `replace` is given: then the release takes the place of those that stand there. Or an
/// artefact cannot be had, or the disk does not take it.
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
    // First the index: a repository without it holds no release.
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

/// The models that cannot serve a release beside the one that serves now, by the names and interfaces of the release's.
pub fn changed<'m>(
    repository: &Repository,
    models: impl Iterator<Item = (&'m str, &'m str)> + Clone,
) -> Vec<String> {
    let serving = repository
        .serving()
        .and_then(|version| repository.manifest(version));
    // A repository of an older saker has no manifest: nothing is known of its tensors.
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

/// The config.pbtxt of every model, and whether it is an ensemble's.
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

/// Writes `release.json` of a version folder: what the backends compare and read at load.
///
/// # Errors
/// The disk does not take it.
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

/// The parameters that a release needs otherwise than the config.pbtxt that all versions share says; `None` takes one away that
/// the release before had and this one has not.
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
