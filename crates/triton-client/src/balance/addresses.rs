//! The servers' addresses: fixed ones, and names that are resolved at an interval.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::servers::Pool;
use crate::{Error, Result};

/// Prefix of a name that the client resolves.
const DNS: &str = "dns://";
/// The longest time between two resolutions while a name has no address.
const UNRESOLVED: Duration = Duration::from_secs(1);

/// Resolves `NAME:PORT`. It is called on a thread that may block.
type Resolve = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Resolves names.
///
/// ```
/// use triton_client::balance::Resolver;
///
/// // For a test: any name is this machine.
/// let local = Resolver::new(|_name| Ok(vec!["127.0.0.1:8001".parse().expect("an address")]));
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// Resolves `NAME:PORT` with `resolve`, which may block.
    pub fn new(
        resolve: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(resolve))
    }
}

/// The system's resolver.
impl Default for Resolver {
    fn default() -> Self {
        Self::new(|name| name.to_socket_addrs().map(Iterator::collect))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Resolver")
    }
}

/// The addresses as they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    fixed: Vec<String>,
    names: Vec<String>,
}

impl Addresses {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut addresses = Self::default();
        for part in text.split(',').map(str::trim) {
            let (list, address) = match part.strip_prefix(DNS) {
                Some(name) => (&mut addresses.names, name),
                None => (&mut addresses.fixed, part),
            };
            if !is_address(address) {
                return Err(Error::Unreachable {
                    address: part.to_owned(),
                    reason: "the address is invalid; accepted is HOST:PORT or dns://NAME:PORT, \
                             several of them separated by commas"
                        .to_owned(),
                });
            }
            list.push(address.to_owned());
        }
        Ok(addresses)
    }

    pub(super) fn fixed(&self) -> impl Iterator<Item = &String> {
        self.fixed.iter()
    }

    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }
}

/// Whether the text is a host and a port.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '/', '@', '[', ']', ' ']),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Resolves the names at an interval, as long as the pool exists.
///
/// A name that cannot be resolved keeps its addresses: a DNS failure must not stop working servers. Servers that are gone leave by
/// themselves.
pub(super) async fn follow(
    pool: Weak<Pool>,
    addresses: Addresses,
    resolver: Resolver,
    every: Duration,
) {
    let mut known: Vec<Vec<String>> = vec![Vec::new(); addresses.names.len()];
    let mut complained = false;
    loop {
        let mut failed = None;
        for (name, known) in addresses.names.iter().zip(&mut known) {
            match resolve(&resolver, name).await {
                Ok(found) => *known = found,
                Err(error) => failed = Some(format!("{DNS}{name} cannot be resolved: {error}")),
            }
        }
        let Some(pool) = pool.upgrade() else { return };
        match &failed {
            Some(failed) if !complained => tracing::warn!("{failed}"),
            None if complained => {
                tracing::warn!("the names of Triton's servers are resolved again")
            }
            _ => {}
        }
        complained = failed.is_some();
        let all = addresses.fixed().chain(known.iter().flatten()).cloned();
        if let Err(error) = pool.keep(all) {
            tracing::warn!("{error}");
        }
        let wait = match known.iter().any(Vec::is_empty) {
            true => every.min(UNRESOLVED),
            false => every,
        };
        pool.explain_empty(failed);
        drop(pool);
        tokio::time::sleep(wait).await;
    }
}

async fn resolve(resolver: &Resolver, name: &str) -> io::Result<Vec<String>> {
    let (resolve, name) = (Arc::clone(&resolver.0), name.to_owned());
    let found = tokio::task::spawn_blocking(move || resolve(&name));
    let found = found.await.map_err(io::Error::other)??;
    if found.is_empty() {
        return Err(io::Error::other("the answer holds no address"));
    }
    let found: BTreeSet<String> = found.iter().map(SocketAddr::to_string).collect();
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_names() {
        let parsed = Addresses::parse("a:1, [::1]:2,dns://triton.shop.svc:8001").unwrap();
        assert_eq!(parsed.fixed, ["a:1", "[::1]:2"]);
        assert_eq!(parsed.names, ["triton.shop.svc:8001"]);
        assert!(parsed.has_names() && !Addresses::parse("127.0.0.1:8001").unwrap().has_names());
        for wrong in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:1,",
            "a:1,,b:2",
            "http://a:1",
            "dns://",
            "dns://a",
            "::1:80",
            "[::1]",
            "[a]:1",
            "user@a:1",
        ] {
            let error = Addresses::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("dns://NAME:PORT"), "{wrong}: {error}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_address_is_an_error() {
        let empty = Resolver::new(|_| Ok(Vec::new()));
        assert!(resolve(&empty, "a:1").await.is_err());
        let twice = Resolver::new(|_| {
            let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
            Ok(vec![address, address])
        });
        assert_eq!(resolve(&twice, "a:1").await.unwrap(), ["127.0.0.1:1"]);
        assert!(
            !resolve(&Resolver::default(), "localhost:7")
                .await
                .unwrap()
                .is_empty()
        );
    }
}
