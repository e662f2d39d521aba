//! A ranker with everything taken out of the request that does not change with it.
//!
//! Of the exported graph, what hangs on the item alone (its embeddings, the projections of its pretrained vectors, the dot
//! products among them and what the first layer at the top makes of those) is computed here, for every item of the
//! catalogue, and becomes a constant of the graph. What hangs on the user and the moment alone is computed once a request,
//! on one row. Per candidate remains what mixes the two:
//!
//! - The first layer at the bottom is linear, so its sum splits into the item's columns and the user's.
//! - A dot product of the bottom's output b with a user's vector u only feeds the first layer at the top, which is linear
//!   too: `(b . u) w = b (u w)`. So `u w` is added to the layer's weights for b once a request, and the product is never made.
//! - The products of the user's vectors with the item's are one matrix product; those of b with the item's one each.
//!
//! The order of some sums differs from the exported graph's, so scores agree to about 1e-7.

use std::collections::{BTreeMap, HashMap};

use ndarray::{Array2, ArrayView2, Axis};
use prost::Message;
use rayon::prelude::*;

use super::graph::{Attribute, FLOAT, GraphBuilder, INT32, Value};
use super::{RANKER_OUTPUT, concat, read};
use crate::Error;
use crate::layers::{Dense, Embedding};
use crate::parameter::Parameter;
use crate::ranker::{Ranker, scale};

/// The hoisted graph's input with the candidates: rows of the catalogue, INT32 `[N]`.
pub const ROWS_INPUT: &str = "candidate_rows";
/// Its input with the user's and the moment's codes, INT32 `[features]`, in the order of [`Inputs::codes`]. Each must be below
/// its cardinality: the tables stand one below the other, so the graph cannot tell.
pub const CODES_INPUT: &str = "user_codes";
/// Its input with their continuous features, FLOAT `[1, features]`, in the order of [`Inputs::numbers`]; absent where there is none.
pub const NUMBERS_INPUT: &str = "user_numbers";
/// Key of [`Inputs`] in the model's metadata, as JSON.
const INPUTS_KEY: &str = "saker.inputs";

/// Tables begin at multiples of a page, so that they can be mapped into memory.
const PAGE: usize = 4096;

/// A catalogue as the ranker reads it, by the names of its inputs. An input that is not here is the user's or the moment's.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// Number of items.
    pub rows: usize,
    /// Codes of the categorical features, `[rows]` each.
    pub codes: BTreeMap<String, Vec<i32>>,
    /// Continuous features, `[rows]` each.
    pub numbers: BTreeMap<String, Vec<f32>>,
    /// Pretrained vectors, `[rows, dim]` each.
    pub vectors: BTreeMap<String, Vec<f32>>,
}

/// The features of the user and the moment, as the hoisted graph takes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inputs {
    /// Categorical features, and the cardinality of each.
    pub codes: Vec<(String, usize)>,
    /// Continuous features.
    pub numbers: Vec<String>,
}

/// A hoisted ranker, for one user at one moment and any number of candidates. Its output is the exported graph's.
#[derive(Clone, Debug)]
pub struct Hoisted {
    /// The ONNX model.
    pub model: Vec<u8>,
    /// What it takes; the model's metadata say it too.
    pub inputs: Inputs,
    /// What belongs in the file beside it.
    pub tables: Vec<u8>,
}

