//! The typed `parameters` of config.pbtxt, through serde.
//!
//! Every value is a string there. This deserializer parses it into the type of the field. Its error names the key, the value and the
//! accepted values.

use std::collections::{BTreeMap, btree_map};
use std::fmt::{self, Display};

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor, value};
use serde::forward_to_deserialize_any;

use crate::Error;

/// Keys that Triton itself handles for every backend; they are not passed to the model.
const TRITON_KEYS: &[&str] = &["FORCE_CPU_ONLY_INPUT_TENSORS"];

/// Parses the parameters.
///
/// # Errors
/// Returns an error for an unknown key, a missing key, or a value that does not parse.
pub(crate) fn parse<T: DeserializeOwned>(
    parameters: &BTreeMap<String, String>,
) -> Result<T, Error> {
    T::deserialize(Parameters(parameters))
        .map_err(|Fault(message)| Error::invalid_argument(message))
}

#[derive(Debug)]
struct Fault(String);

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(format!(
            "config.pbtxt lacks the parameter '{field}', which has no default"
        ))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(unknown(field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let _ = variant;
        Self(format!("accepted: {}", expected.join(", ")))
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("accepted: {expected}"))
    }

    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self(format!("accepted: {expected}"))
    }
}

fn unknown(key: &str, accepted: &[&str]) -> String {
    let accepted = if accepted.is_empty() {
        "none".to_owned()
    } else {
        accepted.join(", ")
    };
    format!("unknown parameter '{key}'; accepted: {accepted}")
}

struct Parameters<'a>(&'a BTreeMap<String, String>);

/// The parameters of a tuple: each part reads the keys that it knows. A key that no part knows is refused.
struct Parts<'a> {
    all: Parameters<'a>,
    left: usize,
    known: Vec<&'static str>,
}

impl<'de> de::SeqAccess<'de> for Parts<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let part = seed.deserialize(Part(self))?;
        if left == 0 {
            let known = |key: &str| self.known.contains(&key);
            if let Some((key, _)) = self.all.entries().find(|(key, _)| !known(key)) {
                return Err(Fault(unknown(key, &self.known)));
            }
        }
        Ok(Some(part))
    }
}

struct Part<'p, 'a>(&'p mut Parts<'a>);

impl<'de> de::Deserializer<'de> for Part<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault(
            "the parts of a tuple of parameters are structs".to_owned(),
        ))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let known = &mut self.0.known;
        for field in fields {
            if !known.contains(field) {
                known.push(field);
            }
        }
        visitor.visit_map(Entries {
            entries: self.0.all.0.iter(),
            current: None,
            known: Some(fields),
        })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'a> Parameters<'a> {
    fn entries(&self) -> impl Iterator<Item = (&'a String, &'a String)> {
        self.0
            .iter()
            .filter(|(key, _)| !TRITON_KEYS.contains(&key.as_str()))
    }

    /// Unknown keys are refused here, so that no backend can forget `deny_unknown_fields`.
    fn refuse_unknown(&self, accepted: &'static [&'static str]) -> Result<(), Fault> {
        match self
            .entries()
            .find(|(key, _)| !accepted.contains(&key.as_str()))
        {
            Some((key, _)) => Err(Fault(unknown(key, accepted))),
            None => Ok(()),
        }
    }
}

impl<'de> de::Deserializer<'de> for Parameters<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(Entries {
            entries: self.0.iter(),
            current: None,
            known: None,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(Parts {
            all: self,
            left: len,
            known: Vec::new(),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.refuse_unknown(fields)?;
        self.deserialize_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.refuse_unknown(&[])?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option seq tuple_struct map enum identifier ignored_any
    }
}

struct Entries<'a> {
    entries: btree_map::Iter<'a, String, String>,
    current: Option<(&'a str, &'a str)>,
    /// The keys that are passed; `None` passes all.
    known: Option<&'static [&'static str]>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let given = |key: &str| {
            !TRITON_KEYS.contains(&key) && self.known.is_none_or(|known| known.contains(&key))
        };
        let Some((key, value)) = self.entries.find(|(key, _)| given(key)) else {
            return Ok(None);
        };
        self.current = Some((key, value));
        let key: value::StrDeserializer<'_, Fault> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.current.take().unwrap_or_default();
        seed.deserialize(Text(value))
            .map_err(|Fault(what)| Fault(format!("parameter '{key}' is '{value}'; {what}")))
    }
}

