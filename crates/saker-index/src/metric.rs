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

    pub(crate) fn to_native(self) -> ffi::FaissMetricType {
        match self {
            Metric::InnerProduct => ffi::FaissMetricType_METRIC_INNER_PRODUCT,
            Metric::L2 => ffi::FaissMetricType_METRIC_L2,
            Metric::Other(other) => other,
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
