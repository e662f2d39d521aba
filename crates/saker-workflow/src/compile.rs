//! From operators and their fitted state to programs, with every type checked.

use std::sync::Arc;

use crate::column::DType;
use crate::definition::{
    Chain, FloatType, Function, Grouping, IntType, Operator, TimeUnit, joined_statistics,
};
use crate::error::Error;
use crate::fitted::Fitted;
use crate::kernels::TimePart;
use crate::program::{Encoder, Expression, Kernel};
use crate::variable::{SmallInt, Variable, apply};
use crate::vocabulary::{GroupTable, Vocabulary};

/// Compiles a chain up to the operator before `until`.
pub(crate) fn chain(
    chain: &Chain,
    fitted: &[Fitted],
    until: usize,
    input: &dyn Fn(&str) -> Result<Variable, Error>,
) -> Result<Vec<Variable>, Error> {
    let mut columns = chain
        .columns
        .iter()
        .map(|name| input(name))
        .collect::<Result<Vec<_>, _>>()?;
    for (operator, fitted) in chain.operators.iter().zip(fitted).take(until) {
        columns = compile(operator, fitted, &columns, input, None)?;
    }
    Ok(columns)
}

/// Compiles one operator over its columns. `input` finds the workflow's input columns, for operators that read some besides theirs;
/// `fold` is the column of the rows' folds, when rows are encoded as the ones that were fitted on.
pub(crate) fn compile(
    operator: &Operator,
    fitted: &Fitted,
    columns: &[Variable],
    input: &dyn Fn(&str) -> Result<Variable, Error>,
    fold: Option<&Variable>,
) -> Result<Vec<Variable>, Error> {
    let mut outputs = kernels(operator, fitted, columns, input, fold)?;
    // What is known of a column holds for what is made of it.
    if outputs.len() == columns.len() {
        for (output, column) in outputs.iter_mut().zip(columns) {
            output.tags.clone_from(&column.tags);
            output.properties.clone_from(&column.properties);
        }
    }
    let (tags, properties) = operator.metadata();
    for output in &mut outputs {
        let new = tags.iter().filter(|tag| !output.tags.contains(tag));
        let new: Vec<String> = new.cloned().collect();
        output.tags.extend(new);
        output.properties.extend(properties.clone());
    }
    Ok(outputs)
}

