//! Popular items for users with too few candidates. A background thread reads them into memory.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use saker_store::feast::FeatureView;
use saker_store::popularity::{self, Popular};
use saker_store::{Connection, Link, Settings, StoreError};
use triton_backend::log::{self, EveryMinute};
use triton_backend::{DataType, Error, ModelContext, Periodic};

use super::Parameters;

/// The popular items, and the source of the users' top categories.
pub(super) struct Fallback {
    /// Number of ids that a row must have.
    pub(super) wanted: usize,
    /// Maximum number of popular items tried per row.
    pub(super) most: usize,
    popular: Arc<ArcSwap<Popular>>,
    pub(super) category: Option<(Link, FeatureView)>,
    _thread: Periodic,
}

/// Maximum number of popular items read per set, in search of those that the release knows.
const DEEPEST: usize = 100_000;

/// The source that the thread reads.
struct Source {
    settings: Settings,
    most: usize,
    catalogue: Option<HashSet<i64>>,
    line: EveryMinute,
    model: String,
}

impl Fallback {
    /// Returns `None` if topping up is disabled. A store that is down is not an error: the items are read when it answers.
    pub(super) fn load(
        context: &ModelContext,
        parameters: &Parameters,
        seen: &Settings,
        user_type: DataType,
    ) -> Result<Option<Self>, Error> {
        let category = parameters.category(user_type)?;
        let Some(settings) = parameters.popularity(seen)? else {
            return Ok(None);
        };
        let every = parameters.popularity_every()?;
        let catalogue = match &parameters.catalogue {
            None => None,
            Some(file) => Some(read_catalogue(&context.version_dir().join(file))?),
        };
        let internal = |error: StoreError| Error::internal(error.to_string());
        let category = match category {
            Some((settings, view)) => Some((Link::open(settings).map_err(internal)?, view)),
            None => None,
        };
        let source = Source {
            settings,
            most: parameters.popularity_topk,
            catalogue,
            line: EveryMinute::new(),
            model: context.name().to_owned(),
        };
        let popular = Arc::new(ArcSwap::from_pointee(source.read().unwrap_or_default()));
        let shared = Arc::clone(&popular);
        // Without items, retry soon: the store may be starting.
        let wait = move |popular: &ArcSwap<Popular>| {
            if popular.load().global.is_empty() {
                every.min(Duration::from_secs(1))
            } else {
                every
            }
        };
        let thread = Periodic::start("saker-popular", wait(&popular), move |_| {
            if let Some(fresh) = source.read() {
                shared.store(Arc::new(fresh));
            }
            wait(&shared)
        })?;
        Ok(Some(Self {
            wanted: parameters.ranking_topk,
            most: parameters.popularity_topk,
            popular,
            category,
            _thread: thread,
        }))
    }

    /// The current popular items.
    pub(super) fn popular(&self) -> Guard<Arc<Popular>> {
        self.popular.load()
    }
}

impl Source {
    /// Reads the popular items. If the store does not answer, returns `None` and logs at most once a minute; the old items stay in use.
    fn read(&self) -> Option<Popular> {
        let read = Connection::open(&self.settings)
            .and_then(|mut connection| self.read_known(&mut connection));
        match read {
            Ok(popular) => Some(popular),
            Err(error) => {
                if let Some(more) = self.line.due() {
                    log::warn!(
                        "model '{}': popular items cannot be read from {}: {error} ({more} more since the last line)",
                        self.model,
                        self.settings.url()
                    );
                }
                None
            }
        }
    }
}

impl Source {
    /// The first items of each set that the release knows, up to the wanted number. Reads further into a set if newer items precede them.
    fn read_known(&self, connection: &mut Connection) -> Result<Popular, StoreError> {
        let mut depth = self.most;
        loop {
            let mut popular = popularity::read(connection, depth)?;
            let Some(catalogue) = &self.catalogue else {
                return Ok(popular);
            };
            let mut lacking = false;
            let by_category = popular.by_category_l1.values_mut();
            for items in by_category.chain([&mut popular.global]) {
                let read = items.len();
                items.retain(|item| catalogue.contains(item));
                lacking |= read >= depth && items.len() < self.most;
                items.truncate(self.most);
            }
            if !lacking || depth >= DEEPEST {
                return Ok(popular);
            }
            depth *= 8;
        }
    }
}

/// Reads a file with one item id per line.
fn read_catalogue(path: &Path) -> Result<HashSet<i64>, Error> {
    let refuse = |why: String| {
        Error::invalid_argument(format!(
            "parameter 'CATALOGUE': {}: {why}; accepted: a text file with one item id per line",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let mut items = HashSet::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let item = line
            .trim()
            .parse()
            .map_err(|_| refuse(format!("line {} is '{line}'", number + 1)))?;
        items.insert(item);
    }
    Ok(items)
}
