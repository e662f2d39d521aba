//! Encodes the contents of a catalogue, each distinct content once.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::Error;
use crate::cache::{Cache, Digest, Hasher};

/// Computes vectors of contents.
pub trait Encoder {
    /// The parsed form of a content: tokens, or pixels.
    type Input;
    /// Contents that one call of [`Encoder::encode`] should get, so that it can batch them within bounded memory.
    const CHUNK: usize;

    /// A hash of everything besides the content that the vectors depend on: weights, settings, this code's version.
    fn fingerprint(&self) -> &Digest;

    /// Width of the vectors.
    fn width(&self) -> usize;

    /// Parses a content: a text in UTF-8, or a picture's file.
    ///
    /// # Errors
    /// Returns a message that says why the content cannot be used.
    fn read(&self, content: &[u8]) -> Result<Self::Input, String>;

    /// The vectors of these contents, each of [`Encoder::width`] numbers. A vector depends only on its own content.
    ///
    /// # Errors
    /// Returns an error if the model fails.
    fn encode(&mut self, inputs: &[Self::Input]) -> Result<Vec<Vec<f32>>, Error>;
}

/// The result of encoding a catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Row-major f32 `[items, width]`; the rows of unusable items are zero.
    pub vectors: Vec<f32>,
    /// Items without a vector, with the reason, in the order of the items.
    pub unusable: Vec<(usize, String)>,
    /// Number of distinct contents that were encoded.
    pub encoded: usize,
    /// Number of distinct contents that the cache held.
    pub cached: usize,
    /// Time spent in the encoder.
    pub took: Duration,
}

/// Encodes the contents of the items 0 to `items`; `load` returns an item's content, or the reason why it is missing.
///
/// Equal contents are encoded once, and contents in `cache` are not encoded again. Afterwards the cache holds only these contents. It is
/// written every half minute, so that an interrupted run resumes. `progress` receives the number of encoded contents and the total.
///
/// # Errors
/// Returns an error if the model fails or if the cache cannot be written. Content that cannot be loaded or parsed is not an error, see
/// [`Encoded::unusable`].
pub fn encode<E: Encoder>(
    encoder: &mut E,
    items: usize,
    load: impl Fn(usize) -> Result<Vec<u8>, String>,
    cache: &mut Cache,
    progress: impl FnMut(usize, usize),
) -> Result<Encoded, Error> {
    let width = encoder.width();
    let contents = Contents::of(encoder, items, &load, cache);
    cache.retain(&contents.distinct, width);
    let start = Instant::now();
    let unreadable = encode_pending(encoder, &contents.pending, load, cache, progress)?;
    let took = start.elapsed();
    cache.save(width)?;

    let mut vectors = vec![0.0; items * width];
    let mut unusable = Vec::new();
    let rows = vectors.chunks_exact_mut(width);
    for (item, (key, row)) in contents.keys.iter().zip(rows).enumerate() {
        let vector = key.as_ref().map_err(Clone::clone).and_then(|key| {
            let reason = || unreadable.get(key).cloned().unwrap_or_default();
            cache.get(key).ok_or_else(reason)
        });
        match vector {
            Ok(vector) => row.copy_from_slice(vector),
            Err(reason) => unusable.push((item, reason)),
        }
    }
    let pending = contents.pending.len();
    Ok(Encoded {
        vectors,
        unusable,
        encoded: pending - unreadable.len(),
        cached: contents.distinct.len() - pending,
        took,
    })
}

/// The contents of a catalogue, by the keys of the cache.
struct Contents {
    /// The key of each item, or the reason why its content is missing.
    keys: Vec<Result<Digest, String>>,
    distinct: HashSet<Digest>,
    /// Distinct contents that the cache lacks: the first item that has it, and its key.
    pending: Vec<(usize, Digest)>,
}

impl Contents {
    fn of<E: Encoder>(
        encoder: &E,
        items: usize,
        load: impl Fn(usize) -> Result<Vec<u8>, String>,
        cache: &Cache,
    ) -> Self {
        let width = encoder.width();
        let mut contents = Self {
            keys: Vec::with_capacity(items),
            distinct: HashSet::new(),
            pending: Vec::new(),
        };
        for item in 0..items {
            let key = load(item).map(|content| {
                let hasher = Hasher::new("vector").add(encoder.fingerprint());
                hasher.add(&content).finish()
            });
            if let Ok(key) = key
                && contents.distinct.insert(key)
                && cache.get(&key).is_none_or(|vector| vector.len() != width)
            {
                contents.pending.push((item, key));
            }
            contents.keys.push(key);
        }
        contents
    }
}

