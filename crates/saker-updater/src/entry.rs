//! Ids of stream entries.

use std::fmt;
use std::str::FromStr;

/// The id of an entry: milliseconds since 1970 by the server's clock, and a number within the millisecond. Ids compare in the order of
/// the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since 1970, UTC.
    pub milliseconds: u64,
    /// Number within the millisecond, from 0.
    pub sequence: u64,
}

impl EntryId {
    /// The smallest larger id.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            sequence: self.sequence + 1,
            ..self
        }
    }

    /// A text of fixed length, so that texts sort in the order of the stream.
    #[must_use]
    pub fn padded(self) -> String {
        format!("{:015}-{:09}", self.milliseconds, self.sequence)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = saker_store::StoreError;

    /// Reads both forms.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (milliseconds, sequence) = text.split_once('-')?;
            Some(Self {
                milliseconds: milliseconds.parse().ok()?,
                sequence: sequence.parse().ok()?,
            })
        };
        parse().ok_or_else(|| {
            saker_store::StoreError::Protocol(format!("'{text}' is no id of a stream's entry"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_in_both_forms_and_stay_in_order() {
        let ids: Vec<EntryId> = ["999-7", "1000-0", "1000-12"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        assert!(ids.is_sorted() && ids.iter().map(|id| id.padded()).is_sorted());
        for id in ids {
            assert_eq!(id.padded().parse::<EntryId>().unwrap(), id);
            assert_eq!(id.to_string().parse::<EntryId>().unwrap(), id);
        }
        assert!("12".parse::<EntryId>().is_err());
    }
}
