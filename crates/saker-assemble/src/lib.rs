//! The artefacts of one training run as a release in a model repository: 14 steps and the ensemble, with one release id.
//!
//! A new repository is written to a temporary folder and then renamed; a release is listed only when it is complete. A server therefore
//! never sees a partial one. [`releases`](saker_serving::releases) handles releases from there on.

mod catalogue;
mod codes;
pub mod fused;
pub mod pbtxt;
mod record;
mod release;
pub mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use saker_contract::release::{self as release_files, DEPLOYMENT};
use saker_contract::{Artefact, Step, artefact};
use saker_pipeline::{Group, Pipeline};
use saker_serving::defaults::Defaults;
use saker_serving::files::{beside, create, hex, remove_folder, sha256, write, write_json};
use saker_serving::layout::{CATALOGUE, Layout};
use saker_serving::releases::edit;
use saker_serving::releases::install::{changed, own_parameters, write_stamp};
use saker_serving::releases::manifest::{self, Manifest};
use saker_serving::releases::record::Record;
use saker_serving::releases::repository::{Index, Repository};
use saker_store::address::has_credentials;
use saker_train::onnx;
use sha2::{Digest, Sha256};

pub use record::metrics;
pub use release::{release_id, utc};

use pbtxt::ModelConfig;

/// The version number of a new repository's first release.
pub const VERSION: u64 = 1;

/// The files of one training run.
#[derive(Clone, Debug, Default)]
pub struct Artefacts {
    /// Folders of the fitted workflows: `workflow.json` and `categories/`.
    pub workflows: BTreeMap<Group, PathBuf>,
    /// `query_tower.onnx`
    pub query_tower: PathBuf,
    /// `dlrm_ranking.onnx`
    pub ranker: PathBuf,
    /// `index.faiss`
    pub index: PathBuf,
    /// Embedding tables by tensor name: `.npy`, f32 [codes of the item id, dim].
    pub tables: BTreeMap<String, PathBuf>,
    /// The folder of the hoisted ranker, for the fused ensemble; `None` for a release without that ensemble.
    pub fused: Option<PathBuf>,
    /// The raw ids of the items that the release knows, one per line.
    pub catalogue: Option<PathBuf>,
    /// The features of an unknown user or item.
    pub defaults: Defaults,
    /// The files with the codes of users' and items' texts, if they have text features.
    pub codes: BTreeMap<Group, PathBuf>,
    /// The prepared users and items, by their file name in `data/`: what the gateway and the updater read.
    pub prepared: BTreeMap<String, PathBuf>,
    /// The origin of the artefacts, for the manifest.
    pub record: Record,
}

impl Artefacts {
    /// The artefacts at the output paths of the other commands. `code` is the hash over the sources of this program.
    ///
    /// # Errors
    /// Returns an error if one is missing; the message names the command that makes it.
    pub fn of(pipeline: &Pipeline, layout: &Layout, code: &str) -> Result<Self> {
        let mut artefacts = Self {
            workflows: Group::ALL
                .map(|group| (group, layout.workflow(group.as_str())))
                .into(),
            query_tower: layout.model(Step::QueryTower.model()),
            ranker: layout.model(Step::Ranking.model()),
            index: layout.index(),
            tables: pipeline
                .item
                .embeddings
                .iter()
                .map(|e| (e.name.clone(), layout.table(&e.name)))
                .collect(),
            fused: None,
            catalogue: None,
            defaults: Defaults::read(&layout.defaults())?,
            codes: codes::write(pipeline, layout)?,
            prepared: CATALOGUE
                .map(|file| (file.to_owned(), layout.catalogue_file(file)))
                .into_iter()
                .filter(|(_, path)| path.exists())
                .collect(),
            record: record::of(layout)?,
        };
        let dataset = &pipeline.pipeline.name;
        for (path, command) in artefacts.files() {
            if !path.exists() {
                bail!(
                    "{} is missing; run `saker {command} {dataset}`",
                    path.display()
                );
            }
        }
        artefacts.catalogue = Some(catalogue::write_ids(pipeline, layout)?);
        if pipeline.serving.fused {
            artefacts.fused = Some(fused::hoist(pipeline, layout, code)?);
        }
        Ok(artefacts)
    }

