//! Codes of texts: `saker prepare` assigns them, and `codes.json` gives a release the same codes for the texts of a store.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How texts become codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codes {
    /// Every distinct text is a code.
    Value,
    /// The first word of a list of words is the code: a film's main genre.
    First,
    /// Every distinct set of words is a code, whatever their order: a film's combination of genres.
    Set,
}

impl Codes {
    /// The key of a text that gets a code; `None` for an empty text.
    pub fn key(self, text: &str) -> Option<String> {
        match self {
            Self::Value => Some(text.trim().to_owned()).filter(|key| !key.is_empty()),
            Self::First | Self::Set => {
                self.key_of_words(text.split_whitespace().map(Cow::Borrowed).collect())
            }
        }
    }

    /// The key of a list of words that gets a code; `None` for an empty list. Different lists or sets have different keys: a word that
    /// contains a space is quoted.
    pub fn key_of_words(self, mut words: Vec<Cow<'_, str>>) -> Option<String> {
        let key = match self {
            Self::First => words.into_iter().next().unwrap_or_default().into_owned(),
            Self::Value => joined(&words),
            Self::Set => {
                words.sort_unstable();
                words.dedup();
                joined(&words)
            }
        };
        (!key.is_empty()).then_some(key)
    }
}

fn joined(words: &[Cow<'_, str>]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = !word.contains(char::is_whitespace) && !word.starts_with('"');
        match plain {
            true => word.clone(),
            false => format!("{word:?}").into(),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// `codes.json` in a lookup's version folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCodes {
    /// 1.
    pub format: u32,
    /// The columns whose texts have codes.
    pub columns: BTreeMap<String, TextColumn>,
}

impl TextCodes {
    /// The format of the file.
    pub const FORMAT: u32 = 1;
}

/// A column of [`TextCodes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextColumn {
    /// How texts get their codes.
    pub codes: Codes,
    /// The texts: their places are their codes.
    pub texts: Vec<String>,
    /// Texts that mean "no value", in addition to the empty one.
    #[serde(default)]
    pub empty: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_texts() {
        let key = |text, codes: Codes| codes.key(text).unwrap_or_default();
        assert_eq!(key(" War  Drama ", Codes::Value), "War  Drama");
        assert_eq!(key("War Drama", Codes::First), "War");
        assert_eq!(key("War Drama War", Codes::Set), "Drama War");
        for codes in [Codes::Value, Codes::First, Codes::Set] {
            assert_eq!(codes.key("  "), None);
        }
    }
}
