//! The address of a store, and the options of its connections.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::StoreError;

/// Default time limit of a store call on the request path.
pub const DEFAULT_DEADLINE: Duration = Duration::from_millis(20);

const ACCEPTED: &str = "redis://[user:password@]host[:port][/db], rediss://… (TLS), redis+unix:///path?db=N, \
     redis+cluster://host[:port][,host…] or rediss+cluster://…";

/// A store's URL without its credentials: safe to print and to log.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedUrl(String);

impl RedactedUrl {
    /// Removes user, password and query from `url`. A text that does not look like a URL is not shown at all.
    #[must_use]
    pub fn new(url: &str) -> Self {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self("(a store URL that cannot be read)".into());
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        // A password may hold an unescaped '/', so the credentials end at the last '@'.
        let place = rest.rsplit('@').next().unwrap_or_default();
        let hidden = if place.len() == rest.len() {
            ""
        } else {
            "***@"
        };
        Self(format!("{scheme}://{hidden}{place}"))
    }
}

impl RedactedUrl {
    /// The same URL with another database in its path; a socket's path stays.
    fn with_database(&self, database: i64) -> Self {
        match self.0.split_once("://") {
            Some((scheme, place)) if !scheme.ends_with("unix") => {
                let host = place.split('/').next().unwrap_or_default();
                Self(format!("{scheme}://{host}/{database}"))
            }
            _ => self.clone(),
        }
    }
}

impl fmt::Display for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RedactedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One address to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// The servers that hold a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    Single(Address),
    /// The nodes that are asked for the topology.
    Cluster(Vec<Address>),
}

/// The address of a store, the login, and the time limits.
#[derive(Clone)]
pub struct Settings {
    pub(crate) url: RedactedUrl,
    pub(crate) servers: Servers,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: i64,
    pub(crate) deadline: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) probe_bloom: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("database", &self.database)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// The address of a parsed URL; `None` for a kind that this crate does not know.
fn address(parsed: &ConnectionAddr) -> Option<Address> {
    match parsed {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address::Tcp {
                host: host.clone(),
                port: *port,
            })
        }
        ConnectionAddr::Unix(path) => Some(Address::Unix(path.clone())),
        _ => None,
    }
}

/// The cluster behind these addresses.
///
/// # Errors
/// Returns the reason if the URL names another database than 0, or a Unix socket.
fn cluster_of(addresses: Vec<Address>, database: i64) -> Result<Servers, &'static str> {
    if database != 0 {
        return Err("a cluster has only database 0");
    }
    let mut all = addresses.iter();
    if all.any(|address| matches!(address, Address::Unix(_))) {
        return Err("a cluster needs TCP addresses");
    }
    Ok(Servers::Cluster(addresses))
}

