//! Vectors of the items' texts and pictures, by the encoders of `saker-content`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use saker_content::{
    Cache, Encoded, Encoder, ImageEncoder, Pca, Pooling, SentenceEncoder, encode, to_unit_length,
};
use saker_pipeline::{Embedding, EmbeddingSource, ImagePooling, Missing, Pipeline};
use saker_prepare::source::Source;
use saker_prepare::{files, table};
use saker_serving::installed;
use saker_serving::layout::Layout;
use saker_serving::progress::Step;

use super::Vectors;

/// The vectors of an `[[item.embeddings]]` whose source is `sentence` or `image`, row i for row i of `items`.
pub(super) fn vectors(
    pipeline: &Pipeline,
    layout: &Layout,
    embedding: &Embedding,
    items: &RecordBatch,
    step: &Step,
) -> Result<Vectors> {
    let ids = table::int32s(items, &pipeline.item.id)?;
    match &embedding.source {
        EmbeddingSource::Sentence {
            columns,
            path,
            id,
            model,
            missing,
        } => {
            let texts = match path {
                None => texts_of_items(items, columns)?,
                Some(path) => {
                    let id = id.as_deref().unwrap_or(&pipeline.item.id);
                    texts_of_table(pipeline, (&embedding.name, path), id, columns, ids)?
                }
            };
            step.say(format!("{}: loading {model}", embedding.name));
            let mut encoder = SentenceEncoder::open(&pipeline.resolve(model)?)?;
            let load = |item: usize| match texts[item].trim() {
                "" => Err("has no text".to_owned()),
                text => Ok(text.as_bytes().to_vec()),
            };
            let name = |item: usize| format!("item {}", ids[item]);
            let task = Task {
                layout,
                embedding,
                model,
                missing: *missing,
                step,
            };
            task.run(&mut encoder, ids.len(), load, name)
        }
        EmbeddingSource::Image {
            path,
            model,
            output,
            pooling,
            missing,
        } => {
            let place = format!("{{{}}}", pipeline.item.id);
            let files = ids
                .iter()
                .map(|id| Ok(pipeline.resolve(&path.replace(&place, &id.to_string()))?))
                .collect::<Result<Vec<PathBuf>>>()?;
            let library = installed::onnxruntime().context(
                "ONNX Runtime is not installed; run `scripts/install`, or set ORT_DYLIB_PATH to its path",
            )?;
            let pooling = match pooling {
                ImagePooling::First => Pooling::First,
                ImagePooling::Mean => Pooling::Mean,
            };
            step.say(format!("{}: loading {model}", embedding.name));
            let mut encoder = ImageEncoder::open(
                &library,
                &pipeline.resolve(model)?,
                output.as_deref(),
                pooling,
            )?;
            let load = |item: usize| fs::read(&files[item]).map_err(|error| error.to_string());
            let name = |item: usize| format!("item {}, {}", ids[item], files[item].display());
            let task = Task {
                layout,
                embedding,
                model,
                missing: *missing,
                step,
            };
            task.run(&mut encoder, ids.len(), load, name)
        }
        _ => bail!(
            "{} is made of neither sentences nor pictures",
            embedding.name
        ),
    }
}

/// What encoding needs to know beside the encoder and the contents.
struct Task<'a> {
    layout: &'a Layout,
    embedding: &'a Embedding,
    model: &'a str,
    missing: Missing,
    step: &'a Step,
}

