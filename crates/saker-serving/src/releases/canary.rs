//! The requests that a release must answer before anyone else sees it.
//!
//! A second ensemble, whose steps are pinned to the new release, is loaded under another name: it lies in no folder of the
//! repository, so nothing of it is left after a crash. Asked are users of the release's own vocabulary, evenly spread, and one
//! that nobody knows.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use saker_contract::artefact::{self, CATEGORIES};
use saker_contract::ensemble::CANARY;
use saker_contract::tensor::{ORDERED_IDS, ORDERED_SCORES, RELEASE};
use saker_contract::{Code, RawId, Step};
use saker_workflow::Vocabulary;
use serde_json::{Value, json};

use super::repository::Repository;
use triton_client::{Tensor, Triton};

/// How many known users are asked.
const USERS: usize = 16;

/// Loads the second ensemble, asks it, and unloads it. Returns the number of requests.
///
/// # Errors
/// A request fails, or an answer is not what a release answers: another release's, ids that the release does not know or
/// twice, scores that are no numbers, nothing at all for a new user.
pub fn run(
    repository: &Repository,
    triton: &Triton,
    ensemble: &str,
    version: u64,
    release: &str,
) -> Result<usize> {
    let config = triton.config(ensemble)?;
    let requests = requests(repository, version, &config)?;
    triton
        .load_ensemble(CANARY, &pinned(config, version)?)
        .with_context(|| format!("{ensemble} of release {release} does not load"))?;
    let asked = ask(repository, triton, version, release, &requests);
    if let Err(error) = triton.unload(CANARY) {
        tracing::warn!("{CANARY} stays loaded: {error:#}");
    }
    asked.map(|()| requests.len())
}

/// The ensemble's configuration under the canary's name and with this version's steps.
fn pinned(mut config: Value, version: u64) -> Result<Value> {
    config["name"] = json!(CANARY);
    let steps = config["ensemble_scheduling"]["step"].as_array_mut();
    for step in steps.context("the ensemble has no steps")? {
        step["model_version"] = json!(version);
    }
    Ok(config)
}

/// Known users and an unknown one; every second request gives the optional inputs, too.
fn requests(repository: &Repository, version: u64, config: &Value) -> Result<Vec<Vec<Tensor>>> {
    let inputs = config["input"]
        .as_array()
        .context("the ensemble has no inputs")?;
    let name = |input: &Value| input["name"].as_str().unwrap_or_default().to_owned();
    let (user, moment) = inputs
        .split_first()
        .context("the ensemble has no inputs; expected the user's id first")?;
    if let Some(required) = moment.iter().find(|input| input["optional"] != true) {
        bail!(
            "the ensemble requires '{}'; expected nothing but the user's id, '{}'",
            name(required),
            name(user)
        );
    }
    let user = name(user);
    let known = vocabulary(repository, Step::UserTransform, version, &user)?.unwrap_or_default();
    let mut users: Vec<i32> = known
        .iter()
        .step_by(known.len().div_ceil(USERS).max(1))
        .filter_map(|&id| i32::try_from(id).ok())
        .collect();
    users.push(RawId::NONE_INT32);
    Ok(users
        .iter()
        .enumerate()
        .map(|(place, &id)| {
            let mut request = vec![Tensor::int32(&user, &[id])];
            if place % 2 == 0 {
                let given = moment
                    .iter()
                    .filter(|input| input["data_type"] == "TYPE_INT32");
                request.extend(given.map(|input| Tensor::int32(&name(input), &[0])));
            }
            request
        })
        .collect())
}

fn ask(
    repository: &Repository,
    triton: &Triton,
    version: u64,
    release: &str,
    requests: &[Vec<Tensor>],
) -> Result<()> {
    let decoder = repository.version_folder(Step::Decoder.model(), version);
    let items: HashSet<i64> = match only_vocabulary(&decoder)? {
        Some(name) => vocabulary(repository, Step::Decoder, version, &name)?,
        None => None,
    }
    .with_context(|| format!("{} holds no vocabulary", decoder.display()))?
    .into_iter()
    .collect();
    for request in requests {
        let user = request[0].int32s()?[0];
        triton
            .infer(CANARY, request)
            .map_err(anyhow::Error::from)
            .and_then(|answer| check(&answer, release, &items, user == RawId::NONE_INT32))
            .with_context(|| format!("user {user} asked of release {release}"))?;
    }
    Ok(())
}

