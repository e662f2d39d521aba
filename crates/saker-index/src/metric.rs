use faiss::MetricType;
use faiss_sys as ffi;

/// How an index compares two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Metric {
    /// Inner product: more is nearer. With L2-normalised vectors this is the cosine.
    InnerProduct,
    /// Squared Euclidean distance: less is nearer.
    L2,
    /// Another one of FAISS's metrics, by its number in `MetricType.h`. Read from a file; not built by this crate.
    Other(u32),
}

impl Metric {
    pub(crate) fn from_native(native: ffi::FaissMetricType) -> Self {
        match native {
            ffi::FaissMetricType_METRIC_INNER_PRODUCT => Metric::InnerProduct,
            ffi::FaissMetricType_METRIC_L2 => Metric::L2,
            other => Metric::Other(other),
        }
    }

    /// `None` for a metric that `faiss` cannot build an index with.
    pub(crate) fn to_native(self) -> Option<MetricType> {
        match self {
            Metric::InnerProduct => Some(MetricType::InnerProduct),
            Metric::L2 => Some(MetricType::L2),
            Metric::Other(_) => None,
        }
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Metric::InnerProduct => formatter.write_str("inner product"),
            Metric::L2 => formatter.write_str("L2"),
            Metric::Other(number) => write!(formatter, "FAISS metric {number}"),
        }
    }
}
