//! Virtual shoppers in front of a running gateway, with the preferences of the generator's personas.
//!
//! In a visit, a user of the shop comes on a device, sees a row of products, looks at early places more often than at later ones, and
//! clicks. Half of the shoppers always get recommendations, the other half popular items. Clicks of one half thus do not change the rows of
//! the other. A click is an event, as on the real shop's page.
//!
//! **Click model.** The generator knows the true preference of a user in a context: the probability p that the user chooses an item first,
//! of N items. An item that is looked at is clicked with probability r / (r + [`HALF`]), r = p N. The average item is hardly ever clicked;
//! an item with 20 times the average preference is clicked every other time. Place k, from 1, is looked at with probability 1 / log2(k +
//! 1), the discount of NDCG.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use saker_generate::Shop;
use serde::Serialize;
use serde_json::{Value, json};

/// Preference, as a multiple of the average item's, at which half of the looks become clicks.
pub const HALF: f64 = 20.0;
/// Products per row.
const SHOWN: usize = 10;
/// One click of this many is watched for its effect.
const WATCHED: usize = 10;
/// Maximum wait for the effect of a click.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events per request of the background load.
const LOT: usize = 50;
/// Share of visits by phones, desktops and tablets.
const DEVICES: [f64; 3] = [0.55, 0.35, 0.10];
/// First id of visitors that the store does not have.
const NEWCOMERS: i32 = 1_600_000_000;
/// Number of ids for such visitors.
const NEWCOMER_IDS: u64 = 500_000_000;

/// Settings of a simulation.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The gateway, `http://host:port`.
    pub gateway: String,
    /// Duration in seconds.
    pub seconds: f64,
    /// Visits per second, in all.
    pub rate: f64,
    /// Shoppers who take part.
    pub shoppers: usize,
    /// Share of the shoppers that are missing from the store.
    pub newcomers: f64,
    /// Events per second of other visitors, in addition.
    pub background: f64,
    /// Maximum number of concurrent visits.
    pub threads: usize,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// The products that a shopper sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// `/recommendations`
    Recommended,
    /// `/popular`
    Popular,
}

/// One visit.
#[derive(Clone, Debug)]
struct Visit {
    arm: Arm,
    /// Seconds since the start.
    at: f64,
    shown: usize,
    clicks: usize,
    degraded: bool,
    /// Seconds until the row arrived.
    took: f64,
}

/// The recorded results.
#[derive(Debug, Default)]
struct Log {
    visits: Vec<Visit>,
    /// Seconds from the gateway's 202 to the first row without the clicked product.
    fresh: Vec<f64>,
    /// Number of watched clicks without an effect on the row.
    stale: usize,
    events: usize,
    errors: Vec<String>,
}

/// Results of one arm.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The arm.
    pub arm: Arm,
    /// Number of visits.
    pub visits: usize,
    /// Number of products shown.
    pub shown: usize,
    /// Number of products clicked.
    pub clicks: usize,
    /// Clicks per product shown.
    pub click_through: f64,
    /// Clicks per product shown, in equal parts of the time; `None` if no product was shown.
    pub over_time: Vec<Option<f64>>,
    /// Seconds until the row arrived, at the 50th and the 99th percentile.
    pub latency: [f64; 2],
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The settings of the simulation.
    pub settings: Settings,
    /// Both arms.
    pub arms: Vec<Outcome>,
    /// Number of recommendations that were marked as degraded.
    pub degraded: usize,
    /// Number of events stored, including the background load.
    pub events: usize,
    /// Events per second.
    pub events_per_second: f64,
    /// Number of watched clicks.
    pub watched: usize,
    /// Number of watched clicks with an effect on the row.
    pub shown_effects: usize,
    /// Seconds from the acknowledged click to the changed row, at the 50th, 90th and 99th percentile, and the longest.
    pub freshness: Option<[f64; 4]>,
    /// Requests that failed.
    pub errors: usize,
    /// The first errors.
    pub first_errors: Vec<String>,
}

