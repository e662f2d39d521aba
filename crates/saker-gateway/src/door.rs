//! The rules of a listener: which routes it has and which hosts it accepts, by the address on which it listens.

use std::net::IpAddr;

use axum::http::{Request, StatusCode, header};

use crate::Settings;
use crate::problem::Problem;

/// A listener's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    /// Whether the listener has the operators' routes.
    pub(crate) operators: bool,
    /// Whether the listener answers all routes when the gateway has no keys.
    pub(crate) private: bool,
    /// Accepted host names, in addition to addresses and localhost; `None` accepts any name.
    hosts: Option<Vec<String>>,
}

impl Door {
    /// The rules of a listener at this address.
    pub(crate) fn new(settings: &Settings, address: IpAddr) -> Self {
        let private = address.to_canonical().is_loopback() || settings.trust_network;
        let hosts = settings.hosts.iter().map(|host| host.to_ascii_lowercase());
        let hosts: Vec<String> = hosts.collect();
        Self {
            operators: private,
            private,
            hosts: (private || !hosts.is_empty()).then_some(hosts),
        }
    }

    pub(crate) fn without_operators(self) -> Self {
        Self {
            operators: false,
            ..self
        }
    }

    pub(crate) fn for_operators(self) -> Self {
        Self {
            operators: true,
            ..self
        }
    }

    /// Refuses an unknown host name. This prevents DNS rebinding: a page whose own name resolves to this address has the same origin for
    /// the browser, and could otherwise read everything.
    pub(crate) fn check_host<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let Some(hosts) = &self.hosts else {
            return Ok(());
        };
        let authority = request
            .uri()
            .authority()
            .map(|host| host.as_str().as_bytes());
        let headers = request.headers().get_all(header::HOST);
        let named = headers.iter().map(axum::http::HeaderValue::as_bytes);
        for host in authority.into_iter().chain(named) {
            let host = std::str::from_utf8(host).unwrap_or("?");
            if !is_accepted(host, hosts) {
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!(
                        "the host is '{}'; accepted: addresses, localhost and the names given with --host",
                        crate::query::shortened(host)
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn is_accepted(host: &str, hosts: &[String]) -> bool {
    // An IPv6 address is in brackets, which separate its colons from the port's.
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => return address.parse::<IpAddr>().is_ok(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.parse::<IpAddr>().is_ok() || hosts.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(saker_store::Settings::parse("redis://127.0.0.1:1", None).unwrap())
    }

    fn answers(door: &Door, host: &str) -> bool {
        let request = Request::builder().uri("/users/42").header("host", host);
        door.check_host(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused_where_no_key_is_asked_for() {
        let mut settings = settings();
        settings.hosts = vec!["Shop.example".to_owned()];
        let door = Door::new(&settings, "127.0.0.1".parse().unwrap());
        for ours in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "localhost:8080",
            "LOCALHOST",
            "[::1]:8080",
            "10.0.0.7",
            "shop.example",
            "SHOP.example.:443",
        ] {
            assert!(answers(&door, ours), "{ours}");
        }
        for other in [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil.example]",
            "shop.example.evil",
            "",
            "?",
        ] {
            assert!(!answers(&door, other), "{other}");
        }
        // The host in a request's target is checked as well.
        let request = Request::builder().uri("http://evil.example/users/42");
        let request = request.header("host", "localhost").body(()).unwrap();
        assert!(door.check_host(&request).is_err());
    }

    #[test]
    fn rules_follow_from_the_address() {
        let mut settings = settings();
        let door =
            |settings: &Settings, address: &str| Door::new(settings, address.parse().unwrap());
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let door = door(&settings, loopback);
            assert!(door.private && door.operators, "{loopback}");
            assert!(!answers(&door, "evil.example"), "{loopback}");
        }
        for other in ["0.0.0.0", "::", "10.0.0.7", "2001:db8::1"] {
            let door = door(&settings, other);
            assert!(!door.private && !door.operators, "{other}");
            assert!(answers(&door, "shop.example"), "{other}");
        }
        settings.trust_network = true;
        let trusted = door(&settings, "0.0.0.0");
        assert!(trusted.private && trusted.operators);
        assert!(!answers(&trusted, "evil.example"));
    }
}
