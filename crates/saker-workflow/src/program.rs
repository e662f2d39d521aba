//! Compiled operators: a tree of kernels per output column, and its evaluation over slices.
//!
//! The same programs transform training data in bulk and requests when serving.

use std::sync::Arc;

use crate::column::{Column, DType, Slice, SliceMut};
use crate::definition::{Comparison, HashKey, TimeUnit};
use crate::hash;
use crate::kernels::{self, Number, TimePart};
use crate::lookup::{ABSENT, KeyIndex};
use crate::similarity::Features;

/// A column as a tree: an input, or a kernel over columns.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    Input(usize),
    Apply(Arc<Node>),
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kernel: Kernel,
    pub(crate) arguments: Vec<Expression>,
    pub(crate) dtype: DType,
}

/// What a node computes. Types were checked when it was compiled.
#[derive(Debug)]
pub(crate) enum Kernel {
    IsMissing,
    Encode(Encoder),
    /// Row of the key in a table, -1 when absent; int64.
    FindRow(Arc<KeyIndex>),
    /// A table's value by row; `absent` for row -1. int32, float32 or float64.
    Gather {
        values: Vec<f64>,
        absent: f64,
    },
    /// First argument: row of a key in `all`; second: its row in `fold`. Counts and sums of the rows outside the row's fold, smoothed.
    OutOfFold {
        all: Vec<(f64, f64)>,
        fold: Vec<(f64, f64)>,
        p_smooth: f64,
        mean: f64,
    },
    /// Inner product of the rows that the two arguments name.
    Similarity(Arc<Features>, Arc<Features>),
    Hash {
        num_buckets: u64,
        key: HashKey,
    },
    /// An integer as int32 or int64, beyond the range as its nearest end.
    Limit {
        least: i64,
        greatest: i64,
    },
    ToFloat32,
    Bucketize(Vec<f64>),
    Log,
    Normalize {
        mean: f64,
        std: f64,
    },
    NormalizeMinMax {
        min: f64,
        max: f64,
    },
    Clip {
        min: Option<f64>,
        max: Option<f64>,
    },
    Fill(f64),
    /// First argument minus its lagged self; NaN where any other argument differs.
    DifferenceLag(i64),
    /// A part of an integer's time.
    Time(TimePart, TimeUnit),
    Sine(f64),
    Cosine(f64),
    /// Each value beside a constant.
    Compare(Comparison, f64),
    /// factor · x + offset: in int64 for integers, in float64 for the float32 output.
    Linear {
        factor: f64,
        offset: f64,
    },
    /// A number or truth value in another type.
    Cast,
}

/// Categorify: from keys to codes.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) vocabulary: Arc<crate::vocabulary::Vocabulary>,
    pub(crate) num_buckets: u64,
    pub(crate) padding: Option<i64>,
    pub(crate) hash: HashKey,
}

/// Intermediate columns, kept between runs so that a run allocates nothing once they have grown.
#[derive(Debug, Default)]
pub struct Scratch {
    slots: Vec<Slot>,
    keys: Vec<u128>,
    hashes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Slot {
    int32: Vec<i32>,
    int64: Vec<i64>,
    float32: Vec<f32>,
    float64: Vec<f64>,
    boolean: Vec<bool>,
}

impl Slot {
    fn slice(&self, dtype: DType) -> Slice<'_> {
        match dtype {
            DType::Int32 => Slice::Int32(&self.int32),
            DType::Int64 => Slice::Int64(&self.int64),
            DType::Float32 => Slice::Float32(&self.float32),
            DType::Float64 => Slice::Float64(&self.float64),
            // No kernel gives strings.
            DType::Bool | DType::String => Slice::Bool(&self.boolean),
        }
    }

    fn slice_mut(&mut self, dtype: DType, rows: usize) -> SliceMut<'_> {
        match dtype {
            DType::Int32 => {
                self.int32.resize(rows, 0);
                SliceMut::Int32(&mut self.int32)
            }
            DType::Int64 => {
                self.int64.resize(rows, 0);
                SliceMut::Int64(&mut self.int64)
            }
            DType::Float32 => {
                self.float32.resize(rows, 0.0);
                SliceMut::Float32(&mut self.float32)
            }
            DType::Float64 => {
                self.float64.resize(rows, 0.0);
                SliceMut::Float64(&mut self.float64)
            }
            DType::Bool | DType::String => {
                self.boolean.resize(rows, false);
                SliceMut::Bool(&mut self.boolean)
            }
        }
    }
}