/// Encodes the pending contents into the cache, which is saved from time to time. Returns the contents that cannot be loaded or parsed, with
/// the reasons.
fn encode_pending<E: Encoder>(
    encoder: &mut E,
    pending: &[(usize, Digest)],
    load: impl Fn(usize) -> Result<Vec<u8>, String>,
    cache: &mut Cache,
    mut progress: impl FnMut(usize, usize),
) -> Result<HashMap<Digest, String>, Error> {
    const BETWEEN_SAVES: Duration = Duration::from_secs(30);
    let mut unreadable = HashMap::new();
    let mut done = 0;
    let mut saved = Instant::now();
    for chunk in pending.chunks(E::CHUNK) {
        progress(done, pending.len());
        let mut inputs = Vec::with_capacity(chunk.len());
        let mut keys = Vec::with_capacity(chunk.len());
        for &(item, key) in chunk {
            match load(item).and_then(|content| encoder.read(&content)) {
                Ok(input) => {
                    inputs.push(input);
                    keys.push(key);
                }
                Err(reason) => {
                    unreadable.insert(key, reason);
                }
            }
        }
        for (key, vector) in keys.into_iter().zip(encoder.encode(&inputs)?) {
            cache.insert(key, vector);
        }
        done += chunk.len();
        if saved.elapsed() >= BETWEEN_SAVES {
            cache.save(encoder.width())?;
            saved = Instant::now();
        }
    }
    progress(done, pending.len());
    Ok(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length and first letter of a text; counts what it encodes.
    struct Letters {
        fingerprint: Digest,
        encoded: usize,
    }

    impl Letters {
        fn new(version: u8) -> Self {
            Self {
                fingerprint: [version; 32],
                encoded: 0,
            }
        }
    }

    impl Encoder for Letters {
        type Input = Vec<u8>;
        const CHUNK: usize = 2;

        fn fingerprint(&self) -> &Digest {
            &self.fingerprint
        }

        fn width(&self) -> usize {
            2
        }

        fn read(&self, content: &[u8]) -> Result<Vec<u8>, String> {
            match content.first() {
                Some(b'?') => Err("begins with ?".to_owned()),
                _ => Ok(content.to_vec()),
            }
        }

        fn encode(&mut self, inputs: &[Vec<u8>]) -> Result<Vec<Vec<f32>>, Error> {
            assert!(inputs.len() <= Self::CHUNK);
            self.encoded += inputs.len();
            let vector = |text: &Vec<u8>| vec![text.len() as f32, f32::from(text[0])];
            Ok(inputs.iter().map(vector).collect())
        }
    }

    fn run(encoder: &mut Letters, texts: &[&str], path: &std::path::Path) -> Encoded {
        let load = |item: usize| match texts[item] {
            "" => Err("is empty".to_owned()),
            text => Ok(text.as_bytes().to_vec()),
        };
        let mut last = (0, 0);
        let mut cache = Cache::open(path);
        let encoded = encode(encoder, texts.len(), load, &mut cache, |done, of| {
            last = (done, of)
        })
        .unwrap();
        assert_eq!(last.0, last.1);
        encoded
    }

    #[test]
    fn equal_contents_are_encoded_once_and_a_second_run_encodes_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.parquet");
        let texts = ["aa", "b", "", "aa", "?no", "ccc"];
        let mut encoder = Letters::new(1);
        let first = run(&mut encoder, &texts, &path);
        assert_eq!((first.encoded, first.cached, encoder.encoded), (3, 0, 3));
        let expected = [
            2.0, 97.0, 1.0, 98.0, 0.0, 0.0, 2.0, 97.0, 0.0, 0.0, 3.0, 99.0,
        ];
        assert_eq!(first.vectors, expected);
        let reasons: Vec<(usize, &str)> = first
            .unusable
            .iter()
            .map(|(item, why)| (*item, why.as_str()))
            .collect();
        assert_eq!(reasons, [(2, "is empty"), (4, "begins with ?")]);

        let again = run(&mut encoder, &texts, &path);
        assert_eq!((again.encoded, encoder.encoded), (0, 3));
        assert_eq!(again.vectors, first.vectors);

        let changed = run(&mut encoder, &["aa", "b", "d", "aa", "?no", "ccc"], &path);
        assert_eq!(
            (changed.encoded, changed.cached, encoder.encoded),
            (1, 3, 4)
        );
        assert_eq!(changed.vectors[4..6], [1.0, 100.0]);
        assert_eq!(Cache::open(&path).len(), 4);

        // Removed contents are dropped from the cache; another encoder shares no vectors with this one.
        run(&mut encoder, &["aa"], &path);
        assert_eq!(Cache::open(&path).len(), 1);
        let other = run(&mut Letters::new(2), &["aa"], &path);
        assert_eq!((other.encoded, other.cached), (1, 0));
    }
}