    /// Every file or folder, and the command that makes it.
    fn files(&self) -> Vec<(&Path, &'static str)> {
        let mut files: Vec<(&Path, &str)> = self
            .workflows
            .values()
            .map(|path| (path.as_path(), "prepare"))
            .collect();
        files.extend(self.tables.values().map(|path| (path.as_path(), "prepare")));
        files.extend(self.codes.values().map(|path| (path.as_path(), "prepare")));
        files.extend(
            self.prepared
                .values()
                .map(|path| (path.as_path(), "prepare")),
        );
        files.push((&self.query_tower, "train"));
        files.push((&self.ranker, "train"));
        files.push((&self.index, "index"));
        let made = self.fused.iter().chain(&self.catalogue);
        files.extend(made.map(|path| (path.as_path(), "assemble")));
        files
    }

    /// Every model of a release: the 14 steps and their ensemble, and the fused ensemble if the release has it.
    fn models(&self, pipeline: &Pipeline, version: u64) -> Result<Vec<ModelConfig>> {
        let mut models = steps::models(pipeline, &self.defaults, version)?;
        if self.fused.is_some() {
            models.extend(fused::models(pipeline, &self.defaults, version)?);
        }
        for model in &mut models {
            let Some(step) = Step::of_model(&model.name) else {
                continue;
            };
            for (artefact, file) in step.artefacts() {
                let parameter = match artefact {
                    Artefact::Codes(group) if self.codes.contains_key(group) => "CODES",
                    Artefact::Catalogue if self.catalogue.is_some() => "CATALOGUE",
                    _ => continue,
                };
                let file = (*file).to_owned();
                model.parameters.insert(parameter.to_owned(), file);
            }
        }
        Ok(models)
    }

    /// Every file or folder, for a hash over all of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files().into_iter().map(|(path, _)| path)
    }

    /// The content of a step's version folder: source path, and name in the folder.
    fn of_step(&self, step: Step, pipeline: &Pipeline) -> Result<Vec<(PathBuf, String)>> {
        let mut files = Vec::new();
        for (artefact, place) in step.artefacts() {
            let sources = self.sources(*artefact, pipeline)?.into_iter();
            files.extend(sources.map(|(path, name)| (path, within(place, &name))));
        }
        Ok(files)
    }

    /// The files of an artefact, each with its name in the artefact's folder. A single file has no name: the step says what it is called.
    fn sources(&self, artefact: Artefact, pipeline: &Pipeline) -> Result<Vec<(PathBuf, String)>> {
        let alone = |path: &PathBuf| (path.clone(), String::new());
        Ok(match artefact {
            Artefact::Workflow(group) => self.workflow(group)?,
            Artefact::ItemVocabulary => {
                let folder = self.workflow_folder(Group::Item)?;
                let file = artefact::vocabulary(&pipeline.item.id);
                vec![(folder.join(artefact::CATEGORIES).join(&file), file)]
            }
            Artefact::QueryTower => vec![alone(&self.query_tower)],
            Artefact::Ranker => vec![alone(&self.ranker)],
            Artefact::Index => vec![alone(&self.index)],
            Artefact::HoistedRanker => {
                let folder = self.fused.as_ref().context("no hoisted ranker")?;
                let files = artefact::HOISTED.map(|file| (folder.join(file), file.to_owned()));
                files.into()
            }
            Artefact::Embeddings => {
                let tables = self.tables.iter();
                let tables = tables.map(|(name, path)| (path.clone(), format!("{name}.npy")));
                tables.collect()
            }
            Artefact::Codes(group) => self.codes.get(&group).map(alone).into_iter().collect(),
            Artefact::Catalogue => self.catalogue.as_ref().map(alone).into_iter().collect(),
        })
    }

    /// The folder of a fitted workflow.
    fn workflow_folder(&self, group: Group) -> Result<&PathBuf> {
        let folder = self.workflows.get(&group);
        folder.with_context(|| format!("no workflow of the {} features", group.as_str()))
    }

    /// The files of a fitted workflow, with their names in its folder.
    fn workflow(&self, group: Group) -> Result<Vec<(PathBuf, String)>> {
        let folder = self.workflow_folder(group)?;
        let names = [artefact::WORKFLOW, artefact::CATEGORIES].into_iter();
        let mut files: Vec<_> = names
            .map(|name| (folder.join(name), name.to_owned()))
            .collect();
        // Only features with a vocabulary need the second one.
        files.retain(|(path, name)| name == artefact::WORKFLOW || path.exists());
        Ok(files)
    }
}

