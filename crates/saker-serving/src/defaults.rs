//! The features of an entity that is missing from the store: `data/defaults.json`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use saker_pipeline::{Column, Default as Fallback, Entity, Pipeline};
use serde::{Deserialize, Serialize};

/// The features of an entity that is missing from the store, by column, with every mean computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Defaults {
    /// User columns.
    pub user: BTreeMap<String, f64>,
    /// Item columns.
    pub item: BTreeMap<String, f64>,
}

impl Defaults {
    /// The defaults that the definition gives as numbers.
    ///
    /// # Errors
    /// Returns an error if a default is a mean of training rows, which only `saker prepare` computes.
    pub fn of(pipeline: &Pipeline) -> Result<Self> {
        let numbers = |group: &str, entity: &Entity| -> Result<BTreeMap<String, f64>> {
            let number = |column: &Column| match &column.default {
                Fallback::Number(number) => Ok((column.name.clone(), *number)),
                Fallback::Word(word) => bail!(
                    "the default of [{group}] column {} is \"{word}\" and not known before `saker prepare`; run it, \
                     or give a number",
                    column.name
                ),
            };
            entity.stored().map(number).collect()
        };
        Ok(Self {
            user: numbers("user", &pipeline.user)?,
            item: numbers("item", &pipeline.item)?,
        })
    }

    /// Reads `data/defaults.json`.
    ///
    /// # Errors
    /// Returns an error if the file is missing or has another format than that of `saker prepare`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path)
            .with_context(|| format!("cannot read {}; run `saker prepare`", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; run `saker prepare`", path.display()))
    }
}
