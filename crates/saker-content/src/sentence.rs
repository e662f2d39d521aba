//! Sentence-BERT (Reimers & Gurevych 2019): a sentence's vector is the mean of its tokens' contextual vectors.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use tokenizers::{Tokenizer, TruncationParams};

use crate::bert::Bert;
use crate::cache::Hasher;
use crate::encode::Encoder;
use crate::{Digest, Error, to_unit_length};

/// Runs a model in the layout of sentence-transformers.
///
/// The folder holds `config.json` (of a BERT), `model.safetensors` (F32) and `tokenizer.json`. `modules.json`,
/// `sentence_bert_config.json` (`max_seq_length`) and `1_Pooling/config.json` are optional, with the meaning that they have in
/// sentence-transformers. Tokens beyond the limit are cut off.
pub struct SentenceEncoder {
    tokenizer: Tokenizer,
    bert: Bert,
    pooling: Tokens,
    normalize: bool,
    width: usize,
    fingerprint: Digest,
}

/// The token vectors that form the sentence's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tokens {
    Mean,
    First,
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Limit {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
    #[serde(default)]
    pooling_mode_mean_sqrt_len_tokens: bool,
}

impl SentenceEncoder {
    /// Loads the model in `folder`.
    ///
    /// # Errors
    /// Returns an error if a file is missing or requests an unsupported operation. The message names the file and the accepted values.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("model.safetensors");
        let weights = fs::read(&path).map_err(Error::file(&path))?;
        let (bert, config) = Bert::load(folder, &weights)?;
        let mut fingerprint = Hasher::new("sentence 1").add(&weights);
        drop(weights);

        let (mut pooling, mut normalize) = (Tokens::Mean, false);
        for module in read::<Vec<Module>>(&folder.join("modules.json"))?.unwrap_or_default() {
            match module.kind.rsplit('.').next() {
                Some("Transformer") => {}
                Some("Pooling") => pooling = read_pooling(&folder.join(&module.path))?,
                Some("Normalize") => normalize = true,
                _ => {
                    return Err(Error::model(
                        &folder.join("modules.json"),
                        format!(
                            "module {} is not supported; accepted are Transformer, Pooling and Normalize",
                            module.kind
                        ),
                    ));
                }
            }
        }
        let limit = read::<Limit>(&folder.join("sentence_bert_config.json"))?;
        let limit = limit
            .and_then(|limit| limit.max_seq_length)
            .unwrap_or(config.max_position_embeddings)
            .min(config.max_position_embeddings);

        let path = folder.join("tokenizer.json");
        let bytes = fs::read(&path).map_err(Error::file(&path))?;
        let mut tokenizer =
            Tokenizer::from_bytes(&bytes).map_err(|error| Error::model(&path, error))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(Some(TruncationParams {
                max_length: limit,
                ..TruncationParams::default()
            }))
            .map_err(|error| Error::model(&path, error))?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= config.vocab_size {
            return Err(Error::model(
                &path,
                format!(
                    "has the token {largest}, but config.json has a vocabulary of {}",
                    config.vocab_size
                ),
            ));
        }
        let settings = format!("{config:?} {limit} {pooling:?} {normalize}");
        fingerprint = fingerprint.add(&bytes).add(settings.as_bytes());
        Ok(Self {
            tokenizer,
            bert,
            pooling,
            normalize,
            width: config.hidden_size,
            fingerprint: fingerprint.finish(),
        })
    }

    /// The tokens of a text without surrounding whitespace, cut at the limit. The model's special tokens are always present.
    ///
    /// # Errors
    /// Returns an error if the tokenizer refuses the text.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self
            .tokenizer
            .encode(text.trim(), true)
            .map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl Encoder for SentenceEncoder {
    type Input = Vec<u32>;
    const CHUNK: usize = 512;

    fn fingerprint(&self) -> &Digest {
        &self.fingerprint
    }

    fn width(&self) -> usize {
        self.width
    }

    fn read(&self, content: &[u8]) -> Result<Self::Input, String> {
        let text = str::from_utf8(content).map_err(|error| format!("is not UTF-8: {error}"))?;
        self.tokens(text)
    }

    /// Sentences of equal length are encoded together. There is no padding, so a vector does not depend on the other sentences.
    fn encode(&mut self, inputs: &[Self::Input]) -> Result<Vec<Vec<f32>>, Error> {
        /// Bounds the memory of one pass: `[tokens, 4 · hidden_size]` f32 is its largest tensor.
        const TOKENS: usize = 4096;
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|&index| inputs[index].len());
        let mut vectors = vec![Vec::new(); inputs.len()];
        for same in order.chunk_by(|&a, &b| inputs[a].len() == inputs[b].len()) {
            let length = inputs[same[0]].len();
            if length == 0 {
                // A tokenizer without special tokens returns no tokens for an empty text.
                same.iter()
                    .for_each(|&index| vectors[index] = vec![0.0; self.width]);
                continue;
            }
            for batch in same.chunks((TOKENS / length).max(1)) {
                let ids = batch
                    .iter()
                    .flat_map(|&index| &inputs[index])
                    .map(|&id| id as i32)
                    .collect();
                let states = self.bert.forward(ids, length);
                let pooled = match self.pooling {
                    Tokens::Mean => states.mean_dim(1),
                    Tokens::First => states.slice([0..batch.len(), 0..1]),
                };
                let values: Vec<f32> = pooled.into_data().iter::<f32>().collect();
                for (&index, vector) in batch.iter().zip(values.chunks_exact(self.width)) {
                    vectors[index] = vector.to_vec();
                    if self.normalize {
                        to_unit_length(&mut vectors[index]);
                    }
                }
            }
        }
        Ok(vectors)
    }
}

fn read_pooling(folder: &Path) -> Result<Tokens, Error> {
    let path = folder.join("config.json");
    let bytes = fs::read(&path).map_err(Error::file(&path))?;
    let config: PoolingConfig =
        serde_json::from_slice(&bytes).map_err(|error| Error::model(&path, error))?;
    let others = config.pooling_mode_max_tokens || config.pooling_mode_mean_sqrt_len_tokens;
    match (
        config.pooling_mode_mean_tokens,
        config.pooling_mode_cls_token,
    ) {
        (true, false) if !others => Ok(Tokens::Mean),
        (false, true) if !others => Ok(Tokens::First),
        _ => Err(Error::model(
            &path,
            "accepted is exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token",
        )),
    }
}

/// Reads an optional JSON file.
fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(Error::file(path))?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::model(path, error))
}
