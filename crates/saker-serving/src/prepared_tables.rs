//! The prepared users and items, for display.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use saker_gateway::catalogue::{Column, Item};
use saker_pipeline::{ColumnType, EmbeddingSource, Entity, Names, Pipeline};
use saker_tables::{ParquetFile, Values};
use serde_json::{Map, Value};

use crate::layout::Layout;

/// The prepared users and items. Empty if this machine has no prepared data, because the server may be another machine.
pub struct PreparedTables {
    names: Names,
    users: Rows,
    items: Rows,
    shown: Vec<String>,
    user_id: String,
}

/// A table, and the row of each id.
#[derive(Default)]
struct Rows {
    columns: Vec<(String, Cells)>,
    row_of: HashMap<i32, usize>,
}

/// A column of `saker prepare`, which has no nulls.
enum Cells {
    Int32(Vec<i32>),
    Float32(Vec<f32>),
    Text(Vec<String>),
}

impl Cells {
    /// Converts values to 32 bits: columns of 64 bits for millions of users would need too much memory.
    fn of(name: &str, values: Values) -> Result<Self> {
        let kind = values.kind().to_owned();
        let cells = match values {
            Values::Integers(_) => return Ok(Self::Int32(values.int32s(name)?)),
            Values::Floats {
                values,
                single: true,
            } => {
                let narrow = values
                    .into_iter()
                    .map(|value| value.map(|value| value as f32));
                narrow.collect::<Option<_>>().map(Self::Float32)
            }
            Values::Texts(values) => values.into_iter().collect::<Option<_>>().map(Self::Text),
            _ => None,
        };
        cells.with_context(|| {
            format!(
                "column {name} has type {kind}, accepted: 32-bit integers, float32 or text, without nulls"
            )
        })
    }
}