/// The path of a file in the version folder, from the name of its folder and its own name. One of them may be empty.
fn within(place: &str, name: &str) -> String {
    let names = [place, name].into_iter().filter(|name| !name.is_empty());
    names.collect::<Vec<_>>().join("/")
}

/// The result of [`assemble`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The release's version number.
    pub version: u64,
    /// Whether the release waits beside the serving one to be promoted. Otherwise it is the only release, and serves.
    pub waits: bool,
    /// Models whose tensors differ from those of the existing releases, which were therefore removed.
    pub changed: Vec<String>,
}

/// Writes a release into the repository at `target`, beside the existing ones. If the repository is empty, or if the models' tensors have
/// changed, the release becomes the only one of a new repository.
///
/// # Errors
/// Returns an error if an artefact is missing, if the id is taken, or if a file cannot be written. The repository is unchanged then.
pub fn assemble(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    target: &Path,
) -> Result<Assembled> {
    let Ok(repository) = Repository::open(target) else {
        fresh(pipeline, artefacts, release, VERSION, target)?;
        return Ok(Assembled {
            version: VERSION,
            waits: false,
            changed: Vec::new(),
        });
    };
    let _lock = repository.lock()?;
    let index = repository.index()?;
    let version = index.next;
    if let Some(taken) = index.releases.iter().find(|(_, id)| *id == release) {
        bail!(
            "release {release} already exists in {}, as version {}; choose another id",
            target.display(),
            taken.0
        );
    }
    let models = artefacts.models(pipeline, version)?;
    let interfaces: Vec<_> = models
        .iter()
        .map(|model| (&model.name, interface(model)))
        .collect();
    let interfaces = interfaces
        .iter()
        .map(|(name, of)| (name.as_str(), of.as_str()));
    let changed = changed(&repository, interfaces);
    if changed.is_empty() {
        add(pipeline, artefacts, release, version, &models, &repository)?;
    } else {
        fresh(pipeline, artefacts, release, version, target)?;
    }
    Ok(Assembled {
        version,
        waits: changed.is_empty(),
        changed,
    })
}

/// The part of config.pbtxt that versions of a model must share: all except settings and version list.
fn interface(model: &ModelConfig) -> String {
    let steps = model.steps.iter().map(|step| pbtxt::Step {
        version: 0,
        ..step.clone()
    });
    let shared = ModelConfig {
        parameters: BTreeMap::new(),
        versions: Vec::new(),
        instances: 0,
        steps: steps.collect(),
        ..model.clone()
    };
    hex(&Sha256::digest(shared.render()))
}

/// Writes a new repository with one release to a temporary folder, and then moves it to `target`.
fn fresh(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    version: u64,
    target: &Path,
) -> Result<()> {
    let mut models = artefacts.models(pipeline, version)?;
    let folder = beside(target, "new");
    remove_folder(&folder)?;
    let mut manifest = manifest(pipeline, artefacts, release, version)?;
    let mut tables = Tables::new();
    for model in &mut models {
        let of_ensemble = !model.steps.is_empty();
        if !of_ensemble {
            model.versions = vec![version];
        }
        // Triton requires a version folder for an ensemble too; it is the same for all releases.
        let place = folder.join(&model.name);
        create(&place.join(if of_ensemble { VERSION } else { version }.to_string()))?;
        write(&place.join("config.pbtxt"), model.render())?;
        let files = match of_ensemble {
            true => BTreeMap::new(),
            false => {
                let own = BTreeMap::new();
                place_version(
                    pipeline,
                    artefacts,
                    release,
                    model,
                    &own,
                    &place.join(version.to_string()),
                    &mut tables,
                )?
            }
        };
        manifest
            .models
            .insert(model.name.clone(), entry(model, files));
    }
    write_json(&folder.join(release_files::manifest(version)), &manifest)?;
    write_json(
        &folder.join(release_files::INDEX),
        &Index::new(version, release),
    )?;
    let old = beside(target, "old");
    remove_folder(&old)?;
    if target.exists() {
        fs::rename(target, &old)
            .with_context(|| format!("cannot move {} away", target.display()))?;
    }
    fs::rename(&folder, target)
        .with_context(|| format!("cannot put {} in place", target.display()))?;
    remove_folder(&old)
}

