use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use saker_models::verdict::{Verdict, ranked_list};
use saker_serving::files;
use saker_serving::layout::Layout;
use serde_json::{Map, Value, json};

/// Output files of `saker evaluate` for a step of a pipeline. Their folders are created.
#[derive(clap::Args)]
pub(super) struct Outputs {
    /// Also write the metrics to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Also write the report to this file, as HTML
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// With --against: write `promote` or `keep` to this file, and exit with 0 in both cases
    #[arg(long, value_name = "FILE", requires = "against")]
    verdict: Option<PathBuf>,
    /// With --against: write the comparison to this file, as JSON
    #[arg(long, value_name = "FILE", requires = "against")]
    comparison: Option<PathBuf>,
    /// With --against: write the reason to this file, in one line
    #[arg(long, value_name = "FILE", requires = "against")]
    reason: Option<PathBuf>,
    /// Kubeflow's executor input, the value of its placeholder {{$}}: the metrics of the ranked list are recorded for Kubeflow's pages
    #[arg(long, value_name = "JSON")]
    kubeflow: Option<String>,
}

impl Outputs {
    /// Whether the verdict goes to a file and does not set the exit code.
    pub(super) fn takes_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// Writes the results.
    pub(super) fn measured(&self, layout: &Layout) -> Result<()> {
        let copies = [
            (layout.metrics(), &self.metrics),
            (layout.report(), &self.report),
        ];
        for (from, to) in copies {
            if let Some(to) = to {
                let bytes = std::fs::read(&from)
                    .with_context(|| format!("cannot read {}", from.display()))?;
                files::write(to, bytes)?;
            }
        }
        if let Some(input) = &self.kubeflow {
            let metrics: Value = serde_json::from_slice(&std::fs::read(layout.metrics())?)
                .with_context(|| format!("{} is not JSON", layout.metrics().display()))?;
            note_for_kubeflow(input, &metrics)?;
        }
        Ok(())
    }

    /// Writes the result of a comparison.
    pub(super) fn compared(&self, verdict: &Verdict) -> Result<()> {
        if let Some(path) = &self.verdict {
            files::write(path, verdict.verdict)?;
        }
        if let Some(path) = &self.reason {
            files::write(path, verdict.reason())?;
        }
        match &self.comparison {
            Some(path) => files::write_json(path, verdict),
            None => Ok(()),
        }
    }
}

/// Kubeflow's pages read the numbers of a metrics artefact from its metadata, which a container passes in a separate file.
fn note_for_kubeflow(input: &str, metrics: &Value) -> Result<()> {
    let input: Value = serde_json::from_str(input)
        .context("--kubeflow is not JSON; accepted is the value of Kubeflow's placeholder {{$}}")?;
    let file = input["outputs"]["outputFile"]
        .as_str()
        .context("--kubeflow names no outputs.outputFile")?;
    let artifacts = json!({ "metrics": { "artifacts": [{ "metadata": numbers(metrics) }] } });
    let output = json!({ "artifacts": artifacts });
    files::write(Path::new(file), output.to_string())
}

/// The ranked list's metrics.
fn numbers(metrics: &Value) -> Map<String, Value> {
    let Some(ranked) = ranked_list(metrics) else {
        return Map::new();
    };
    let list = ["ndcg_10", "hit_10", "recall_10", "recall_100", "recall_300"];
    let of_list = list.map(|name| (name, &ranked["list"][name]));
    let others = ["auc", "ndcg_10_error"].map(|name| (name, &ranked[name]));
    let all = of_list.into_iter().chain(others);
    all.filter(|(_, number)| number.is_number())
        .map(|(name, number)| (name.to_owned(), number.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubeflow_gets_the_numbers_of_the_ranked_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("outputs/file.json");
        let input = json!({ "outputs": { "outputFile": file } }).to_string();
        let metrics = json!({ "methods": [
            { "method": "popular", "list": { "ndcg_10": 0.1 } },
            { "method": "ranked list", "list": { "ndcg_10": 0.2, "recall_10": null }, "auc": 0.7 },
        ] });
        note_for_kubeflow(&input, &metrics).unwrap();
        let noted: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let metadata = &noted["artifacts"]["metrics"]["artifacts"][0]["metadata"];
        assert_eq!(*metadata, json!({ "ndcg_10": 0.2, "auc": 0.7 }));
        assert!(note_for_kubeflow("{}", &metrics).is_err());
        assert!(note_for_kubeflow("{{$}}", &metrics).is_err());
    }
}
