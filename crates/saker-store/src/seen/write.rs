//! Writes the items that users have seen.

use std::time::Duration;

use redis::Value as Reply;

use super::bitmap::{Geometry, HEADER, insert};
use super::{EXPIRY, Method, Mode, Prefixes};
use crate::{Connection, Pipeline, StoreError};

/// Maximum duration of a writer's round trip.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Number of attempts for a write while other writers replace the filter.
const ATTEMPTS: usize = 5;

/// Adds seen items, as a writer of events does.
pub struct SeenWriter<'c> {
    connection: &'c mut Connection,
    method: Method,
    prefixes: Prefixes,
    geometry: Geometry,
}

impl<'c> SeenWriter<'c> {
    /// Creates a writer. `geometry` applies to bitmaps that do not exist yet; the server's filters are made with the server's own defaults.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] if the mode is auto and the connection's settings lack
    /// [`Settings::with_bloom_probe`](crate::Settings::with_bloom_probe).
    pub fn new(
        connection: &'c mut Connection,
        mode: Mode,
        prefixes: Prefixes,
        geometry: Geometry,
    ) -> Result<Self, StoreError> {
        let method = mode.method(connection.has_bloom()).ok_or_else(|| {
            StoreError::Settings(
                "mode auto: the connection has not asked the server for BF.*".into(),
            )
        })?;
        Ok(Self {
            connection,
            method,
            prefixes,
            geometry,
        })
    }

    /// The method in use.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Adds items to each user's seen items, and restarts the users' seven days. Each user's write is executed as a whole or not at all.
    ///
    /// # Errors
    /// Returns the errors of the store. Earlier writes stay, and the call can be repeated.
    pub fn add(&mut self, seen: &[(i64, Vec<i64>)]) -> Result<(), StoreError> {
        let seen: Vec<(i64, &[i64])> = seen
            .iter()
            .filter(|(_, items)| !items.is_empty())
            .map(|(user, items)| (*user, items.as_slice()))
            .collect();
        match self.method {
            Method::Server => self.add_to_server(&seen),
            Method::Plain => self.add_to_bitmaps(seen),
        }
    }

    fn add_to_server(&mut self, seen: &[(i64, &[i64])]) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for (user, items) in seen {
            let key = self.prefixes.key(Method::Server, *user);
            pipeline.atomic(key.as_bytes(), |transaction| {
                transaction.command(|cmd| {
                    cmd.arg("BF.MADD").arg(&key).arg(*items);
                });
                transaction.command(|cmd| {
                    cmd.arg("EXPIRE").arg(&key).arg(EXPIRY.as_secs());
                });
            });
        }
        self.connection.run(&pipeline, TIMEOUT).map(|_| ())
    }

    fn add_to_bitmaps(&mut self, mut seen: Vec<(i64, &[i64])>) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for _ in 0..ATTEMPTS {
            let keys: Vec<String> = seen
                .iter()
                .map(|(user, _)| self.prefixes.key(Method::Plain, *user))
                .collect();
            pipeline.clear();
            for key in &keys {
                pipeline.command(key.as_bytes(), |cmd| {
                    cmd.arg("GET").arg(key);
                });
            }
            let stored = self.connection.run(&pipeline, TIMEOUT)?;

            pipeline.clear();
            let mut headers = Vec::with_capacity(seen.len());
            for ((key, stored), (_, items)) in keys.iter().zip(&stored).zip(&seen) {
                let stored = match stored {
                    Reply::BulkString(bytes) => Some(bytes.as_slice()),
                    _ => None,
                };
                let change = insert(stored, self.geometry, items)
                    .map_err(|error| StoreError::Data(format!("key {key}: {error}")))?;
                let header = change.geometry.header();
                headers.push(header);
                pipeline.atomic(key.as_bytes(), |transaction| {
                    transaction.command(|cmd| {
                        cmd.arg("SET").arg(key).arg(header.as_slice()).arg("NX");
                    });
                    if !change.bits.is_empty() {
                        transaction.command(|cmd| {
                            cmd.arg("BITFIELD").arg(key);
                            for position in &change.bits {
                                cmd.arg("SET").arg("u1").arg(*position).arg(1);
                            }
                        });
                    }
                    transaction.command(|cmd| {
                        cmd.arg("EXPIRE").arg(key).arg(EXPIRY.as_secs());
                    });
                    // Another writer may have made the filter since this one read it.
                    transaction.command(|cmd| {
                        cmd.arg("GETRANGE").arg(key).arg(0).arg(HEADER - 1);
                    });
                });
            }
            let done = self.connection.run(&pipeline, TIMEOUT)?;
            let mut left = Vec::new();
            for ((reply, header), user) in done.iter().zip(&headers).zip(&seen) {
                let now = match reply {
                    Reply::Array(values) => values.last(),
                    _ => None,
                };
                if !matches!(now, Some(Reply::BulkString(now)) if now == header) {
                    left.push(*user);
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            seen = left;
        }
        Err(StoreError::Data(format!(
            "{} users' seen items could not be written: other writers keep replacing them",
            seen.len()
        )))
    }
}
