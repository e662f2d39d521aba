//! Vectors on disk, by the hash of encoder and content.
//!
//! A Parquet file of `key` FixedSizeBinary(32) and `vector` FixedSizeList(Float32, width), one row per content; its metadata
//! holds `saker.content` = "1", the version of the format.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, RecordBatch,
};
use arrow::datatypes::{DataType, Field, Float32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use sha2::{Digest as _, Sha256};

use crate::Error;

/// A SHA-256.
pub type Digest = [u8; 32];

const FORMAT: &str = "saker.content";
const VERSION: &str = "1";

/// Hashes parts, so that a different order or different boundaries of the parts give another hash.
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn new(purpose: &str) -> Self {
        Self(Sha256::new()).add(purpose.as_bytes())
    }

    pub(crate) fn add(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
        self
    }

    pub(crate) fn finish(self) -> Digest {
        self.0.finalize().into()
    }
}

/// Vectors by the hash of encoder and content.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    vectors: HashMap<Digest, Vec<f32>>,
    changed: bool,
}

impl Cache {
    /// Opens the cache at `path`. A file that is missing, damaged or of another version counts as empty, and the next write replaces it.
    pub fn open(path: &Path) -> Self {
        let vectors = if path.exists() {
            read(path).unwrap_or_else(|reason| {
                tracing::warn!("ignoring {}: {reason}", path.display());
                HashMap::new()
            })
        } else {
            HashMap::new()
        };
        Self {
            path: path.to_owned(),
            vectors,
            changed: false,
        }
    }

    /// Number of vectors in the cache.
    pub fn len(&self) -> usize {
        self.vectors.len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    pub(crate) fn get(&self, key: &Digest) -> Option<&[f32]> {
        self.vectors.get(key).map(Vec::as_slice)
    }

    pub(crate) fn insert(&mut self, key: Digest, vector: Vec<f32>) {
        self.vectors.insert(key, vector);
        self.changed = true;
    }

    /// Drops all other keys, so that the file never holds more than one catalogue. Also drops vectors that are not `width` wide.
    pub(crate) fn retain(&mut self, keys: &HashSet<Digest>, width: usize) {
        let before = self.vectors.len();
        self.vectors
            .retain(|key, vector| vector.len() == width && keys.contains(key));
        self.changed |= self.vectors.len() != before;
    }

    /// Writes the changed vectors to a temporary file, and renames it. All vectors must be `width` wide.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn save(&mut self, width: usize) -> Result<(), Error> {
        if !self.changed {
            return Ok(());
        }
        write(&self.path, &self.vectors, width).map_err(|reason| Error::Cache {
            path: self.path.clone(),
            reason: reason.to_string(),
        })?;
        self.changed = false;
        Ok(())
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn read(path: &Path) -> Result<HashMap<Digest, Vec<f32>>, Failure> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let version = metadata
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == FORMAT))
        .and_then(|pair| pair.value.clone());
    if version.as_deref() != Some(VERSION) {
        return Err(
            format!("its {FORMAT} is {version:?}; this version reads \"{VERSION}\"").into(),
        );
    }
    let mut vectors = HashMap::new();
    for batch in builder.build()? {
        let batch = batch?;
        let keys = batch
            .column_by_name("key")
            .and_then(|c| c.as_fixed_size_binary_opt());
        let lists = batch
            .column_by_name("vector")
            .and_then(|c| c.as_fixed_size_list_opt());
        let (Some(keys), Some(lists)) = (keys, lists) else {
            return Err("it lacks the columns key and vector".into());
        };
        for row in 0..batch.num_rows() {
            let vector = lists.value(row);
            let values = vector
                .as_primitive_opt::<Float32Type>()
                .ok_or("its vectors are not Float32")?;
            vectors.insert(keys.value(row).try_into()?, values.values().to_vec());
        }
    }
    Ok(vectors)
}

fn write(path: &Path, vectors: &HashMap<Digest, Vec<f32>>, width: usize) -> Result<(), Failure> {
    // Sorted by key, so that the same vectors give the same file.
    let mut rows: Vec<(&Digest, &Vec<f32>)> = vectors.iter().collect();
    rows.sort_by_key(|(key, _)| *key);
    let keys = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|(key, _)| key.as_slice()))?;
    let values =
        Float32Array::from_iter_values(rows.iter().flat_map(|(_, vector)| vector.iter().copied()));
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let lists = FixedSizeListArray::try_new(item, i32::try_from(width)?, Arc::new(values), None)?;
    let columns: [(&str, ArrayRef); 2] = [("key", Arc::new(keys)), ("vector", Arc::new(lists))];
    let batch = RecordBatch::try_from_iter(columns)?;

    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("parquet.new");
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_key_value_metadata(Some(vec![KeyValue::new(
            FORMAT.to_owned(),
            VERSION.to_owned(),
        )]))
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(&beside)?, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(fs::rename(&beside, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Digest {
        Hasher::new("test").add(&[number]).finish()
    }

    #[test]
    fn what_is_saved_is_read_again_and_what_is_not_kept_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/vectors.parquet");
        let mut cache = Cache::open(&path);
        assert!(cache.is_empty());
        for number in 0..3 {
            cache.insert(key(number), vec![f32::from(number), -0.0]);
        }
        cache.save(2).unwrap();
        let mut cache = Cache::open(&path);
        assert_eq!(cache.get(&key(2)), Some([2.0, -0.0].as_slice()));
        cache.retain(&HashSet::from([key(1)]), 2);
        cache.save(2).unwrap();
        let cache = Cache::open(&path);
        assert_eq!((cache.len(), cache.get(&key(0))), (1, None));
        assert!(!path.with_extension("parquet.new").exists());
    }

    #[test]
    fn a_damaged_or_strange_file_counts_as_empty_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors.parquet");
        fs::write(&path, "PAR1 cut off").unwrap();
        let mut cache = Cache::open(&path);
        assert!(cache.is_empty());
        cache.insert(key(1), vec![1.0]);
        cache.save(1).unwrap();
        assert_eq!(Cache::open(&path).len(), 1);

        let numbers: ArrayRef = Arc::new(Float32Array::from(vec![1.0]));
        let batch = RecordBatch::try_from_iter([("vector", numbers)]).unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        assert!(Cache::open(&path).is_empty());
    }

    #[test]
    fn version_1_of_the_format_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cache-1.parquet");
        let vectors = read(&path).unwrap();
        assert_eq!(vectors.len(), 2);
        assert_eq!(vectors[&key(0)], [0.5, -1.5, 3.0]);
        assert_eq!(vectors[&key(1)], [1e-30, 0.0, 2.25]);
    }

    #[test]
    fn borders_of_parts_count() {
        let of = |parts: &[&str]| {
            let hasher = Hasher::new("x");
            parts
                .iter()
                .fold(hasher, |hasher, part| hasher.add(part.as_bytes()))
                .finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["abc"]), of(&["abc", ""]));
    }
}