impl Settings {
    /// Reads a URL.
    ///
    /// - `redis://[user:password@]host[:6379][/db]`; `rediss://` is the same over TLS
    /// - `redis+unix:///path/to.sock?db=1&user=u&pass=p`: a Unix socket, some 10 µs a round trip faster than loopback
    /// - `redis+cluster://[user:password@]host[:port][,host[:port]…]`, `rediss+cluster://`: the hosts are asked for the topology; a cluster
    ///   has only database 0
    ///
    /// User and password are percent-decoded. TLS checks the server against the system's certificate authorities,
    /// or against `certificate_authority`, a PEM file.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`], which names the accepted forms. The message never contains the credentials.
    pub fn parse(url: &str, certificate_authority: Option<&Path>) -> Result<Self, StoreError> {
        let redacted = RedactedUrl::new(url);
        let refuse = |why: &str| {
            StoreError::Settings(format!("store URL {redacted}: {why}; accepted: {ACCEPTED}"))
        };

        let (scheme, rest) = url.split_once("://").ok_or_else(|| refuse("no scheme"))?;
        if rest.ends_with("#insecure") {
            return Err(refuse(
                "#insecure is not supported: name the certificate authority instead",
            ));
        }
        let (cluster, scheme) = match scheme.strip_suffix("+cluster") {
            Some(single) => (true, single),
            None => (false, scheme),
        };
        if !matches!(
            scheme,
            "redis" | "rediss" | "valkey" | "valkeys" | "unix" | "redis+unix" | "valkey+unix"
        ) {
            return Err(refuse("unknown scheme"));
        }

        let mut addresses = Vec::new();
        let mut first: Option<ConnectionInfo> = None;
        for single in split_hosts(rest) {
            // The library's own message can quote the URL, so it is not passed on.
            let info = format!("{scheme}://{single}")
                .into_connection_info()
                .map_err(|_| refuse("it cannot be read"))?;
            addresses.push(address(info.addr()).ok_or_else(|| refuse("unknown kind of address"))?);
            first.get_or_insert(info);
        }
        let info = first.ok_or_else(|| refuse("no host"))?;
        let secure = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let login = info.redis_settings();
        let servers = match cluster {
            true => cluster_of(addresses, login.db()).map_err(refuse)?,
            false => {
                let [address] = <[Address; 1]>::try_from(addresses)
                    .map_err(|_| refuse("several hosts need the scheme redis+cluster"))?;
                Servers::Single(address)
            }
        };
        if certificate_authority.is_some() && !secure {
            return Err(refuse("a certificate authority needs the scheme rediss"));
        }
        Ok(Self {
            url: redacted.clone(),
            servers,
            tls: if secure {
                Some(tls_config(certificate_authority)?)
            } else {
                None
            },
            username: login.username().map(str::to_owned),
            password: login.password().map(str::to_owned),
            database: login.db(),
            deadline: DEFAULT_DEADLINE,
            connect_timeout: Duration::from_secs(1),
            probe_bloom: false,
        })
    }

    /// The URL without credentials.
    #[must_use]
    pub fn url(&self) -> &RedactedUrl {
        &self.url
    }

    /// Whether the URL is that of a cluster, which has only database 0.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    /// Total time limit of a call on the request path. Default: 20 ms.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Time limit of a call on the request path for this many entities: [`deadline`](Self::deadline), plus the same again for every further
    /// 64, up to fifty times.
    #[must_use]
    pub fn deadline_for(&self, entities: usize) -> Duration {
        let lots = entities.saturating_sub(1) / 64 + 1;
        self.deadline * lots.min(50) as u32
    }

    /// Sets the total time limit of a call on the request path.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets the total time limit for making one connection, login included. Default: 1 s.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The same server and login, with another database.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] for negative numbers, and for any number but 0 in a cluster.
    pub fn with_database(mut self, database: impl Into<i64>) -> Result<Self, StoreError> {
        let database = database.into();
        if database < 0 || (self.is_cluster() && database != 0) {
            return Err(StoreError::Settings(format!(
                "store URL {}: database {database} does not exist; accepted: 0 or more, in a cluster only 0",
                self.url
            )));
        }
        self.database = database;
        self.url = self.url.with_database(database);
        Ok(self)
    }

    /// The number of the database; 0 in a cluster.
    #[must_use]
    pub fn database(&self) -> i64 {
        self.database
    }

    /// Whether both use the same server with the same login, for any database. One connection can then serve both.
    #[must_use]
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.servers == other.servers
            && self.tls.is_some() == other.tls.is_some()
            && self.username == other.username
            && self.password == other.password
    }

    /// Makes each new connection ask its server for the `BF.*` commands; see [`Connection::has_bloom`](crate::Connection::has_bloom).
    #[must_use]
    pub fn with_bloom_probe(mut self) -> Self {
        self.probe_bloom = true;
        self
    }
}

