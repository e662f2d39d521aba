//! A client for several Triton servers with load balancing.
//!
//! A request goes to the less loaded of two servers drawn at random. Load is the number of requests on their way to a server,
//! abandoned ones included. A server that fails leaves: it gets no requests until it answers a health call.
//!
//! | what happens | what follows |
//! |---|---|
//! | no connection, a lost one, `UNAVAILABLE`, no such model | the server leaves; the request goes to another server once, within its deadline |
//! | no answer within the deadline, three failures in a row | the server leaves, unless less than half of the servers would be left |
//! | a full queue | the request goes to another server once; no server leaves |
//! | any other error | it is the request's answer |
//! | every server has left | any server gets requests, as with a single server |
//!
//! If all servers are late, they are overloaded, and each server that leaves increases the load of the others. Hence the limit of one half.
//!
//! A server that left is checked after 0.2 s, 0.4 s and so on up to 5 s. It returns when it reports that it is ready. If it leaves again
//! before it has answered a request, the pause continues to grow: a Triton that hangs may still report its models as ready.
//!
//! Tonic's `Channel::balance_channel` is no alternative. It also takes the less loaded of two, but a connection that fails at
//! once has the least load there, so a dead server attracts all requests.

mod addresses;
mod servers;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use addresses::Resolver;
pub use servers::ServerState;

use crate::grpc::{Call, Client};
use crate::{Error, Result, Tensor};
use addresses::Addresses;
use servers::{Failure, Pool, Server};

/// gRPC's code for a model that a server does not have.
const NOT_FOUND: u16 = 5;
/// The text of Triton's `UNAVAILABLE` error if a model's queue is full.
const QUEUE_FULL: &str = "maximum queue size";

/// How several servers are asked.
///
/// ```
/// use std::time::Duration;
/// use triton_client::balance::Settings;
///
/// let settings = Settings {
///     connections: 4,
///     resolve_every: Duration::from_secs(30),
///     ..Settings::new("dns://triton.shop.svc:8001", "ranker")
/// };
/// assert_eq!(settings.model, "ranker");
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT` or `dns://NAME:PORT`, several of them separated by commas. All addresses of a name are used.
    pub addresses: String,
    /// The model whose readiness says that a server may be asked.
    pub model: String,
    /// Number of gRPC connections to each server, at least 1.
    pub connections: usize,
    /// The time between two resolutions of a name.
    pub resolve_every: Duration,
    /// How names are resolved; the system's resolver by default.
    pub resolver: Resolver,
}

impl Settings {
    /// One connection to each server; names are resolved by the system every 5 s.
    pub fn new(addresses: &str, model: &str) -> Self {
        Self {
            addresses: addresses.to_owned(),
            model: model.to_owned(),
            connections: 1,
            resolve_every: Duration::from_secs(5),
            resolver: Resolver::default(),
        }
    }
}

/// Triton servers behind one or more addresses. Clones share everything.
///
/// ```no_run
/// use triton_client::balance::{Balanced, Settings};
/// use triton_client::grpc::Call;
/// use triton_client::{Result, Tensor};
///
/// # async fn example() -> Result<()> {
/// let servers = Balanced::open(&Settings::new("dns://triton.shop.svc:8001", "ranker"))?;
/// let inputs = || vec![Tensor::int32("user_id", &[42])];
/// let outputs = servers.infer("ranker", inputs, &["ids"], Call::default()).await?;
/// for server in servers.servers() {
///     println!("{} ready: {}, requests: {}", server.address, server.is_ready, server.requests);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Balanced {
    pool: Arc<Pool>,
    addresses: Arc<str>,
}

impl Balanced {
    /// Opens a client for the servers at these addresses. A server that is down is not an error; it gets requests when it answers.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Returns an error if an address is invalid.
    pub fn open(settings: &Settings) -> Result<Self> {
        let addresses = Addresses::parse(&settings.addresses)?;
        let pool = Arc::new(Pool::new(&settings.model, settings.connections.max(1)));
        pool.keep(addresses.fixed().cloned())?;
        if addresses.has_names() {
            let (resolver, every) = (settings.resolver.clone(), settings.resolve_every);
            let pool = Arc::downgrade(&pool);
            tokio::spawn(addresses::follow(pool, addresses, resolver, every));
        }
        Ok(Self {
            pool,
            addresses: settings.addresses.as_str().into(),
        })
    }

