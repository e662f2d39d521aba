//! Moves computations of a ranker that are equal for all requests out of the request.
//!
//! Parts of the exported graph that depend only on the item are computed here, for every item of the catalogue, and become constants. These
//! are the item's embeddings, the projections of its pretrained vectors, their dot products, and their contribution to the first top layer.
//! Parts that depend only on the user and the context are computed once per request, on one row. Per candidate, only the parts that mix the
//! two remain:
//!
//! - The first bottom layer is linear, so its sum splits into the item's columns and the user's.
//! - A dot product of the bottom layers' output b with a user's vector u is an input of the first top layer only. This layer is linear,
//!   too: `(b . u) w = b (u w)`. So `u w` is added to the layer's weights for b once per request, and the product is never computed.
//! - The products of the user's vectors with the item's are one matrix product. Each product of b with an item's vector is its own.
//!
//! The order of some sums differs from the exported graph's, so scores agree to about 1e-7.

use std::collections::{BTreeMap, HashMap};

use ndarray::{Array2, ArrayView2, Axis};
use prost::Message;
use rayon::prelude::*;

use super::external_data::PAGE;
use super::graph::{Attribute, FLOAT, GraphBuilder, INT32, Value};
use super::{RANKER_OUTPUT, concat, read};
use crate::Error;
use crate::layers::{Dense, Embedding};
use crate::parameter::Parameter;
use crate::ranker::{Ranker, scale};

/// Name of the input with the candidates: rows of the catalogue, INT32 `[N]`.
pub const ROWS_INPUT: &str = "candidate_rows";
/// Name of the input with the user's and the moment's codes, INT32 `[features]`, in the order of [`Inputs::codes`]. Each must be below
/// its cardinality. The graph cannot check this, because the tables are concatenated.
pub const CODES_INPUT: &str = "user_codes";
/// Name of the input with their continuous features, FLOAT `[1, features]`, in the order of [`Inputs::numbers`]; absent if there are none.
pub const NUMBERS_INPUT: &str = "user_numbers";
/// Key of [`Inputs`] in the model's metadata, as JSON.
const INPUTS_KEY: &str = "saker.inputs";

const FIRST_AXIS: [(&str, Attribute); 1] = [("axis", Attribute::Int(0))];

/// The catalogue's features by the names of the ranker's inputs. An input that is missing here belongs to the user or the moment.
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

/// The features of the user and the moment, in the order of the hoisted graph's inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inputs {
    /// Categorical features, and the cardinality of each.
    pub codes: Vec<(String, usize)>,
    /// Continuous features.
    pub numbers: Vec<String>,
}

/// A hoisted ranker, for one user at one moment and any number of candidates. It has the output of the exported graph.
#[derive(Clone, Debug)]
pub struct Hoisted {
    /// The ONNX model.
    pub model: Vec<u8>,
    /// The inputs; the model's metadata contain them too.
    pub inputs: Inputs,
    /// The content of the file beside the model.
    pub tables: Vec<u8>,
}

/// Hoists an exported ranker. The items' tables are written to a file of this name beside the model, so that a large catalogue is mapped
/// into memory instead of read.
///
/// # Errors
/// Returns [`Error::Foreign`] for a model that this crate has not exported, and [`Error::Data`] for items that do not match it.
pub fn hoist(model: &[u8], items: &Items, file: &str) -> Result<Hoisted, Error> {
    let ranker = read::ranker(model)?;
    check(&ranker, items)?;
    let mut hoist = Hoist::new(&ranker, items, file);
    let inputs = hoist.inputs();
    let rows = hoist.graph.input(ROWS_INPUT, INT32, None);
    let numbers = (!inputs.numbers.is_empty()).then(|| {
        let shape = [1, inputs.numbers.len()];
        hoist.graph.fixed(NUMBERS_INPUT, FLOAT, &shape)
    });
    let user = hoist.user(numbers.as_deref())?;
    let item_tables = hoist.item_tables(&rows);
    let bottom = match hoist.bottom {
        Bottom::Mixed => Some(hoist.mixed_bottom(numbers.as_deref(), &rows)),
        Bottom::None | Bottom::OfUser => None,
    };
    let first = hoist.first_layer(&user, &item_tables, bottom.as_deref());
    hoist.finish(first, inputs)
}

/// Builds the hoisted graph.
struct Hoist<'h> {
    ranker: &'h Ranker,
    items: &'h Items,
    graph: GraphBuilder,
    tables: Tables<'h>,
    weights: TopWeights,
    bottom: Bottom,
    /// Indices of the vectors whose products are computed: those of the items, and those of user and moment. The output of a mixed bottom
    /// is in neither.
    of_items: Vec<usize>,
    of_user: Vec<usize>,
}

