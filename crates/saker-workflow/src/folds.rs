//! The folds that rows fall into, for TargetEncoding with `kfold`: drawn row by row as NumPy's `RandomState(seed).choice(kfold)` does,
//! which NVTabular uses for each partition.

use rand_mt::Mt;

use crate::definition::Definition;

/// How an operator draws folds: their number, and the seed.
pub(crate) type Draw = (u32, Option<u32>);

/// The folds of rows in the order of the data.
#[derive(Debug, Clone)]
pub(crate) struct Folds {
    streams: Vec<(Draw, Stream)>,
}

#[derive(Debug, Clone)]
enum Stream {
    Seeded(Box<Mt>),
    InTurn(u64),
}

/// The folds of a batch's rows, by how they are drawn.
#[derive(Debug)]
pub(crate) struct BatchFolds(Vec<(Draw, Vec<i32>)>);

impl Folds {
    /// Begins at the first row.
    pub(crate) fn new(definition: &Definition) -> Self {
        let mut streams: Vec<(Draw, Stream)> = Vec::new();
        for operator in definition.chains.iter().flat_map(|chain| &chain.operators) {
            if let Some(draw) = operator.folds()
                && streams.iter().all(|(other, _)| *other != draw)
            {
                let stream = match draw.1 {
                    Some(seed) => Stream::Seeded(Box::new(Mt::new(seed))),
                    None => Stream::InTurn(0),
                };
                streams.push((draw, stream));
            }
        }
        Self { streams }
    }

    /// The folds of the next rows.
    pub(crate) fn next(&mut self, rows: usize) -> BatchFolds {
        BatchFolds(
            self.streams
                .iter_mut()
                .map(|(draw, stream)| (*draw, stream.next(draw.0, rows)))
                .collect(),
        )
    }
}

impl BatchFolds {
    /// The rows' folds for an operator with these parameters.
    pub(crate) fn of(&self, draw: Draw) -> Option<&[i32]> {
        self.0
            .iter()
            .find(|(other, _)| *other == draw)
            .map(|(_, folds)| folds.as_slice())
    }
}

impl Stream {
    fn next(&mut self, kfold: u32, rows: usize) -> Vec<i32> {
        match self {
            Self::Seeded(generator) => {
                // Numbers are cut to the bits that the greatest fold needs, and drawn again while they exceed it.
                let greatest = kfold - 1;
                let mask = u32::MAX.checked_shr(greatest.leading_zeros()).unwrap_or(0);
                (0..rows)
                    .map(|_| {
                        loop {
                            let fold = generator.next_u32() & mask;
                            if fold <= greatest {
                                return fold as i32;
                            }
                        }
                    })
                    .collect()
            }
            Self::InTurn(row) => {
                let first = *row;
                *row += rows as u64;
                (first..*row)
                    .map(|row| (row % u64::from(kfold)) as i32)
                    .collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;
    use rand_mt::Mt;

    /// `numpy.random.RandomState(42).choice(3, 6)` and `RandomState(7).choice(5, 8)`.
    #[test]
    fn draws_as_numpy_does() {
        let draw = |seed, kfold, rows| Stream::Seeded(Box::new(Mt::new(seed))).next(kfold, rows);
        assert_eq!(draw(42, 3, 6), [2, 0, 2, 2, 0, 0]);
        assert_eq!(draw(7, 5, 8), [4, 1, 3, 3, 4, 1, 0, 1]);
    }
}