fn kernels(
    operator: &Operator,
    fitted: &Fitted,
    columns: &[Variable],
    input: &dyn Fn(&str) -> Result<Variable, Error>,
    fold: Option<&Variable>,
) -> Result<Vec<Variable>, Error> {
    let each = |f: &dyn Fn(&Variable) -> Result<Variable, Error>| {
        columns.iter().map(f).collect::<Result<Vec<_>, _>>()
    };
    match operator {
        Operator::Categorify {
            num_buckets,
            encode_type,
            padding,
            dtype,
            hash,
            ..
        } => {
            let Fitted::Vocabularies(vocabularies) = fitted else {
                return Err(not_fitted(operator, columns));
            };
            let dtype = match dtype {
                IntType::Int32 => DType::Int32,
                IntType::Int64 => DType::Int64,
            };
            let encode = |name: String, vocabulary: &Arc<Vocabulary>, keys: &[Variable]| {
                for (key, lookup) in keys.iter().zip(&vocabulary.index().columns) {
                    key.in_nanoseconds()?;
                    check_key(key, lookup.is_string())?;
                }
                let encoder = Encoder {
                    vocabulary: Arc::clone(vocabulary),
                    num_buckets: *num_buckets as u64,
                    padding: *padding,
                    hash: *hash,
                };
                let arguments = keys.iter().map(|key| key.expression.clone()).collect();
                let list = keys.iter().any(|key| key.list);
                let mut column = apply(name, dtype, list, Kernel::Encode(encoder), arguments);
                column.cardinality = Some(vocabulary.cardinality());
                column.vocabulary = Some(Arc::clone(vocabulary));
                Ok(column)
            };
            let vocabulary = |position: usize| {
                vocabularies
                    .get(position)
                    .ok_or_else(|| not_fitted(operator, columns))
            };
            match encode_type {
                Grouping::Separate => columns
                    .iter()
                    .enumerate()
                    .map(|(position, column)| {
                        encode(
                            column.name.clone(),
                            vocabulary(position)?,
                            std::slice::from_ref(column),
                        )
                    })
                    .collect(),
                Grouping::Joint => each(&|column| {
                    encode(
                        column.name.clone(),
                        vocabulary(0)?,
                        std::slice::from_ref(column),
                    )
                }),
                Grouping::Combo => {
                    if columns.len() > 1 {
                        columns.iter().try_for_each(Variable::scalar)?;
                    }
                    Ok(vec![encode(joined(columns, "_"), vocabulary(0)?, columns)?])
                }
            }
        }
        Operator::HashBucket { num_buckets, hash } => each(&|column| {
            column.hashed()?;
            let mut hashed = column.apply(
                DType::Int32,
                Kernel::Hash {
                    num_buckets: u64::from(*num_buckets),
                    key: *hash,
                },
            );
            hashed.cardinality = Some(*num_buckets as usize);
            Ok(hashed)
        }),
        Operator::HashedCross { num_buckets, hash } => {
            columns.iter().try_for_each(Variable::scalar)?;
            columns.iter().try_for_each(Variable::hashed)?;
            let mut crossed = apply(
                joined(columns, "_X_"),
                DType::Int32,
                false,
                Kernel::Hash {
                    num_buckets: u64::from(*num_buckets),
                    key: *hash,
                },
                columns.iter().map(|c| c.expression.clone()).collect(),
            );
            crossed.cardinality = Some(*num_buckets as usize);
            Ok(vec![crossed])
        }
        Operator::Bucketize { boundaries } => each(&|column| {
            let column = &column.number()?;
            let mut buckets = column.apply(DType::Int32, Kernel::Bucketize(boundaries.clone()));
            buckets.cardinality = Some(boundaries.len() + 1);
            Ok(buckets)
        }),
        Operator::LogOp => each(&|column| {
            let column = &column.number()?;
            Ok(column.apply(DType::Float32, Kernel::Log))
        }),
        Operator::Normalize { dtype } => {
            let Fitted::Moments { means, stds } = fitted else {
                return Err(not_fitted(operator, columns));
            };
            each(&|column| {
                let column = &column.number()?;
                let find = |numbers: &std::collections::BTreeMap<String, f64>| {
                    numbers
                        .get(&column.name)
                        .copied()
                        .ok_or_else(|| not_fitted(operator, std::slice::from_ref(column)))
                };
                let (mean, std) = (find(means)?, find(stds)?);
                Ok(column.apply(float(*dtype), Kernel::Normalize { mean, std }))
            })
        }
        Operator::NormalizeMinMax { dtype } => {
            let Fitted::Extremes { mins, maxs } = fitted else {
                return Err(not_fitted(operator, columns));
            };
            each(&|column| {
                let column = &column.number()?;
                let (Some(&min), Some(&max)) = (mins.get(&column.name), maxs.get(&column.name))
                else {
                    return Err(not_fitted(operator, std::slice::from_ref(column)));
                };
                Ok(column.apply(float(*dtype), Kernel::NormalizeMinMax { min, max }))
            })
        }
        Operator::Clip { min, max } => each(&|column| {
            let column = &column.number()?;
            for bound in [min, max].into_iter().flatten() {
                check_whole(column, *bound)?;
            }
            Ok(column.apply(
                column.dtype,
                Kernel::Clip {
                    min: *min,
                    max: *max,
                },
            ))
        }),
        Operator::FillMissing {
            value,
            add_binary_cols,
        } => {
            let mut filled = Vec::new();
            for column in columns {
                column.fillable(*add_binary_cols)?;
                check_whole(column, *value)?;
                filled.push(column.apply(column.dtype, Kernel::Fill(*value)));
                if *add_binary_cols {
                    filled.push(flag(column));
                }
            }
            Ok(filled)
        }
        Operator::FillMedian { add_binary_cols } => {
            let Fitted::Medians { medians } = fitted else {
                return Err(not_fitted(operator, columns));
            };
            let mut filled = Vec::new();
            for column in columns {
                column.fillable(*add_binary_cols)?;
                let median = *medians
                    .get(&column.name)
                    .ok_or_else(|| not_fitted(operator, std::slice::from_ref(column)))?;
                filled.push(column.apply(column.dtype, Kernel::Fill(median)));
                if *add_binary_cols {
                    filled.push(flag(column));
                }
            }
            Ok(filled)
        }
        // The rows of lists are cut by the bulk side; their type stays.
        Operator::ListSlice { .. } => each(&|column| {
            column.require(column.list, "lists")?;
            Ok(column.clone())
        }),
        // NVTabular counts nothing of a column without lists.
        Operator::ValueCount => Ok(columns.to_vec()),
        Operator::DifferenceLag { partition, shift } => {
            let partition = partition
                .iter()
                .map(|name| input(name))
                .collect::<Result<Vec<_>, _>>()?;
            partition.iter().try_for_each(Variable::scalar)?;
            let mut differences = Vec::new();
            for column in columns {
                let column = &column.number()?;
                column.scalar()?;
                for &shift in shift {
                    let arguments = std::iter::once(column)
                        .chain(&partition)
                        .map(|c| c.expression.clone())
                        .collect();
                    differences.push(apply(
                        format!("{}_difference_lag_{shift}", column.name),
                        DType::Float32,
                        false,
                        Kernel::DifferenceLag(shift),
                        arguments,
                    ));
                }
            }
            Ok(differences)
        }
        Operator::JoinGroupby {
            columns: aggregated,
            stats,
            group,
        } => {
            let Fitted::Groups(tables) = fitted else {
                return Err(not_fitted(operator, columns));
            };
            let mut outputs = Vec::new();
            for ((key, members), table) in key_groups(*group, columns).into_iter().zip(tables) {
                let row = find_row(members, table)?;
                for (name, (value, _)) in joined_statistics(&key, aggregated, stats) {
                    let (single, values) = table
                        .column(&name)
                        .ok_or_else(|| not_fitted(operator, members))?;
                    let mean_like = ["_mean", "_std", "_var"]
                        .iter()
                        .any(|suffix| name.ends_with(suffix));
                    let (dtype, absent) = match value {
                        None => (DType::Int32, 0.0),
                        Some(_) if single || mean_like => (DType::Float32, f64::NAN),
                        Some(_) => (DType::Float64, f64::NAN),
                    };
                    let kernel = Kernel::Gather {
                        values: values.to_vec(),
                        absent,
                    };
                    outputs.push(apply(name, dtype, false, kernel, vec![row.clone()]));
                }
            }
            Ok(outputs)
        }
        Operator::TargetEncoding {
            target,
            p_smooth,
            group,
            ..
        } => {
            let Fitted::Target {
                tables,
                mean,
                folds,
            } = fitted
            else {
                return Err(not_fitted(operator, columns));
            };
            let mut outputs = Vec::new();
            let groups = key_groups(*group, columns).into_iter().zip(tables);
            for (position, ((key, members), table)) in groups.enumerate() {
                let totals = |table: &GroupTable, key: &str| {
                    let column = |name: String| {
                        let values = table.column(&name).map(|(_, values)| values);
                        values.ok_or_else(|| not_fitted(operator, members))
                    };
                    let counts = column(format!("{key}_count"))?.iter().copied();
                    let sums = column(format!("{key}_{target}_sum"))?.iter().copied();
                    Ok::<Vec<(f64, f64)>, Error>(counts.zip(sums).collect())
                };
                let all = totals(table, &key)?;
                let row = find_row(members, table)?;
                let (kernel, arguments) = match (fold, folds.get(position)) {
                    (Some(fold), Some(by_fold)) => {
                        let mut keys = members.to_vec();
                        keys.insert(0, fold.clone());
                        let kernel = Kernel::OutOfFold {
                            fold: totals(by_fold, &format!("{}_{key}", fold.name))?,
                            all,
                            p_smooth: *p_smooth,
                            mean: *mean,
                        };
                        (kernel, vec![row, find_row(&keys, by_fold)?])
                    }
                    _ => {
                        let values = all
                            .iter()
                            .map(|(count, sum)| (sum + p_smooth * mean) / (count + p_smooth))
                            .collect();
                        let absent = *mean;
                        (Kernel::Gather { values, absent }, vec![row])
                    }
                };
                let name = format!("TE_{key}_{target}");
                outputs.push(apply(name, DType::Float32, false, kernel, arguments));
            }
            Ok(outputs)
        }
        Operator::ColumnSimilarity { dtype, .. } => {
            let Fitted::Similarity(left, right) = fitted else {
                return Err(not_fitted(operator, columns));
            };
            for column in columns {
                column.scalar()?;
                column.require(
                    column.dtype.is_integer(),
                    "int32 or int64, a row of the matrix",
                )?;
            }
            Ok(vec![apply(
                format!("{}_sim", joined(columns, "_")),
                float(*dtype),
                false,
                Kernel::Similarity(Arc::clone(left), Arc::clone(right)),
                columns.iter().map(|c| c.expression.clone()).collect(),
            )])
        }
        Operator::DropLowCardinality { .. } => {
            let Fitted::Columns { kept } = fitted else {
                return Err(not_fitted(operator, columns));
            };
            let kept = columns.iter().filter(|c| kept.contains(&c.name));
            Ok(kept.cloned().collect())
        }
        Operator::ReduceDtypeSize => {
            let Fitted::Ranges { ranges } = fitted else {
                return Err(not_fitted(operator, columns));
            };
            each(&|column| {
                Ok(match (column.dtype, ranges.get(&column.name)) {
                    (DType::Int32 | DType::Int64, Some(&(min, max))) => reduce(column, min, max),
                    (DType::Float64, _) => column.apply(DType::Float32, Kernel::ToFloat32),
                    _ => column.clone(),
                })
            })
        }
        Operator::DataStats
        | Operator::AddMetadata { .. }
        | Operator::AddTags { .. }
        | Operator::AddProperties { .. }
        | Operator::TagAsUserID
        | Operator::TagAsItemID
        | Operator::TagAsUserFeatures
        | Operator::TagAsItemFeatures => Ok(columns.to_vec()),
        Operator::Rename { .. } => {
            let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
            Ok(operator
                .output_names(&names)
                .into_iter()
                .zip(columns)
                .map(|(name, column)| Variable {
                    name,
                    ..column.clone()
                })
                .collect())
        }
        Operator::Select { columns: names } => names
            .iter()
            .map(|name| {
                let column = columns.iter().find(|column| column.name == *name);
                column.cloned().ok_or_else(|| Error::MissingColumn {
                    column: name.clone(),
                    given: joined(columns, ", "),
                })
            })
            .collect(),
        Operator::LambdaOp(function) => each(&|column| lambda(*function, column)),
    }
}

