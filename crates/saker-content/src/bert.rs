//! BERT's encoder (Devlin et al. 2019) on Burn, with weights in Hugging Face's layout.

use std::fs;
use std::path::Path;

use burn::module::Param;
use burn::nn::activation::ActivationConfig;
use burn::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput, TransformerEncoderLayer,
};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::Error;

/// The used fields of `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    model_type: String,
    hidden_act: String,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    pub(crate) hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    layer_norm_eps: f64,
    pub(crate) max_position_embeddings: usize,
    type_vocab_size: usize,
    pub(crate) vocab_size: usize,
}

fn absolute() -> String {
    "absolute".to_owned()
}

impl Config {
    /// Reads and checks `config.json`.
    fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(Error::file(path))?;
        let config: Self =
            serde_json::from_slice(&text).map_err(|error| Error::model(path, error))?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let accepted = [
            ("model_type", &self.model_type, "bert"),
            ("hidden_act", &self.hidden_act, "gelu"),
            (
                "position_embedding_type",
                &self.position_embedding_type,
                "absolute",
            ),
        ];
        for (key, value, accepted) in accepted {
            if value != accepted {
                return Err(Error::model(
                    path,
                    format!("{key} is \"{value}\"; accepted is \"{accepted}\""),
                ));
            }
        }
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(Error::model(
                path,
                format!(
                    "num_attention_heads is {heads}, which does not divide hidden_size, {}",
                    self.hidden_size
                ),
            ));
        }
        Ok(())
    }
}

/// The network: token ids to contextual vectors.
#[derive(Debug)]
pub(crate) struct Bert {
    words: Tensor<2>,
    /// Row i: the sum of the embeddings of position i and of the first token type, which is the only one in use.
    positions: Tensor<2>,
    norm: LayerNorm,
    layers: TransformerEncoder,
    device: Device,
}

impl Bert {
    /// Loads `config.json` and the weights in `bytes`, the content of the folder's `model.safetensors`.
    pub(crate) fn load(folder: &Path, bytes: &[u8]) -> Result<(Self, Config), Error> {
        let config = Config::read(&folder.join("config.json"))?;
        let device = Device::flex();
        let path = folder.join("model.safetensors");
        let tensors =
            SafeTensors::deserialize(bytes).map_err(|error| Error::model(&path, error))?;
        let weights = Weights {
            tensors,
            path: &path,
            device: &device,
        };
        let width = config.hidden_size;
        let embedding = |name: &str, rows| {
            weights.matrix(&format!("embeddings.{name}_embeddings.weight"), rows, width)
        };
        let types = embedding("token_type", config.type_vocab_size)?;
        let positions = embedding("position", config.max_position_embeddings)?;
        let layers = weights.encoder(&config)?;
        let mut norm = LayerNormConfig::new(width)
            .with_epsilon(config.layer_norm_eps)
            .init(&device);
        weights.norm("embeddings.LayerNorm", &mut norm, width)?;
        let bert = Self {
            words: embedding("word", config.vocab_size)?,
            positions: positions + types.narrow(0, 0, 1),
            norm,
            layers,
            device,
        };
        Ok((bert, config))
    }

    /// The last layer's vectors.
    ///
    /// # Shapes
    /// - `ids`: row-major `[rows, length]`, each below `vocab_size`; `length` at most `max_position_embeddings`
    /// - returns `[rows, length, hidden_size]` f32
    pub(crate) fn forward(&self, ids: Vec<i32>, length: usize) -> Tensor<3> {
        let rows = ids.len() / length;
        let width = self.words.dims()[1];
        let ids = Tensor::<1, Int>::from_data(TensorData::from(ids.as_slice()), &self.device);
        let words = self
            .words
            .clone()
            .select(0, ids)
            .reshape([rows, length, width]);
        let positions = self.positions.clone().narrow(0, 0, length).unsqueeze::<3>();
        let embedded = self.norm.forward(words + positions);
        self.layers.forward(TransformerEncoderInput::new(embedded))
    }
}

/// The tensors of a weights file, read by name and expected shape.
struct Weights<'f> {
    tensors: SafeTensors<'f>,
    path: &'f Path,
    device: &'f Device,
}

impl Weights<'_> {
    /// The encoder of a configuration, with the weights of all its layers.
    fn encoder(&self, config: &Config) -> Result<TransformerEncoder, Error> {
        let mut encoder = TransformerEncoderConfig::new(
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_hidden_layers,
        )
        .with_dropout(0.0)
        .with_layer_norm_eps(config.layer_norm_eps)
        .with_activation(ActivationConfig::Gelu)
        .init(self.device);
        for (number, layer) in encoder.layers.iter_mut().enumerate() {
            self.layer(number, layer, config)?;
        }
        Ok(encoder)
    }

    /// Fills a layer of the encoder.
    fn layer(
        &self,
        number: usize,
        layer: &mut TransformerEncoderLayer,
        config: &Config,
    ) -> Result<(), Error> {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{number}.{part}");
        let attention = &mut layer.mha;
        for (part, linear) in [
            ("attention.self.query", &mut attention.query),
            ("attention.self.key", &mut attention.key),
            ("attention.self.value", &mut attention.value),
            ("attention.output.dense", &mut attention.output),
        ] {
            self.linear(&name(part), linear, width, width)?;
        }
        let norm = name("attention.output.LayerNorm");
        self.norm(&norm, &mut layer.norm_1, width)?;
        let feed_forward = &mut layer.pwff;
        let (widens, narrows) = (
            &mut feed_forward.linear_inner,
            &mut feed_forward.linear_outer,
        );
        self.linear(&name("intermediate.dense"), widens, width, inner)?;
        self.linear(&name("output.dense"), narrows, inner, width)?;
        self.norm(&name("output.LayerNorm"), &mut layer.norm_2, width)
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<TensorData, Error> {
        let view = self.tensors.tensor(name).map_err(|_| {
            Error::model(
                self.path,
                format!("has no tensor {name} of {shape:?} numbers"),
            )
        })?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            return Err(Error::model(
                self.path,
                format!(
                    "tensor {name} is {:?} {:?}; config.json needs F32 {shape:?}",
                    view.dtype(),
                    view.shape()
                ),
            ));
        }
        let values: Vec<f32> = view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        Ok(TensorData::new(values, shape.to_vec()))
    }

    fn vector(&self, name: &str, length: usize) -> Result<Tensor<1>, Error> {
        Ok(Tensor::from_data(
            self.values(name, &[length])?,
            self.device,
        ))
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Tensor<2>, Error> {
        Ok(Tensor::from_data(
            self.values(name, &[rows, columns])?,
            self.device,
        ))
    }

    fn linear(
        &self,
        name: &str,
        into: &mut Linear,
        inputs: usize,
        outputs: usize,
    ) -> Result<(), Error> {
        // PyTorch stores [outputs, inputs]. Transpose once here, instead of in every product.
        let weight = self.matrix(&format!("{name}.weight"), outputs, inputs)?;
        let weight = Tensor::from_data(weight.transpose().into_data(), self.device);
        into.weight = Param::from_tensor(weight);
        into.bias = Some(Param::from_tensor(
            self.vector(&format!("{name}.bias"), outputs)?,
        ));
        Ok(())
    }

    fn norm(&self, name: &str, into: &mut LayerNorm, width: usize) -> Result<(), Error> {
        into.gamma = Param::from_tensor(self.vector(&format!("{name}.weight"), width)?);
        into.beta = Some(Param::from_tensor(
            self.vector(&format!("{name}.bias"), width)?,
        ));
        Ok(())
    }
}