/// Values that are computed once per request.
struct User {
    /// Its vectors as columns: `[dim, vectors]`.
    vectors: Value,
    /// Its contribution to the first top layer, including the bias: `[1, columns]`.
    base: Value,
}

/// Values that are gathered for each candidate.
struct ItemTables {
    /// The item's vectors: `[N, vectors * dim]`.
    vectors: Value,
    /// The contribution of the products among them to the first top layer: `[N, columns]`.
    products: Value,
}

impl<'h> Hoist<'h> {
    fn new(ranker: &'h Ranker, items: &'h Items, file: &'h str) -> Self {
        let bottom = Bottom::of(ranker, items);
        // The vectors in the order of the export: embeddings, projections, the bottom layers' output.
        let pretrained = ranker.embeddings.len()..ranker.embeddings.len() + ranker.pretrained.len();
        let is_item = |place: usize| match ranker.embeddings.get(place) {
            Some(embedding) => items.codes.contains_key(&embedding.name),
            None => pretrained.contains(&place),
        };
        let own = match bottom {
            Bottom::Mixed => pretrained.end,
            Bottom::None | Bottom::OfUser => ranker.vectors(),
        };
        let (of_items, of_user) = (0..own).partition(|place| is_item(*place));
        Self {
            ranker,
            items,
            graph: GraphBuilder::new("dlrm_ranking_hoisted"),
            tables: Tables {
                file,
                bytes: Vec::new(),
            },
            weights: TopWeights::of(ranker),
            bottom,
            of_items,
            of_user,
        }
    }