/// A named function of a column.
fn lambda(function: Function, column: &Variable) -> Result<Variable, Error> {
    let part = |part: TimePart, unit: TimeUnit| {
        column.require(
            column.dtype.is_integer(),
            "int32 or int64 (time since 1970), or datetime",
        )?;
        let unit = column.datetime.unwrap_or(unit);
        Ok(column.apply(DType::Int32, Kernel::Time(part, unit)))
    };
    let mut output = match function {
        Function::Hour { unit } => part(TimePart::Hour, unit)?,
        Function::Weekday { unit } => part(TimePart::Weekday, unit)?,
        Function::Day { unit } => part(TimePart::Day, unit)?,
        Function::Month { unit } => part(TimePart::Month, unit)?,
        Function::Datetime { .. } if column.datetime.is_some() => column.clone(),
        Function::Datetime { unit } => {
            column.require(
                column.dtype.is_integer(),
                "int32 or int64 (time since 1970)",
            )?;
            let mut datetime = column.apply(DType::Int64, Kernel::Cast);
            datetime.datetime = Some(unit);
            datetime
        }
        Function::Sine { period } => {
            let column = &column.number()?;
            column.apply(DType::Float32, Kernel::Sine(period))
        }
        Function::Cosine { period } => {
            let column = &column.number()?;
            column.apply(DType::Float32, Kernel::Cosine(period))
        }
        Function::Compare { is, value } => {
            let column = &column.number()?;
            column.apply(DType::Bool, Kernel::Compare(is, value))
        }
        Function::Linear { factor, offset } => {
            let column = &column.number()?;
            let whole = |x: f64| x.fract() == 0.0 && x.abs() <= LARGEST_WHOLE;
            let exact = column.dtype.is_integer() && whole(factor) && whole(offset);
            let dtype = if exact { DType::Int64 } else { DType::Float32 };
            column.apply(dtype, Kernel::Linear { factor, offset })
        }
        Function::Cast { dtype } => {
            column.require(column.datetime.is_none(), "a number or bool")?;
            let exact = column.dtype.is_integer() || column.dtype == DType::Bool;
            column.require(
                exact || (dtype.is_float() && column.dtype.is_numeric()),
                if dtype.is_float() {
                    "a number or bool"
                } else {
                    "int32, int64 or bool, which keep their value as an integer"
                },
            )?;
            column.apply(dtype, Kernel::Cast)
        }
    };
    output.cardinality = function.cardinality();
    Ok(output)
}

