//! API keys and their rates.
//!
//! A file holds one key per line: a name for logs, the key, its rate in requests per second, and its rights. The token bucket of a key
//! holds twice the rate, so short bursts pass.
//!
//! ```text
//! # name      key                        requests per second   rights
//! storefront  6f2c0b9a1d3e4f50a7b8       500
//! accounts    0a8d5c1f7e2b4c6d9f10       20                    read,users,forget
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use crate::Error;

/// Minimum length of a key, in characters.
const SHORTEST: usize = 16;

/// The right that a caller needs for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Needs no key: health checks, the storefront's pages, metrics.
    Open,
    /// Reads recommendations, items and categories.
    Read,
    /// Sends events.
    Events,
    /// Reads the stored data of users.
    Users,
    /// Deletes the stored data of a user.
    Forget,
    /// Reads explanations and the operators' figures.
    Admin,
}

impl Right {
    /// The rights that a key can have, with their names in the file.
    const WORDS: [(&str, Self); 5] = [
        ("read", Self::Read),
        ("events", Self::Events),
        ("users", Self::Users),
        ("forget", Self::Forget),
        ("admin", Self::Admin),
    ];
    /// The rights of a key whose line names none.
    const USUAL: &[Self] = &[Self::Read, Self::Events, Self::Users];

    pub(crate) fn word(self) -> &'static str {
        let mut words = Self::WORDS.into_iter();
        words
            .find_map(|(word, right)| (right == self).then_some(word))
            .unwrap_or("open")
    }

    fn parse(words: &str) -> Result<Vec<Self>, String> {
        if words == "all" {
            return Ok(Self::WORDS.map(|(_, right)| right).to_vec());
        }
        let right = |word: &str| {
            let mut known = Self::WORDS.into_iter();
            let found = known.find_map(|(name, right)| (name == word).then_some(right));
            found.ok_or_else(|| {
                format!("the right '{word}' is unknown; accepted: all, or some of read,events,users,forget,admin")
            })
        };
        words.split(',').map(right).collect()
    }
}

/// The keys, stored and looked up by their digests. The duration of a comparison therefore reveals nothing about a key.
#[derive(Clone, Debug)]
pub struct Keys(Arc<FxHashMap<[u8; 32], Bucket>>);

#[derive(Debug)]
struct Bucket {
    name: String,
    per_second: f64,
    rights: Vec<Right>,
    state: Mutex<(f64, Instant)>,
}

/// The decision about a request with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The request may proceed; holds the name of the key.
    Allowed(String),
    /// The key has used up its rate; it may try again after this many seconds.
    Later(u64),
    /// The key of this name lacks the right.
    Denied(String),
    /// The key does not exist.
    Unknown,
}

impl Keys {
    /// Reads a file of keys, in the format that the module describes.
    ///
    /// # Errors
    /// Returns an error that names the line and the fault. The error never contains the key.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refuse = |why: String| Error::Keys {
            file: path.display().to_string(),
            why,
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse(&text).map_err(refuse)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = FxHashMap::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, key, rate, rights) = match words[..] {
                [name, key, rate] => (name, key, rate, Right::USUAL.to_vec()),
                [name, key, rate, rights] => {
                    let rights = Right::parse(rights);
                    (
                        name,
                        key,
                        rate,
                        rights.map_err(|why| format!("line {number}: {why}"))?,
                    )
                }
                _ => {
                    return Err(format!(
                        "line {number} has {} words; accepted is: name key requests-per-second [rights]",
                        words.len()
                    ));
                }
            };
            if key.len() < SHORTEST {
                return Err(format!(
                    "line {number}: the key has {} characters; accepted are {SHORTEST} or more",
                    key.len()
                ));
            }
            let per_second = rate
                .parse::<f64>()
                .ok()
                .filter(|rate| rate.is_finite() && *rate > 0.0);
            let Some(per_second) = per_second else {
                return Err(format!(
                    "line {number}: the rate is '{rate}'; accepted is a number above 0"
                ));
            };
            let bucket = Bucket {
                name: name.to_owned(),
                per_second,
                rights,
                state: Mutex::new((2.0 * per_second.max(0.5), Instant::now())),
            };
            if keys.insert(digest(key), bucket).is_some() {
                return Err(format!("line {number}: another line has the same key"));
            }
        }
        match keys.is_empty() {
            true => Err("the file has no keys".to_owned()),
            false => Ok(Self(Arc::new(keys))),
        }
    }

    pub(crate) fn ask(&self, key: &str, right: Right, now: Instant) -> Verdict {
        let Some(bucket) = self.0.get(&digest(key)) else {
            return Verdict::Unknown;
        };
        if !bucket.rights.contains(&right) {
            return Verdict::Denied(bucket.name.clone());
        }
        // A rate below one per second still allows single requests.
        let most = 2.0 * bucket.per_second.max(0.5);
        let mut state = bucket.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *state;
        let passed = now.saturating_duration_since(since).as_secs_f64();
        let tokens = (tokens + passed * bucket.per_second).min(most);
        if tokens < 1.0 {
            *state = (tokens, now);
            return Verdict::Later(((1.0 - tokens) / bucket.per_second).ceil() as u64);
        }
        *state = (tokens - 1.0, now);
        Verdict::Allowed(bucket.name.clone())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_fills_at_its_rate() {
        let keys = Keys::parse("# ours\nshop 0123456789abcdef 2\n").unwrap();
        let start = Instant::now();
        let ask = |seconds| {
            let now = start + Duration::from_secs_f64(seconds);
            keys.ask("0123456789abcdef", Right::Read, now)
        };
        for _ in 0..4 {
            assert_eq!(ask(0.0), Verdict::Allowed("shop".to_owned()));
        }
        assert_eq!(ask(0.0), Verdict::Later(1));
        assert_eq!(ask(0.5), Verdict::Allowed("shop".to_owned()));
        assert_eq!(ask(0.5), Verdict::Later(1));
        assert_eq!(keys.ask("another", Right::Read, start), Verdict::Unknown);
    }

    #[test]
    fn a_key_may_do_what_its_line_says() {
        let all = Right::WORDS.map(|(_, right)| right);
        for (words, rights) in [
            ("", Right::USUAL),
            ("forget", &[Right::Forget]),
            ("read,admin", &[Right::Read, Right::Admin]),
            ("all", &all),
        ] {
            let keys = Keys::parse(&format!("shop 0123456789abcdef 100 {words}")).unwrap();
            for right in all {
                let allowed = match keys.ask("0123456789abcdef", right, Instant::now()) {
                    Verdict::Allowed(_) => true,
                    Verdict::Denied(name) => name != "shop",
                    other => panic!("{other:?}"),
                };
                assert_eq!(allowed, rights.contains(&right), "{words}: {right:?}");
            }
        }
    }

    #[test]
    fn a_wrong_line_is_named_and_the_key_is_not() {
        for (text, why) in [
            ("", "no key"),
            ("shop 0123456789abcdef", "line 1"),
            ("shop hunter2 5", "line 1"),
            ("\nshop 0123456789abcdef fast", "line 2"),
            ("shop 0123456789abcdef 0", "line 1"),
            ("shop 0123456789abcdef 5 write", "accepted: all"),
            ("shop 0123456789abcdef 5 read,", "accepted: all"),
            ("shop 0123456789abcdef 5 read events", "line 1"),
            ("a 0123456789abcdef 1\nb 0123456789abcdef 1", "line 2"),
        ] {
            let error = Keys::parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("0123456789abcdef") && !error.contains("hunter2"));
        }
    }
}
