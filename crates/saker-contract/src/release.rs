//! Files that describe releases, and the parameters that belong to none.

/// In each model's version folder: the release, its files and its parameters.
pub const STAMP: &str = "release.json";
/// The format of [`STAMP`] that is written.
pub const STAMP_FORMAT: u32 = 2;
/// At the repository's root: the releases in it.
pub const INDEX: &str = "releases.json";

/// At the repository's root: what the release with this version number says of itself.
#[must_use]
pub fn manifest(version: u64) -> String {
    format!("manifest-{version}.json")
}

/// The version in the name of a manifest, as text; `None` if the name is not that of one.
#[must_use]
pub fn manifest_version(file: &str) -> Option<&str> {
    file.strip_prefix("manifest-")?.strip_suffix(".json")
}

/// The key of the release id in the metadata of an ONNX model.
pub const ONNX_KEY: &str = "saker.release";

/// Parameters that belong to where the models run and not to what was trained: they stand in config.pbtxt, for all releases
/// alike. All others travel with the release that they were assembled for.
pub const DEPLOYMENT: [&str; 8] = [
    "DEADLINE_MS",
    "MAX_USERS",
    "POPULARITY_URL",
    "REDIS_URL",
    "SEEN_URL",
    "THREADS",
    "inter_op_thread_count",
    "intra_op_thread_count",
];
