//! Reads a store's URL from a text or from the environment. A configuration file that others can read then needs no password.

use std::fmt;
use std::path::Path;

use saker_contract::Database;
use saker_contract::database::VARIABLE;

use crate::{RedactedUrl, Settings, StoreError};

/// Prefix of a text that names environment variables.
const ENVIRONMENT: &str = "env:";
/// Suffix of a variable's name that names a file with the URL.
const FILE: &str = "_FILE";

/// The text with which a configuration refers to a database of Saker's store whose URL is in the environment. Some databases may
/// be in stores of their own: see [`Database::variable`].
#[must_use]
pub fn in_environment(database: impl Into<i64>) -> String {
    let database = database.into();
    let own = Database::of_number(database).and_then(Database::variable);
    let names: Vec<&str> = own.into_iter().chain([VARIABLE]).collect();
    format!("{ENVIRONMENT}{}#{database}", names.join(","))
}

/// A store's URL as given. It is never printed with its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    /// The database, if the URL does not name one.
    database: Option<i64>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("url", &RedactedUrl::new(&self.url))
            .field("database", &self.database)
            .finish()
    }
}

impl Address {
    /// Reads a store's address from a configuration:
    ///
    /// - a URL, in the form of [`Settings::parse`]
    /// - `env:NAME[,NAME…][#DATABASE]`: the URL is in the first of these environment variables that is set. A variable `NAME_FILE` names a
    ///   file whose only line is the URL. `DATABASE` applies if that URL names no database.
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] if no variable is set, or if a file cannot be read.
    pub fn read(text: &str) -> Result<Self, StoreError> {
        Self::read_with(text, &|name| std::env::var(name).ok())
    }

    fn read_with(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let Some(names) = text.strip_prefix(ENVIRONMENT) else {
            return Ok(Self {
                url: text.to_owned(),
                database: None,
            });
        };
        let refuse = |why: &str| {
            StoreError::Settings(format!(
                "'{text}': {why}; accepted: {ENVIRONMENT}NAME[,NAME…][#DATABASE], of which the first variable NAME that is \
                 set holds the URL, or NAME{FILE} names a file that does"
            ))
        };
        let (names, database) = match names.split_once('#') {
            None => (names, None),
            Some((names, number)) => {
                let number = number.parse().ok().filter(|number: &i64| *number >= 0);
                let number = number.ok_or_else(|| refuse("the database is not a number"))?;
                (names, Some(number))
            }
        };
        for name in names.split(',') {
            if let Some(url) = of_variable(name.trim(), variable)? {
                let database = database.filter(|_| !names_database(&url));
                return Ok(Self { url, database });
            }
        }
        Err(refuse("no such environment variable is set"))
    }

    /// Whether the URL uses TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.url.starts_with("rediss") || self.url.starts_with("valkeys")
    }

    /// The settings of this store; `certificate_authority` as in [`Settings::parse`].
    ///
    /// # Errors
    /// Returns an error as [`Settings::parse`] does.
    pub fn settings(&self, certificate_authority: Option<&Path>) -> Result<Settings, StoreError> {
        let settings = Settings::parse(&self.url, certificate_authority)?;
        match self.database {
            Some(database) if !settings.is_cluster() => settings.with_database(database),
            _ => Ok(settings),
        }
    }
}

/// The URL from an environment variable, or from the file that `NAME_FILE` names; `None` if neither is set.
///
/// # Errors
/// Returns [`StoreError::Settings`] if the file cannot be read. The message never contains the file's content.
pub fn from_environment(name: &str) -> Result<Option<String>, StoreError> {
    of_variable(name, &|name| std::env::var(name).ok())
}

fn of_variable(
    name: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, StoreError> {
    if let Some(url) = variable(name).filter(|url| !url.is_empty()) {
        return Ok(Some(url));
    }
    let name = format!("{name}{FILE}");
    let Some(path) = variable(&name).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&path).map_err(|error| {
        StoreError::Settings(format!(
            "environment variable {name} names {path}: {error}; accepted: a file whose only line is a store URL"
        ))
    })?;
    let url = text.trim();
    if url.is_empty() || url.contains('\n') {
        return Err(StoreError::Settings(format!(
            "environment variable {name} names {path}: {} lines; accepted: a file whose only line is a store URL",
            url.lines().count()
        )));
    }
    Ok(Some(url.to_owned()))
}