/// Adds a release beside the existing ones. `releases.json` lists it at the end.
fn add(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    version: u64,
    models: &[ModelConfig],
    repository: &Repository,
) -> Result<()> {
    let serving = repository.manifest(repository.serving()?)?;
    let mut manifest = manifest(pipeline, artefacts, release, version)?;
    let mut tables = Tables::new();
    for model in models {
        let mut files = BTreeMap::new();
        if model.steps.is_empty() {
            let folder = repository.version_folder(&model.name, version);
            remove_folder(&folder)?;
            let before = serving.models.get(&model.name);
            let own = own_parameters(&repository.config(&model.name)?, &model.parameters, before);
            files = place_version(
                pipeline,
                artefacts,
                release,
                model,
                &own,
                &folder,
                &mut tables,
            )?;
        }
        manifest
            .models
            .insert(model.name.clone(), entry(model, files));
    }
    repository.write_manifest(&manifest)?;
    let mut index = repository.index()?;
    index.releases.insert(version, release.to_owned());
    index.next = version + 1;
    repository.write_index(&index)?;
    for model in models.iter().filter(|model| model.steps.is_empty()) {
        repository.edit(&model.name, |text| edit::deploy(text, &model.render()))?;
    }
    Ok(())
}

/// Fills a model's version folder; returns the files' hashes.
fn place_version(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    model: &ModelConfig,
    own: &BTreeMap<String, Option<String>>,
    folder: &Path,
    tables: &mut Tables,
) -> Result<BTreeMap<String, String>> {
    create(folder)?;
    let mut files = Files {
        folder,
        release,
        tables,
        hashes: BTreeMap::new(),
    };
    let step = Step::of_model(&model.name);
    let step = step.with_context(|| format!("{} is no step of the contract", model.name))?;
    for (source, name) in artefacts.of_step(step, pipeline)? {
        files.copy(&source, &name)?;
    }
    let hashes = files.hashes;
    write_stamp(folder, release, &hashes, own)?;
    Ok(hashes)
}

fn entry(model: &ModelConfig, files: BTreeMap<String, String>) -> manifest::Model {
    let mut parameters = model.parameters.clone();
    parameters.retain(|key, _| !DEPLOYMENT.contains(&key.as_str()));
    manifest::Model {
        interface: interface(model),
        parameters,
        files,
    }
}

fn manifest(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    version: u64,
) -> Result<Manifest> {
    let mut definition = pipeline.clone();
    let url = &mut definition.store.redis_url;
    if has_credentials(url)
        && let Some((scheme, rest)) = url.split_once("://")
    {
        let place = rest.split('?').next().unwrap_or_default();
        let place = place.rsplit('@').next().unwrap_or_default();
        *url = format!("{scheme}://{place}");
    }
    Ok(Manifest {
        format: manifest::FORMAT,
        release: release.to_owned(),
        version,
        created: manifest::seconds(SystemTime::now()),
        saker: env!("CARGO_PKG_VERSION").to_owned(),
        record: artefacts.record.clone(),
        pipeline: serde_json::to_value(&definition).context("the definition as JSON")?,
        catalogue: artefacts
            .prepared
            .iter()
            .map(|(file, path)| Ok((file.clone(), sha256(path)?)))
            .collect::<Result<_>>()?,
        models: BTreeMap::new(),
    })
}

