//! One instance, which filters the rows of all requests of a batch.

use std::ops::Range;

use saker_contract::{RawId, degraded, tensor};
use saker_steps::seen::{self, Row};
use triton_backend::{Batch, DataType, Error, Request, Response};

use crate::rows::rows_of;
use crate::{BloomFilter, Ids};

/// One instance: its connections and its buffers.
pub struct Worker {
    seen: seen::Worker,
    requests: Vec<Share>,
}

/// The rows of one request.
struct Share {
    /// Index in the batch.
    index: usize,
    rows: Range<usize>,
}

impl Worker {
    pub(crate) fn new(model: &BloomFilter) -> Self {
        Self {
            seen: seen::Worker::new(&model.filter),
            requests: Vec::new(),
        }
    }

    pub(crate) fn execute(&mut self, model: &BloomFilter, batch: &Batch<'_>) -> Result<(), Error> {
        self.read(model, batch);
        batch.compute_starts();
        self.seen.ask(&model.filter);
        let rows = self.requests.iter().map(|share| share.rows.clone());
        self.seen.finish(&model.filter, rows);
        batch.compute_ends();
        self.answer(model, batch);
        Ok(())
    }

    /// Gathers the rows.
    fn read(&mut self, model: &BloomFilter, batch: &Batch<'_>) {
        let all = &mut self.seen.rows;
        all.clear();
        self.requests.clear();
        for (index, request) in batch.pending() {
            let first = all.len();
            match read_rows(model, request, all) {
                Ok(()) => {
                    self.requests.push(Share {
                        index,
                        rows: first..all.len(),
                    });
                }
                Err(error) => {
                    all.truncate(first);
                    batch.reject(index, error);
                }
            }
        }
    }

    /// Writes the rows, each padded to the longest row of its request.
    fn answer(&self, model: &BloomFilter, batch: &Batch<'_>) {
        for share in &self.requests {
            batch.respond(share.index, |request, response| {
                let rows = self.seen.rows.get(share.rows.clone()).ok_or_else(|| {
                    Error::internal(format!(
                        "the users {:?} of a batch of {}",
                        share.rows,
                        self.seen.rows.len()
                    ))
                })?;
                write_degraded(model, request, response, rows)?;
                let width = rows.iter().map(|row| row.items.len()).max().unwrap_or(0);
                let shape = [(width * rows.len()) as i64];
                match model.items.data_type {
                    DataType::Int64 => {
                        if let Some(out) = response.output_at::<i64>(model.filtered, &shape)? {
                            write_rows(rows, width, out, |item| item);
                        }
                    }
                    _ => {
                        if let Some(out) = response.output_at::<i32>(model.filtered, &shape)? {
                            // Candidates are i32 in the request. A popular id beyond i32 is not an item here.
                            write_rows(rows, width, out, |item| {
                                i32::try_from(item).unwrap_or(RawId::NONE_INT32)
                            });
                        }
                    }
                }
                Ok(())
            });
        }
    }
}

/// Writes the mask of missing user data: the request's own mask, plus the seen items if they could not be read.
fn write_degraded(
    model: &BloomFilter,
    request: &Request<'_>,
    response: &Response<'_>,
    rows: &[Row],
) -> Result<(), Error> {
    let Some(position) = model.degraded_output else {
        return Ok(());
    };
    let Some(out) = response.output_at::<i32>(position, &[rows.len() as i64])? else {
        return Ok(());
    };
    if let Some(position) = model.degraded
        && let Some(before) = request.input_at(position)?
    {
        let before = before.vector::<i32>()?;
        if before.len() != rows.len() {
            return Err(Error::invalid_argument(format!(
                "input '{}' has {} masks for {} users; accepted: one for each user",
                tensor::DEGRADED,
                before.len(),
                rows.len()
            )));
        }
        out.copy_from_slice(&before);
    }
    for (out, row) in out.iter_mut().zip(rows) {
        if !row.is_known() {
            *out |= degraded::SEEN_ITEMS;
        }
    }
    Ok(())
}

fn write_rows<T>(rows: &[Row], width: usize, out: &mut [T], convert: impl Fn(i64) -> T) {
    if width == 0 {
        return;
    }
    for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
        let items = row
            .items
            .iter()
            .copied()
            .chain(std::iter::repeat(RawId::NONE));
        out.iter_mut()
            .zip(items)
            .for_each(|(out, item)| *out = convert(item));
    }
}

fn read_rows(model: &BloomFilter, request: &Request<'_>, rows: &mut Vec<Row>) -> Result<(), Error> {
    let missing =
        |ids: &Ids| Error::invalid_argument(format!("the request has no input '{}'", ids.name));
    let users = model
        .users
        .read(request)?
        .ok_or_else(|| missing(&model.users))?;
    let items = model
        .items
        .read(request)?
        .ok_or_else(|| missing(&model.items))?;
    let candidates = rows_of(users.len(), &items)
        .map_err(|why| Error::invalid_argument(format!("input '{}': {why}", model.items.name)))?;
    let categories = match &model.categories {
        Some(ids) => ids.read(request)?.map(|categories| (ids, categories)),
        None => None,
    };
    if let Some((ids, categories)) = &categories
        && categories.len() != users.len()
    {
        return Err(Error::invalid_argument(format!(
            "input '{}' has {} categories for {} users; accepted: one for each user",
            ids.name,
            categories.len(),
            users.len()
        )));
    }
    let mut categories = categories.iter().flat_map(|(_, categories)| categories);
    for (&user, candidates) in users.iter().zip(candidates) {
        let items = candidates
            .iter()
            .copied()
            .filter(|&item| item != RawId::NONE)
            .collect();
        rows.push(Row::new(user, categories.next().copied(), items));
    }
    Ok(())
}

impl Ids {
    /// The ids; `None` if the request lacks them.
    fn read(&self, request: &Request<'_>) -> Result<Option<Vec<i64>>, Error> {
        let Some(tensor) = request.input_at(self.position)? else {
            return Ok(None);
        };
        Ok(Some(match self.data_type {
            DataType::Int64 => tensor.vector::<i64>()?.into_owned(),
            _ => tensor
                .vector::<i32>()?
                .iter()
                .map(|&id| i64::from(id))
                .collect(),
        }))
    }
}