/// Hoists an exported ranker. The items' tables go in a file of this name beside the model, so that a large catalogue is mapped and
/// not read.
///
/// # Errors
/// [`Error::Foreign`] for a model that this crate has not exported, [`Error::Data`] for items that do not fit it.
pub fn hoist(model: &[u8], items: &Items, file: &str) -> Result<Hoisted, Error> {
    let ranker = read::ranker(model)?;
    check(&ranker, items)?;
    let mut tables = Tables {
        file,
        bytes: Vec::new(),
    };
    let mut graph = GraphBuilder::new("dlrm_ranking_hoisted");
    let rows = graph.input(ROWS_INPUT, INT32, None);

    // The vectors whose products are taken, by whom they belong to; the bottom's output is the last.
    let last = ranker.vectors() - 1;
    let is_item = |place: usize| match ranker.embeddings.get(place) {
        Some(embedding) => items.codes.contains_key(&embedding.name),
        None => place < ranker.embeddings.len() + ranker.pretrained.len(),
    };
    let bottom = Bottom::of(&ranker, items);
    let mixed = matches!(bottom, Bottom::Mixed).then_some(last);
    let (of_items, of_user): (Vec<usize>, Vec<usize>) = (0..ranker.vectors())
        .filter(|place| Some(*place) != mixed)
        .partition(|place| is_item(*place));

    // Of the user and the moment, once a request.
    let own = |embedding: &&Embedding| !items.codes.contains_key(&embedding.name);
    let own: Vec<&Embedding> = ranker.embeddings.iter().filter(own).collect();
    let numbers = ranker.continuous.iter();
    let taken = Inputs {
        codes: own
            .iter()
            .map(|embedding| (embedding.name.clone(), embedding.table.rows))
            .collect(),
        numbers: numbers
            .filter(|name| !items.numbers.contains_key(*name))
            .cloned()
            .collect(),
    };
    let mut user = vec![user_vectors(&mut graph, &own)?];
    let first = &ranker.top[0];
    let weights = TopWeights::of(&ranker);
    let numbers = (!taken.numbers.is_empty())
        .then(|| graph.fixed(NUMBERS_INPUT, FLOAT, &[1, taken.numbers.len()]));
    let bottom_value = match (&bottom, &numbers) {
        (Bottom::OfUser, Some(numbers)) => {
            let value = layers(
                &mut graph,
                "bottom",
                &ranker.bottom,
                0,
                numbers.clone(),
                true,
            );
            user.push(value.clone());
            Some(value)
        }
        (Bottom::Mixed, _) => Some(mixed_bottom(
            &mut graph,
            &mut tables,
            &ranker,
            items,
            numbers.as_deref(),
            &rows,
        )),
        _ => None,
    };
    let stacked = stack(&mut graph, &user);
    let transposed = graph.node(
        "Transpose",
        &[&stacked],
        &[("perm", Attribute::Ints(vec![1, 0]))],
    );
    let products = graph.node("MatMul", &[&stacked, &transposed], &[]);
    let flat = graph.integers(
        "user_products",
        &[1, (of_user.len() * of_user.len()) as i64],
    );
    let products = graph.node("Reshape", &[&products, &flat], &[]);
    // Each product once: of two places in the square, the one that the pairs name.
    let among_users = weights.rows(
        of_user
            .iter()
            .flat_map(|&a| of_user.iter().map(move |&b| (b < a).then_some((a, b)))),
    );
    let among_users = weights.constant(&mut graph, "user_products_weight", &among_users);
    let bias = graph.floats("top_0_bias", &[first.bias.columns], &first.bias.values);
    let mut base = graph.node("Gemm", &[&products, &among_users, &bias], &[]);
    if let (Bottom::OfUser, Some(value)) = (&bottom, &bottom_value) {
        let own = weights.constant(&mut graph, "bottom_weight", &weights.bottom);
        let own = graph.node("MatMul", &[value, &own], &[]);
        base = graph.node("Add", &[&base, &own], &[]);
    }

    // Of the items, now: their vectors, and what the first layer makes of the products among them.
    let vectors = item_vectors(&ranker, items);
    let width = of_items.len() * ranker.dim;
    let table = tables.add(&mut graph, "item_vectors", width, &vectors);
    let vectors_of = graph.node("Gather", &[&table, &rows], &[("axis", Attribute::Int(0))]);
    let among_items = among_items(&ranker, &of_items, &vectors, &weights);
    let table = tables.add(&mut graph, "item_products", weights.columns, &among_items);
    let among_items = graph.node("Gather", &[&table, &rows], &[("axis", Attribute::Int(0))]);

    // Of both, for each candidate.
    let dim = ranker.dim as i64;
    let shape = graph.integers("vectors_shape", &[-1, dim]);
    let flat = graph.node("Reshape", &[&vectors_of, &shape], &[]);
    let products = graph.node("MatMul", &[&flat, &transposed], &[]);
    let shape = graph.integers(
        "products_shape",
        &[-1, (of_items.len() * of_user.len()) as i64],
    );
    let mut inputs = vec![graph.node("Reshape", &[&products, &shape], &[])];
    let mut weight = weights.rows(
        of_items
            .iter()
            .flat_map(|&item| of_user.iter().map(move |&user| Some((item, user)))),
    );
    if let (Some(place), Some(value)) = (mixed, &bottom_value) {
        let shape = graph.integers("item_vectors_shape", &[-1, of_items.len() as i64, dim]);
        let vectors = graph.node("Reshape", &[&vectors_of, &shape], &[]);
        let axis = graph.integers("vector_axis", &[2]);
        let column = graph.node("Unsqueeze", &[value, &axis], &[]);
        let products = graph.node("MatMul", &[&vectors, &column], &[]);
        inputs.push(graph.node("Squeeze", &[&products, &axis], &[]));
        inputs.push(value.clone());
        let with_items = weights.rows(of_items.iter().map(|&item| Some((place, item))));
        weight = ndarray::concatenate![Axis(0), weight, with_items];
    }
    let mut weight = weights.constant(&mut graph, "products_weight", &weight);
    if let Some(place) = mixed {
        let with_users = weights.rows(of_user.iter().map(|&user| Some((place, user))));
        let with_users = weights.constant(&mut graph, "bottom_user_weight", &with_users);
        let folded = graph.node("MatMul", &[&transposed, &with_users], &[]);
        let own = weights.constant(&mut graph, "bottom_weight", &weights.bottom);
        let folded = graph.node("Add", &[&folded, &own], &[]);
        weight = graph.node(
            "Concat",
            &[&weight, &folded],
            &[("axis", Attribute::Int(0))],
        );
    }
    let input = concat(&mut graph, &inputs);
    let value = graph.node("Gemm", &[&input, &weight, &base], &[]);
    let mut value = graph.node("Add", &[&value, &among_items], &[]);
    if ranker.top.len() > 1 {
        value = graph.node("Relu", &[&value], &[]);
        value = layers(&mut graph, "top", &ranker.top, 1, value, false);
    }
    let probability = graph.node("Sigmoid", &[&value], &[]);
    graph.output(probability, RANKER_OUTPUT, 1);
    let mut model = graph.model();
    let said = serde_json::to_string(&taken).map_err(|error| Error::Data(error.to_string()))?;
    model
        .metadata_props
        .push(super::property(INPUTS_KEY, &said));
    Ok(Hoisted {
        model: model.encode_to_vec(),
        inputs: taken,
        tables: tables.bytes,
    })
}

