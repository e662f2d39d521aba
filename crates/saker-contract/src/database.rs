//! Databases of Valkey or Redis. A cluster has database 0 alone.

/// A database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Feast's online store: the features of users and items.
    Features,
    /// Seen items, recent items and events of the users.
    Activity,
    /// The [`trending`](crate::keys::TRENDING_GLOBAL) sets.
    Popularity,
}

impl Database {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Features, Self::Activity, Self::Popularity];

    /// The number that SELECT takes.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Features => 0,
            Self::Activity => 1,
            Self::Popularity => 3,
        }
    }

    /// The database with this number.
    #[must_use]
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|database| database.number() == number)
    }

    /// The environment variable with the URL of this database's own server, if it may have one.
    #[must_use]
    pub const fn variable(self) -> Option<&'static str> {
        match self {
            Self::Features => None,
            Self::Activity => Some("SAKER_SEEN_URL"),
            Self::Popularity => Some("SAKER_POPULARITY_URL"),
        }
    }
}

impl From<Database> for i64 {
    fn from(database: Database) -> Self {
        database.number()
    }
}

/// The environment variable with the URL of the server of all databases.
pub const VARIABLE: &str = "SAKER_REDIS_URL";