    /// Asks a model of one server, or of a second one if the first cannot answer; as [`Client::infer`] otherwise.
    ///
    /// `inputs` makes the tensors: for the second server once more.
    ///
    /// # Errors
    /// Returns an error if no server answers in time, or one answers with an error.
    pub async fn infer(
        &self,
        model: &str,
        inputs: impl Fn() -> Vec<Tensor>,
        outputs: &[&str],
        call: Call<'_>,
    ) -> Result<Vec<Tensor>> {
        let start = Instant::now();
        let Some(first) = self.pool.pick(None) else {
            return Err(self.no_server());
        };
        let asked = self.attempt(&first, model, inputs(), outputs, call).await;
        let error = match asked {
            Ok(answer) => return Ok(answer),
            Err((error, Next::Another)) => error,
            Err((error, Next::None)) => return Err(error),
        };
        let deadline = call
            .deadline
            .map(|deadline| deadline.saturating_sub(start.elapsed()));
        let second = self.pool.pick(Some(&first));
        let Some(second) = second.filter(|_| deadline != Some(Duration::ZERO)) else {
            return Err(error);
        };
        let call = Call { deadline, ..call };
        let asked = self.attempt(&second, model, inputs(), outputs, call).await;
        asked.map_err(|(error, _)| error)
    }

    /// The state of every server, sorted by address.
    pub fn servers(&self) -> Vec<ServerState> {
        self.pool.states()
    }

    /// A client of each server that gets requests; of every server if all have left.
    pub fn clients(&self) -> Vec<Client> {
        self.pool.clients()
    }

    /// Whether none of several servers has answered its latest requests. `true` if there are fewer than two: of one server its
    /// caller knows that best.
    pub fn none_answers(&self) -> bool {
        self.pool.none_answers()
    }

    async fn attempt(
        &self,
        server: &Arc<Server>,
        model: &str,
        inputs: Vec<Tensor>,
        outputs: &[&str],
        call: Call<'_>,
    ) -> std::result::Result<Vec<Tensor>, (Error, Next)> {
        let start = Instant::now();
        let answer = server.next_client().infer(model, inputs, outputs, call);
        match answer.await {
            Ok(answer) => {
                self.pool.succeeded(server);
                Ok(answer)
            }
            Err(error) => {
                let late = call
                    .deadline
                    .is_some_and(|deadline| start.elapsed() >= deadline);
                let (failure, next) = judge(&error, late);
                self.pool.failed(server, failure, &error);
                Err((error, next))
            }
        }
    }

    fn no_server(&self) -> Error {
        Error::Unreachable {
            address: self.addresses.to_string(),
            reason: self.pool.why_empty(),
        }
    }
}

/// Whether a request that failed goes to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Another,
    None,
}

/// Classifies an error: whether the server failed, and whether another server may answer.
fn judge(error: &Error, late: bool) -> (Failure, Next) {
    match error {
        Error::Unreachable { .. } if late => (Failure::Late, Next::None),
        Error::Unreachable { reason, .. } if reason.contains(QUEUE_FULL) => {
            (Failure::Other, Next::Another)
        }
        Error::Unreachable { .. }
        | Error::Refused {
            code: NOT_FOUND, ..
        } => (Failure::Broken, Next::Another),
        _ => (Failure::Other, Next::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_the_servers_or_the_requests() {
        let unreachable = |reason: &str| Error::Unreachable {
            address: "a:1".to_owned(),
            reason: reason.to_owned(),
        };
        let refused = |code: u16| Error::Refused {
            code,
            message: "no".to_owned(),
        };
        for (error, late, failure, next) in [
            (
                unreachable("refused"),
                false,
                Failure::Broken,
                Next::Another,
            ),
            (unreachable("no answer"), true, Failure::Late, Next::None),
            (
                unreachable("Exceeds maximum queue size"),
                false,
                Failure::Other,
                Next::Another,
            ),
            (refused(NOT_FOUND), false, Failure::Broken, Next::Another),
            (refused(3), false, Failure::Other, Next::None),
            (
                Error::Answer("odd".to_owned()),
                false,
                Failure::Other,
                Next::None,
            ),
        ] {
            assert_eq!(judge(&error, late), (failure, next), "{error}");
        }
    }
}
