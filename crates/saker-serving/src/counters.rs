//! Counters of our backends, read from Triton's metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

/// Counters by metric and model, summed over a model's versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters(BTreeMap<(String, String), f64>);

impl Counters {
    /// Reads them from a server's metrics.
    ///
    /// # Errors
    /// Returns an error if `http://{address}/metrics` does not answer.
    pub fn read(address: &str) -> Result<Self> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(2)))
            .build()
            .new_agent();
        let url = format!("http://{address}/metrics");
        let text = agent
            .get(&url)
            .call()
            .and_then(|mut response| response.body_mut().read_to_string())
            .with_context(|| format!("no metrics at {url}"))?;
        Ok(Self::parse(&text))
    }

    /// Lines such as `saker_<backend>_<what>_total{model="<model>",version="<version>"} <count>`.
    fn parse(metrics: &str) -> Self {
        let mut counters = BTreeMap::new();
        for line in metrics.lines() {
            let Some((name, rest)) = line.split_once('{') else {
                continue;
            };
            if !(name.starts_with("saker_") && name.ends_with("_total")) {
                continue;
            }
            let model = rest
                .split_once("model=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let count = rest
                .rsplit_once("} ")
                .and_then(|(_, count)| count.trim().parse::<f64>().ok());
            if let (Some((model, _)), Some(count)) = (model, count) {
                *counters
                    .entry((name.to_owned(), model.to_owned()))
                    .or_default() += count;
            }
        }
        Self(counters)
    }

    /// A metric, summed over all models.
    pub fn sum(&self, metric: &str) -> f64 {
        let of_metric = self.0.iter().filter(|((name, _), _)| name == metric);
        of_metric.map(|(_, count)| count).sum()
    }

    /// The models that have answered without data of the store since `before`. Requests of other clients are included.
    pub fn degraded_since(&self, before: &Self) -> Vec<&str> {
        let grown = |((metric, model), count): &(&(String, String), &f64)| {
            let key = &(metric.clone(), model.clone());
            metric.ends_with("_degraded_total")
                && **count > before.0.get(key).copied().unwrap_or_default()
        };
        let counters = self.0.iter().filter(grown);
        let mut models: Vec<&str> = counters.map(|((_, model), _)| model.as_str()).collect();
        models.sort_unstable();
        models
    }
}

#[cfg(test)]
mod tests {
    use super::Counters;

    #[test]
    fn only_models_whose_counter_grew_are_named() {
        let text = |lookup: u32, filter: u32| {
            format!(
                "# HELP saker_feature_lookup_degraded_total Requests answered with defaults\n\
                 saker_feature_lookup_degraded_total{{model=\"feast_user_lookup\",version=\"1\"}} {lookup}\n\
                 saker_feature_lookup_degraded_total{{model=\"feast_user_lookup\",version=\"2\"}} 0\n\
                 saker_feature_lookup_absent_total{{model=\"feast_user_lookup\",version=\"1\"}} {}\n\
                 saker_bloom_filter_degraded_total{{version=\"1\",model=\"filter_seen_items\"}} {filter}\n",
                lookup + filter
            )
        };
        let before = Counters::parse(&text(3, 1));
        assert!(
            Counters::parse(&text(3, 1))
                .degraded_since(&before)
                .is_empty()
        );
        let after = Counters::parse(&text(4, 1));
        assert_eq!(after.degraded_since(&before), ["feast_user_lookup"]);
        let first = Counters::parse(&text(0, 2));
        assert_eq!(
            first.degraded_since(&Counters::default()),
            ["filter_seen_items"]
        );
        assert_eq!(after.sum("saker_feature_lookup_absent_total"), 5.0);
    }
}