impl Rows {
    fn read(layout: &Layout, name: &str, entity: &Entity) -> Result<Self> {
        let path = layout.data(name);
        let read = || -> Result<Self> {
            let file = ParquetFile::open(&path)?;
            let mut rows = Self::default();
            for (place, name) in file.names().into_iter().enumerate() {
                let cells = Cells::of(&name, file.column(place)?)?;
                rows.columns.push((name, cells));
            }
            let Some(Cells::Int32(ids)) = rows.column(&entity.id) else {
                bail!("there is no column {} of 32-bit integers", entity.id);
            };
            rows.row_of = ids.iter().copied().zip(0..).collect();
            Ok(rows)
        };
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    /// All ids, in the order of the rows.
    fn ids(&self) -> Vec<i32> {
        let mut ids: Vec<(usize, i32)> = self.row_of.iter().map(|(id, row)| (*row, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    fn column(&self, name: &str) -> Option<&Cells> {
        let mut columns = self.columns.iter();
        columns
            .find(|(column, _)| column == name)
            .map(|(_, cells)| cells)
    }

    /// A cell of a column of integers.
    fn int32(&self, id: i32, column: &str) -> Option<i32> {
        let row = *self.row_of.get(&id)?;
        match self.column(column)? {
            Cells::Int32(values) => values.get(row).copied(),
            _ => None,
        }
    }

    /// A cell of a column of numbers with a fraction.
    fn float32(&self, id: i32, column: &str) -> Option<f32> {
        let row = *self.row_of.get(&id)?;
        match self.column(column)? {
            Cells::Float32(values) => values.get(row).copied(),
            _ => None,
        }
    }

    /// Every cell of a row as JSON: codes by their names, other numbers as numbers.
    fn row(&self, names: &Names, id: i32) -> Map<String, Value> {
        let cell = |column: &str, cells: &Cells| {
            let text = self.cell(names, id, column)?;
            let value = match cells {
                Cells::Int32(_) | Cells::Float32(_) => serde_json::from_str(&text).ok(),
                Cells::Text(_) => None,
            };
            // A name that looks like a number stays a text.
            let named = names.contains_key(column);
            Some(value.filter(|_| !named).unwrap_or_else(|| text.into()))
        };
        let columns = self.columns.iter();
        columns
            .filter_map(|(name, cells)| Some((name.clone(), cell(name, cells)?)))
            .collect()
    }

    /// A cell for display: codes by their names.
    fn cell(&self, names: &Names, id: i32, column: &str) -> Option<String> {
        let row = *self.row_of.get(&id)?;
        Some(match self.column(column)? {
            Cells::Int32(values) => {
                let value = *values.get(row)?;
                let name = usize::try_from(value)
                    .ok()
                    .and_then(|code| names.get(column)?.get(code));
                name.cloned().unwrap_or_else(|| value.to_string())
            }
            Cells::Float32(values) => values.get(row)?.to_string(),
            Cells::Text(values) => values.get(row)?.clone(),
        })
    }
}

impl PreparedTables {
    /// Reads the tables of `saker prepare`.
    pub fn read(pipeline: &Pipeline, layout: &Layout) -> Self {
        let names = fs::read(layout.names())
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let rows = |name, entity| {
            Rows::read(layout, name, entity).unwrap_or_else(|error| {
                tracing::info!("no names to show: {error:#}");
                Rows::default()
            })
        };
        let text = |column: &&saker_pipeline::Column| column.kind == ColumnType::Text;
        let mut shown: Vec<String> = pipeline.item.title.iter().cloned().collect();
        let others = pipeline
            .item
            .columns
            .iter()
            .filter(text)
            .map(|column| column.name.clone());
        shown.extend(others.filter(|name| Some(name) != pipeline.item.title.as_ref()));
        let mut names: Names = names.unwrap_or_default();
        // A user column that is derived from an item column has that column's names.
        for column in &pipeline.user.columns {
            if let Some(saker_pipeline::Derive::TopOfRecent { column: of, .. }) = &column.derive
                && let Some(of) = names.get(of).cloned()
            {
                names.insert(column.name.clone(), of);
            }
        }
        Self {
            names,
            users: rows("users", &pipeline.user),
            items: rows("items", &pipeline.item),
            shown,
            user_id: pipeline.user.id.clone(),
        }
    }

    /// A user's features in one line.
    pub fn user(&self, id: i32) -> String {
        if self.users.columns.is_empty() {
            return format!("user {id}");
        }
        if !self.users.row_of.contains_key(&id) {
            return format!("user {id}: unknown, so this is a cold start");
        }
        let cells = self.users.names().filter(|name| *name != self.user_id);
        let cells: Vec<String> = cells
            .filter_map(|name| {
                Some(format!(
                    "{} {}",
                    name.replace('_', " "),
                    self.users.cell(&self.names, id, name)?
                ))
            })
            .collect();
        format!("user {id}: {}", cells.join(", "))
    }

    /// Names of the text columns of items, the title first.
    pub fn item_columns(&self) -> impl Iterator<Item = &str> {
        self.shown.iter().map(String::as_str)
    }

    /// An item's texts, in the order of [`PreparedTables::item_columns`].
    pub fn item_texts(&self, id: i32) -> Vec<String> {
        self.shown
            .iter()
            .map(|column| self.items.cell(&self.names, id, column).unwrap_or_default())
            .collect()
    }

    /// All features of an item.
    pub fn item(&self, id: i32) -> Map<String, Value> {
        let cells = self.items.names();
        cells
            .filter_map(|name| {
                let cell = self.items.cell(&self.names, id, name)?;
                Some((name.to_owned(), cell.into()))
            })
            .collect()
    }

    /// The users and items that the gateway shows.
    ///
    /// # Errors
    /// Returns an error if the definition's path of the pictures cannot be resolved.
    pub fn for_gateway(&self, pipeline: &Pipeline) -> Result<saker_gateway::DisplayCatalogue> {
        let columns = &pipeline.store.trending_categories;
        let title = pipeline.item.title.as_deref();
        let pictures = Pictures::of(pipeline)?;
        // One by one, because the JSON of a million items would need too much memory.
        let items = self.items.ids().into_iter().map(|id| {
            let categories = columns.iter();
            let categories = categories.map(|column| self.items.int32(id, column));
            Item {
                id,
                title: title.and_then(|title| self.items.cell(&self.names, id, title)),
                categories: categories.collect::<Option<_>>().unwrap_or_default(),
                price: self.items.float32(id, "price"),
                picture: pictures.as_ref().and_then(|pictures| pictures.file(id)),
                known: self.items.row(&self.names, id),
            }
        });
        let columns = columns.iter().map(|name| Column {
            name: name.clone(),
            names: self.names.get(name).cloned().unwrap_or_default(),
        });
        let features = |id| self.users.row(&self.names, id);
        let users = self.users.row_of.keys().copied();
        let names = self.users.names();
        let names =
            names.filter_map(|column| Some((column.to_owned(), self.names.get(column)?.clone())));
        let names = names.collect();
        let catalogue =
            saker_gateway::DisplayCatalogue::new(columns.collect(), items, users, features);
        Ok(catalogue.with_user_names(names))
    }
}

/// The path of the items' pictures, if the definition has vectors of pictures.
struct Pictures {
    path: String,
    place: String,
}

impl Pictures {
    fn of(pipeline: &Pipeline) -> Result<Option<Self>> {
        let place = format!("{{{}}}", pipeline.item.id);
        let path = pipeline.item.embeddings.iter();
        let path = path
            .filter_map(|embedding| match &embedding.source {
                EmbeddingSource::Image { path, .. } => Some(pipeline.resolve(path)),
                _ => None,
            })
            .next()
            .transpose()?;
        Ok(path.map(|path| Self {
            path: path.to_string_lossy().into_owned(),
            place,
        }))
    }

    /// An item's picture, if it has one.
    fn file(&self, id: i32) -> Option<PathBuf> {
        let file = PathBuf::from(self.path.replace(&self.place, &id.to_string()));
        file.is_file().then_some(file)
    }
}
