//! The OpenAPI document: `openapi.json` beside the sources, compiled in.

/// OpenAPI 3.1, JSON.
pub const DOCUMENT: &str = include_str!("../openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use crate::routes;

    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let document: Value = serde_json::from_str(super::DOCUMENT).unwrap();
        let described = document["paths"].as_object().unwrap().keys();
        let described: BTreeSet<&str> = described.map(String::as_str).collect();
        let routed: BTreeSet<&str> = routes::paths().into_iter().collect();
        assert_eq!(described, routed);
    }
}
