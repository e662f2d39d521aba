//! Maps texts of the store to the codes of the training data.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use saker_pipeline::{Codes, TextCodes, TextColumn};
use triton_backend::Error;

/// The texts of one feature and their codes.
#[derive(Debug)]
pub struct Vocabulary {
    codes: Codes,
    numbers: HashMap<String, i64>,
    empty: Vec<String>,
}

/// The meaning of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Coded {
    Code(i64),
    /// The text means "no value".
    Nothing,
    /// The training data lack the text.
    Unknown,
}

impl Vocabulary {
    /// Creates the vocabulary. The index of each text is its code.
    pub fn new(column: TextColumn) -> Self {
        Self {
            codes: column.codes,
            numbers: column.texts.into_iter().zip(0..).collect(),
            empty: column.empty,
        }
    }

    pub(super) fn code(&self, text: &str) -> Coded {
        if self.empty.iter().any(|empty| empty == text) {
            return Coded::Nothing;
        }
        match self.codes.key(text) {
            None => Coded::Nothing,
            Some(key) => self
                .numbers
                .get(&key)
                .map_or(Coded::Unknown, |&code| Coded::Code(code)),
        }
    }

    /// Number of texts.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// Reads the vocabularies of a `codes.json`, by feature.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Arc<Vocabulary>>, Error> {
    let refuse = |why: String| {
        Error::invalid_argument(format!(
            "parameter 'CODES': {}: {why}; accepted: a file as `saker assemble` writes it, of format {}",
            path.display(),
            TextCodes::FORMAT
        ))
    };
    let text = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let codes: TextCodes =
        serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
    if codes.format != TextCodes::FORMAT {
        return Err(refuse(format!("format {}", codes.format)));
    }
    let columns = codes.columns.into_iter();
    Ok(columns
        .map(|(name, column)| (name, Arc::new(Vocabulary::new(column))))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_get_the_codes_of_training() {
        let vocabulary = |codes| {
            Vocabulary::new(TextColumn {
                codes,
                texts: vec!["Drama".into(), "Drama War".into(), "War".into()],
                empty: vec!["?".into()],
            })
        };
        for (codes, text, expected) in [
            (Codes::Value, " Drama War ", Coded::Code(1)),
            (Codes::Value, "War Drama", Coded::Unknown),
            (Codes::First, "War Drama", Coded::Code(2)),
            (Codes::Set, "War Drama War", Coded::Code(1)),
            (Codes::Set, "Comedy", Coded::Unknown),
            (Codes::Value, "?", Coded::Nothing),
            (Codes::Value, "  ", Coded::Nothing),
        ] {
            assert_eq!(vocabulary(codes).code(text), expected, "{text}");
        }
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let folder = std::env::temp_dir().join(format!("saker-codes-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("codes.json");
        for text in [r#"{"format": 2, "columns": {}}"#, "{}", "no JSON"] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().message().to_owned();
            assert!(
                error.contains("CODES") && error.contains("codes.json"),
                "{error}"
            );
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(read(&path).unwrap_err().message().contains("codes.json"));
    }
}
