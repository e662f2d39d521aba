//! Any ONNX image encoder on ONNX Runtime: CLIP's vision half, a vision transformer, a convolutional network.

use std::ffi::OsString;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, Tensor, TensorElementType};

use crate::cache::Hasher;
use crate::encode::Encoder;
use crate::expose::{expose, outputs};
use crate::{Digest, Error, Preprocessing, to_unit_length};

/// Maximum number of pictures per run of the network.
const BATCH: usize = 8;

/// How an output `[pictures, tokens, width]` becomes one vector per picture. An output `[pictures, width]` is used unchanged. Feature maps,
/// `[pictures, width, height, width]`, are reduced to the mean over their pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// The first token, a vision transformer's class token.
    #[default]
    First,
    /// The mean over the tokens.
    Mean,
}

/// Runs an ONNX model whose only input is pictures, `[pictures, 3, height, width]` f32.
#[derive(Debug)]
pub struct ImageEncoder {
    session: Session,
    path: PathBuf,
    output: String,
    pooling: Pooling,
    preprocessing: Preprocessing,
    /// Pictures per run, height and width.
    batch: usize,
    size: (usize, usize),
    width: usize,
    fingerprint: Digest,
}

impl ImageEncoder {
    /// Loads the model at `path` with the preprocessing of the `preprocessor_config.json` beside it (CLIP's without
    /// one). `runtime` is ONNX Runtime's shared library, of version 1.31 or later.
    ///
    /// `output` names the tensor to read: an output of the model, or any tensor within its graph, such as the layer before a classifier. It
    /// may be omitted if the model has one output, or one called `image_embeds`, as exports of CLIP have.
    ///
    /// # Errors
    /// Returns an error if a file is missing, if it is not an ONNX model, or if its tensors differ. The message names file, tensor and the
    /// accepted tensors.
    pub fn open(
        runtime: &Path,
        path: &Path,
        output: Option<&str>,
        pooling: Pooling,
    ) -> Result<Self, Error> {
        let wrong = |reason: String| Error::model(path, reason);
        let mut bytes = fs::read(path).map_err(Error::file(path))?;
        let preprocessing = Preprocessing::read(path.parent().unwrap_or(Path::new(".")))?;
        let mut hash = Hasher::new("image 1").add(&bytes);
        // Models above 2 GB keep their weights in a file beside the model.
        for suffix in ["_data", ".data"] {
            let mut beside = OsString::from(path);
            beside.push(suffix);
            if Path::new(&beside).is_file() {
                hash = hash.add(&fs::read(&beside).map_err(Error::file(Path::new(&beside)))?);
            }
        }

        let declared =
            outputs(&bytes).map_err(|error| wrong(format!("is not an ONNX model: {error}")))?;
        let output = match (output, declared.as_slice()) {
            (Some(name), _) => name.to_owned(),
            (None, [only]) => only.clone(),
            (None, several) if several.iter().any(|name| name == "image_embeds") => {
                "image_embeds".to_owned()
            }
            (None, several) => {
                return Err(wrong(format!(
                    "has the outputs {}; `output` must name the one to read",
                    several.join(", ")
                )));
            }
        };
        let environment = environment(runtime)?;
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let builder = || -> ort::Result<SessionBuilder> {
            Ok(Session::builder(&environment)?.with_intra_threads(threads)?)
        };
        let session = if declared.contains(&output) {
            // Load by path, since the weights may be in a file beside the model.
            builder()
                .and_then(|mut builder| builder.commit_from_file(path))
                .map_err(|error| wrong(error.to_string()))?
        } else {
            expose(&mut bytes, &output);
            builder()
                .and_then(|mut builder| builder.commit_from_memory(&bytes))
                .map_err(|error| {
                    wrong(format!(
                        "has no output or inner tensor named {output}; its outputs: {} ({error})",
                        declared.join(", ")
                    ))
                })?
        };
        drop(bytes);

        let (batch, size) = input(&session, &preprocessing).map_err(wrong)?;
        let settings = format!("{preprocessing:?} {output} {pooling:?}");
        let mut encoder = Self {
            session,
            path: path.to_owned(),
            output,
            pooling,
            preprocessing,
            batch,
            size,
            width: 0,
            fingerprint: hash.add(settings.as_bytes()).finish(),
        };
        // The graph may not declare the width: a black picture reveals it, and shows that the model runs.
        let (height, width) = size;
        let black = vec![0.0; 3 * height * width];
        encoder.width = encoder.run(&[black])?.first().map_or(0, Vec::len);
        Ok(encoder)
    }

