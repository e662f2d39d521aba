//! The devices that compute tensors.

use std::ops::Range;
use std::str::FromStr;

use burn::tensor::Device as Backend;

use crate::Error;

/// The CPU, or a GPU if the crate is built with the feature `cuda`.
#[derive(Clone, Debug)]
pub struct Device {
    backend: Backend,
    /// Rows per block of one thread, so that the block's data stay in its cache; `None`: all rows at once.
    block: Option<usize>,
}

impl Device {
    /// All cores of the CPU. Results do not depend on their number.
    pub fn cpu() -> Self {
        Self {
            backend: Backend::flex(),
            block: Some(256),
        }
    }

    /// The CUDA device of this number.
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Self {
        Self {
            backend: Backend::cuda(index),
            block: None,
        }
    }

    /// The device for tensors with automatic differentiation.
    pub(crate) fn learning(&self) -> Backend {
        self.backend.clone().autodiff()
    }

    /// The device for tensors without automatic differentiation.
    pub(crate) fn plain(&self) -> Backend {
        self.backend.clone()
    }

    /// Splits rows into the blocks in which they are computed.
    pub(crate) fn blocks(&self, rows: usize) -> Vec<Range<usize>> {
        let block = self.block.unwrap_or(rows).max(1);
        (0..rows)
            .step_by(block)
            .map(|from| from..(from + block).min(rows))
            .collect()
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::cpu()
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `cuda` or `cuda:1`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let unknown = || {
            Error::Device(format!(
                "device \"{text}\" does not exist; accepted: cpu, cuda, cuda:<number>"
            ))
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::cpu()),
            None if text == "cuda" => cuda(0),
            Some(("cuda", number)) => cuda(number.parse().map_err(|_| unknown())?),
            _ => Err(unknown()),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, Error> {
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(index: usize) -> Result<Device, Error> {
    Err(Error::Device(format!(
        "device cuda:{index} needs a program built with the feature cuda: cargo build --release --features cuda"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_rows_once() {
        assert_eq!(Device::cpu().blocks(600), [0..256, 256..512, 512..600]);
        assert!(Device::cpu().blocks(0).is_empty());
    }

    #[test]
    fn a_device_is_named() {
        assert!("cpu".parse::<Device>().is_ok());
        for unknown in ["gpu", "cuda:x", "cpu:1"] {
            let error = unknown.parse::<Device>().unwrap_err().to_string();
            assert!(
                error.contains(unknown) && error.contains("accepted"),
                "{error}"
            );
        }
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_says_which_feature_it_needs() {
        let error = "cuda:1".parse::<Device>().unwrap_err().to_string();
        assert!(
            error.contains("cuda:1") && error.contains("--features cuda"),
            "{error}"
        );
    }
}
