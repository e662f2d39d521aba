//! Measures the duration of calls to a store: `cargo run --release -p saker-store --example round_trip -- redis://127.0.0.1:6379/1`.
//!
//! The program writes its own keys under `saker:bench:`, which expire in ten minutes, and prints a table in microseconds.

use std::time::{Duration, Instant};

use saker_store::feast::{EntityId, EntityKeyVersion, FeatureView, Timestamp, Value, Writer};
use saker_store::seen::bitmap::Geometry;
use saker_store::seen::{Method, Mode, Prefixes, Reader, SeenWriter};
use saker_store::{Connection, Link, Pipeline, Settings, StoreError};

const CALLS: usize = 20_000;

fn main() -> Result<(), StoreError> {
    let Some(url) = std::env::args().nth(1) else {
        return Err(StoreError::Settings("usage: round_trip REDIS_URL".into()));
    };
    let settings = Settings::parse(&url, None)?.with_deadline(Duration::from_secs(1));
    let mut connection = Connection::open(&settings)?;
    let features = ["age", "gender", "top_category"];
    let view = FeatureView::new(
        "saker:bench:",
        "user_features",
        "user_id",
        EntityKeyVersion::V3,
        features,
    );
    let mut writer = Writer::new(
        &mut connection,
        view.clone(),
        Some(Duration::from_secs(600)),
    );
    for user in 0..100 {
        let values = [
            Some(Value::Int32(user)),
            Some(Value::Int32(1)),
            Some(Value::Int32(7)),
        ];
        writer.write(&EntityId::Int32(user), &values, Timestamp::from_micros(0))?;
    }
    writer.finish()?;
    let prefixes = Prefixes {
        server: "saker:bench:bf:".into(),
        plain: "saker:bench:seen:".into(),
    };
    let geometry = Geometry::new(1000, 0.01)?;
    SeenWriter::new(&mut connection, Mode::Plain, prefixes.clone(), geometry)?
        .add(&[(1, (0..300).collect())])?;

    let link = Link::open(settings)?;
    let mut client = link.client();
    if !client.wait(Duration::from_secs(5)) {
        return Err(client.disconnected());
    }
    println!(
        "{:<44} {:>8} {:>8} {:>8}",
        "call, microseconds", "p50", "p99", "max"
    );
    let reader = Reader { prefixes };
    let mut measure = |name: &str,
                       fill: &dyn Fn(&mut Pipeline),
                       read: &dyn Fn(&[saker_store::CommandResult])| {
        let (mut pipeline, mut replies) = (Pipeline::new(), Vec::new());
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let start = Instant::now();
            pipeline.clear();
            fill(&mut pipeline);
            client.run(&pipeline, &mut replies)?;
            read(&replies);
            times.push(start.elapsed());
        }
        times.sort();
        let at =
            |share: f64| times[((CALLS - 1) as f64 * share) as usize].as_nanos() as f64 / 1000.0;
        println!(
            "{name:<44} {:>8.1} {:>8.1} {:>8.1}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        Ok::<(), StoreError>(())
    };
    measure(
        "PING",
        &|pipeline| {
            pipeline.keyless(|cmd| {
                cmd.arg("PING");
            });
        },
        &|_| {},
    )?;
    for users in [1, 8, 100] {
        measure(
            &format!("Feast row of 3 features, {users} users"),
            &|pipeline| (0..users).for_each(|user| view.read(&EntityId::Int32(user), pipeline)),
            &|replies| {
                for reply in replies {
                    if let Ok(Ok(Some(row))) = reply.as_ref().map(|reply| view.row(reply)) {
                        (0..3).for_each(|feature| drop(std::hint::black_box(row.value(feature))));
                    }
                }
            },
        )?;
    }
    measure(
        "seen bitmap (1000 at 1 %), 300 candidates",
        &|pipeline| reader.ask(Method::Plain, 1, std::iter::empty(), pipeline),
        &|replies| {
            if let Ok(seen) = Reader::answer(Method::Plain, &replies[0], 300) {
                std::hint::black_box((0..300).filter(|&item| seen.contains(0, item * 2)).count());
            }
        },
    )?;
    Ok(())
}
