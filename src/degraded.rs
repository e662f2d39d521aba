//! Which models answered without their store, read from Triton's metrics before and after a request.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

/// Counters of requests that a model answered without what it asks the store for, by model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Degraded(BTreeMap<String, f64>);

impl Degraded {
    /// Reads them from a server's metrics.
    ///
    /// # Errors
    /// Nothing answers at `http://{address}/metrics`.
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

    /// `saker_<backend>_degraded_total{model="<model>",version="<version>"} <count>`; a model's versions together.
    fn parse(metrics: &str) -> Self {
        let mut counters = BTreeMap::new();
        for line in metrics.lines() {
            let Some((name, rest)) = line.split_once('{') else {
                continue;
            };
            if !(name.starts_with("saker_") && name.ends_with("_degraded_total")) {
                continue;
            }
            let model = rest
                .split_once("model=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            let count = rest
                .rsplit_once("} ")
                .and_then(|(_, count)| count.trim().parse::<f64>().ok());
            if let (Some((model, _)), Some(count)) = (model, count) {
                *counters.entry(model.to_owned()).or_default() += count;
            }
        }
        Self(counters)
    }

    /// The models whose counters have grown since `before`. Other clients' requests count in.
    pub fn since(&self, before: &Self) -> Vec<&str> {
        let grown = |(model, count): &(&String, &f64)| {
            **count > before.0.get(*model).copied().unwrap_or_default()
        };
        self.0
            .iter()
            .filter(grown)
            .map(|(model, _)| model.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Degraded;

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
        let before = Degraded::parse(&text(3, 1));
        assert!(Degraded::parse(&text(3, 1)).since(&before).is_empty());
        let after = Degraded::parse(&text(4, 1));
        assert_eq!(after.since(&before), ["feast_user_lookup"]);
        let first = Degraded::parse(&text(0, 2));
        assert_eq!(first.since(&Degraded::default()), ["filter_seen_items"]);
    }
}