/// Whom the bottom layers' output belongs to.
enum Bottom {
    /// There are no continuous features.
    None,
    /// All continuous features are the user's and the moment's.
    OfUser,
    /// Some are the item's.
    Mixed,
}

impl Bottom {
    fn of(ranker: &Ranker, items: &Items) -> Self {
        let mut names = ranker.continuous.iter();
        if ranker.bottom.is_empty() {
            Self::None
        } else if names.any(|name| items.numbers.contains_key(name)) {
            Self::Mixed
        } else {
            Self::OfUser
        }
    }
}

/// The weights of the first layer at the top, by what they multiply.
struct TopWeights {
    /// The product of the vectors at two places, scaled as the export scales it: the layer's row.
    pairs: HashMap<(usize, usize), Vec<f32>>,
    /// Of the bottom's output, `[dim, columns]`.
    bottom: Array2<f32>,
    columns: usize,
}

impl TopWeights {
    fn of(ranker: &Ranker) -> Self {
        let weight = &ranker.top[0].weight;
        let columns = weight.columns;
        let factor = scale(ranker.dim);
        let places = (0..ranker.vectors()).flat_map(|i| (0..i).map(move |j| (i, j)));
        let mut rows = weight.values.chunks_exact(columns);
        let scaled = |row: &[f32]| row.iter().map(|weight| weight * factor).collect();
        let pairs = places
            .zip(rows.by_ref())
            .map(|(pair, row)| (pair, scaled(row)))
            .collect();
        Self {
            pairs,
            bottom: matrix(rows.flatten().copied().collect(), columns),
            columns,
        }
    }

    /// The weights of the product of the vectors at two places, in any order.
    fn of_pair(&self, a: usize, b: usize) -> &[f32] {
        &self.pairs[&(a.max(b), a.min(b))]
    }

    /// A row for each pair; zeros where there is none.
    fn rows(&self, pairs: impl Iterator<Item = Option<(usize, usize)>>) -> Array2<f32> {
        let mut values = Vec::new();
        for pair in pairs {
            match pair {
                Some((a, b)) => values.extend_from_slice(self.of_pair(a, b)),
                None => values.resize(values.len() + self.columns, 0.0),
            }
        }
        matrix(values, self.columns)
    }

    fn constant(&self, graph: &mut GraphBuilder, name: &str, weight: &Array2<f32>) -> Value {
        let values: Vec<f32> = weight.iter().copied().collect();
        graph.floats(name, &[weight.nrows(), weight.ncols()], &values)
    }
}

/// The items' tables, one after the other.
struct Tables<'f> {
    file: &'f str,
    bytes: Vec<u8>,
}