    /// The embeddings of user and moment.
    fn own_embeddings(&self) -> Vec<&'h Embedding> {
        let embeddings = self.ranker.embeddings.iter();
        embeddings
            .filter(|embedding| !self.items.codes.contains_key(&embedding.name))
            .collect()
    }

    fn inputs(&self) -> Inputs {
        let codes = self.own_embeddings().into_iter();
        let numbers = self.ranker.continuous.iter();
        Inputs {
            codes: codes
                .map(|embedding| (embedding.name.clone(), embedding.table.rows))
                .collect(),
            numbers: numbers
                .filter(|name| !self.items.numbers.contains_key(*name))
                .cloned()
                .collect(),
        }
    }

    /// Values of the user and the context: their vectors and products, and the bottom layers if these depend on no item.
    fn user(&mut self, numbers: Option<&str>) -> Result<User, Error> {
        let mut vectors = vec![self.user_vectors()?];
        let bottom = match (&self.bottom, numbers) {
            (Bottom::OfUser, Some(numbers)) => {
                let stack = &self.ranker.bottom;
                let value = layers(
                    &mut self.graph,
                    "bottom",
                    stack,
                    0,
                    numbers.to_owned(),
                    true,
                );
                vectors.push(value.clone());
                Some(value)
            }
            _ => None,
        };
        let stacked = match &vectors[..] {
            [only] => only.clone(),
            several => {
                let several: Vec<&str> = several.iter().map(String::as_str).collect();
                self.graph.node("Concat", &several, &FIRST_AXIS)
            }
        };
        let swap = [("perm", Attribute::Ints(vec![1, 0]))];
        let transposed = self.graph.node("Transpose", &[&stacked], &swap);
        let products = self.graph.node("MatMul", &[&stacked, &transposed], &[]);
        let square = (self.of_user.len() * self.of_user.len()) as i64;
        let shape = self.graph.integers("user_products", &[1, square]);
        let products = self.graph.node("Reshape", &[&products, &shape], &[]);
        // Each product once: of its two entries in the square matrix, the one in the list of pairs.
        let of_user = &self.of_user;
        let pairs = of_user.iter().flat_map(|&a| {
            let below = move |&b: &usize| (b < a).then_some((a, b));
            of_user.iter().map(below)
        });
        let weight = self.weights.rows(pairs);
        let weight = constant(&mut self.graph, "user_products_weight", &weight);
        let bias = &self.ranker.top[0].bias;
        let bias = self
            .graph
            .floats("top_0_bias", &[bias.columns], &bias.values);
        let mut base = self.graph.node("Gemm", &[&products, &weight, &bias], &[]);
        if let Some(bottom) = bottom {
            let weight = constant(&mut self.graph, "bottom_weight", &self.weights.bottom);
            let own = self.graph.node("MatMul", &[&bottom, &weight], &[]);
            base = self.graph.node("Add", &[&base, &own], &[]);
        }
        Ok(User {
            vectors: transposed,
            base,
        })
    }

    /// The vectors of the user's and the moment's codes as rows: `[features, dim]`. They come from one concatenated table.
    fn user_vectors(&mut self) -> Result<Value, Error> {
        let embeddings = self.own_embeddings();
        let codes = self.graph.fixed(CODES_INPUT, INT32, &[embeddings.len()]);
        let mut starts = Vec::with_capacity(embeddings.len());
        let mut rows = 0;
        for embedding in &embeddings {
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
        let table = [rows, self.ranker.dim];
        let table = self.graph.floats("user_embeddings", &table, &values);
        let starts = self.graph.int32s("user_embeddings_start", &starts);
        let codes = self.graph.node("Add", &[&codes, &starts], &[]);
        Ok(self.graph.node("Gather", &[&table, &codes], &FIRST_AXIS))
    }

    /// Values of the items, computed here: their vectors, and the contribution of their products to the first top layer.
    fn item_tables(&mut self, rows: &str) -> ItemTables {
        let vectors = item_vectors(self.ranker, self.items);
        let products = among_items(self.ranker, &self.of_items, &vectors, &self.weights);
        let mut gathered = |name: &str, table: &Array2<f32>| {
            let table = self.tables.add(&mut self.graph, name, table);
            self.graph.node("Gather", &[&table, rows], &FIRST_AXIS)
        };
        ItemTables {
            vectors: gathered("item_vectors", &vectors),
            products: gathered("item_products", &products),
        }
    }

    /// The bottom layers, if some of their inputs are the item's: `[N, dim]`.
    fn mixed_bottom(&mut self, numbers: Option<&str>, rows: &str) -> Value {
        let first = &self.ranker.bottom[0];
        let names = &self.ranker.continuous;
        let (of_items, of_user): (Vec<usize>, Vec<usize>) =
            (0..names.len()).partition(|place| self.items.numbers.contains_key(&names[*place]));
        let part = |places: &[usize]| view(&first.weight).select(Axis(0), places);
        let bias = [1, first.bias.columns];
        let mut base = self
            .graph
            .floats("bottom_0_bias", &bias, &first.bias.values);
        if let Some(numbers) = numbers {
            let weight = constant(&mut self.graph, "bottom_0_user_weight", &part(&of_user));
            base = self.graph.node("Gemm", &[numbers, &weight, &base], &[]);
        }
        let columns = of_items
            .iter()
            .map(|&place| &self.items.numbers[&names[place]]);
        let columns: Vec<&Vec<f32>> = columns.collect();
        let shape = (self.items.rows, columns.len());
        let table = Array2::from_shape_fn(shape, |(row, column)| columns[column][row]);
        let table = self.tables.add(&mut self.graph, "item_numbers", &table);
        let numbers = self.graph.node("Gather", &[&table, rows], &FIRST_AXIS);
        let weight = constant(&mut self.graph, "bottom_0_item_weight", &part(&of_items));
        let value = self.graph.node("Gemm", &[&numbers, &weight, &base], &[]);
        let value = self.graph.node("Relu", &[&value], &[]);
        layers(
            &mut self.graph,
            "bottom",
            &self.ranker.bottom,
            1,
            value,
            true,
        )
    }

    /// The first top layer, before its activation: `[N, columns]`. `bottom` is the output of a mixed bottom.
    fn first_layer(&mut self, user: &User, items: &ItemTables, bottom: Option<&str>) -> Value {
        let dim = self.ranker.dim as i64;
        let shape = self.graph.integers("vectors_shape", &[-1, dim]);
        let flat = self.graph.node("Reshape", &[&items.vectors, &shape], &[]);
        let products = self.graph.node("MatMul", &[&flat, &user.vectors], &[]);
        let pairs = (self.of_items.len() * self.of_user.len()) as i64;
        let shape = self.graph.integers("products_shape", &[-1, pairs]);
        let mut inputs = vec![self.graph.node("Reshape", &[&products, &shape], &[])];
        let of_user = &self.of_user;
        let pairs = self.of_items.iter().flat_map(|&item| {
            let pair = move |&user: &usize| Some((item, user));
            of_user.iter().map(pair)
        });
        let mut weight = self.weights.rows(pairs);
        if let Some(bottom) = bottom {
            let vectors = self.of_items.len() as i64;
            let shape = self
                .graph
                .integers("item_vectors_shape", &[-1, vectors, dim]);
            let vectors = self.graph.node("Reshape", &[&items.vectors, &shape], &[]);
            let axis = self.graph.integers("vector_axis", &[2]);
            let column = self.graph.node("Unsqueeze", &[bottom, &axis], &[]);
            let products = self.graph.node("MatMul", &[&vectors, &column], &[]);
            inputs.push(self.graph.node("Squeeze", &[&products, &axis], &[]));
            inputs.push(bottom.to_owned());
            weight = ndarray::concatenate![Axis(0), weight, self.bottom_weights(&self.of_items)];
        }
        let mut weight = constant(&mut self.graph, "products_weight", &weight);
        if bottom.is_some() {
            let with_user = self.bottom_weights(&self.of_user);
            let with_user = constant(&mut self.graph, "bottom_user_weight", &with_user);
            let folded = self.graph.node("MatMul", &[&user.vectors, &with_user], &[]);
            let own = constant(&mut self.graph, "bottom_weight", &self.weights.bottom);
            let folded = self.graph.node("Add", &[&folded, &own], &[]);
            weight = self.graph.node("Concat", &[&weight, &folded], &FIRST_AXIS);
        }
        let input = concat(&mut self.graph, &inputs);
        let value = self.graph.node("Gemm", &[&input, &weight, &user.base], &[]);
        self.graph.node("Add", &[&value, &items.products], &[])
    }

    /// The weights of the products between the output of a mixed bottom and these vectors.
    fn bottom_weights(&self, places: &[usize]) -> Array2<f32> {
        let bottom = self.ranker.vectors() - 1;
        let pairs = places.iter().map(|&place| Some((bottom, place)));
        self.weights.rows(pairs)
    }

    /// The other top layers, and the probability.
    fn finish(mut self, first: Value, inputs: Inputs) -> Result<Hoisted, Error> {
        let top = &self.ranker.top;
        let mut value = first;
        if top.len() > 1 {
            value = self.graph.node("Relu", &[&value], &[]);
            value = layers(&mut self.graph, "top", top, 1, value, false);
        }
        let probability = self.graph.node("Sigmoid", &[&value], &[]);
        self.graph.output(probability, RANKER_OUTPUT, 1);
        let said =
            serde_json::to_string(&inputs).map_err(|error| Error::Data(error.to_string()))?;
        let mut model = self.graph.model();
        model
            .metadata_props
            .push(super::property(INPUTS_KEY, &said));
        Ok(Hoisted {
            model: model.encode_to_vec(),
            inputs,
            tables: self.tables.bytes,
        })
    }
}