/// The columns a kernel reads.
struct Arguments<'a> {
    node: &'a Node,
    inputs: &'a [Column<'a>],
    slots: &'a [Slot],
    depth: usize,
}

impl<'a> Arguments<'a> {
    fn get(&self, position: usize) -> Column<'a> {
        // The compiler of programs gives a kernel the arguments that it reads, and an input for each.
        match self.find(position) {
            Some(column) => column,
            None => unreachable!("a kernel without argument {position}"),
        }
    }

    fn find(&self, position: usize) -> Option<Column<'a>> {
        let argument = self.node.arguments.get(position)?;
        match argument {
            Expression::Input(index) => self.inputs.get(*index).copied(),
            Expression::Apply(node) => Some(Column {
                values: self.slots.get(self.depth + position)?.slice(node.dtype),
                valid: mask(argument).and_then(|index| self.inputs.get(index)?.valid),
            }),
        }
    }

    fn all(&self) -> impl Iterator<Item = Column<'a>> + '_ {
        (0..self.node.arguments.len()).map(|position| self.get(position))
    }
}

/// The input whose nulls a column keeps: only kernels that give integers for integers hand nulls on; floats hold NaN.
pub(crate) fn mask(expression: &Expression) -> Option<usize> {
    match expression {
        Expression::Input(index) => Some(*index),
        Expression::Apply(node) => match node.kernel {
            Kernel::Clip { .. } | Kernel::Limit { .. } | Kernel::Time(..) => {
                node.arguments.first().and_then(mask)
            }
            Kernel::Linear { .. } | Kernel::Cast if node.dtype.is_integer() => {
                node.arguments.first().and_then(mask)
            }
            _ => None,
        },
    }
}

#[cfg(feature = "tables")]
/// The inputs that an expression reads, each once.
pub(crate) fn inputs(expression: &Expression) -> Vec<usize> {
    match expression {
        Expression::Input(index) => vec![*index],
        Expression::Apply(node) => {
            let mut read: Vec<usize> = node.arguments.iter().flat_map(inputs).collect();
            read.sort_unstable();
            read.dedup();
            read
        }
    }
}