/// Writes only the `config.pbtxt` of every model, over what is there. The defaults must then be numbers.
///
/// # Errors
/// Returns an error as [`Defaults::of`] does, or if a file cannot be written.
pub fn render(pipeline: &Pipeline, target: &Path) -> Result<()> {
    let defaults = Defaults::of(pipeline)?;
    let mut models = steps::models(pipeline, &defaults, VERSION)?;
    if pipeline.serving.fused {
        models.extend(fused::models(pipeline, &defaults, VERSION)?);
    }
    for model in models {
        let folder = target.join(&model.name);
        create(&folder)?;
        write(&folder.join("config.pbtxt"), model.render())?;
    }
    Ok(())
}

/// Paths of the large tables of a release's ONNX models, by SHA-256.
type Tables = BTreeMap<String, PathBuf>;

/// The files of a model's version folder.
struct Files<'a> {
    folder: &'a Path,
    release: &'a str,
    tables: &'a mut Tables,
    /// The SHA-256 of each.
    hashes: BTreeMap<String, String>,
}

impl Files<'_> {
    /// Copies a file, or a folder with its content. An ONNX model gets the release in its metadata, so that the release is known even
    /// without `release.json`. Its large tables go to a separate file, which all models with the same tables share.
    fn copy(&mut self, source: &Path, name: &str) -> Result<()> {
        if source.is_dir() {
            create(&self.folder.join(name))?;
            let entries = fs::read_dir(source)
                .with_context(|| format!("cannot read {}", source.display()))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("cannot read {}", source.display()))?;
                let name = format!("{name}/{}", entry.file_name().to_string_lossy());
                self.copy(&entry.path(), &name)?;
            }
            return Ok(());
        }
        let mut content =
            fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        if source
            .extension()
            .is_some_and(|extension| extension == "onnx")
        {
            let beside = format!("{name}.data");
            if let Some((model, tables)) = onnx::tables_apart(&content, &beside) {
                self.put_tables(&beside, &tables)?;
                content = model;
            }
            onnx::set_release(&mut content, self.release);
        }
        write(&self.folder.join(name), &content)?;
        self.hashes
            .insert(name.to_owned(), hex(&Sha256::digest(&content)));
        Ok(())
    }

    /// The tower's tables are part of both ensembles. A hard link makes both names one file, which is in memory once.
    fn put_tables(&mut self, name: &str, tables: &[u8]) -> Result<()> {
        let hash = hex(&Sha256::digest(tables));
        let target = self.folder.join(name);
        let same = self.tables.get(&hash);
        // If the file system has no hard links, the file is copied.
        if same.is_none_or(|same| fs::hard_link(same, &target).is_err()) {
            write(&target, tables)?;
            self.tables.insert(hash.clone(), target);
        }
        self.hashes.insert(name.to_owned(), hash);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use saker_pipeline::training;
    use saker_train::data::{Categorical, Dataset, Table};
    use saker_train::towers::Towers;

    use super::*;

    /// A query tower whose table takes 1.3 MB.
    fn tower() -> Vec<u8> {
        let users = Categorical {
            name: "user_id".to_owned(),
            cardinality: 5_000,
            embedding_dim: Some(64),
            cold_start: 2,
            codes: Vec::new().into(),
        };
        let data = Dataset {
            users: Table {
                categorical: vec![users],
                ..Table::default()
            },
            ..Dataset::default()
        };
        let towers = Towers::new(&training::Towers::default(), &data, 1);
        onnx::tower(&towers.query, "query_tower")
    }

    #[test]
    fn the_same_large_tables_are_one_file_under_two_names() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let source = folder.path().join("query_tower.onnx");
        write(&source, tower())?;
        let mut tables = Tables::new();
        let mut place = |model: &str, name: &str| -> Result<u64> {
            let folder = folder.path().join(model);
            create(&folder)?;
            let mut files = Files {
                folder: &folder,
                release: "r",
                tables: &mut tables,
                hashes: BTreeMap::new(),
            };
            files.copy(&source, name)?;
            let beside = format!("{name}.data");
            assert_eq!(files.hashes.keys().collect::<Vec<_>>(), [name, &beside]);
            assert!(fs::metadata(folder.join(name))?.len() < 100_000);
            Ok(fs::metadata(folder.join(beside))?.ino())
        };
        let first = place("query_tower", "model.onnx")?;
        assert_eq!(place("fused_recommendation", "query_tower.onnx")?, first);
        Ok(())
    }
}
