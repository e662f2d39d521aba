//! The operators of a chain, a file each: parameters, checks, names, fit, arithmetic, and the form that NVTabular gives them.
//!
//! The lists below are the only places that name all operators. [`Transform`] is what each says of itself.

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