/// Evaluates `expression` into `output`, whose length is the number of rows.
pub(crate) fn evaluate(
    expression: &Expression,
    inputs: &[Column<'_>],
    output: &mut SliceMut<'_>,
    scratch: &mut Scratch,
) {
    match expression {
        Expression::Input(index) => {
            let Some(column) = inputs.get(*index) else {
                unreachable!("a program without input {index}");
            };
            copy(column.values, output);
        }
        Expression::Apply(node) => evaluate_node(node, inputs, output, scratch, 0),
    }
}

/// Slots from `depth` on are free for this node's arguments and theirs.
fn evaluate_node(
    node: &Node,
    inputs: &[Column<'_>],
    output: &mut SliceMut<'_>,
    scratch: &mut Scratch,
    depth: usize,
) {
    let rows = output.len();
    let below = depth + node.arguments.len();
    for (position, argument) in node.arguments.iter().enumerate() {
        if let Expression::Apply(child) = argument {
            if scratch.slots.len() < below {
                scratch.slots.resize_with(below, Slot::default);
            }
            let slot = scratch.slots.get_mut(depth + position);
            let mut slot = slot.map(std::mem::take).unwrap_or_default();
            evaluate_node(
                child,
                inputs,
                &mut slot.slice_mut(child.dtype, rows),
                scratch,
                below,
            );
            if let Some(place) = scratch.slots.get_mut(depth + position) {
                *place = slot;
            }
        }
    }
    let Scratch {
        slots,
        keys,
        hashes,
    } = scratch;
    let arguments = Arguments {
        node,
        inputs,
        slots,
        depth,
    };
    apply(&node.kernel, &arguments, output, keys, hashes);
}

/// A kernel met a type that its program was not compiled for: a fault in `compile.rs`. The SDK turns the panic into an error of the
/// request. To go on would leave the previous request's values in the output.
#[cold]
#[track_caller]
fn mismatch(what: &str) -> ! {
    unreachable!("{what}: the program gives this kernel columns of another type")
}

/// Runs `$body` with `$x` bound to the slice of a numeric column.
macro_rules! numeric {
    ($slice:expr, |$x:ident| $body:expr) => {
        match $slice {
            Slice::Int32($x) => $body,
            Slice::Int64($x) => $body,
            Slice::Float32($x) => $body,
            Slice::Float64($x) => $body,
            Slice::Bool(_) | Slice::String(_) => mismatch(stringify!($body)),
        }
    };
}

/// As `numeric`, with the output slice of the same type.
macro_rules! same_type {
    ($slice:expr, $output:expr, |$x:ident, $y:ident| $body:expr) => {
        match ($slice, $output) {
            (Slice::Int32($x), SliceMut::Int32($y)) => $body,
            (Slice::Int64($x), SliceMut::Int64($y)) => $body,
            (Slice::Float32($x), SliceMut::Float32($y)) => $body,
            (Slice::Float64($x), SliceMut::Float64($y)) => $body,
            _ => mismatch(stringify!($body)),
        }
    };
}

fn apply(
    kernel: &Kernel,
    arguments: &Arguments<'_>,
    output: &mut SliceMut<'_>,
    keys: &mut Vec<u128>,
    hashes: &mut Vec<u64>,
) {
    let column = arguments.get(0);
    match (kernel, output) {
        (Kernel::IsMissing, SliceMut::Bool(out)) => {
            out.fill(false);
            // Texts and truth values are missing only where they are null.
            if !matches!(column.values, Slice::Bool(_) | Slice::String(_)) {
                numeric!(column.values, |x| kernels::map(x, out, Number::is_missing));
            }
            patch(column.valid, out, true);
        }
        (Kernel::Encode(encoder), SliceMut::Int32(out)) => {
            encode(encoder, arguments, out, keys, hashes, |code| code as i32);
        }
        (Kernel::Encode(encoder), SliceMut::Int64(out)) => {
            encode(encoder, arguments, out, keys, hashes, |code| code as i64);
        }
        (Kernel::FindRow(index), SliceMut::Int64(out)) => {
            find(index, arguments, out, keys, |row| {
                if row == ABSENT { -1 } else { i64::from(row) }
            });
        }
        (Kernel::Gather { values, absent }, output) => {
            let Slice::Int64(rows) = column.values else {
                mismatch("Gather");
            };
            let value = |row: i64| {
                usize::try_from(row)
                    .ok()
                    .and_then(|row| values.get(row))
                    .copied()
                    .unwrap_or(*absent)
            };
            match output {
                SliceMut::Int32(out) => kernels::map(rows, out, |row| value(row) as i32),
                SliceMut::Float32(out) => kernels::map(rows, out, |row| value(row) as f32),
                SliceMut::Float64(out) => kernels::map(rows, out, value),
                SliceMut::Int64(_) | SliceMut::Bool(_) => mismatch("Gather"),
            }
        }
        (
            Kernel::OutOfFold {
                all,
                fold,
                p_smooth,
                mean,
            },
            SliceMut::Float32(out),
        ) => {
            let (Slice::Int64(all_rows), Slice::Int64(fold_rows)) =
                (column.values, arguments.get(1).values)
            else {
                mismatch("OutOfFold");
            };
            let totals = |totals: &[(f64, f64)], row: i64| {
                usize::try_from(row)
                    .ok()
                    .and_then(|row| totals.get(row))
                    .copied()
            };
            for ((out, &row), &fold_row) in out.iter_mut().zip(all_rows).zip(fold_rows) {
                *out = match (totals(all, row), totals(fold, fold_row)) {
                    (Some((count, sum)), Some((fold_count, fold_sum))) => {
                        (sum - fold_sum + p_smooth * mean) / (count - fold_count + p_smooth)
                    }
                    _ => *mean,
                } as f32;
            }
        }
        (Kernel::Similarity(left, right), output) => {
            let (a, b) = (column, arguments.get(1));
            let value = |row: usize| match (integer(a, row), integer(b, row)) {
                (Some(a), Some(b)) => left.inner(a, right, b),
                _ => f64::NAN,
            };
            match output {
                SliceMut::Float32(out) => {
                    (out.iter_mut().enumerate()).for_each(|(row, out)| *out = value(row) as f32);
                }
                SliceMut::Float64(out) => {
                    (out.iter_mut().enumerate()).for_each(|(row, out)| *out = value(row));
                }
                _ => mismatch("Similarity"),
            }
        }
        (Kernel::Limit { least, greatest }, output) => {
            let limit = |x: i64| x.clamp(*least, *greatest);
            match (column.values, output) {
                (Slice::Int32(x), SliceMut::Int32(out)) => {
                    kernels::map(x, out, |x| limit(x.into()) as i32);
                }
                (Slice::Int64(x), SliceMut::Int32(out)) => {
                    kernels::map(x, out, |x| limit(x) as i32);
                }
                (Slice::Int64(x), SliceMut::Int64(out)) => kernels::map(x, out, limit),
                _ => mismatch("Limit"),
            }
        }
        (Kernel::ToFloat32, SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::map(x, out, Number::to_f32));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Hash { num_buckets, key }, SliceMut::Int32(out)) => {
            combined_hashes(arguments, *key, hashes, out.len());
            kernels::map(hashes, out, |hash| (hash % num_buckets) as i32);
        }
        (Kernel::Bucketize(boundaries), SliceMut::Int32(out)) => {
            numeric!(column.values, |x| kernels::bucketize(x, boundaries, out));
            patch(column.valid, out, boundaries.len() as i32);
        }
        (Kernel::Log, SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::log(x, out));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Normalize { mean, std }, SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::normalize(x, *mean, *std, out));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Normalize { mean, std }, SliceMut::Float64(out)) => {
            numeric!(column.values, |x| kernels::normalize(x, *mean, *std, out));
            patch(column.valid, out, f64::NAN);
        }
        (Kernel::NormalizeMinMax { min, max }, SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::normalize_min_max(
                x, *min, *max, out
            ));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::NormalizeMinMax { min, max }, SliceMut::Float64(out)) => {
            numeric!(column.values, |x| kernels::normalize_min_max(
                x, *min, *max, out
            ));
            patch(column.valid, out, f64::NAN);
        }
        (Kernel::Clip { min, max }, output) => {
            same_type!(column.values, output, |x, out| kernels::clip(
                x,
                min.map(Number::from_f64),
                max.map(Number::from_f64),
                out
            ));
        }
        (Kernel::Fill(value), SliceMut::Bool(out)) => {
            let Slice::Bool(x) = column.values else {
                mismatch("Fill");
            };
            out.copy_from_slice(x);
            patch(column.valid, out, *value != 0.0);
        }
        (Kernel::Fill(value), output) => {
            same_type!(column.values, output, |x, out| {
                kernels::fill(x, Number::from_f64(*value), out);
                patch(column.valid, out, Number::from_f64(*value));
            });
        }
        (Kernel::DifferenceLag(shift), SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::difference_lag(x, *shift, out));
            for partition in arguments.all().skip(1) {
                mark_boundaries(partition, *shift, out);
            }
            // A null in the column itself has no difference, on either side.
            if column.valid.is_some() {
                let rows = out.len();
                for (row, out) in out.iter_mut().enumerate() {
                    let other = kernels::lagged(row, *shift, rows);
                    if is_null(column, row) || other.is_some_and(|other| is_null(column, other)) {
                        *out = f32::NAN;
                    }
                }
            }
        }
        (Kernel::Time(part, unit), SliceMut::Int32(out)) => match column.values {
            Slice::Int32(x) => kernels::time_part(x, *part, *unit, out),
            Slice::Int64(x) => kernels::time_part(x, *part, *unit, out),
            _ => mismatch("Time"),
        },
        (Kernel::Sine(period), SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::sine(x, *period, out));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Cosine(period), SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::cosine(x, *period, out));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Compare(is, value), SliceMut::Bool(out)) => {
            match column.values {
                // The constant is rounded as NumPy rounds it for such a column.
                Slice::Float32(x) => {
                    let value = *value as f32;
                    kernels::map(x, out, |x| is.meets(x.partial_cmp(&value)));
                }
                Slice::Float64(x) => kernels::map(x, out, |x| is.meets(x.partial_cmp(value))),
                Slice::Int32(x) => {
                    kernels::map(x, out, |x| is.meets(f64::from(x).partial_cmp(value)));
                }
                Slice::Int64(x) => {
                    kernels::map(x, out, |x| is.meets(kernels::order(x, *value)));
                }
                Slice::Bool(_) | Slice::String(_) => mismatch("Compare"),
            }
            patch(column.valid, out, is.meets(None));
        }
        (Kernel::Linear { factor, offset }, SliceMut::Int64(out)) => {
            let (factor, offset) = (*factor as i64, *offset as i64);
            let linear = |x: i64| x.wrapping_mul(factor).wrapping_add(offset);
            match column.values {
                Slice::Int32(x) => kernels::map(x, out, |x| linear(x.into())),
                Slice::Int64(x) => kernels::map(x, out, linear),
                _ => mismatch("Linear"),
            }
        }
        (Kernel::Linear { factor, offset }, SliceMut::Float32(out)) => {
            numeric!(column.values, |x| kernels::map(x, out, |x| {
                (Number::to_f64(x) * factor + offset) as f32
            }));
            patch(column.valid, out, f32::NAN);
        }
        (Kernel::Cast, output) => cast(column, output),
        // Each kernel by its name, so that the compiler asks for the arm of a new one.
        (
            Kernel::IsMissing
            | Kernel::Encode(_)
            | Kernel::FindRow(_)
            | Kernel::OutOfFold { .. }
            | Kernel::ToFloat32
            | Kernel::Hash { .. }
            | Kernel::Bucketize(_)
            | Kernel::Log
            | Kernel::Normalize { .. }
            | Kernel::NormalizeMinMax { .. }
            | Kernel::DifferenceLag(_)
            | Kernel::Time(..)
            | Kernel::Sine(_)
            | Kernel::Cosine(_)
            | Kernel::Compare(..)
            | Kernel::Linear { .. },
            _,
        ) => mismatch("the output"),
    }
}