impl Tables<'_> {
    fn add(
        &mut self,
        graph: &mut GraphBuilder,
        name: &str,
        columns: usize,
        values: &Array2<f32>,
    ) -> Value {
        let offset = self.bytes.len().next_multiple_of(PAGE);
        self.bytes.resize(offset, 0);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.bytes.extend(bytes);
        graph.floats_in_file(name, [values.nrows(), columns], self.file, offset)
    }
}

/// The vectors of each item side by side: `[items, vectors * dim]`.
fn item_vectors(ranker: &Ranker, items: &Items) -> Array2<f32> {
    let mut parts: Vec<Array2<f32>> = Vec::new();
    for embedding in &ranker.embeddings {
        if let Some(codes) = items.codes.get(&embedding.name) {
            let rows: Vec<usize> = codes.iter().map(|&code| code as usize).collect();
            parts.push(view(&embedding.table).select(Axis(0), &rows));
        }
    }
    for (name, projection) in &ranker.pretrained {
        let vectors = matrix(items.vectors[name].clone(), projection.weight.rows);
        parts.push(vectors.dot(&view(&projection.weight)) + view(&projection.bias));
    }
    let views: Vec<ArrayView2<'_, f32>> = parts.iter().map(|part| part.view()).collect();
    let vectors = ndarray::concatenate(Axis(1), &views).expect("as many rows as items");
    vectors.as_standard_layout().into_owned()
}

/// What the first layer at the top makes of the products among the items' own vectors: `[items, columns]`.
fn among_items(
    ranker: &Ranker,
    places: &[usize],
    vectors: &Array2<f32>,
    weights: &TopWeights,
) -> Array2<f32> {
    let dim = ranker.dim;
    let mut sums = vec![0.0; vectors.nrows() * weights.columns];
    let of_item = |row: &[f32], out: &mut [f32]| {
        let mut sum = vec![0.0_f64; out.len()];
        let of = |place: usize| row[place * dim..(place + 1) * dim].iter();
        for (i, &a) in places.iter().enumerate() {
            for (j, &b) in places[..i].iter().enumerate() {
                let product: f64 = of(i)
                    .zip(of(j))
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum();
                for (sum, weight) in sum.iter_mut().zip(weights.of_pair(a, b)) {
                    *sum += product * f64::from(*weight);
                }
            }
        }
        out.iter_mut()
            .zip(sum)
            .for_each(|(out, sum)| *out = sum as f32);
    };
    let rows = vectors.as_slice().expect("rows lie one after the other");
    rows.par_chunks_exact(places.len() * dim)
        .zip(sums.par_chunks_exact_mut(weights.columns))
        .for_each(|(row, out)| of_item(row, out));
    matrix(sums, weights.columns)
}

/// The vectors of the user's and the moment's codes, one below the other: `[features, dim]`. Their tables are one.
fn user_vectors(graph: &mut GraphBuilder, embeddings: &[&Embedding]) -> Result<Value, Error> {
    let codes = graph.fixed(CODES_INPUT, INT32, &[embeddings.len()]);
    let mut starts = Vec::with_capacity(embeddings.len());
    let mut rows = 0;
    for embedding in embeddings {
        starts.push(i32::try_from(rows).map_err(|_| {
            Error::Data(format!(
                "the tables of the user's codes have more than {} rows",
                i32::MAX
            ))
        })?);
        rows += embedding.table.rows;
    }
    let values: Vec<f32> = embeddings
        .iter()
        .flat_map(|embedding| embedding.table.values.iter().copied())
        .collect();
    let columns = values.len() / rows.max(1);
    let table = graph.floats("user_embeddings", &[rows, columns], &values);
    let starts = graph.int32s("user_embeddings_start", &starts);
    let codes = graph.node("Add", &[&codes, &starts], &[]);
    Ok(graph.node("Gather", &[&table, &codes], &[("axis", Attribute::Int(0))]))
}

