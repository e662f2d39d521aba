//! API keys and their rates.
//!
//! A file holds a key per line: a name for logs, the key, how many requests a second it may make, and its rights; a bucket of
//! twice as many tokens lets short bursts through.
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

/// How short a key may be.
const SHORTEST: usize = 16;

/// What a route lets its caller do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// What a load balancer, a browser's first visit and a scraper need: no key.
    Open,
    /// Recommendations, items, categories.
    Read,
    /// To send events.
    Events,
    /// What is stored of users.
    Users,
    /// To delete what is stored of a user.
    Forget,
    /// Explanations and the operators' numbers.
    Admin,
}

impl Right {
    /// Those that a key can have, by the word of the file.
    const WORDS: [(&str, Self); 5] = [
        ("read", Self::Read),
        ("events", Self::Events),
        ("users", Self::Users),
        ("forget", Self::Forget),
        ("admin", Self::Admin),
    ];
    /// Those of a key whose line names none.
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

/// The keys. They are kept as digests and looked up by them, so that how long a comparison takes tells nothing of them.
#[derive(Clone, Debug)]
pub struct Keys(Arc<FxHashMap<[u8; 32], Bucket>>);

#[derive(Debug)]
struct Bucket {
    name: String,
    per_second: f64,
    rights: Vec<Right>,
    state: Mutex<(f64, Instant)>,
}

/// What a key may do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Allowed(String),
    /// Not before so many seconds have passed.
    Later(u64),
    /// The key of this name has not the right.
    Denied(String),
    /// There is no such key.
    Unknown,
}

impl Keys {
    /// Reads a file of keys; see the module.
    ///
    /// # Errors
    /// What is wrong, and in which line; never the key.
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
                return Err(format!(
                    "line {number}: the key stands in another line, too"
                ));
            }
        }
        match keys.is_empty() {
            true => Err("it holds no key".to_owned()),
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
        // A rate below one a second still lets single requests through.
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