fn cast(column: Column<'_>, output: &mut SliceMut<'_>) {
    match (column.values, output) {
        (Slice::Bool(x), SliceMut::Int32(out)) => kernels::map(x, out, i32::from),
        (Slice::Bool(x), SliceMut::Int64(out)) => kernels::map(x, out, i64::from),
        (Slice::Bool(x), SliceMut::Float32(out)) => {
            kernels::map(x, out, |x| f32::from(u8::from(x)));
            patch(column.valid, out, f32::NAN);
        }
        (Slice::Bool(x), SliceMut::Float64(out)) => {
            kernels::map(x, out, |x| f64::from(u8::from(x)));
            patch(column.valid, out, f64::NAN);
        }
        (Slice::Int32(x), SliceMut::Int32(out)) => out.copy_from_slice(x),
        (Slice::Int32(x), SliceMut::Int64(out)) => kernels::map(x, out, i64::from),
        // As NumPy does, beyond the range too.
        (Slice::Int64(x), SliceMut::Int32(out)) => kernels::map(x, out, |x| x as i32),
        (Slice::Int64(x), SliceMut::Int64(out)) => out.copy_from_slice(x),
        (values, SliceMut::Float32(out)) => {
            numeric!(values, |x| kernels::map(x, out, Number::to_f32));
            patch(column.valid, out, f32::NAN);
        }
        (values, SliceMut::Float64(out)) => {
            numeric!(values, |x| kernels::map(x, out, Number::to_f64));
            patch(column.valid, out, f64::NAN);
        }
        // Other pairs are refused when a program is compiled.
        _ => mismatch("Cast"),
    }
}

