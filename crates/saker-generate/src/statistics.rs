//! Statistics of the written days, counted from the files.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::generate::day_file;
use crate::session::EventType;
use crate::shop::Shop;

/// Counts over all days.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Rows.
    pub interactions: u64,
    /// Sessions.
    pub sessions: u64,
    /// Users with at least one row.
    pub active_users: u64,
    /// Items with at least one row.
    pub active_items: u64,
    /// Rows by device: mobile, desktop, tablet.
    pub by_device: [u64; 3],
    /// Rows by hour of the day in UTC.
    pub by_hour: [u64; 24],
    /// Rows by event: view, click, cart, purchase.
    pub by_event: [u64; 4],
    /// Share of the rows that the 100 most frequent items have.
    pub top_100_items: f64,
    /// Share of the rows that the most active hundredth of the users has.
    pub top_1_percent_users: f64,
}

struct Counts {
    items: Vec<u64>,
    users: Vec<u64>,
    /// Number of sessions by the hour in which they begin; within an hour they are numbered from 1.
    sessions: BTreeMap<i64, u32>,
    sum: Statistics,
}

impl Counts {
    fn add(&mut self, shop: &Shop, path: &Path, rows: &RecordBatch) -> Result<()> {
        let damaged = |what: &str| Error::Table {
            path: path.to_owned(),
            reason: format!("{what}; run `saker generate retail` again"),
        };
        let column = |name: &str| {
            rows.column_by_name(name)
                .filter(|column| column.null_count() == 0)
                .ok_or_else(|| damaged(&format!("the column {name} is missing or has nulls")))
        };
        let int32 = |name: &'static str| -> Result<&[i32]> {
            let array = column(name)?.as_primitive_opt::<Int32Type>();
            let array = array.ok_or_else(|| damaged(&format!("{name} is not Int32")))?;
            Ok(array.values())
        };
        let sessions = column("session_id")?.as_primitive_opt::<Int64Type>();
        let sessions = sessions.ok_or_else(|| damaged("session_id is not Int64"))?;
        let kinds = column("event_type")?.as_string_opt::<i32>();
        let kinds = kinds.ok_or_else(|| damaged("event_type is not Utf8"))?;
        let (users, items) = (int32("user_id")?, int32("item_id")?);
        let (times, devices) = (int32("timestamp")?, int32("device_type")?);
        for row in 0..rows.num_rows() {
            let user = shop
                .user_index(users[row])
                .ok_or_else(|| damaged(&format!("user_id {} is not in this shop", users[row])))?;
            let item = shop
                .item_index(items[row])
                .ok_or_else(|| damaged(&format!("item_id {} is not in this shop", items[row])))?;
            let kind = EventType::ALL
                .iter()
                .position(|kind| kind.name() == kinds.value(row))
                .ok_or_else(|| damaged(&format!("unknown event_type {}", kinds.value(row))))?;
            let device = usize::try_from(devices[row])
                .ok()
                .filter(|&device| device < 3);
            let device =
                device.ok_or_else(|| damaged(&format!("unknown device_type {}", devices[row])))?;
            self.users[user] += 1;
            self.items[item] += 1;
            self.sum.interactions += 1;
            self.sum.by_event[kind] += 1;
            self.sum.by_device[device] += 1;
            self.sum.by_hour[(times[row].rem_euclid(86_400) / 3600) as usize] += 1;
        }
        for &session in sessions.values() {
            let last = self.sessions.entry(session >> 32).or_default();
            *last = (session as u32).max(*last);
        }
        Ok(())
    }

    fn finish(mut self) -> Statistics {
        let some = |counts: &[u64]| counts.iter().filter(|&&count| count > 0).count() as u64;
        let all = self.sum.interactions as f64;
        self.sum.active_users = some(&self.users);
        self.sum.active_items = some(&self.items);
        self.sum.sessions = self.sessions.values().map(|&last| u64::from(last)).sum();
        let hundredth = self.users.len() / 100;
        self.sum.top_100_items = top(self.items, 100) as f64 / all;
        self.sum.top_1_percent_users = top(self.users, hundredth) as f64 / all;
        self.sum
    }
}

/// The sum of the largest counts.
fn top(mut counts: Vec<u64>, places: usize) -> u64 {
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.iter().take(places).sum()
}

/// Counts the rows of a shop's folder.
///
/// # Errors
/// Returns an error if a day's file is missing, damaged, or from another shop.
pub fn statistics(shop: &Shop, folder: &Path) -> Result<Statistics> {
    let mut counts = Counts {
        items: vec![0; shop.items().len()],
        users: vec![0; shop.users().len()],
        sessions: BTreeMap::new(),
        sum: Statistics::default(),
    };
    for day in 0..shop.settings().days {
        let path = folder.join(day_file(day));
        let file = File::open(&path).map_err(Error::file(&path))?;
        let batches = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|reader| reader.with_batch_size(1 << 16).build())
            .map_err(Error::table(&path))?;
        for rows in batches {
            counts.add(shop, &path, &rows.map_err(Error::table(&path))?)?;
        }
    }
    Ok(counts.finish())
}