/// Runs the simulation. `tick` receives the elapsed seconds, and ends the simulation by returning `false`.
///
/// # Errors
/// Returns an error if the gateway does not answer at the start, or if it serves another shop.
pub fn simulate(
    shop: &Shop,
    settings: &Settings,
    tick: impl Fn(f64) -> bool + Sync,
) -> Result<Report> {
    let crowd = Crowd::new(shop, settings);
    crowd.check()?;
    let (log, next, stop) = (
        Mutex::new(Log::default()),
        AtomicUsize::new(0),
        AtomicBool::new(false),
    );
    let started = Instant::now();
    let over =
        || stop.load(Ordering::Relaxed) || started.elapsed().as_secs_f64() >= settings.seconds;
    std::thread::scope(|scope| {
        for _ in 0..settings.threads.max(1) {
            scope.spawn(|| {
                while !over() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // Visits start at even intervals. If all threads are busy, a visit starts late, and counts from its start.
                    let due = Duration::from_secs_f64(number as f64 / settings.rate);
                    std::thread::sleep(due.saturating_sub(started.elapsed()));
                    if over() {
                        return;
                    }
                    crowd.visit(number as u64, started, &log);
                }
            });
        }
        if settings.background > 0.0 {
            scope.spawn(|| crowd.others(started, &over, &log));
        }
        while !over() {
            if !tick(started.elapsed().as_secs_f64()) {
                stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let log = log
        .into_inner()
        .map_err(|_| anyhow!("a shopper panicked"))?;
    Ok(log.report(settings, started.elapsed().as_secs_f64()))
}

/// All shoppers.
struct Crowd<'s> {
    shop: &'s Shop,
    settings: &'s Settings,
    agent: ureq::Agent,
}

/// A visitor.
struct Shopper {
    /// Index in the shop of the user whose preferences the shopper has.
    place: usize,
    /// The id that the gateway receives.
    id: i32,
    arm: Arm,
}

impl<'s> Crowd<'s> {
    fn new(shop: &'s Shop, settings: &'s Settings) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self {
            shop,
            settings,
            agent,
        }
    }

    /// Checks that the gateway answers and shows this shop's products.
    fn check(&self) -> Result<()> {
        let popular = self.get("/popular?k=10").with_context(|| {
            format!(
                "no gateway at {}; start one with `saker serve retail --shop`, or name another with --gateway",
                self.settings.gateway
            )
        })?;
        let foreign = ids(&popular)
            .into_iter()
            .find(|&id| self.shop.item_index(id).is_none());
        match foreign {
            Some(id) => bail!(
                "the gateway at {} shows item {id}, which this shop does not have: it serves another data set",
                self.settings.gateway
            ),
            None => Ok(()),
        }
    }

    fn shopper(&self, rng: &mut StdRng) -> Shopper {
        let crowd = crowd(self.settings.shoppers, self.shop.users().len());
        let number = rng.random_range(0..crowd);
        // Spreads the shoppers over the shop's users, independent of their order.
        let place = number * 7919 % self.shop.users().len();
        let id = match is_new(number, crowd, self.settings.newcomers) {
            true => new_id(self.settings.seed, number),
            false => self.shop.users()[place].id,
        };
        let arm = match number % 2 {
            0 => Arm::Recommended,
            _ => Arm::Popular,
        };
        Shopper { place, id, arm }
    }

    fn visit(&self, number: u64, started: Instant, log: &Mutex<Log>) {
        let mut rng = StdRng::seed_from_u64(
            self.settings.seed ^ (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        );
        let shopper = self.shopper(&mut rng);
        let device = device(&mut rng);
        let path = match shopper.arm {
            Arm::Recommended => {
                format!(
                    "/recommendations?user_id={}&device_type={device}&k={SHOWN}",
                    shopper.id
                )
            }
            Arm::Popular => format!("/popular?k={SHOWN}"),
        };
        let asked = Instant::now();
        let row = match self.get(&path) {
            Ok(row) => row,
            Err(error) => return note(log, |log| log.errors.push(error.to_string())),
        };
        let took = asked.elapsed().as_secs_f64();
        let shown = ids(&row);
        let clicked = self.clicks(&shopper, device, &shown, &mut rng);
        let visit = Visit {
            arm: shopper.arm,
            at: started.elapsed().as_secs_f64(),
            shown: shown.len(),
            clicks: clicked.len(),
            degraded: row["degraded"] == true,
            took,
        };
        note(log, |log| log.visits.push(visit));
        if clicked.is_empty() {
            return;
        }
        let events: Vec<Value> = clicked
            .iter()
            .map(|item| {
                json!({ "user_id": shopper.id, "item_id": item, "type": "click", "device_type": device })
            })
            .collect();
        let stored = self.publish(&events, log);
        let watch = shopper.arm == Arm::Recommended && rng.random_range(0..WATCHED) == 0;
        if stored && watch {
            self.watch(&path, &clicked, log);
        }
    }

    /// The products of a row that the shopper clicks.
    fn clicks(&self, shopper: &Shopper, device: i32, shown: &[i32], rng: &mut StdRng) -> Vec<i32> {
        let Some(context) = self.shop.context(device, now()) else {
            return Vec::new();
        };
        let preference = self.shop.preference(shopper.place, context);
        let count = preference.len() as f64;
        let mut clicked = Vec::new();
        for (place, &id) in shown.iter().enumerate() {
            let looks = 1.0 / (place as f64 + 2.0).log2();
            let liked = self
                .shop
                .item_index(id)
                .map_or(0.0, |item| preference[item] * count);
            if rng.random::<f64>() < looks * liked / (liked + HALF) {
                clicked.push(id);
            }
        }
        clicked
    }

    /// Requests the row until it shows no clicked product.
    fn watch(&self, path: &str, clicked: &[i32], log: &Mutex<Log>) {
        let clicked: HashSet<i32> = clicked.iter().copied().collect();
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let row = self.get(path);
            let gone = row.is_ok_and(|row| {
                row["degraded"] != true && !ids(&row).iter().any(|id| clicked.contains(id))
            });
            if gone {
                return note(log, |log| log.fresh.push(since.elapsed().as_secs_f64()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        note(log, |log| log.stale += 1);
    }

    /// Sends events of other visitors, as load for the updater.
    fn others(&self, started: Instant, over: &(dyn Fn() -> bool + Sync), log: &Mutex<Log>) {
        let mut rng = StdRng::seed_from_u64(self.settings.seed.wrapping_add(1));
        let (users, items) = (self.shop.users(), self.shop.items());
        let mut sent = 0usize;
        while !over() {
            let events: Vec<Value> = (0..LOT)
                .map(|_| {
                    let user = users[rng.random_range(0..users.len())].id;
                    let item = items[rng.random_range(0..items.len())].id;
                    json!({ "user_id": user, "item_id": item, "type": "view" })
                })
                .collect();
            self.publish(&events, log);
            sent += LOT;
            let due = Duration::from_secs_f64(sent as f64 / self.settings.background);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }

    fn publish(&self, events: &[Value], log: &Mutex<Log>) -> bool {
        let sent = self
            .agent
            .post(format!("{}/events", self.settings.gateway))
            .send_json(events);
        let failed = match sent {
            Ok(response) if response.status() == 202 => {
                note(log, |log| log.events += events.len());
                return true;
            }
            Ok(mut response) => {
                let text = response.body_mut().read_to_string().unwrap_or_default();
                format!("/events: {}: {text}", response.status())
            }
            Err(error) => format!("/events: {error}"),
        };
        note(log, |log| log.errors.push(failed));
        false
    }

    fn get(&self, path: &str) -> Result<Value> {
        let route = path.split('?').next().unwrap_or_default();
        let mut response = self
            .agent
            .get(format!("{}{path}", self.settings.gateway))
            .call()
            .with_context(|| route.to_owned())?;
        let status = response.status();
        if status != 200 {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            bail!("{route}: {status}: {text}");
        }
        response
            .body_mut()
            .read_json()
            .with_context(|| route.to_owned())
    }
}

impl Log {
    fn report(mut self, settings: &Settings, seconds: f64) -> Report {
        let arms = [Arm::Recommended, Arm::Popular].map(|arm| self.outcome(arm, seconds));
        self.fresh.sort_unstable_by(f64::total_cmp);
        let freshness = (!self.fresh.is_empty())
            .then(|| [0.5, 0.9, 0.99, 1.0].map(|share| quantile(&self.fresh, share)));
        Report {
            settings: settings.clone(),
            arms: arms.into(),
            degraded: self.visits.iter().filter(|visit| visit.degraded).count(),
            events: self.events,
            events_per_second: self.events as f64 / seconds,
            watched: self.fresh.len() + self.stale,
            shown_effects: self.fresh.len(),
            freshness,
            errors: self.errors.len(),
            first_errors: self.errors.iter().take(5).cloned().collect(),
        }
    }

    fn outcome(&self, arm: Arm, seconds: f64) -> Outcome {
        /// Number of equal parts of the time.
        const PARTS: usize = 12;
        let visits: Vec<&Visit> = self
            .visits
            .iter()
            .filter(|visit| visit.arm == arm)
            .collect();
        let mut parts = [(0, 0); PARTS];
        for visit in &visits {
            let part = ((visit.at / seconds * PARTS as f64) as usize).min(PARTS - 1);
            parts[part].0 += visit.clicks;
            parts[part].1 += visit.shown;
        }
        let mut took: Vec<f64> = visits.iter().map(|visit| visit.took).collect();
        took.sort_unstable_by(f64::total_cmp);
        let (clicks, shown): (usize, usize) = parts
            .iter()
            .fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        Outcome {
            arm,
            visits: visits.len(),
            shown,
            clicks,
            click_through: clicks as f64 / shown.max(1) as f64,
            over_time: parts
                .iter()
                .map(|&(clicks, shown)| (shown > 0).then(|| clicks as f64 / shown as f64))
                .collect(),
            latency: [0.5, 0.99].map(|share| quantile(&took, share)),
        }
    }
}

/// Number of shoppers: at most the shop's users, and at least one.
fn crowd(shoppers: usize, users: usize) -> usize {
    shoppers.min(users).max(1)
}

/// Whether a shopper is missing from the store; this share of the crowd is.
fn is_new(number: usize, crowd: usize, share: f64) -> bool {
    (number as f64 + 0.5) / (crowd as f64) < share
}

/// An id for a newcomer, unique per shopper of a seed.
fn new_id(seed: u64, number: usize) -> i32 {
    let place = seed.wrapping_mul(1_000_003).wrapping_add(number as u64) % NEWCOMER_IDS;
    NEWCOMERS + place as i32
}

/// A quantile of ascending values; NaN if there are none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(place.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

fn ids(row: &Value) -> Vec<i32> {
    let items = row["items"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    items
        .iter()
        .filter_map(|item| i32::try_from(item["id"].as_i64()?).ok())
        .collect()
}

fn device(rng: &mut StdRng) -> i32 {
    let drawn = rng.random::<f64>();
    match drawn {
        drawn if drawn < DEVICES[0] => 0,
        drawn if drawn < DEVICES[0] + DEVICES[1] => 1,
        _ => 2,
    }
}

fn now() -> i32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    i32::try_from(since_1970.unwrap_or_default().as_secs()).unwrap_or(i32::MAX)
}

fn note(log: &Mutex<Log>, add: impl FnOnce(&mut Log)) {
    if let Ok(mut log) = log.lock() {
        add(&mut log);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_came() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(
            [0.5, 0.99, 1.0].map(|share| quantile(&values, share)),
            [2.0, 4.0, 4.0]
        );
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn newcomers_are_the_share_that_was_asked_for() {
        for (shoppers, users) in [(500, 10_000), (500, 100), (10, 10), (1_000_000, 3)] {
            let crowd = crowd(shoppers, users);
            assert!(crowd <= users && crowd <= shoppers);
            for share in [0.0, 0.2, 0.5, 1.0] {
                let count = (0..crowd)
                    .filter(|&number| is_new(number, crowd, share))
                    .count();
                let wished = share * crowd as f64;
                assert!(
                    (count as f64 - wished).abs() <= 0.5,
                    "{shoppers} of {users}, {share}: {count}"
                );
            }
        }
    }

    #[test]
    fn newcomers_have_ids_of_their_own() {
        for seed in [0, 1, 999, u64::MAX] {
            let ids: HashSet<i32> = (0..300_000).map(|number| new_id(seed, number)).collect();
            assert_eq!(ids.len(), 300_000);
            assert!(ids.iter().all(|&id| id >= NEWCOMERS));
        }
    }

    #[test]
    fn arms_are_counted_apart_and_over_time() {
        let visit = |arm, at, clicks| Visit {
            arm,
            at,
            shown: 10,
            clicks,
            degraded: false,
            took: 0.01,
        };
        let log = Log {
            visits: vec![
                visit(Arm::Recommended, 0.0, 3),
                visit(Arm::Recommended, 12.0, 1),
                visit(Arm::Popular, 5.0, 1),
            ],
            ..Log::default()
        };
        let recommended = log.outcome(Arm::Recommended, 12.0);
        assert_eq!((recommended.visits, recommended.clicks), (2, 4));
        assert_eq!(recommended.over_time[0], Some(0.3));
        assert_eq!(recommended.over_time[11], Some(0.1));
        assert_eq!(recommended.over_time[5], None);
        assert_eq!(log.outcome(Arm::Popular, 12.0).click_through, 0.1);
    }
}
