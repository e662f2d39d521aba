//! For how many rows each row of a batch stands.

use crate::ingest::Ingested;

/// Each row for itself, or for as many as it was counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counts<'a> {
    Ones,
    Each(&'a [u64]),
}

/// The counts of a column's elements.
#[derive(Debug)]
pub(crate) struct ElementCounts(Option<Vec<u64>>);

impl Counts<'_> {
    pub(crate) fn at(self, row: usize) -> u64 {
        match self {
            Self::Ones => 1,
            Self::Each(counts) => counts.get(row).copied().unwrap_or_default(),
        }
    }

    /// The same for a column's elements: those of a row's list stand for as many rows as it does.
    pub(crate) fn of_elements(self, column: &Ingested) -> ElementCounts {
        let Self::Each(counts) = self else {
            return ElementCounts(None);
        };
        ElementCounts(Some(match &column.lists {
            None => counts.to_vec(),
            Some((offsets, _)) => (counts.iter().zip(offsets.lengths()))
                .flat_map(|(&count, length)| std::iter::repeat_n(count, length))
                .collect(),
        }))
    }
}

impl ElementCounts {
    pub(crate) fn at(&self, element: usize) -> u64 {
        match &self.0 {
            None => 1,
            Some(counts) => counts.get(element).copied().unwrap_or_default(),
        }
    }
}