    /// One run of at most `batch` pictures.
    fn run(&mut self, pictures: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
        let path = &self.path;
        let failed = |error: ort::Error| Error::model(path, error);
        let (height, width) = self.size;
        let count = pictures.len();
        let input =
            Tensor::from_array(([count, 3, height, width], pictures.concat())).map_err(failed)?;
        let name = self.session.inputs()[0].name().to_owned();
        let outputs = self.session.run(vec![(name, input)]).map_err(failed)?;
        let output = outputs
            .get(&self.output)
            .ok_or_else(|| Error::model(path, format!("returned no output {}", self.output)))?;
        let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
        let shape: Vec<usize> = shape.iter().map(|&dim| dim.max(0) as usize).collect();
        if shape.first() != Some(&count) || values.is_empty() {
            return Err(Error::model(
                path,
                format!("output {} is {shape:?} for {count} pictures", self.output),
            ));
        }
        let of_one = values.len() / count;
        let pool = |values: &[f32]| pool(values, &shape[1..], self.pooling);
        let vectors: Option<Vec<Vec<f32>>> = values.chunks_exact(of_one).map(pool).collect();
        let mut vectors = vectors.ok_or_else(|| {
            Error::model(
                path,
                format!(
                    "output {} is {shape:?}; accepted are [pictures, width], [pictures, tokens, width] and feature maps, [pictures, width, height, width]",
                    self.output
                ),
            )
        })?;
        vectors.iter_mut().for_each(|vector| to_unit_length(vector));
        Ok(vectors)
    }
}

impl Encoder for ImageEncoder {
    type Input = Vec<f32>;
    const CHUNK: usize = BATCH;

    fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, content: &[u8]) -> Result<Vec<f32>, String> {
        let pixels = self.preprocessing.pixels(content)?;
        Ok(self.preprocessing.numbers(&pixels))
    }

    fn encode(&mut self, inputs: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
        let mut vectors = Vec::with_capacity(inputs.len());
        for batch in inputs.chunks(self.batch) {
            vectors.extend(self.run(batch)?);
        }
        Ok(vectors)
    }
}

/// ONNX Runtime allows one environment per process, which lives until the process ends.
static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

fn environment(runtime: &Path) -> Result<Environment, Error> {
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*environment {
        return Ok(environment.clone());
    }
    let unusable = |error: &dyn std::fmt::Display| Error::Runtime {
        path: runtime.to_owned(),
        reason: error.to_string(),
    };
    let made = ort::init_from(runtime)
        .map_err(|error| unusable(&error))?
        .with_name("content")
        .build()
        .map_err(|error| unusable(&error))?;
    Ok(environment.insert(made).clone())
}

fn names(outlets: &[Outlet]) -> String {
    let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
    names.join(", ")
}

/// Pictures per run, and the pictures' height and width.
fn input(
    session: &Session,
    preprocessing: &Preprocessing,
) -> Result<(usize, (usize, usize)), String> {
    let [input] = session.inputs() else {
        return Err(format!(
            "takes {}; accepted is a model with one input, pictures (for CLIP, the vision model only)",
            names(session.inputs())
        ));
    };
    let kind = input.dtype();
    let shape: Vec<i64> = kind.tensor_shape().map(|s| s.to_vec()).unwrap_or_default();
    let (Some(TensorElementType::Float32), &[batch, channels, height, width]) =
        (kind.tensor_type(), shape.as_slice())
    else {
        return Err(format!(
            "input {} is {kind}; accepted is f32 [pictures, 3, height, width]",
            input.name()
        ));
    };
    let Some((to_width, to_height)) = preprocessing.size() else {
        return Err(
            "preprocessor_config.json produces pictures of different sizes; it needs a crop_size, or a size of height and width"
                .to_owned(),
        );
    };
    let fits = |dim: i64, size: u32| dim < 0 || dim == i64::from(size);
    if !fits(channels, 3) || !fits(height, to_height) || !fits(width, to_width) {
        return Err(format!(
            "input {} is {shape:?}, but preprocessor_config.json (by default CLIP's) makes [3, {to_height}, {to_width}]",
            input.name()
        ));
    }
    let batch = match batch {
        1 => 1,
        batch if batch < 0 => BATCH,
        batch => {
            return Err(format!(
                "input {} takes {batch} pictures per run; accepted are 1 or any number",
                input.name()
            ));
        }
    };
    Ok((batch, (to_height as usize, to_width as usize)))
}

/// One picture's vector; `None` for a shape that is not accepted.
fn pool(values: &[f32], shape: &[usize], pooling: Pooling) -> Option<Vec<f32>> {
    match (shape, pooling) {
        ([_], _) => Some(values.to_vec()),
        (&[_, width], Pooling::First) => Some(values[..width].to_vec()),
        (&[tokens, width], Pooling::Mean) => {
            let mut mean = vec![0.0; width];
            for token in values.chunks_exact(width) {
                mean.iter_mut()
                    .zip(token)
                    .for_each(|(sum, value)| *sum += value);
            }
            mean.iter_mut().for_each(|sum| *sum /= tokens as f32);
            Some(mean)
        }
        (&[_, height, width], _) => {
            let pixels = height * width;
            let mean = |map: &[f32]| map.iter().sum::<f32>() / pixels as f32;
            Some(values.chunks_exact(pixels).map(mean).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_follows_the_shape() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let pool = |shape: &[usize], pooling| super::pool(&values, shape, pooling);
        assert_eq!(pool(&[8], Pooling::Mean), Some(values.to_vec()));
        assert_eq!(pool(&[4, 2], Pooling::First), Some(vec![1.0, 2.0]));
        assert_eq!(pool(&[4, 2], Pooling::Mean), Some(vec![4.0, 5.0]));
        assert_eq!(pool(&[2, 2, 2], Pooling::First), Some(vec![2.5, 6.5]));
        assert_eq!(pool(&[2, 2, 2, 1], Pooling::First), None);
    }
}
