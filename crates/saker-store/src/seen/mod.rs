//! The items that a user has seen.
//!
//! There are two methods to store them, each under its own key prefix:
//!
//! - *server*: a Bloom filter of the server's, `bf:seen:{user}`, item ids as decimal strings (BF.MADD, BF.MEXISTS)
//! - *plain*: our own [`bitmap`] in a string, `saker:seen:1:{user}`, for servers without the Bloom module
//!
//! Both expire [`EXPIRY`] after the last write. Both can report an unseen item as seen, but never a seen item as unseen.

pub mod bitmap;
mod read;
mod write;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use saker_contract::keys;

use crate::StoreError;

pub use read::{Reader, Seen};
pub use write::SeenWriter;

/// Time after the last write at which a user's seen items expire.
pub const EXPIRY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The requested method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// [`Method::Server`] if the server has `BF.*`, otherwise [`Method::Plain`].
    #[default]
    Auto,
    /// Always the server's filter.
    Server,
    /// Always the bitmap.
    Plain,
}

/// The method in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The server's Bloom filter.
    Server,
    /// Our bitmap.
    Plain,
}

impl Mode {
    /// The method for this mode, depending on whether the server has the `BF.*` commands. `None` if the server would have to be asked and
    /// was not; see [`Settings::with_bloom_probe`](crate::Settings::with_bloom_probe).
    #[must_use]
    pub fn method(self, has_bloom: Option<bool>) -> Option<Method> {
        match (self, has_bloom) {
            (Self::Server, _) | (Self::Auto, Some(true)) => Some(Method::Server),
            (Self::Plain, _) | (Self::Auto, Some(false)) => Some(Method::Plain),
            (Self::Auto, None) => None,
        }
    }
}

impl FromStr for Mode {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        match text {
            "auto" => Ok(Self::Auto),
            "server" => Ok(Self::Server),
            "plain" => Ok(Self::Plain),
            _ => Err(StoreError::Settings(format!(
                "mode '{text}' is unknown; accepted: auto, server, plain"
            ))),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Plain => "plain",
        })
    }
}

/// The key prefixes.
#[derive(Clone, Debug)]
pub struct Prefixes {
    /// Prefix of the user id for a server's filter.
    pub server: String,
    /// Prefix of the user id for a bitmap.
    pub plain: String,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            server: keys::SEEN_FILTER.into(),
            plain: keys::SEEN_BITMAP.into(),
        }
    }
}

impl Prefixes {
    /// The key of a user.
    #[must_use]
    pub fn key(&self, method: Method, user: i64) -> String {
        match method {
            Method::Server => format!("{}{user}", self.server),
            Method::Plain => format!("{}{user}", self.plain),
        }
    }
}