/// Splits `user:password@a:1,b:2/0?q` into one `user:password@host…/0?q` per host.
fn split_hosts(rest: &str) -> Vec<String> {
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (format!("{login}@"), place),
        None => (String::new(), rest),
    };
    let end = place.find(['/', '?', '#']).unwrap_or(place.len());
    let (hosts, tail) = place.split_at(end);
    hosts
        .split(',')
        .map(|host| format!("{login}{host}{tail}"))
        .collect()
}

fn tls_config(
    certificate_authority: Option<&Path>,
) -> Result<Arc<rustls::ClientConfig>, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    match certificate_authority {
        Some(path) => {
            let refuse = |why: String| {
                StoreError::Settings(format!(
                    "certificate authority {}: {why}; accepted: a PEM file of one or more certificates",
                    path.display()
                ))
            };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| refuse(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| refuse(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refuse("the file has no certificate".into()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(StoreError::Settings(
                    "TLS: this system has no certificate authorities; install them (Debian: ca-certificates) or name \
                     a PEM file"
                        .into(),
                ));
            }
        }
    }
    // The TLS provider is passed explicitly and not taken from the process, because several backends share one process.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Settings(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let settings = Settings::parse("redis://reader:s%40crt@store:6380/3", None).unwrap();
        assert_eq!(
            settings.servers,
            Servers::Single(Address::Tcp {
                host: "store".into(),
                port: 6380
            })
        );
        assert_eq!(settings.username.as_deref(), Some("reader"));
        assert_eq!(settings.password.as_deref(), Some("s@crt"));
        assert_eq!(settings.database, 3);
        assert_eq!(settings.deadline(), Duration::from_millis(20));
        for (entities, ms) in [
            (0, 20),
            (1, 20),
            (64, 20),
            (65, 40),
            (256, 80),
            (8000, 1000),
        ] {
            assert_eq!(settings.deadline_for(entities), Duration::from_millis(ms));
        }

        let same = |url: &str| settings.is_same_server(&Settings::parse(url, None).unwrap());
        assert!(same("redis://reader:s%40crt@store:6380/1"));
        assert!(!same("redis://reader:s%40crt@store/3") && !same("redis://store:6380/3"));

        let settings = Settings::parse("redis+cluster://:pw@a:1,b:2", None).unwrap();
        assert!(matches!(&settings.servers, Servers::Cluster(seeds) if seeds.len() == 2));
        assert!(settings.is_cluster());
        assert_eq!(settings.password.as_deref(), Some("pw"));

        let settings = Settings::parse("redis+unix:///tmp/v.sock?db=2", None).unwrap();
        assert_eq!(
            settings.servers,
            Servers::Single(Address::Unix("/tmp/v.sock".into()))
        );
        assert_eq!(settings.database, 2);
    }

    #[test]
    fn bad_urls_say_what_is_accepted_and_hide_the_password() {
        for url in [
            "redis:/user:hunter2@host",
            "http://user:hunter2@host",
            "redis://user:hunter2@host:99999999/0",
            "redis://user:hunter2@a,b/0",
            "redis+cluster://user:hunter2@a,b/3",
            "redis://user:hunter2@host/zero",
            "rediss://user:hunter2@host/#insecure",
            "hunter2",
        ] {
            let message = Settings::parse(url, None).unwrap_err().to_string();
            assert!(message.contains("accepted"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn credentials_are_never_printed() {
        let settings = Settings::parse("redis://user:hunt/er2@host:1/0?pass=hunter2", None);
        // An unescaped '/' in a password makes the URL invalid; this test checks that the password is not shown.
        assert!(!format!("{settings:?}").contains("er2"));
        let settings = Settings::parse("redis://user:hunter2@host:1/0", None).unwrap();
        assert_eq!(settings.url().to_string(), "redis://***@host:1/0");
        assert!(!format!("{settings:?} {:?}", settings.url()).contains("hunter2"));
        assert_eq!(RedactedUrl::new("redis://host").to_string(), "redis://host");
        let other = settings.with_database(3).unwrap();
        assert_eq!(other.url().to_string(), "redis://***@host:1/3");
    }
}
