//! The model repository of one training run: 14 steps and the ensemble, with one release id.
//!
//! A repository is written beside its place and then renamed, so that a server never sees half of one.

pub mod pbtxt;
mod release;
pub mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use saker_pipeline::{Group, Pipeline};
use serde_json::json;
use sha2::{Digest, Sha256};

pub use release::release_id;
pub use steps::Defaults;

use crate::layout::Layout;

/// The version number under which every model of a repository stands.
pub const VERSION: u64 = 1;

/// What one training run made, as files.
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
    /// What an absent user or item gets.
    pub defaults: Defaults,
}

impl Artefacts {
    /// The artefacts where the other commands leave them.
    ///
    /// # Errors
    /// One is missing; the message says which command makes it.
    pub fn of(pipeline: &Pipeline, layout: &Layout) -> Result<Self> {
        let artefacts = Self {
            workflows: Group::ALL
                .map(|group| (group, layout.workflow(group.as_str())))
                .into(),
            query_tower: layout.model("query_tower"),
            ranker: layout.model("dlrm_ranking"),
            index: layout.index(),
            tables: pipeline
                .item
                .embeddings
                .iter()
                .map(|e| (e.name.clone(), layout.table(&e.name)))
                .collect(),
            defaults: Defaults::read(&layout.defaults())?,
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
        files.push((&self.query_tower, "train"));
        files.push((&self.ranker, "train"));
        files.push((&self.index, "index"));
        files
    }

    /// Every file or folder, for a hash over all of them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files().into_iter().map(|(path, _)| path)
    }

    /// What goes in the version folder of a model: source, and name there.
    fn of_model(&self, model: &str, pipeline: &Pipeline) -> Result<Vec<(PathBuf, String)>> {
        let workflow = |group| {
            self.workflows
                .get(&group)
                .with_context(|| format!("no workflow of the {} features", Group::as_str(group)))
        };
        let whole = |group| -> Result<Vec<(PathBuf, String)>> {
            let folder = workflow(group)?;
            let mut files = vec![(folder.join("workflow.json"), "workflow.json".to_owned())];
            if folder.join("categories").exists() {
                files.push((folder.join("categories"), "categories".to_owned()));
            }
            Ok(files)
        };
        Ok(match model {
            "nvt_user_transform" => whole(Group::User)?,
            "nvt_context_transform" => whole(Group::Context)?,
            "nvt_item_transform" => whole(Group::Item)?,
            "query_tower" => vec![(self.query_tower.clone(), "model.onnx".to_owned())],
            "dlrm_ranking" => vec![(self.ranker.clone(), "model.onnx".to_owned())],
            "faiss_retrieval" => vec![(self.index.clone(), "index.faiss".to_owned())],
            "multimodal_embedding_lookup" => self
                .tables
                .iter()
                .map(|(name, path)| (path.clone(), format!("{name}.npy")))
                .collect(),
            "item_id_decoder" => {
                let vocabulary = format!("categories/unique.{}.parquet", pipeline.item.id);
                vec![(workflow(Group::Item)?.join(&vocabulary), vocabulary)]
            }
            _ => Vec::new(),
        })
    }
}

impl Defaults {
    /// Reads `data/defaults.json`.
    ///
    /// # Errors
    /// The file is missing or not as `saker prepare` writes it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path)
            .with_context(|| format!("cannot read {}; run `saker prepare`", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; run `saker prepare`", path.display()))
    }
}

/// Writes the whole repository at `target`, in place of what was there.
///
/// # Errors
/// An artefact is missing, or the disk does not take it; `target` is then as before.
pub fn assemble(
    pipeline: &Pipeline,
    artefacts: &Artefacts,
    release: &str,
    target: &Path,
) -> Result<()> {
    let models = steps::models(pipeline, &artefacts.defaults, VERSION)?;
    let fresh = beside(target, "new");
    remove(&fresh)?;
    for model in &models {
        let folder = fresh.join(&model.name);
        let version = folder.join(VERSION.to_string());
        create(&version)?;
        write(&folder.join("config.pbtxt"), &model.render())?;
        if !model.steps.is_empty() {
            continue; // an ensemble holds no artefact; Triton asks for its empty version folder
        }
        let mut hashes = BTreeMap::new();
        for (source, name) in artefacts.of_model(&model.name, pipeline)? {
            copy(&source, &version, &name, release, &mut hashes)?;
        }
        write_json(
            &version.join("release.json"),
            &json!({ "format": 1, "release": release, "files": hashes }),
        )?;
    }
    let releases = json!({ "format": 1, "releases": { VERSION.to_string(): release } });
    write_json(&fresh.join("releases.json"), &releases)?;

    let old = beside(target, "old");
    remove(&old)?;
    if target.exists() {
        fs::rename(target, &old)
            .with_context(|| format!("cannot move {} away", target.display()))?;
    }
    fs::rename(&fresh, target)
        .with_context(|| format!("cannot put {} in place", target.display()))?;
    remove(&old)
}

/// Writes only the `config.pbtxt` of every model, over what is there. The defaults must then be numbers.
///
/// # Errors
/// As [`Defaults::of`], or the disk does not take it.
pub fn render(pipeline: &Pipeline, target: &Path) -> Result<()> {
    for model in steps::models(pipeline, &Defaults::of(pipeline)?, VERSION)? {
        let folder = target.join(&model.name);
        create(&folder)?;
        write(&folder.join("config.pbtxt"), &model.render())?;
    }
    Ok(())
}

fn beside(target: &Path, suffix: &str) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    target.with_file_name(name)
}

/// Copies a file, or a folder with all in it, and notes the SHA-256 of every file. An ONNX model gets the release in its
/// metadata, so that it is known even where it is loaded without `release.json`.
fn copy(
    source: &Path,
    folder: &Path,
    name: &str,
    release: &str,
    hashes: &mut BTreeMap<String, String>,
) -> Result<()> {
    if source.is_dir() {
        create(&folder.join(name))?;
        let entries =
            fs::read_dir(source).with_context(|| format!("cannot read {}", source.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", source.display()))?;
            copy(
                &entry.path(),
                folder,
                &format!("{name}/{}", entry.file_name().to_string_lossy()),
                release,
                hashes,
            )?;
        }
        return Ok(());
    }
    let mut content =
        fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
    if source
        .extension()
        .is_some_and(|extension| extension == "onnx")
    {
        saker_train::onnx::set_release(&mut content, release);
    }
    let target = folder.join(name);
    if let Some(parent) = target.parent() {
        create(parent)?;
    }
    fs::write(&target, &content).with_context(|| format!("cannot write {}", target.display()))?;
    hashes.insert(name.to_owned(), hex(&Sha256::digest(&content)));
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    write(path, &format!("{value:#}\n"))
}
