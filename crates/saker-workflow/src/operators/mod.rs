//! The operators of a chain, a file each: parameters, checks, names, fit, arithmetic, and the form that NVTabular gives them.
//!
//! The lists below are the only places that name all operators. `Transform` is what each says of itself.

#[macro_use]
mod list;
mod keys;
mod state;
mod transform;

mod add_metadata;
mod bucketize;
mod categorify;
mod clip;
mod column_similarity;
mod data_stats;
mod difference_lag;
mod drop_low_cardinality;
mod fill_median;
mod fill_missing;
mod hash_bucket;
mod hashed_cross;
mod join_groupby;
mod lambda_op;
mod list_slice;
mod log_op;
mod normalize;
mod normalize_min_max;
mod reduce_dtype_size;
mod rename;
mod select;
mod target_encoding;
mod value_count;

#[cfg(feature = "tables")]
pub(crate) use self::keys::grouped;
#[cfg(feature = "tables")]
pub(crate) use self::state::InFitted;
pub(crate) use self::state::State;
#[cfg(feature = "tables")]
pub(crate) use self::transform::GreatestCode;
pub use self::transform::OutputKind;
pub(crate) use self::transform::{Context, Transform};

// In the order in which error messages name them.
operators! {
    categorify::Categorify,
    hash_bucket::HashBucket,
    hashed_cross::HashedCross,
    bucketize::Bucketize,
    log_op::LogOp,
    normalize::Normalize,
    normalize_min_max::NormalizeMinMax,
    clip::Clip,
    fill_missing::FillMissing,
    fill_median::FillMedian,
    list_slice::ListSlice,
    value_count::ValueCount,
    difference_lag::DifferenceLag,
    join_groupby::JoinGroupby,
    target_encoding::TargetEncoding,
    column_similarity::ColumnSimilarity,
    drop_low_cardinality::DropLowCardinality,
    reduce_dtype_size::ReduceDtypeSize,
    data_stats::DataStats,
    add_metadata::AddMetadata,
    add_metadata::AddTags,
    add_metadata::AddProperties,
    add_metadata::TagAsUserID,
    add_metadata::TagAsItemID,
    add_metadata::TagAsUserFeatures,
    add_metadata::TagAsItemFeatures,
    rename::Rename,
    select::Select,
    lambda_op::LambdaOp,
}

// What operators are fitted to: the name in snake_case is the kind in `workflow.json`.
states! {
    Moments(normalize::Moments),
    Extremes(normalize_min_max::Extremes),
    Medians(fill_median::Medians),
    Lengths(value_count::Lengths),
    Vocabularies(categorify::Vocabularies),
    Groups(join_groupby::Groups),
    Target(target_encoding::Target),
    Ranges(reduce_dtype_size::Ranges),
    Statistics(data_stats::Statistics),
    Columns(drop_low_cardinality::Columns),
    Similarity(column_similarity::Matrices),
}

pub use self::data_stats::ColumnStatistics;
pub use self::lambda_op::Function;

#[cfg(test)]
mod tests {
    use super::Operator;

    /// Every operator as it is written, all parameters given.
    const WRITTEN: [&str; 29] = [
        r#"{"op":"Categorify","freq_threshold":2,"max_size":0,"num_buckets":3,"encode_type":"joint","padding":-1,"dtype":"int64","hash":"value_and_row"}"#,
        r#"{"op":"HashBucket","num_buckets":7,"hash":"value"}"#,
        r#"{"op":"HashedCross","num_buckets":7,"hash":"value"}"#,
        r#"{"op":"Bucketize","boundaries":[1.0,2.5]}"#,
        r#"{"op":"LogOp"}"#,
        r#"{"op":"Normalize","dtype":"float32"}"#,
        r#"{"op":"NormalizeMinMax","dtype":"float64"}"#,
        r#"{"op":"Clip","min":-1.0,"max":1.0}"#,
        r#"{"op":"FillMissing","value":3.0,"add_binary_cols":true}"#,
        r#"{"op":"FillMedian","add_binary_cols":false}"#,
        r#"{"op":"ListSlice","start":-3,"end":-1,"pad":true,"pad_value":0.0}"#,
        r#"{"op":"ValueCount"}"#,
        r#"{"op":"DifferenceLag","partition":["user"],"shift":[1,-1]}"#,
        r#"{"op":"JoinGroupby","columns":["price"],"stats":["count","mean"],"group":"combo"}"#,
        r#"{"op":"TargetEncoding","target":"click","p_smooth":20.0,"group":"separate","kfold":3,"fold_seed":7}"#,
        r#"{"op":"ColumnSimilarity","left":"a.parquet","right":"b.parquet","metric":"cosine","dtype":"float32"}"#,
        r#"{"op":"DropLowCardinality","min_cardinality":4}"#,
        r#"{"op":"ReduceDtypeSize"}"#,
        r#"{"op":"DataStats"}"#,
        r#"{"op":"AddMetadata","tags":["item"],"properties":{"unit":"euro"}}"#,
        r#"{"op":"AddTags","tags":["item"]}"#,
        r#"{"op":"AddProperties","properties":{"unit":"euro"}}"#,
        r#"{"op":"TagAsUserID"}"#,
        r#"{"op":"TagAsItemID"}"#,
        r#"{"op":"TagAsUserFeatures"}"#,
        r#"{"op":"TagAsItemFeatures"}"#,
        r#"{"op":"Rename","name":"x","postfix":"_y"}"#,
        r#"{"op":"Select","columns":["x"]}"#,
        r#"{"op":"LambdaOp","function":"hour","unit":"ms"}"#,
    ];

    #[test]
    fn operators_are_written_as_they_are_read() {
        for written in WRITTEN {
            let operator: Operator = serde_json::from_str(written).unwrap();
            assert_eq!(serde_json::to_string(&operator).unwrap(), written);
            let name = format!("{{\"op\":\"{}\"", operator.name());
            assert!(written.starts_with(&name), "{written}");
        }
        let error = serde_json::from_str::<Operator>(r#"{"op":"?"}"#).unwrap_err();
        let accepted = error.to_string().matches('`').count() / 2 - 1;
        assert_eq!(accepted, WRITTEN.len(), "{error}");
    }

    #[test]
    fn parameters_that_an_operator_has_not_are_refused() {
        let error = serde_json::from_str::<Operator>(r#"{"op":"Clip","least":1}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown field `least`, expected `min` or `max`"
        );
        for written in WRITTEN {
            let more = format!("{},\"nonsense\":1}}", &written[..written.len() - 1]);
            let error = serde_json::from_str::<Operator>(&more).expect_err(&more);
            assert!(error.to_string().contains("nonsense"), "{error}");
        }
    }
}
