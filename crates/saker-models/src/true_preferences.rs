//! The true preferences of generated data, which give the best possible answer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use saker_generate::Shop;
use saker_pipeline::Pipeline;
use saker_prepare::table;
use saker_serving::layout::Layout;
use saker_train::data::Dataset;
use saker_train::encoded::UNKNOWN;
use saker_train::evaluate::Oracle;

/// Number of users from which the mean of a context is estimated.
const SAMPLE: usize = 2000;
const DEVICE: &str = "device_type";

/// The true preferences of a generated shop.
pub struct TruePreferences<'a> {
    shop: Shop,
    data: &'a Dataset,
    /// Indices in the shop of each user row and of each item row.
    users: Vec<usize>,
    items: Vec<usize>,
    /// The device of each interaction.
    devices: Vec<i32>,
    /// Mean preferences by device and hour, computed once per context.
    means: Mutex<HashMap<(i32, i32), Vec<f32>>>,
}

impl<'a> TruePreferences<'a> {
    /// Opens the shop that generated the pipeline's source; `None` if no `generator.json` is beside the users.
    ///
    /// # Errors
    /// Returns an error if the data belong to another shop.
    pub fn open(pipeline: &Pipeline, layout: &Layout, data: &'a Dataset) -> Result<Option<Self>> {
        let Some(source) = &pipeline.data else {
            return Ok(None);
        };
        let users = pipeline.resolve(&source.users.path)?;
        let folder = users.parent().unwrap_or(Path::new("."));
        if !folder.join("generator.json").is_file() {
            return Ok(None);
        }
        let shop = Shop::open(folder)
            .with_context(|| format!("cannot rebuild the shop of {}", folder.display()))?;
        let ids =
            |name: &str, id: &str, index: &dyn Fn(i32) -> Option<usize>| -> Result<Vec<usize>> {
                let mut rows = Vec::new();
                for part in table::stream(&layout.data(name), &[id])? {
                    for &raw in table::int32s(&part?, id)? {
                        match index(raw) {
                            Some(index) => rows.push(index),
                            None => bail!("the shop of {} has no {id} {raw}", folder.display()),
                        }
                    }
                }
                Ok(rows)
            };
        let mut devices = Vec::new();
        for part in table::stream(&layout.data("interactions"), &[DEVICE])? {
            devices.extend_from_slice(table::int32s(&part?, DEVICE)?);
        }
        Ok(Some(Self {
            users: ids("users", &pipeline.user.id, &|id| shop.user_index(id))?,
            items: ids("items", &pipeline.item.id, &|id| shop.item_index(id))?,
            shop,
            data,
            devices,
            means: Mutex::default(),
        }))
    }

    /// Converts preferences from the order of the shop's items to the order of the item rows.
    fn by_row(&self, preference: &[f64]) -> Vec<f32> {
        self.items
            .iter()
            .map(|&item| preference[item] as f32)
            .collect()
    }
}

impl Oracle for TruePreferences<'_> {
    fn scores(&self, user: u32, moment: u32) -> Vec<f32> {
        let (device, time) = (
            self.devices[moment as usize],
            self.data.interactions.timestamp[moment as usize],
        );
        // Unknown devices are treated as mobile, the most common one.
        let context = self.shop.context(device, time);
        let Some(context) = context.or_else(|| self.shop.context(0, time)) else {
            return vec![0.0; self.items.len()];
        };
        if user != UNKNOWN {
            let user = self.users[user as usize];
            return self.by_row(&self.shop.preference(user, context));
        }
        let key = (device, time.div_euclid(3600));
        let known = self
            .means
            .lock()
            .ok()
            .and_then(|means| means.get(&key).cloned());
        known.unwrap_or_else(|| {
            let mean = self.by_row(&self.shop.context_preference(context, SAMPLE));
            if let Ok(mut means) = self.means.lock() {
                means.insert(key, mean.clone());
            }
            mean
        })
    }
}
