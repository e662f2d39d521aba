//! Reads the parameters of a request. An unknown, repeated or out-of-range parameter is an error that names it.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use url::form_urlencoded;

use crate::problem::Problem;

/// The parameters of a query.
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    /// Reads the query string.
    ///
    /// # Errors
    /// Returns an error if a parameter is not in `accepted` or is given twice.
    pub(crate) fn read(text: Option<&str>, accepted: &[&str]) -> Result<Self, Problem> {
        let mut values = HashMap::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !accepted.contains(&name.as_ref()) {
                let accepted = match accepted {
                    [] => "none".to_owned(),
                    names => names.join(", "),
                };
                return Err(Problem::field(
                    name.clone(),
                    format!("parameter '{name}' is unknown; accepted: {accepted}"),
                ));
            }
            if values.contains_key(name.as_ref()) {
                return Err(Problem::field(
                    name.clone(),
                    format!("parameter '{name}' is given twice; accepted is once"),
                ));
            }
            values.insert(name.into_owned(), value.into_owned());
        }
        Ok(Self(values))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number in a range.
    pub(crate) fn number(
        &self,
        name: &str,
        range: RangeInclusive<i32>,
    ) -> Result<Option<i32>, Problem> {
        self.text(name)
            .map(|text| number(name, text, range))
            .transpose()
    }

    /// The parameter `k`, the number of items to return.
    pub(crate) fn k(&self, default: i32) -> Result<usize, Problem> {
        let k = self.number("k", 1..=100)?.unwrap_or(default);
        Ok(usize::try_from(k).unwrap_or_default())
    }
}

/// Parses a whole number within a range, from a parameter or a segment of the path.
pub(crate) fn number(name: &str, text: &str, range: RangeInclusive<i32>) -> Result<i32, Problem> {
    let read = text.parse::<i32>().ok();
    read.filter(|number| range.contains(number)).ok_or_else(|| {
        Problem::field(
            name,
            format!(
                "{name} is '{}'; accepted is a whole number from {} to {}",
                shortened(text),
                range.start(),
                range.end()
            ),
        )
    })
}

/// A device given by number or name; `None` for any other text.
pub(crate) fn device(text: &str) -> Option<i32> {
    match text {
        "0" | "mobile" => Some(0),
        "1" | "desktop" => Some(1),
        "2" | "tablet" => Some(2),
        _ => None,
    }
}

/// The accepted devices, for error messages.
pub(crate) const DEVICES: &str = "0, 1, 2, mobile, desktop, tablet";

/// Shortens a client's value for use in an answer.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_given_once() {
        assert!(Query::read(Some("k=1"), &["k"]).is_ok());
        assert!(Query::read(Some("k=1&k=2"), &["k"]).is_err());
        assert!(Query::read(Some("q=1"), &["k"]).is_err());
        assert!(Query::read(None, &["k"]).is_ok());
    }

    #[test]
    fn numbers_are_whole_and_in_range() {
        let query = |text: &str| Query::read(Some(text), &["k"]).unwrap().k(10);
        assert_eq!(query("").ok(), Some(10));
        assert_eq!(query("k=100").ok(), Some(100));
        for wrong in [
            "k=0",
            "k=101",
            "k=",
            "k=1.5",
            "k=1e2",
            "k=%00",
            "k=99999999999",
        ] {
            assert!(query(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(200)).chars().count(), 81);
    }
}