/// An integer column's value; none where it is null.
fn integer(column: Column<'_>, row: usize) -> Option<i64> {
    match column.values {
        _ if !column.is_valid(row) => None,
        Slice::Int32(x) => x.get(row).map(|&x| x.into()),
        Slice::Int64(x) => x.get(row).copied(),
        _ => None,
    }
}

fn copy(values: Slice<'_>, output: &mut SliceMut<'_>) {
    match (values, output) {
        (Slice::Bool(x), SliceMut::Bool(out)) => out.copy_from_slice(x),
        (values, output) => same_type!(values, output, |x, out| out.copy_from_slice(x)),
    }
}

/// Writes `value` where a row is null.
fn patch<T: Copy>(valid: Option<&[bool]>, output: &mut [T], value: T) {
    if let Some(valid) = valid {
        for (out, &valid) in output.iter_mut().zip(valid) {
            if !valid {
                *out = value;
            }
        }
    }
}

/// NaN where a partition column differs from the row `shift` before; a missing value differs from everything.
fn mark_boundaries(partition: Column<'_>, shift: i64, output: &mut [f32]) {
    let rows = output.len();
    for (row, out) in output.iter_mut().enumerate() {
        let same = kernels::lagged(row, shift, rows).is_some_and(|other| {
            !is_null(partition, row)
                && !is_null(partition, other)
                && match partition.values {
                    Slice::Int32(x) => x.get(row) == x.get(other),
                    Slice::Int64(x) => x.get(row) == x.get(other),
                    Slice::Float32(x) => x.get(row) == x.get(other),
                    Slice::Float64(x) => x.get(row) == x.get(other),
                    Slice::Bool(x) => x.get(row) == x.get(other),
                    Slice::String(x) => x.get(row) == x.get(other),
                }
        });
        if !same {
            *out = f32::NAN;
        }
    }
}