/// Whether a URL has credentials. A text that is not a URL counts as one that has.
#[must_use]
pub fn has_credentials(url: &str) -> bool {
    match url.split_once("://") {
        Some((_, rest)) => {
            let login = |word: &str| word.starts_with("user=") || word.starts_with("pass=");
            let query = rest.split_once('?').map_or("", |(_, query)| query);
            rest.contains('@') || query.split('&').any(login)
        }
        None => true,
    }
}

/// Whether a URL names a database.
fn names_database(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let place = rest.rsplit('@').next().unwrap_or_default();
    if scheme.contains("unix") {
        let query = place.split_once('?').map_or("", |(_, query)| query);
        return query.split('&').any(|word| word.starts_with("db="));
    }
    let path = place.split_once('/').map_or("", |(_, path)| path);
    !path.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Settings, StoreError> {
        let variable = |name: &str| {
            let mut variables = variables.iter();
            let found = variables.find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        Address::read_with(text, &variable)?.settings(None)
    }

    #[test]
    fn a_url_is_taken_as_it_is() {
        let settings = read("redis://store:6380/3", &[]).unwrap();
        assert_eq!(settings.url().to_string(), "redis://store:6380/3");
    }

    #[test]
    fn the_first_variable_that_is_set_counts() {
        let both = "env:SEEN,ALL#1";
        let all = ("ALL", "redis://me:hunter2@all:1");
        let at = |variables: &[(&str, &str)]| {
            let settings = read(both, variables).unwrap();
            (settings.url().to_string(), settings.database())
        };
        assert_eq!(at(&[all]), ("redis://***@all:1/1".to_owned(), 1));
        let seen = ("SEEN", "redis://seen:2");
        assert_eq!(at(&[all, seen]), ("redis://seen:2/1".to_owned(), 1));
        // The database in the URL takes precedence.
        let seen = ("SEEN", "redis://seen:2/5");
        assert_eq!(at(&[all, seen]), ("redis://seen:2/5".to_owned(), 5));
        let seen = ("SEEN", "redis+unix:///run/v.sock?db=4");
        assert_eq!(at(&[all, seen]).1, 4);
        let seen = ("SEEN", "redis+unix:///run/v.sock");
        assert_eq!(at(&[all, seen]).1, 1);
        // A cluster has only database 0; an empty variable counts as not set.
        assert_eq!(at(&[all, ("SEEN", "redis+cluster://a,b")]).1, 0);
        assert_eq!(at(&[all, ("SEEN", "")]).1, 1);
    }

    #[test]
    fn a_variable_may_name_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        let name = path.to_str().unwrap().to_owned();
        let variables = [("STORE_FILE", name.as_str())];
        std::fs::write(&path, "redis://me:hunter2@store:6380\n").unwrap();
        let settings = read("env:STORE#3", &variables).unwrap();
        assert_eq!(settings.url().to_string(), "redis://***@store:6380/3");
        for content in ["", "redis://me:hunter2@store\nredis://me:hunter2@other\n"] {
            std::fs::write(&path, content).unwrap();
            let error = read("env:STORE#3", &variables).unwrap_err().to_string();
            assert!(
                error.contains("STORE_FILE") && error.contains("only line"),
                "{error}"
            );
            assert!(!error.contains("hunter2"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = read("env:STORE#3", &variables).unwrap_err().to_string();
        assert!(
            error.contains("STORE_FILE") && error.contains(&name),
            "{error}"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, part) in [
            ("env:A,B#1", "env:A,B#1"),
            ("env:", "env:NAME"),
            ("env:A#one", "the database is not a number"),
            ("env:A#-1", "the database is not a number"),
        ] {
            let error = read(text, &[]).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("accepted"),
                "{error}"
            );
        }
        let error = read("env:A", &[("A", "http://me:hunter2@host")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let address = Address::read("redis://me:hunter2@host/1").unwrap();
        assert!(!format!("{address:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn a_url_with_a_login_is_known_as_one(
            secure in any::<bool>(),
            user in "[a-z%0-9]{0,8}",
            password in "[!-~]{1,16}",
        ) {
            let scheme = if secure { "rediss" } else { "redis" };
            let with_login = format!("{scheme}://{user}:{password}@store:6379");
            let in_query = format!("redis+unix:///run/v.sock?db=1&pass={password}");
            let neither = format!("{scheme}://store:6379");
            prop_assert!(has_credentials(&with_login));
            prop_assert!(has_credentials(&in_query));
            prop_assert!(!has_credentials(&neither));
        }
    }
}
