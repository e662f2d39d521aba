//! Checkpoints: all parameters and Adam's moments, in the safetensors format. From a checkpoint, a model can be measured or trained
//! further.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};

use crate::Error;
use crate::layers::{Dense, Embedding};
use crate::parameter::Parameter;
use crate::ranker::Ranker;
use crate::towers::{Tower, Towers};

const FORMAT: &str = "1";
const KIND: &str = "kind";
const VERSION: &str = "format";

/// The note with the Unix second of the newest training interaction.
pub const LEARNED_UNTIL: &str = "learned_until";

/// A model whose parameters can be listed by name.
pub trait Checkpoint {
    /// The kind of model, stored in the file.
    const KIND: &'static str;

    #[doc(hidden)]
    fn parameters(&mut self) -> Named<'_>;

    /// Writes the parameters and Adam's moments to a temporary file, and renames it to `path`.
    ///
    /// # Errors
    /// Returns [`Error::File`].
    fn save(&mut self, path: &Path) -> Result<(), Error> {
        self.save_with(path, HashMap::new())
    }

    /// Like [`Checkpoint::save`], with notes that [`Checkpoint::notes`] reads.
    ///
    /// # Errors
    /// Returns [`Error::File`].
    fn save_with(&mut self, path: &Path, mut notes: HashMap<String, String>) -> Result<(), Error> {
        let parameters = self.parameters().0;
        let bad = |error: safetensors::SafeTensorError| Error::Checkpoint {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let views = parameters
            .iter()
            .flat_map(|(name, parameter)| {
                let shape = [parameter.rows, parameter.columns];
                parts(parameter).map(move |(part, values)| {
                    let bytes = bytemuck::cast_slice(values);
                    let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes)?;
                    Ok((format!("{name}{part}"), view))
                })
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        notes.insert(KIND.to_owned(), Self::KIND.to_owned());
        notes.insert(VERSION.to_owned(), FORMAT.to_owned());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        }
        let unfinished = path.with_extension("unfinished");
        serialize_to_file(views, Some(notes), &unfinished).map_err(bad)?;
        order_header(&unfinished).map_err(Error::file(&unfinished))?;
        std::fs::rename(&unfinished, path).map_err(Error::file(path))
    }

    /// Reads the notes from a file of [`Checkpoint::save_with`].
    ///
    /// # Errors
    /// Returns [`Error::File`], or [`Error::Checkpoint`] if the file is of another model.
    fn notes(path: &Path) -> Result<HashMap<String, String>, Error> {
        let mut file = File::open(path).map_err(Error::file(path))?;
        let fail = |reason: String| Error::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let header = read_header(&mut file).map_err(Error::file(path))?;
        let header: serde_json::Value =
            serde_json::from_slice(&header).map_err(|error| fail(error.to_string()))?;
        let notes: HashMap<String, String> =
            serde_json::from_value(header["__metadata__"].clone()).unwrap_or_default();
        let found = (notes.get(KIND), notes.get(VERSION));
        if found != (Some(&Self::KIND.to_owned()), Some(&FORMAT.to_owned())) {
            return Err(fail(format!(
                "its kind and version are {found:?}; accepted are {:?}",
                (Self::KIND, FORMAT)
            )));
        }
        Ok(notes)
    }

    /// Reads a file of [`Checkpoint::save`] into a model of the same sizes.
    ///
    /// # Errors
    /// Returns [`Error::File`], or [`Error::Checkpoint`] if the file is of another model, of other sizes or of other features.
    fn load(&mut self, path: &Path) -> Result<(), Error> {
        Self::notes(path)?;
        let bytes = std::fs::read(path).map_err(Error::file(path))?;
        let fail = |reason: String| Error::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
        for (name, parameter) in self.parameters().0 {
            let shape = [parameter.rows, parameter.columns];
            let read = |part: &str| {
                let tensor = tensors
                    .tensor(&format!("{name}{part}"))
                    .map_err(|error| fail(error.to_string()))?;
                if tensor.shape() != shape || tensor.dtype() != Dtype::F32 {
                    return Err(fail(format!(
                        "{name} is {:?} {:?}; the definition and the data need F32 {shape:?}",
                        tensor.dtype(),
                        tensor.shape()
                    )));
                }
                Ok(tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect())
            };
            parameter.values = read("")?;
            parameter.first_moment = read(FIRST)?;
            parameter.second_moment = read(SECOND)?;
        }
        Ok(())
    }
}

/// Reads the header of a safetensors file: eight bytes of length, then JSON. The tensors after it may be large.
fn read_header(file: &mut File) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let size = file.metadata()?.len();
    if length > size {
        let reason = format!("its header would have {length} bytes, but the file has {size}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    Ok(header)
}

/// Sorts the header's entries by name. The library writes the notes in the order of a hash table, which differs between runs, so equal
/// models would give different files.
fn order_header(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let header = read_header(&mut file)?;
    type Entries = BTreeMap<String, BTreeMap<String, serde_json::Value>>;
    let entries: Entries = serde_json::from_slice(&header)?;
    let mut ordered = serde_json::to_vec(&entries)?;
    // Keep the length: spaces after the JSON align the tensors.
    ordered.resize(ordered.len().max(header.len()), b' ');
    if ordered.len() != header.len() {
        let reason = "the sorted header has another length";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    file.seek(io::SeekFrom::Start(8))?;
    file.write_all(&ordered)
}

const FIRST: &str = "#first_moment";
const SECOND: &str = "#second_moment";

fn parts(parameter: &Parameter) -> [(&'static str, &[f32]); 3] {
    [
        ("", &parameter.values),
        (FIRST, &parameter.first_moment),
        (SECOND, &parameter.second_moment),
    ]
}

/// Every parameter with its name.
pub struct Named<'a>(Vec<(String, &'a mut Parameter)>);

impl<'a> Named<'a> {
    fn dense(&mut self, name: &str, layer: &'a mut Dense) {
        self.0.push((format!("{name}.weight"), &mut layer.weight));
        self.0.push((format!("{name}.bias"), &mut layer.bias));
    }

    fn stack(&mut self, name: &str, layers: &'a mut [Dense]) {
        for (place, layer) in layers.iter_mut().enumerate() {
            self.dense(&format!("{name}.{place}"), layer);
        }
    }

    fn embeddings(&mut self, prefix: &str, embeddings: &'a mut [Embedding]) {
        for embedding in embeddings {
            let name = format!("{prefix}embedding.{}", embedding.name);
            self.0.push((name, &mut embedding.table));
        }
    }

    fn projections(&mut self, prefix: &str, projections: &'a mut [(String, Dense)]) {
        for (name, layer) in projections {
            self.dense(&format!("{prefix}projection.{name}"), layer);
        }
    }

    fn tower(&mut self, name: &str, tower: &'a mut Tower) {
        self.embeddings(&format!("{name}."), &mut tower.embeddings);
        if let Some(layer) = &mut tower.projection {
            self.dense(&format!("{name}.continuous"), layer);
        }
        self.projections(&format!("{name}."), &mut tower.pretrained);
        self.stack(&format!("{name}.layer"), &mut tower.layers);
    }
}

impl Checkpoint for Towers {
    const KIND: &'static str = "towers";

    fn parameters(&mut self) -> Named<'_> {
        let mut named = Named(Vec::new());
        named.tower("query", &mut self.query);
        named.tower("candidate", &mut self.candidate);
        named
    }
}

impl Checkpoint for Ranker {
    const KIND: &'static str = "ranker";

    fn parameters(&mut self) -> Named<'_> {
        let mut named = Named(Vec::new());
        named.embeddings("", &mut self.embeddings);
        named.projections("", &mut self.pretrained);
        named.stack("bottom", &mut self.bottom);
        named.stack("top", &mut self.top);
        named
    }
}