/// Up to here float64 holds every integer.
const LARGEST_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The column in the smallest integer type that holds the range.
fn reduce(column: &Variable, min: f64, max: f64) -> Variable {
    let holds = |least: i64, greatest: i64| min >= least as f64 && max <= greatest as f64;
    let bounds = |small, dtype, least, greatest| (small, dtype, (least, greatest));
    let (small, dtype, (least, greatest)) = if holds(i8::MIN.into(), i8::MAX.into()) {
        bounds(
            Some(SmallInt::Int8),
            DType::Int32,
            i8::MIN.into(),
            i8::MAX.into(),
        )
    } else if holds(i16::MIN.into(), i16::MAX.into()) {
        bounds(
            Some(SmallInt::Int16),
            DType::Int32,
            i16::MIN.into(),
            i16::MAX.into(),
        )
    } else if holds(i32::MIN.into(), i32::MAX.into()) {
        bounds(None, DType::Int32, i32::MIN.into(), i32::MAX.into())
    } else {
        return column.clone();
    };
    let mut reduced = column.apply(dtype, Kernel::Limit { least, greatest });
    reduced.small = small;
    reduced.cardinality = column.cardinality;
    reduced.vocabulary.clone_from(&column.vocabulary);
    reduced
}

fn flag(column: &Variable) -> Variable {
    let mut flag = column.apply(DType::Bool, Kernel::IsMissing);
    flag.name = format!("{}_filled", column.name);
    flag
}

