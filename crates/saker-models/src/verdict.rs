//! Decides whether newly trained models may replace a release.
//!
//! The comparison uses the NDCG@10 of the ranked list, over all requests and in each population of an evaluation. The two evaluations used
//! the test parts of their own days, so their requests differ. The error of a difference therefore combines the errors of both means: √(a²
//! + b²).

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

/// The evaluated method that corresponds to serving.
const METHOD: &str = "ranked list";

/// The result of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// `promote` if no part is worse than its bound, otherwise `keep`.
    pub verdict: &'static str,
    /// The release to compare with; `None` if no release serves.
    pub against: Option<String>,
    /// Number of standard errors by which a part may be worse.
    pub tolerance: f64,
    /// All requests, then each population that both evaluations have.
    pub parts: Vec<Compared>,
}

/// One part of the requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// `all requests`, or the population's name.
    pub part: String,
    /// NDCG@10 of the new models, and of the release.
    pub ndcg_10: [f64; 2],
    /// The standard error of their difference.
    pub error: f64,
    /// Whether the new models are worse by more than the tolerance.
    pub worse: bool,
}

impl Verdict {
    /// Compares two evaluations, in the format of `models/metrics.json` and of a release's manifest.
    ///
    /// # Errors
    /// Returns an error if one of them has no ranked list with a standard error.
    pub fn of(new: &Value, release: &str, old: &Value, tolerance: f64) -> Result<Self> {
        let all = |metrics: &Value, whose: &str| {
            measured(metrics).with_context(|| {
                format!("{whose} holds no NDCG@10 of the ranked list with its standard error; run `saker evaluate` again")
            })
        };
        let mut parts = vec![Compared::of(
            "all requests",
            all(new, "models/metrics.json")?,
            all(old, &format!("the manifest of {release}"))?,
            tolerance,
        )];
        for population in of_populations(new) {
            let name = population["name"].as_str().unwrap_or_default();
            let before = of_populations(old).find(|it| it["name"] == population["name"]);
            if let (Some(now), Some(before)) = (measured(population), before.and_then(measured)) {
                parts.push(Compared::of(name, now, before, tolerance));
            }
        }
        let worse = parts.iter().any(|part| part.worse);
        Ok(Self {
            verdict: if worse { "keep" } else { "promote" },
            against: Some(release.to_owned()),
            tolerance,
            parts,
        })
    }

    /// The verdict if no release serves yet.
    pub fn first(tolerance: f64) -> Self {
        Self {
            verdict: "promote",
            against: None,
            tolerance,
            parts: Vec::new(),
        }
    }

    /// Whether the new models may be promoted.
    pub fn is_promote(&self) -> bool {
        self.verdict == "promote"
    }

    /// The reason, in one sentence.
    pub fn reason(&self) -> String {
        let Some(against) = &self.against else {
            return "no release serves yet: there is nothing to compare with".to_owned();
        };
        let worse: Vec<String> = self
            .parts
            .iter()
            .filter(|part| part.worse)
            .map(|part| {
                let [new, old] = part.ndcg_10;
                format!("{}: {:+.4} ± {:.4}", part.part, new - old, part.error)
            })
            .collect();
        let tolerance = self.tolerance;
        match &worse[..] {
            [] => {
                format!("no part is worse than {against} by more than {tolerance} standard errors")
            }
            worse => format!(
                "worse than {against} by more than {tolerance} standard errors: {}",
                worse.join("; ")
            ),
        }
    }
}

impl Compared {
    fn of(part: &str, [new, e]: [f64; 2], [old, f]: [f64; 2], tolerance: f64) -> Self {
        let error = e.hypot(f);
        Self {
            part: part.to_owned(),
            ndcg_10: [new, old],
            error,
            worse: new - old < -tolerance * error,
        }
    }
}

fn of_populations(metrics: &Value) -> impl Iterator<Item = &Value> {
    metrics["populations"].as_array().into_iter().flatten()
}

/// The metrics of the ranked list, for all requests or for a population.
pub fn ranked_list(metrics: &Value) -> Option<&Value> {
    let methods = metrics["methods"].as_array()?;
    methods.iter().find(|method| method["method"] == METHOD)
}

/// Mean and standard error of the ranked list, over requests, or over seeds if there are several.
fn measured(part: &Value) -> Option<[f64; 2]> {
    let ranked = ranked_list(part)?;
    let requests = ranked["ndcg_10_error"].as_f64()?;
    let seeds = ranked["ndcg_10_seeds"].as_f64().unwrap_or(0.0);
    let mean = ranked["list"]["ndcg_10"].as_f64()?;
    let error = requests.hypot(seeds);
    (mean.is_finite() && error.is_finite()).then_some([mean, error])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metrics(all: [f64; 2], strangers: [f64; 2]) -> Value {
        let methods = |[mean, error]: [f64; 2]| {
            json!([
                { "method": "popularity", "list": { "ndcg_10": 0.9 }, "ndcg_10_error": 0.001 },
                { "method": METHOD, "list": { "ndcg_10": mean }, "ndcg_10_error": error, "ndcg_10_seeds": null },
            ])
        };
        json!({
            "methods": methods(all),
            "populations": [{ "name": "unknown users", "methods": methods(strangers) }],
        })
    }

    #[test]
    fn a_part_that_is_worse_by_more_than_its_error_keeps_the_release() {
        let old = metrics([0.10, 0.003], [0.08, 0.004]);
        let verdict = |new: Value| Verdict::of(&new, "r1", &old, 2.0).unwrap();
        // √(0.003² + 0.004²) = 0.005: 0.010 below is within two errors, 0.011 is not.
        let within = verdict(metrics([0.0901, 0.004], [0.08, 0.004]));
        assert!(within.is_promote(), "{within:?}");
        let beyond = verdict(metrics([0.089, 0.004], [0.08, 0.004]));
        assert_eq!(beyond.verdict, "keep");
        assert!(
            beyond.reason().contains("all requests: -0.0110 ± 0.0050"),
            "{}",
            beyond.reason()
        );
        // Better overall, and worse for unknown users.
        let shifted = verdict(metrics([0.12, 0.003], [0.06, 0.003]));
        assert_eq!(shifted.verdict, "keep");
        assert!(
            shifted.reason().contains("unknown users"),
            "{}",
            shifted.reason()
        );
        assert!(!shifted.parts[0].worse);
    }

    #[test]
    fn a_release_without_metrics_is_no_measure() {
        let new = metrics([0.1, 0.003], [0.08, 0.004]);
        let error = Verdict::of(&new, "r1", &Value::Null, 2.0).unwrap_err();
        assert!(error.to_string().contains("the manifest of r1"), "{error}");
        let error = Verdict::of(&json!({ "methods": [] }), "r1", &new, 2.0).unwrap_err();
        assert!(error.to_string().contains("models/metrics.json"), "{error}");
    }
}