/// The bottom layers where some of their inputs are the item's: `[N, dim]`.
fn mixed_bottom(
    graph: &mut GraphBuilder,
    tables: &mut Tables<'_>,
    ranker: &Ranker,
    items: &Items,
    numbers: Option<&str>,
    rows: &str,
) -> Value {
    let first = &ranker.bottom[0];
    let (of_items, of_user): (Vec<usize>, Vec<usize>) = (0..ranker.continuous.len())
        .partition(|place| items.numbers.contains_key(&ranker.continuous[*place]));
    let part = |graph: &mut GraphBuilder, name: &str, places: &[usize]| {
        let weight = view(&first.weight).select(Axis(0), places);
        let values: Vec<f32> = weight.iter().copied().collect();
        graph.floats(name, &[weight.nrows(), weight.ncols()], &values)
    };
    let bias = graph.floats(
        "bottom_0_bias",
        &[1, first.bias.columns],
        &first.bias.values,
    );
    let base = match numbers {
        Some(numbers) => {
            let weight = part(graph, "bottom_0_user_weight", &of_user);
            graph.node("Gemm", &[numbers, &weight, &bias], &[])
        }
        None => bias,
    };
    let columns = of_items.iter().map(|&place| &ranker.continuous[place]);
    let columns: Vec<&Vec<f32>> = columns.map(|name| &items.numbers[name]).collect();
    let table = Array2::from_shape_fn((items.rows, columns.len()), |(row, column)| {
        columns[column][row]
    });
    let table = tables.add(graph, "item_numbers", columns.len(), &table);
    let numbers = graph.node("Gather", &[&table, rows], &[("axis", Attribute::Int(0))]);
    let weight = part(graph, "bottom_0_item_weight", &of_items);
    let value = graph.node("Gemm", &[&numbers, &weight, &base], &[]);
    let value = graph.node("Relu", &[&value], &[]);
    layers(graph, "bottom", &ranker.bottom, 1, value, true)
}

/// The layers from one of them on, named as the export names them.
fn layers(
    graph: &mut GraphBuilder,
    name: &str,
    layers: &[Dense],
    from: usize,
    input: Value,
    relu_last: bool,
) -> Value {
    let mut value = input;
    for (place, layer) in layers.iter().enumerate().skip(from) {
        value = super::dense(graph, &format!("{name}_{place}"), layer, &value);
        if relu_last || place + 1 < layers.len() {
            value = graph.node("Relu", &[&value], &[]);
        }
    }
    value
}

/// Rows one below the other.
fn stack(graph: &mut GraphBuilder, rows: &[Value]) -> Value {
    if let [only] = rows {
        return only.clone();
    }
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    graph.node("Concat", &rows, &[("axis", Attribute::Int(0))])
}

fn view(matrix: &Parameter) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((matrix.rows, matrix.columns), &matrix.values)
        .expect("a parameter is as long as its shape says")
}

fn matrix(values: Vec<f32>, columns: usize) -> Array2<f32> {
    let rows = values.len() / columns.max(1);
    Array2::from_shape_vec((rows, columns), values).expect("whole rows")
}

/// Every feature of the items is one of the ranker's, as long as there are items, and no code is beyond its table.
fn check(ranker: &Ranker, items: &Items) -> Result<(), Error> {
    let wrong = |what: String| Err(Error::Data(what));
    for (name, codes) in &items.codes {
        let Some(embedding) = ranker.embeddings.iter().find(|of| of.name == *name) else {
            return wrong(format!("the ranker has no embedding of '{name}'"));
        };
        let rows = embedding.table.rows;
        let beyond = |code: &&i32| usize::try_from(**code).map_or(true, |code| code >= rows);
        if let Some(code) = codes.iter().find(beyond) {
            return wrong(format!(
                "an item has the code {code} of '{name}'; the ranker knows 0 to {}",
                rows.saturating_sub(1)
            ));
        }
    }
    for name in items.numbers.keys() {
        if !ranker.continuous.contains(name) {
            return wrong(format!("the ranker has no continuous feature '{name}'"));
        }
    }
    let columns = items
        .codes
        .iter()
        .map(|(name, codes)| (name, codes.len(), 1));
    let numbers = items
        .numbers
        .iter()
        .map(|(name, values)| (name, values.len(), 1));
    let mut vectors = Vec::new();
    for (name, projection) in &ranker.pretrained {
        match items.vectors.get_key_value(name) {
            Some((name, values)) => vectors.push((name, values.len(), projection.weight.rows)),
            None => return wrong(format!("the items have no vectors '{name}'")),
        }
    }
    for (name, found, width) in columns.chain(numbers).chain(vectors) {
        if found != items.rows * width {
            return wrong(format!(
                "'{name}' has {found} values for {} items, {width} each",
                items.rows
            ));
        }
    }
    if items.codes.is_empty() && ranker.pretrained.is_empty() {
        return wrong("the items have neither a categorical feature nor a vector".to_owned());
    }
    let has_user = |name: &String| !items.codes.contains_key(name);
    if !ranker.embeddings.iter().any(|of| has_user(&of.name)) {
        return wrong("the ranker has no categorical feature of the user".to_owned());
    }
    Ok(())
}