fn combined_hashes(arguments: &Arguments<'_>, key: HashKey, hashes: &mut Vec<u64>, rows: usize) {
    hashes.clear();
    hashes.resize(rows, 0);
    for column in arguments.all() {
        let place = |row: usize, hash: u64| {
            let hash = if column.is_valid(row) {
                hash
            } else {
                hash::NULL
            };
            match key {
                HashKey::Value => hash,
                HashKey::ValueAndRow => hash::hash_with_row(hash, row as u64),
            }
        };
        let combined = hashes.iter_mut().enumerate();
        match column.values {
            Slice::String(values) => {
                for ((row, combined), value) in combined.zip(values) {
                    *combined ^= place(row, hash::hash_bytes(value));
                }
            }
            Slice::Bool(values) => {
                for ((row, combined), &value) in combined.zip(values) {
                    *combined ^= place(row, hash::hash_bits(u64::from(value)));
                }
            }
            values => numeric!(values, |x| {
                for ((row, combined), &value) in combined.zip(x) {
                    *combined ^= place(row, hash::hash_bits(value.bits()));
                }
            }),
        }
    }
}

/// Calls `emit` with each row's place in one column's lookup.
#[inline]
fn look_up<T>(
    lookup: &crate::lookup::Lookup,
    column: Column<'_>,
    output: &mut [T],
    emit: impl Fn(u32) -> T,
) where
    T: Copy,
{
    match column.values {
        Slice::Int32(x) => kernels::map(x, output, |v| emit(lookup.int(i64::from(v)))),
        Slice::Int64(x) => kernels::map(x, output, |v| emit(lookup.int(v))),
        Slice::Float32(x) => kernels::map(x, output, |v| emit(lookup.float(f64::from(v)))),
        Slice::Float64(x) => kernels::map(x, output, |v| emit(lookup.float(v))),
        Slice::Bool(x) => kernels::map(x, output, |v| emit(lookup.int(i64::from(v)))),
        Slice::String(x) => kernels::map(x, output, |v| emit(lookup.bytes(v))),
    }
    patch(column.valid, output, emit(lookup.null()));
}

