//! Virtual shoppers in front of a running gateway, who want what the generator's personas want.
//!
//! A visit: somebody of the shop comes on a device, is shown a row of products, looks at the first places more than at the later
//! ones, and clicks what fits. Half of the shoppers get recommendations, the other half what is popular, from beginning to end,
//! so that what one half clicks does not change what the other is shown. A click is an event, as it is of the real shop's page.
//!
//! **Who clicks what.** The generator knows the true preference of a user in a context: the probability p of an item to be chosen
//! first, of N items. An item that is looked at is clicked with probability r / (r + [`HALF`]), r = p N: one that is liked as the
//! average item is, hardly ever; one that is liked 20 times as much, every other time. The place k, from 1, is looked at with
//! probability 1 / log2(k + 1), the discount of NDCG.

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

/// How much more than the average item one is liked that every other look at becomes a click.
pub const HALF: f64 = 20.0;
/// Products of a row.
const SHOWN: usize = 10;
/// A click whose effect is waited for, of so many.
const WATCHED: usize = 10;
/// How long one is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events of one request of the load beside the visits.
const LOT: usize = 50;
/// Share of visits by phones, desktops and tablets.
const DEVICES: [f64; 3] = [0.55, 0.35, 0.10];
/// First id of visitors that the store has never heard of.
const NEWCOMERS: i32 = 1_600_000_000;
/// How many ids there are for them.
const NEWCOMER_IDS: u64 = 500_000_000;

/// What is simulated.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The gateway, `http://host:port`.
    pub gateway: String,
    /// How long.
    pub seconds: f64,
    /// Visits per second, in all.
    pub rate: f64,
    /// Shoppers who take part.
    pub shoppers: usize,
    /// Share of them that the store does not know.
    pub newcomers: f64,
    /// Events per second of other visitors, beside these.
    pub background: f64,
    /// Visits that may be under way.
    pub threads: usize,
    /// Seed of every draw.
    pub seed: u64,
}

/// What a shopper is shown.
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
    /// Seconds until the row was there.
    took: f64,
}

/// What came of it.
#[derive(Debug, Default)]
struct Log {
    visits: Vec<Visit>,
    /// Seconds from the gateway's 202 until a row without the clicked product.
    fresh: Vec<f64>,
    /// Clicks that were watched and never showed.
    stale: usize,
    events: usize,
    errors: Vec<String>,
}

/// Numbers of one arm.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Which.
    pub arm: Arm,
    /// Visits.
    pub visits: usize,
    /// Products shown.
    pub shown: usize,
    /// Products clicked.
    pub clicks: usize,
    /// Clicks per product shown.
    pub click_through: f64,
    /// Clicks per product shown, in equal parts of the time; `None` where nothing was shown.
    pub over_time: Vec<Option<f64>>,
    /// Seconds until the row was there, at the 50th and the 99th percentile.
    pub latency: [f64; 2],
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was simulated.
    pub settings: Settings,
    /// Both arms.
    pub arms: Vec<Outcome>,
    /// Recommendations that said that they were degraded.
    pub degraded: usize,
    /// Events stored, those beside the visits among them.
    pub events: usize,
    /// Events per second.
    pub events_per_second: f64,
    /// Clicks whose effect was waited for.
    pub watched: usize,
    /// Those of them that showed.
    pub shown_effects: usize,
    /// Seconds from the acknowledged click to the changed row, at the 50th, 90th and 99th percentile, and the longest.
    pub freshness: Option<[f64; 4]>,
    /// Requests that failed.
    pub errors: usize,
    /// Some of them.
    pub first_errors: Vec<String>,
}

/// Runs the simulation. `tick` hears how far it is, in seconds, and ends it with `false`.
///
/// # Errors
/// The gateway does not answer at the start, or serves another shop.
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
                    // Visits come evenly; one that finds all threads busy comes late, and is counted when it comes.
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

/// Who visits.
struct Shopper {
    /// Place in the shop, of whom they want what.
    place: usize,
    /// The id that the gateway sees.
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

    /// Whether the gateway is there and shows this shop's products.
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
        // Spread over the shop, whatever the order of its users.
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

    /// What the shopper clicks of a row.
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

    /// Asks until nothing of what was clicked is shown.
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

    /// Events of visitors who are not asked what they want: load for the updater.
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
        /// Parts of the time.
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

/// How many shoppers take part: no more than the shop has, one at least.
fn crowd(shoppers: usize, users: usize) -> usize {
    shoppers.min(users).max(1)
}

/// Whether this shopper of a crowd is one that the store does not know: so is this share of them.
fn is_new(number: usize, crowd: usize, share: f64) -> bool {
    (number as f64 + 0.5) / (crowd as f64) < share
}

/// An id for a newcomer: different ones for different shoppers of a seed.
fn new_id(seed: u64, number: usize) -> i32 {
    let place = seed.wrapping_mul(1_000_003).wrapping_add(number as u64) % NEWCOMER_IDS;
    NEWCOMERS + place as i32
}

/// Of ascending values; NaN of none.
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