impl Task<'_> {
    fn run<E: Encoder>(
        &self,
        encoder: &mut E,
        items: usize,
        load: impl Fn(usize) -> Result<Vec<u8>, String>,
        name: impl Fn(usize) -> String,
    ) -> Result<Vectors> {
        let Embedding {
            name: table, dim, ..
        } = self.embedding;
        let width = encoder.width();
        if *dim > width {
            bail!(
                "[[item.embeddings]] {table}: dim = {dim}: accepted is 1 to {width}, the width of the vectors of {}",
                self.model
            );
        }
        let mut cache = Cache::open(&self.layout.content(table));
        let encoded = encode(encoder, items, load, &mut cache, |done, of| {
            if of > 0 {
                self.step.say(format!("{table}: {done} of {of} encoded"));
            }
        })?;
        self.report_unusable(&encoded, items, name)?;
        reduce(&encoded, width, *dim).with_context(|| format!("principal components of {table}"))
    }

    fn report_unusable(
        &self,
        encoded: &Encoded,
        items: usize,
        name: impl Fn(usize) -> String,
    ) -> Result<()> {
        let Some((first, reason)) = encoded.unusable.first() else {
            return Ok(());
        };
        let table = &self.embedding.name;
        let count = encoded.unusable.len();
        let first = format!("{}: {reason}", name(*first));
        if count == items {
            bail!(
                "[[item.embeddings]] {table}: none of the {items} items can be encoded; the first is {first}"
            );
        }
        match self.missing {
            Missing::Fail => bail!(
                "[[item.embeddings]] {table}: {count} of {items} items cannot be encoded; the first is {first}. \
                With `missing = \"zero\"` they get vectors of zeros"
            ),
            Missing::Zero => tracing::warn!(
                "{table}: {count} of {items} items cannot be encoded and get vectors of zeros; the first is {first}"
            ),
        }
        Ok(())
    }
}

/// Principal components of the vectors there are, scaled to unit length as other computed embeddings are.
fn reduce(encoded: &Encoded, width: usize, dim: usize) -> Result<Vectors> {
    let mut usable = vec![true; encoded.vectors.len() / width];
    for (item, _) in &encoded.unusable {
        usable[*item] = false;
    }
    let rows = || encoded.vectors.chunks_exact(width).zip(&usable);
    let fitted = rows().filter(|(_, usable)| **usable).map(|(row, _)| row);
    let pca = Pca::fit(fitted, width, dim)?;
    let mut values = Vec::with_capacity(usable.len() * dim);
    for (row, usable) in rows() {
        let mut vector = if *usable {
            pca.project(row)
        } else {
            vec![0.0; dim]
        };
        to_unit_length(&mut vector);
        values.extend(vector);
    }
    let seconds = encoded.took.as_secs_f64();
    let rate = encoded.encoded as f64 / seconds.max(1e-3);
    let encoder = match encoded.encoded {
        0 => String::new(),
        count => format!("{count} encoded, {rate:.0} a second; "),
    };
    let cached = match encoded.cached {
        0 => String::new(),
        count => format!("{count} in the cache; "),
    };
    Ok(Vectors {
        values,
        note: format!(
            "; {encoder}{cached}{dim} of {width} components keep {:.1} % of the variance",
            100.0 * pca.explained()
        ),
    })
}

/// The texts of text columns of `[item]`, joined with a space.
pub(super) fn texts_of_items(items: &RecordBatch, columns: &[String]) -> Result<Vec<String>> {
    let columns = columns
        .iter()
        .map(|name| table::texts(items, name))
        .collect::<Result<Vec<_>>>()?;
    let text = |row| {
        let texts: Vec<&str> = columns.iter().map(|column| column.value(row)).collect();
        texts.join(" ")
    };
    Ok((0..items.num_rows()).map(text).collect())
}

/// The texts of another table's columns for these items; an item that the table lacks has none.
fn texts_of_table(
    pipeline: &Pipeline,
    (embedding, path): (&str, &str),
    id: &str,
    columns: &[String],
    ids: &[i32],
) -> Result<Vec<String>> {
    let data = saker_prepare::data(pipeline)?;
    let key = format!("item.embeddings.{embedding}.source.path");
    let files = files::files(pipeline, data.format, &key, path)?;
    let named: Vec<&str> = std::iter::once(id)
        .chain(columns.iter().map(String::as_str))
        .collect();
    let source = Source::read(data, &files, &named)?;
    let columns = columns
        .iter()
        .map(|name| source.texts(name, &[]))
        .collect::<Result<Vec<_>>>()?;
    let mut texts = HashMap::new();
    for (row, id) in source.all_ids(id)?.into_iter().enumerate() {
        let words: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        if texts.insert(id, words.join(" ")).is_some() {
            bail!(
                "{path}, {}: item {id} is in an earlier row too; one row per item is accepted",
                source.place(row)
            );
        }
    }
    Ok(ids
        .iter()
        .map(|id| texts.remove(id).unwrap_or_default())
        .collect())
}