fn float(dtype: FloatType) -> DType {
    match dtype {
        FloatType::Float32 => DType::Float32,
        FloatType::Float64 => DType::Float64,
    }
}

fn joined(columns: &[Variable], separator: &str) -> String {
    let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
    names.join(separator)
}

/// The keys of a grouping with the columns that form each.
pub(crate) fn key_groups(group: Grouping, columns: &[Variable]) -> Vec<(String, &[Variable])> {
    match group {
        Grouping::Separate => columns
            .iter()
            .map(|c| (c.name.clone(), std::slice::from_ref(c)))
            .collect(),
        Grouping::Joint | Grouping::Combo => vec![(joined(columns, "_"), columns)],
    }
}

fn find_row(keys: &[Variable], table: &GroupTable) -> Result<Expression, Error> {
    for (key, lookup) in keys.iter().zip(&table.index.columns) {
        key.scalar()?;
        key.in_nanoseconds()?;
        check_key(key, lookup.is_string())?;
    }
    let row = apply(
        String::new(),
        DType::Int64,
        false,
        Kernel::FindRow(Arc::clone(&table.index)),
        keys.iter().map(|key| key.expression.clone()).collect(),
    );
    Ok(row.expression)
}

fn check_key(key: &Variable, string: bool) -> Result<(), Error> {
    key.require(
        string == (key.dtype == DType::String),
        if string {
            "string, as the fitted keys"
        } else {
            "int32, int64, float32, float64 or bool, as the fitted keys are integers"
        },
    )
}

fn check_whole(column: &Variable, value: f64) -> Result<(), Error> {
    let (low, high) = match column.dtype {
        DType::Int32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::Int64 => (i64::MIN as f64, i64::MAX as f64),
        _ => return Ok(()),
    };
    if value.fract() == 0.0 && (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::Value {
        column: column.name.clone(),
        value: value.to_string(),
        accepted: format!("a whole number in the range of {}", column.dtype),
    })
}

fn not_fitted(operator: &Operator, columns: &[Variable]) -> Error {
    Error::Fit {
        column: joined(columns, ", "),
        operator: operator.name(),
        reason: "the workflow holds no fitted state for it; fit the workflow again".to_owned(),
    }
}