/// The features on which the output of the bottom layers depends.
enum Bottom {
    /// The model has no continuous features.
    None,
    /// All continuous features belong to the user and the moment.
    OfUser,
    /// Some continuous features belong to the item.
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

/// The weights of the first top layer, by their inputs.
struct TopWeights {
    /// For each pair of vectors, the layer's row for their product, with the export's scale.
    pairs: HashMap<(usize, usize), Vec<f32>>,
    /// Weights of the bottom layers' output, `[dim, columns]`.
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

    /// The weights of the product of two vectors, given by index in any order.
    fn of_pair(&self, a: usize, b: usize) -> &[f32] {
        &self.pairs[&(a.max(b), a.min(b))]
    }

    /// One row per pair; zeros if the pair does not exist.
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
}

/// The items' tables, concatenated into one file.
struct Tables<'f> {
    file: &'f str,
    bytes: Vec<u8>,
}

impl Tables<'_> {
    fn add(&mut self, graph: &mut GraphBuilder, name: &str, values: &Array2<f32>) -> Value {
        let offset = self.bytes.len().next_multiple_of(PAGE);
        self.bytes.resize(offset, 0);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        self.bytes.extend(bytes);
        let shape = [values.nrows(), values.ncols()];
        graph.floats_in_file(name, shape, self.file, offset)
    }
}

/// The concatenated vectors of each item: `[items, vectors * dim]`.
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

/// The contribution of the products among the items' own vectors to the first top layer: `[items, columns]`.
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

/// The layers from the given one on, with the names of the export.
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

/// A matrix as a constant of the graph.
fn constant(graph: &mut GraphBuilder, name: &str, matrix: &Array2<f32>) -> Value {
    let values: Vec<f32> = matrix.iter().copied().collect();
    graph.floats(name, &[matrix.nrows(), matrix.ncols()], &values)
}

fn view(matrix: &Parameter) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((matrix.rows, matrix.columns), &matrix.values)
        .expect("a parameter is as long as its shape says")
}

fn matrix(values: Vec<f32>, columns: usize) -> Array2<f32> {
    let rows = values.len() / columns.max(1);
    Array2::from_shape_vec((rows, columns), values).expect("whole rows")
}

/// Checks that the ranker has every feature of the items, that each has a value per item, and that no code exceeds its table.
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
                "an item has the code {code} of '{name}'; the ranker accepts 0 to {}",
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