/// One value, parsed into the requested type.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn parse<T: std::str::FromStr>(&self, accepted: impl Display) -> Result<T, Fault> {
        self.0
            .trim()
            .parse()
            .map_err(|_| Fault(format!("accepted: {accepted}")))
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(self.parse::<$type>(format_args!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX))?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Text<'de> {
    type Error = Fault;

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f32(self.parse("a number")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.parse("a number")?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.trim() {
            // The reference's Python models compare with 'true' after lower-casing.
            text if text.eq_ignore_ascii_case("true") => visitor.visit_bool(true),
            text if text.eq_ignore_ascii_case("false") => visitor.visit_bool(false),
            _ => Err(Fault("accepted: true, false".to_owned())),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(self.0.trim().into_deserializer())
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::parse;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Auto,
        Plain,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    struct Sample {
        factor: f32,
        #[serde(default = "three")]
        ranking_topk: u16,
        #[serde(default)]
        diversity_mode: bool,
        seed: Option<u64>,
        #[serde(default = "auto")]
        mode: Mode,
        #[serde(default)]
        url: String,
    }

    fn three() -> u16 {
        3
    }

    fn auto() -> Mode {
        Mode::Auto
    }

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn error(entries: &[(&str, &str)]) -> String {
        parse::<Sample>(&map(entries)).unwrap_err().to_string()
    }

    #[test]
    fn values_are_parsed_into_the_fields_types() {
        let entries = [
            ("FACTOR", "2.5"),
            ("DIVERSITY_MODE", "True"),
            ("SEED", "7"),
            ("MODE", "plain"),
            ("URL", "redis://x"),
            ("FORCE_CPU_ONLY_INPUT_TENSORS", "no"),
        ];
        let sample: Sample = parse(&map(&entries)).unwrap();
        let url = "redis://x".to_owned();
        let want = Sample {
            factor: 2.5,
            ranking_topk: 3,
            diversity_mode: true,
            seed: Some(7),
            mode: Mode::Plain,
            url,
        };
        assert_eq!(sample, want);
        parse::<()>(&map(&[("FORCE_CPU_ONLY_INPUT_TENSORS", "no")])).unwrap();
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
    struct Other {
        seed: u64,
        #[serde(default)]
        name: String,
    }

    #[test]
    fn a_tuple_shares_the_keys_among_its_parts() {
        let given = [("FACTOR", "1"), ("SEED", "7"), ("NAME", "n")];
        let (sample, other): (Sample, Other) = parse(&map(&given)).unwrap();
        assert_eq!(
            (sample.seed, other.seed, other.name.as_str()),
            (Some(7), 7, "n")
        );
        let fault = |given: &[(&str, &str)]| {
            let refused = parse::<(Sample, Other)>(&map(given)).unwrap_err();
            refused.to_string()
        };
        let unknown = fault(&[("FACTOR", "1"), ("SEED", "7"), ("TOPK", "n")]);
        assert!(unknown.starts_with("unknown parameter 'TOPK'"), "{unknown}");
        assert!(unknown.ends_with("SEED, MODE, URL, NAME"), "{unknown}");
        assert!(fault(&[("FACTOR", "1")]).contains("lacks the parameter 'SEED'"));
        assert!(fault(&[("SEED", "x")]).contains("'SEED' is 'x'"));
    }

    #[test]
    fn errors_name_key_value_and_what_is_accepted() {
        assert_eq!(
            error(&[("FACTOR", "1"), ("TOPK", "3")]),
            "unknown parameter 'TOPK'; accepted: FACTOR, RANKING_TOPK, DIVERSITY_MODE, SEED, MODE, URL"
        );
        assert_eq!(
            error(&[("FACTOR", "1"), ("RANKING_TOPK", "70000")]),
            "parameter 'RANKING_TOPK' is '70000'; accepted: a whole number from 0 to 65535"
        );
        assert_eq!(
            error(&[("FACTOR", "x")]),
            "parameter 'FACTOR' is 'x'; accepted: a number"
        );
        assert_eq!(
            error(&[("FACTOR", "1"), ("DIVERSITY_MODE", "yes")]),
            "parameter 'DIVERSITY_MODE' is 'yes'; accepted: true, false"
        );
        assert_eq!(
            error(&[("FACTOR", "1"), ("MODE", "no")]),
            "parameter 'MODE' is 'no'; accepted: auto, plain"
        );
        assert_eq!(
            error(&[]),
            "config.pbtxt lacks the parameter 'FACTOR', which has no default"
        );
        let none = parse::<()>(&map(&[("X", "1")])).unwrap_err();
        assert_eq!(none.to_string(), "unknown parameter 'X'; accepted: none");
    }
}
