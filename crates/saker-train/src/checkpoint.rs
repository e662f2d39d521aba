//! Checkpoints: everything that training changes, in the safetensors format, with Adam's moments, so that a model can be
//! measured or trained further.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::Error;
use crate::layers::{Dense, Embedding};
use crate::parameter::Parameter;
use crate::ranker::Ranker;
use crate::towers::{Tower, Towers};

const FORMAT: &str = "1";

/// A model whose parameters can be listed by name.
pub trait Checkpoint {
    /// What kind of model it is, kept in the file.
    const KIND: &'static str;

    #[doc(hidden)]
    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), Error>;

    /// Writes the parameters and Adam's moments to a file, by way of a temporary one beside it.
    ///
    /// # Errors
    /// [`Error::File`]
    fn save(&mut self, path: &Path) -> Result<(), Error> {
        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
        self.visit(&mut Visit(&mut |name, parameter| {
            let shape = vec![parameter.rows, parameter.columns];
            for (part, values) in parts(parameter) {
                let bytes = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                tensors.insert(format!("{name}{part}"), (shape.clone(), bytes));
            }
            Ok(())
        }))?;
        let metadata = HashMap::from([
            ("kind".to_owned(), Self::KIND.to_owned()),
            ("format".to_owned(), FORMAT.to_owned()),
        ]);
        let bad = |error: safetensors::SafeTensorError| Error::Checkpoint {
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let views = tensors
            .iter()
            .map(|(name, (shape, bytes))| {
                Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(bad)?;
        let bytes = serialize(views, Some(metadata)).map_err(bad)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        }
        let unfinished = path.with_extension("unfinished");
        std::fs::write(&unfinished, bytes).map_err(Error::file(&unfinished))?;
        std::fs::rename(&unfinished, path).map_err(Error::file(path))
    }

    /// Reads what [`Checkpoint::save`] wrote into a model of the same sizes.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Checkpoint`] when the file is of another model, of other sizes or of other features.
    fn load(&mut self, path: &Path) -> Result<(), Error> {
        let bytes = std::fs::read(path).map_err(Error::file(path))?;
        let fail = |reason: String| Error::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
        let found = header.metadata().as_ref().and_then(|metadata| {
            Some((
                metadata.get("kind")?.as_str(),
                metadata.get("format")?.as_str(),
            ))
        });
        if found != Some((Self::KIND, FORMAT)) {
            return Err(fail(format!(
                "holds {found:?}, expected {:?}",
                (Self::KIND, FORMAT)
            )));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
        self.visit(&mut Visit(&mut |name, parameter| {
            let shape = [parameter.rows, parameter.columns];
            let read = |part: &str| {
                let tensor = tensors
                    .tensor(&format!("{name}{part}"))
                    .map_err(|error| fail(error.to_string()))?;
                if tensor.shape() != shape || tensor.dtype() != Dtype::F32 {
                    return Err(fail(format!(
                        "{name} is {:?} {:?}, the definition and the data make it F32 {shape:?}",
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
            Ok(())
        }))
    }
}

const FIRST: &str = "#first_moment";
const SECOND: &str = "#second_moment";

fn parts(parameter: &Parameter) -> [(&'static str, &Vec<f32>); 3] {
    [
        ("", &parameter.values),
        (FIRST, &parameter.first_moment),
        (SECOND, &parameter.second_moment),
    ]
}

/// Called with every parameter's name.
pub struct Visit<'a>(&'a mut dyn FnMut(&str, &mut Parameter) -> Result<(), Error>);

impl Visit<'_> {
    fn dense(&mut self, name: &str, layer: &mut Dense) -> Result<(), Error> {
        (self.0)(&format!("{name}.weight"), &mut layer.weight)?;
        (self.0)(&format!("{name}.bias"), &mut layer.bias)
    }

    fn stack(&mut self, name: &str, layers: &mut [Dense]) -> Result<(), Error> {
        layers
            .iter_mut()
            .enumerate()
            .try_for_each(|(place, layer)| self.dense(&format!("{name}.{place}"), layer))
    }

    fn embeddings(&mut self, prefix: &str, embeddings: &mut [Embedding]) -> Result<(), Error> {
        embeddings
            .iter_mut()
            .try_for_each(|of| (self.0)(&format!("{prefix}embedding.{}", of.name), &mut of.table))
    }

    fn projections(
        &mut self,
        prefix: &str,
        projections: &mut [(String, Dense)],
    ) -> Result<(), Error> {
        projections
            .iter_mut()
            .try_for_each(|(name, layer)| self.dense(&format!("{prefix}projection.{name}"), layer))
    }

    fn tower(&mut self, name: &str, tower: &mut Tower) -> Result<(), Error> {
        self.embeddings(&format!("{name}."), &mut tower.embeddings)?;
        if let Some(layer) = &mut tower.projection {
            self.dense(&format!("{name}.continuous"), layer)?;
        }
        self.projections(&format!("{name}."), &mut tower.pretrained)?;
        self.stack(&format!("{name}.layer"), &mut tower.layers)
    }
}

impl Checkpoint for Towers {
    const KIND: &'static str = "towers";

    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        visit.tower("query", &mut self.query)?;
        visit.tower("candidate", &mut self.candidate)
    }
}

impl Checkpoint for Ranker {
    const KIND: &'static str = "ranker";

    fn visit(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        visit.embeddings("", &mut self.embeddings)?;
        visit.projections("", &mut self.pretrained)?;
        visit.stack("bottom", &mut self.bottom)?;
        visit.stack("top", &mut self.top)
    }
}
