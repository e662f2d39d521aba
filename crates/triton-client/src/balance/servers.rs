//! The servers: which there are, which of them get requests, and how one that left returns.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::Result;
use crate::grpc::Client;

/// Maximum number of servers; each has its own connections and metrics.
const MOST: usize = 256;
/// So many failures in a row, the latest of them a missed deadline, make a server leave.
const LATE: u32 = 3;
/// First pause before a server that has left is checked, and maximum pause.
const FIRST_WAIT_MS: u64 = 200;
const LONGEST_WAIT_MS: u64 = 5000;
/// Maximum time for the answer to a health call.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its address, `HOST:PORT`, after the resolution of a name.
    pub address: String,
    /// Whether the server gets requests. Otherwise it has left, or has not answered yet.
    pub is_ready: bool,
    /// Requests that it has not answered yet, those that were given up included.
    pub in_flight: usize,
    /// Requests sent to it since it was added.
    pub requests: u64,
    /// Number of requests that the server did not answer, or answered with an error.
    pub failures: u64,
}

/// In which way a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It cannot be reached, or cannot serve the model.
    Broken,
    /// It did not answer within the deadline.
    Late,
    /// It answered with an error of another kind.
    Other,
}

#[derive(Debug)]
pub(super) struct Server {
    /// Its connections, one or more, which share one count of requests in flight.
    client: Client,
    more_clients: Vec<Client>,
    next: AtomicUsize,
    is_ready: AtomicBool,
    /// Whether the server was removed from the pool.
    is_gone: AtomicBool,
    /// Failures since its latest answer.
    failed: AtomicU32,
    /// Number of times the server has left. A health check that started before the latest change ends.
    times_left: AtomicU64,
    /// After how many milliseconds it is asked when it leaves next.
    wait_ms: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Server {
    fn open(address: &str, connections: usize) -> Result<Self> {
        let client = Client::new(address)?;
        let more_clients = (1..connections).map(|_| client.another());
        Ok(Self {
            more_clients: more_clients.collect(),
            client,
            next: AtomicUsize::new(0),
            is_ready: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            failed: AtomicU32::new(0),
            times_left: AtomicU64::new(0),
            wait_ms: AtomicU64::new(FIRST_WAIT_MS),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    fn address(&self) -> &str {
        self.client.address()
    }

    /// The connection for another request.
    pub(super) fn next_client(&self) -> &Client {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.more_clients.is_empty() {
            return &self.client;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed) % (self.more_clients.len() + 1);
        self.more_clients.get(next).unwrap_or(&self.client)
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    fn state(&self) -> ServerState {
        ServerState {
            address: self.address().to_owned(),
            is_ready: self.is_ready(),
            in_flight: self.client.in_flight(),
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// The servers by address, and those of them that get requests.
#[derive(Debug, Default)]
struct Lists {
    all: Vec<Arc<Server>>,
    ready: Vec<Arc<Server>>,
}

impl Lists {
    fn of(all: Vec<Arc<Server>>) -> Self {
        let ready = all.iter().filter(|server| server.is_ready());
        Self {
            ready: ready.cloned().collect(),
            all,
        }
    }
}

#[derive(Debug)]
pub(super) struct Pool {
    model: String,
    connections: usize,
    lists: ArcSwap<Lists>,
    /// Held by whoever replaces the lists.
    changing: Mutex<()>,
    /// The reason why the pool has no servers.
    empty: Mutex<Option<String>>,
}

impl Pool {
    pub(super) fn new(model: &str, connections: usize) -> Self {
        Self {
            model: model.to_owned(),
            connections,
            lists: ArcSwap::default(),
            changing: Mutex::new(()),
            empty: Mutex::new(None),
        }
    }

    /// Picks a server other than `except`, from those that get requests, or from all if there are none. `None` if there is no other server.
    pub(super) fn pick(&self, except: Option<&Arc<Server>>) -> Option<Arc<Server>> {
        let lists = self.lists.load();
        let from = |servers: &[Arc<Server>]| {
            let except = except.and_then(|except| {
                let mut servers = servers.iter();
                servers.position(|server| Arc::ptr_eq(server, except))
            });
            let load = |place: usize| {
                let server = servers.get(place);
                server.map_or(usize::MAX, |server| server.client.in_flight())
            };
            let draw = |count: usize| rand::random_range(0..count);
            servers
                .get(choose(servers.len(), except, draw, load)?)
                .cloned()
        };
        from(&lists.ready).or_else(|| from(&lists.all))
    }

    pub(super) fn states(&self) -> Vec<ServerState> {
        let lists = self.lists.load();
        lists.all.iter().map(|server| server.state()).collect()
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        let lists = self.lists.load();
        let servers = match lists.ready.is_empty() {
            true => &lists.all,
            false => &lists.ready,
        };
        servers.iter().map(|server| server.client.clone()).collect()
    }

    pub(super) fn none_answers(&self) -> bool {
        let lists = self.lists.load();
        let fails = |server: &Arc<Server>| {
            !server.is_ready() || server.failed.load(Ordering::Relaxed) >= LATE
        };
        lists.all.len() < 2 || lists.all.iter().all(fails)
    }

    pub(super) fn explain_empty(&self, why: Option<String>) {
        *self.empty.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(super) fn why_empty(&self) -> String {
        let why = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone()
            .unwrap_or_else(|| "no address is known yet".to_owned())
    }

    /// A server has answered a request.
    pub(super) fn succeeded(self: &Arc<Self>, server: &Arc<Server>) {
        // Loads alone, as long as nothing has failed: the counters stay in every core's cache.
        if server.failed.load(Ordering::Relaxed) != 0 {
            server.failed.store(0, Ordering::Relaxed);
        }
        if server.wait_ms.load(Ordering::Relaxed) != FIRST_WAIT_MS {
            server.wait_ms.store(FIRST_WAIT_MS, Ordering::Relaxed);
        }
        if !server.is_ready() {
            self.enter(server);
        }
    }

    /// A server has not answered a request, or has answered with an error.
    pub(super) fn failed(
        self: &Arc<Self>,
        server: &Arc<Server>,
        failure: Failure,
        why: &dyn Display,
    ) {
        server.failures.fetch_add(1, Ordering::Relaxed);
        let in_a_row = server
            .failed
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        match failure {
            Failure::Broken => self.leave(server, failure, why),
            Failure::Late if in_a_row >= LATE => self.leave(server, failure, why),
            Failure::Late | Failure::Other => {}
        }
    }

    fn leave(self: &Arc<Self>, server: &Arc<Server>, failure: Failure, why: &dyn Display) {
        if !server.is_ready() {
            return;
        }
        let _changing = self.lock();
        let lists = self.lists.load();
        let (all, ready) = (lists.all.len(), lists.ready.len());
        // If all servers are late, each server that leaves increases the load of the others.
        let too_few = all > 1 && 2 * ready.saturating_sub(1) < all;
        if !server.is_ready()
            || server.is_gone.load(Ordering::Relaxed)
            || (failure == Failure::Late && too_few)
        {
            return;
        }
        server.is_ready.store(false, Ordering::Relaxed);
        self.lists.store(Arc::new(Lists::of(lists.all.clone())));
        let wait_ms = server.wait_ms.load(Ordering::Relaxed);
        let next_ms = (2 * wait_ms).min(LONGEST_WAIT_MS);
        server.wait_ms.store(next_ms, Ordering::Relaxed);
        server.times_left.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            "Triton at {} leaves, {} of {all} servers are ready: {why}",
            server.address(),
            ready.saturating_sub(1)
        );
        self.check_after(server, wait_ms);
    }

    /// From now on the server gets requests.
    fn enter(&self, server: &Arc<Server>) {
        let _changing = self.lock();
        if server.is_ready() || server.is_gone.load(Ordering::Relaxed) {
            return;
        }
        server.is_ready.store(true, Ordering::Relaxed);
        let lists = Lists::of(self.lists.load().all.clone());
        let (all, ready) = (lists.all.len(), lists.ready.len());
        self.lists.store(Arc::new(lists));
        let address = server.address();
        match server.times_left.load(Ordering::Relaxed) {
            0 => tracing::info!("Triton at {address} joins, {ready} of {all} servers are ready"),
            _ => tracing::warn!("Triton at {address} returns, {ready} of {all} servers are ready"),
        }
    }

    /// Sets the servers: the first 256 of these by address. Existing ones stay unchanged. A removed server finishes its requests in
    /// progress.
    pub(super) fn keep(self: &Arc<Self>, addresses: impl Iterator<Item = String>) -> Result<()> {
        let mut wanted: BTreeSet<String> = addresses.collect();
        if wanted.len() > MOST {
            tracing::warn!("{} servers; {MOST} of them are used", wanted.len());
            wanted = wanted.into_iter().take(MOST).collect();
        }
        let _changing = self.lock();
        let lists = self.lists.load_full();
        if lists
            .all
            .iter()
            .map(|server| server.address())
            .eq(wanted.iter())
        {
            return Ok(());
        }
        let mut all = Vec::with_capacity(wanted.len());
        for server in &lists.all {
            if wanted.remove(server.address()) {
                all.push(Arc::clone(server));
            } else {
                server.is_gone.store(true, Ordering::Relaxed);
                tracing::info!(
                    "Triton at {} was removed from the servers",
                    server.address()
                );
            }
        }
        let mut problem = Ok(());
        for address in &wanted {
            match Server::open(address, self.connections) {
                Ok(server) => {
                    let server = Arc::new(server);
                    self.check_after(&server, 0);
                    all.push(server);
                }
                Err(error) => problem = Err(error),
            }
        }
        all.sort_by(|left, right| left.address().cmp(right.address()));
        self.lists.store(Arc::new(Lists::of(all)));
        problem
    }

    /// Asks the server after a while whether it is ready, and again until it says so.
    fn check_after(self: &Arc<Self>, server: &Arc<Server>, wait_ms: u64) {
        let (pool, server) = (Arc::downgrade(self), Arc::clone(server));
        tokio::spawn(check(pool, server, wait_ms));
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn check(pool: Weak<Pool>, server: Arc<Server>, mut wait_ms: u64) {
    let times_left = server.times_left.load(Ordering::Relaxed);
    loop {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let Some(model) = pool.upgrade().map(|pool| pool.model.clone()) else {
            return;
        };
        let is_over = || {
            let again = server.times_left.load(Ordering::Relaxed) != times_left;
            again || server.is_ready() || server.is_gone.load(Ordering::Relaxed)
        };
        if is_over() {
            return;
        }
        let ready = server.client.is_model_ready(&model, PATIENCE).await;
        if is_over() {
            return;
        }
        if matches!(ready, Ok(true)) {
            if let Some(pool) = pool.upgrade() {
                pool.enter(&server);
            }
            return;
        }
        wait_ms = (2 * wait_ms).clamp(FIRST_WAIT_MS, LONGEST_WAIT_MS);
    }
}

/// The less loaded of two random indices below `count`, without `except`. `draw` returns an index below its argument.
fn choose(
    count: usize,
    except: Option<usize>,
    mut draw: impl FnMut(usize) -> usize,
    load: impl Fn(usize) -> usize,
) -> Option<usize> {
    let skip = |place: usize| match except {
        Some(except) if place >= except => place + 1,
        _ => place,
    };
    match count - usize::from(except.is_some()) {
        0 => None,
        1 => Some(skip(0)),
        others => {
            let first = draw(others);
            let second = draw(others - 1);
            let second = second + usize::from(second >= first);
            let (first, second) = (skip(first), skip(second));
            match load(second) < load(first) {
                true => Some(second),
                false => Some(first),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is drawn, the excepted place never is chosen, nor the one that has more load than every other; and every
        /// place is chosen for some draw if all loads are equal.
        #[test]
        fn the_most_loaded_is_never_chosen(
            loads in prop::collection::vec(0usize..5, 1..9),
            except in prop::option::of(0usize..9),
        ) {
            let count = loads.len();
            let except = except.filter(|except| *except < count);
            let others: Vec<usize> = (0..count).filter(|place| Some(*place) != except).collect();
            let most = others.iter().map(|place| loads[*place]).max().unwrap_or_default();
            let is_most = others.iter().filter(|place| loads[**place] == most).count();
            let mut chosen = BTreeSet::new();
            let mut chosen_if_equal = BTreeSet::new();
            for first in 0..others.len().max(1) {
                for second in 0..others.len().max(2) - 1 {
                    let draws = || {
                        let mut draws = [first, second].into_iter();
                        move |_| draws.next().unwrap()
                    };
                    chosen.extend(choose(count, except, draws(), |place| loads[place]));
                    chosen_if_equal.extend(choose(count, except, draws(), |_| 0));
                }
            }
            prop_assert_eq!(chosen_if_equal.into_iter().collect::<Vec<_>>(), others.clone());
            prop_assert_eq!(chosen.is_empty(), others.is_empty());
            for place in chosen {
                prop_assert!(others.contains(&place));
                prop_assert!(loads[place] < most || is_most > 1 || others.len() == 1);
            }
        }

        /// Servers come, go, leave, fail and return in any order: the lists follow, and a server that stays is the same one.
        #[test]
        fn the_lists_follow_what_happens(
            steps in prop::collection::vec((0u8..5, prop::collection::btree_set(1u16..7, 0..6), 1u16..7), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // The checks in the background never run: nothing is awaited here.
            let _inside = runtime.enter();
            let pool = Arc::new(Pool::new("model", 1));
            let address = |port: u16| format!("127.0.0.1:{port}");
            let mut expected: BTreeMap<String, (bool, u64)> = BTreeMap::new();
            for (step, ports, port) in steps {
                let server = pool.lists.load().all.iter().find(|server| server.address() == address(port)).cloned();
                match (step, server) {
                    (0, _) => {
                        let wanted: BTreeSet<String> = ports.into_iter().map(address).collect();
                        pool.keep(wanted.iter().cloned()).unwrap();
                        expected.retain(|address, _| wanted.contains(address));
                        for address in wanted {
                            expected.entry(address).or_insert((false, 0));
                        }
                    }
                    (1, Some(server)) => {
                        pool.succeeded(&server);
                        expected.get_mut(&address(port)).unwrap().0 = true;
                    }
                    (2, Some(server)) => {
                        pool.failed(&server, Failure::Broken, &"refused");
                        let entry = expected.get_mut(&address(port)).unwrap();
                        *entry = (false, entry.1 + 1);
                    }
                    (3, Some(server)) => {
                        pool.failed(&server, Failure::Other, &"no");
                        expected.get_mut(&address(port)).unwrap().1 += 1;
                    }
                    (4, Some(server)) => {
                        for _ in 0..LATE {
                            pool.failed(&server, Failure::Late, &"late");
                        }
                        let (all, ready) = (expected.len(), expected.values().filter(|entry| entry.0).count());
                        let entry = expected.get_mut(&address(port)).unwrap();
                        entry.1 += u64::from(LATE);
                        // As long as half of them stay.
                        if entry.0 && (all == 1 || 2 * (ready - 1) >= all) {
                            entry.0 = false;
                        }
                    }
                    _ => {}
                }
                let states = pool.states().into_iter();
                let states: BTreeMap<_, _> = states.map(|state| (state.address, (state.is_ready, state.failures))).collect();
                prop_assert_eq!(&states, &expected);
                let lists = pool.lists.load();
                let ready: Vec<&str> = lists.ready.iter().map(|server| server.address()).collect();
                let wanted = expected.iter().filter(|(_, entry)| entry.0).map(|(address, _)| address.as_str());
                prop_assert_eq!(ready, wanted.collect::<Vec<_>>());
                prop_assert_eq!(pool.pick(None).is_none(), expected.is_empty());
                if let Some(first) = pool.pick(None) {
                    let second = pool.pick(Some(&first));
                    prop_assert_eq!(second.is_none(), expected.len() == 1);
                    prop_assert!(second.is_none_or(|second| !Arc::ptr_eq(&first, &second)));
                }
            }
        }
    }

    #[tokio::test]
    async fn waits_grow_until_a_request_is_answered() {
        let pool = Arc::new(Pool::new("model", 2));
        pool.keep(["127.0.0.1:1".to_owned()].into_iter()).unwrap();
        let server = pool.pick(None).unwrap();
        let wait = || server.wait_ms.load(Ordering::Relaxed);
        for expected in [400, 800, 1600, 3200, 5000, 5000] {
            pool.enter(&server);
            pool.failed(&server, Failure::Broken, &"refused");
            assert_eq!(wait(), expected);
        }
        assert!(pool.none_answers());
        pool.succeeded(&server);
        assert_eq!(wait(), FIRST_WAIT_MS);
        assert!(server.is_ready());
    }

    #[tokio::test]
    async fn a_server_that_hangs_among_others_opens_no_breaker() {
        let pool = Arc::new(Pool::new("model", 1));
        let addresses = [1, 2, 3].map(|port| format!("127.0.0.1:{port}"));
        pool.keep(addresses.into_iter()).unwrap();
        let all = pool.lists.load_full().all.clone();
        assert!(pool.none_answers(), "nobody has said anything yet");
        all.iter().for_each(|server| pool.succeeded(server));
        assert!(!pool.none_answers());
        for server in &all {
            for _ in 0..LATE {
                assert!(!pool.none_answers());
                pool.failed(server, Failure::Late, &"late");
            }
        }
        assert!(pool.none_answers());
        assert_eq!(pool.lists.load().ready.len(), 2);
        pool.succeeded(&all[1]);
        assert!(!pool.none_answers());
    }
}