/// Calls `emit` with each row's place in the table.
fn find<T: Copy>(
    index: &KeyIndex,
    arguments: &Arguments<'_>,
    output: &mut [T],
    keys: &mut Vec<u128>,
    emit: impl Fn(u32) -> T,
) {
    let Some(combinations) = &index.combinations else {
        if let Some(lookup) = index.columns.first() {
            look_up(lookup, arguments.get(0), output, emit);
        }
        return;
    };
    const NONE: u128 = u128::MAX;
    keys.clear();
    keys.resize(output.len(), 0);
    for ((lookup, &radix), column) in index
        .columns
        .iter()
        .zip(&combinations.radix)
        .zip(arguments.all())
    {
        let digit = |key: &mut u128, number: u32| {
            *key = if number == ABSENT || *key == NONE {
                NONE
            } else {
                key.wrapping_mul(radix).wrapping_add(u128::from(number))
            };
        };
        for (row, key) in keys.iter_mut().enumerate() {
            let number = if column.is_valid(row) {
                match column.values {
                    Slice::Int32(x) => x.get(row).map(|&x| lookup.int(i64::from(x))),
                    Slice::Int64(x) => x.get(row).map(|&x| lookup.int(x)),
                    Slice::Float32(x) => x.get(row).map(|&x| lookup.float(f64::from(x))),
                    Slice::Float64(x) => x.get(row).map(|&x| lookup.float(x)),
                    Slice::Bool(x) => x.get(row).map(|&x| lookup.int(i64::from(x))),
                    Slice::String(x) => x.get(row).map(|x| lookup.bytes(x)),
                }
            } else {
                Some(lookup.null())
            };
            digit(key, number.unwrap_or(ABSENT));
        }
    }
    kernels::map(keys, output, |key| {
        emit(match key {
            NONE => ABSENT,
            key => combinations.rows.get(&key).copied().unwrap_or(ABSENT),
        })
    });
}

fn encode<T: Copy + PartialEq>(
    encoder: &Encoder,
    arguments: &Arguments<'_>,
    output: &mut [T],
    keys: &mut Vec<u128>,
    hashes: &mut Vec<u64>,
    code: impl Fn(usize) -> T,
) {
    use crate::vocabulary::{Codes, PADDING_CODE};
    let Codes {
        start,
        null,
        unseen,
    } = encoder.vocabulary.codes();
    // With buckets, the code of an unseen value follows from its hash: -1 until then.
    let absent = code(if encoder.num_buckets > 1 {
        usize::MAX
    } else {
        unseen
    });
    find(encoder.vocabulary.index(), arguments, output, keys, |row| {
        if row == ABSENT {
            absent
        } else {
            code(start + row as usize)
        }
    });
    if encoder.num_buckets > 1 {
        combined_hashes(arguments, encoder.hash, hashes, output.len());
        for (out, hash) in output.iter_mut().zip(hashes) {
            if *out == absent {
                *out = code(unseen + (*hash % encoder.num_buckets) as usize);
            }
        }
    }
    // A combination is null only when all its parts are.
    if arguments.all().all(may_be_null) {
        for (row, out) in output.iter_mut().enumerate() {
            if arguments.all().all(|column| is_null(column, row)) {
                *out = code(null);
            }
        }
    }
    if let (Some(padding), 1) = (encoder.padding, arguments.node.arguments.len()) {
        match arguments.get(0).values {
            Slice::Int32(x) => {
                for (out, &x) in output.iter_mut().zip(x) {
                    if i64::from(x) == padding {
                        *out = code(PADDING_CODE);
                    }
                }
            }
            Slice::Int64(x) => {
                for (out, &x) in output.iter_mut().zip(x) {
                    if x == padding {
                        *out = code(PADDING_CODE);
                    }
                }
            }
            _ => {}
        }
    }
}

fn may_be_null(column: Column<'_>) -> bool {
    column.valid.is_some() || matches!(column.values, Slice::Float32(_) | Slice::Float64(_))
}

#[inline]
fn is_null(column: Column<'_>, row: usize) -> bool {
    match column.values {
        _ if !column.is_valid(row) => true,
        Slice::Float32(x) => x.get(row).is_none_or(|x| x.is_nan()),
        Slice::Float64(x) => x.get(row).is_none_or(|x| x.is_nan()),
        _ => false,
    }
}