/// Whether an answer to one user is one of this release.
fn check(answer: &[Tensor], release: &str, items: &HashSet<i64>, must_answer: bool) -> Result<()> {
    let tensor = |name: &str| {
        let found = answer.iter().find(|tensor| tensor.name == name);
        found.with_context(|| format!("the answer has no {name}"))
    };
    let named = tensor(RELEASE)?.texts()?;
    ensure!(
        named == [release],
        "the answer is of release {}",
        named.join(", ")
    );
    let ids = tensor(ORDERED_IDS)?.int32s()?;
    let scores = tensor(ORDERED_SCORES)?.float32s()?;
    ensure!(
        ids.len() == scores.len(),
        "{} ids with {} scores",
        ids.len(),
        scores.len()
    );
    ensure!(!must_answer || !ids.is_empty(), "no item for a new user");
    let mut seen = HashSet::new();
    for (id, score) in ids.iter().zip(&scores) {
        ensure!(
            items.contains(&i64::from(*id)),
            "item {id} is none of the release's"
        );
        ensure!(seen.insert(*id), "item {id} comes twice");
        ensure!(score.is_finite(), "item {id} has the score {score}");
    }
    Ok(())
}

/// The raw ids of `<step>/<version>/categories/unique.<name>.parquet`, where there is such a file.
fn vocabulary(
    repository: &Repository,
    step: Step,
    version: u64,
    name: &str,
) -> Result<Option<Vec<i64>>> {
    let path = repository
        .version_folder(step.model(), version)
        .join(CATEGORIES)
        .join(artefact::vocabulary(name));
    if !path.exists() {
        return Ok(None);
    }
    let vocabulary = Vocabulary::read(&path, name, Code::FIRST as usize)?;
    let ids = vocabulary
        .ints()
        .with_context(|| format!("{} holds no integers", path.display()))?;
    Ok(Some(ids))
}

/// The column of the one vocabulary in a version folder.
fn only_vocabulary(folder: &Path) -> Result<Option<String>> {
    let folder = folder.join(CATEGORIES);
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        Some(artefact::vocabulary_column(&name)?.to_owned())
    });
    Ok(names.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(release: &str, ids: &[i32], scores: &[f32]) -> Vec<Tensor> {
        let mut text = (release.len() as u32).to_le_bytes().to_vec();
        text.extend(release.as_bytes());
        let tensor = |name: &str, data_type: &str, data: Vec<u8>| Tensor {
            name: name.to_owned(),
            data_type: data_type.to_owned(),
            shape: vec![1],
            data,
        };
        vec![
            Tensor::int32(ORDERED_IDS, ids),
            tensor(
                ORDERED_SCORES,
                "FP32",
                scores
                    .iter()
                    .flat_map(|score| score.to_le_bytes())
                    .collect(),
            ),
            tensor(RELEASE, "BYTES", text),
        ]
    }

    #[test]
    fn what_is_wrong_with_an_answer_is_said() {
        let items = HashSet::from([7, 8]);
        let fault = |answer: &[Tensor]| check(answer, "a", &items, true).unwrap_err().to_string();
        assert!(check(&answer("a", &[8, 7], &[0.9, 0.1]), "a", &items, true).is_ok());
        assert!(check(&answer("a", &[], &[]), "a", &items, false).is_ok());
        assert!(fault(&answer("b", &[8], &[0.9])).contains("release b"));
        assert!(fault(&answer("a", &[], &[])).contains("new user"));
        assert!(fault(&answer("a", &[9], &[0.9])).contains("item 9"));
        assert!(fault(&answer("a", &[RawId::NONE_INT32], &[0.9])).contains("item -1"));
        assert!(fault(&answer("a", &[7, 7], &[0.9, 0.1])).contains("twice"));
        assert!(fault(&answer("a", &[7], &[f32::NAN])).contains("NaN"));
        assert!(fault(&answer("a", &[7], &[])).contains("1 ids with 0"));
        assert!(fault(&answer("a", &[7], &[0.5])[..2]).contains("no release"));
    }
}
