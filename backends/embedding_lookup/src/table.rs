//! A table of embeddings and the copying of its rows, as pure functions.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use ndarray::Array2;
use ndarray_npy::ReadNpyExt;

/// Embeddings by code: `[codes, dimension]` f32, row-major.
#[derive(Debug)]
pub struct Table {
    rows: Vec<f32>,
    count: usize,
    dimension: usize,
}

/// Maximum header length in bytes that is read: two dimensions need less than a hundred.
const HEADER: u64 = 4096;

/// Refuses a shape with too many elements to count. ndarray-npy panics on such a shape, even if another dimension is 0.
fn check_shape(file: &mut File) -> Result<(), String> {
    let mut head = Vec::new();
    file.by_ref()
        .take(HEADER)
        .read_to_end(&mut head)
        .and_then(|_| file.rewind())
        .map_err(|error| error.to_string())?;
    let head = String::from_utf8_lossy(&head);
    let shape = head.split_once("shape").map_or("", |(_, rest)| rest);
    let shape = shape.split_once('(').map_or("", |(_, rest)| rest);
    let shape = shape.split_once(')').map_or("", |(shape, _)| shape);
    let mut elements = 1_u64;
    for dimension in shape.split(',').map(str::trim) {
        // The reader itself refuses a dimension that is not a number.
        if dimension.is_empty() || !dimension.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let number = dimension.parse::<u64>().ok();
        elements = number
            .and_then(|number| elements.checked_mul(number.max(1)))
            .filter(|elements| *elements <= u64::from(u32::MAX) << 16)
            .ok_or_else(|| format!("its shape ({shape}) has too many elements"))?;
    }
    Ok(())
}

/// Why a table could not be loaded.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    reason: String,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "cannot read embedding table {}: {}; accepted: a NumPy .npy file of 2 dimensions and type float32",
            self.path.display(),
            self.reason
        )
    }
}

impl Table {
    /// Reads a NumPy file.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is missing or has another format, element type or rank.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let failed = |reason: String| LoadError {
            path: path.to_owned(),
            reason,
        };
        let mut file = File::open(path).map_err(|error| failed(error.to_string()))?;
        check_shape(&mut file).map_err(failed)?;
        let array = Array2::<f32>::read_npy(std::io::BufReader::new(file))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self::from(array))
    }

    /// Number of codes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Number of values per row.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Copies the row of each code. A negative code or a code outside the table gets zeros, like padding (code 0).
    ///
    /// # Shapes
    ///
    /// `codes` is `[n]`, `output` `[n, dimension]` and zero on entry.
    pub fn gather(&self, codes: impl Iterator<Item = i64>, output: &mut [f32]) {
        if self.dimension == 0 {
            return;
        }
        for (code, to) in codes.zip(output.chunks_exact_mut(self.dimension)) {
            let code = usize::try_from(code).ok().filter(|code| *code > 0);
            let start = code.and_then(|code| code.checked_mul(self.dimension));
            let from = start.and_then(|start| self.rows.get(start..)?.get(..self.dimension));
            if let Some(from) = from {
                to.copy_from_slice(from);
            }
        }
    }
}

impl From<Array2<f32>> for Table {
    fn from(array: Array2<f32>) -> Self {
        let (count, dimension) = array.dim();
        // a file in Fortran order is read transposed; the iterator is in row-major order for every layout
        let rows = if array.is_standard_layout() {
            array.into_raw_vec_and_offset().0
        } else {
            array.iter().copied().collect()
        };
        Self {
            rows,
            count,
            dimension,
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ShapeBuilder, array};

    use super::*;

    fn gather(table: &Table, codes: &[i64]) -> Vec<f32> {
        let mut output = vec![0.0; codes.len() * table.dimension()];
        table.gather(codes.iter().copied(), &mut output);
        output
    }

    #[test]
    fn rows_are_found_by_code_and_strangers_are_zero() {
        let table = Table::from(array![[9.0, 9.0], [1.0, 2.0], [3.0, 4.0]]);
        assert_eq!(gather(&table, &[2, 1, 2]), [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(gather(&table, &[0, 3, -1, i64::MAX, i64::MIN]), [0.0; 10]);
        assert_eq!(gather(&table, &[]), [0.0f32; 0]);
    }

    #[test]
    fn a_table_in_fortran_order_has_the_same_rows() {
        let table = array![[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]];
        let mut fortran = Array2::zeros((3, 2).f());
        fortran.assign(&table);
        assert_eq!(gather(&Table::from(fortran), &[1, 2]), [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn the_reference_tables_are_read() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/reference");
        let table = Table::read(&golden.join("lookup_embeddings_image.npy")).unwrap();
        assert_eq!((table.count(), table.dimension()), (703, 64));
        assert!(gather(&table, &[702]).iter().any(|value| *value != 0.0));
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let missing = Table::read(Path::new("no-such.npy"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("no-such.npy"), "{missing}");
        let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = Table::read(&other).unwrap_err().to_string();
        assert!(error.contains("float32"), "{error}");
    }
}
