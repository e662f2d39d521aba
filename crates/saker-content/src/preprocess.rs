//! Turns a picture's file into the input of an image encoder, by `preprocessor_config.json`.

use std::fs;
use std::path::Path;

use image::imageops::{self, FilterType};
use image::{ImageReader, Limits, RgbImage};
use serde::Deserialize;

use crate::Error;

/// Resizing, cropping and normalising of pictures. The default is CLIP's (Radford et al. 2021): resize the shorter side to 224 with a
/// bicubic filter, crop the middle 224 × 224, and normalise by the mean and deviation of CLIP's training pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    resize: Option<Resize>,
    filter: FilterType,
    crop: Option<(u32, u32)>,
    scale: f32,
    mean: [f32; 3],
    deviation: [f32; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// Length of the shorter side; the picture keeps its proportions.
    Shorter(u32),
    /// Width and height.
    To(u32, u32),
}

impl Default for Preprocessing {
    fn default() -> Self {
        Self {
            resize: Some(Resize::Shorter(224)),
            filter: FilterType::CatmullRom,
            crop: Some((224, 224)),
            scale: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            deviation: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// Hugging Face's file; missing fields have CLIP's values.
#[derive(Deserialize)]
struct Config {
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    resample: Option<u32>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f64>,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u32),
    Shorter { shortest_edge: u32 },
    To { height: u32, width: u32 },
}

impl Preprocessing {
    /// Reads `preprocessor_config.json` in `folder`; returns CLIP's settings if the file does not exist.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or requests an unsupported operation. The message names the key and the accepted values.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("preprocessor_config.json");
        if !path.exists() {
            return Ok(Self::default());
        }
        let bytes = fs::read(&path).map_err(Error::file(&path))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|config| Self::of(&config))
            .map_err(|reason| Error::model(&path, reason))
    }

    fn of(config: &Config) -> Result<Self, String> {
        let clip = Self::default();
        let resize = match config.size {
            _ if !config.do_resize => None,
            None => clip.resize,
            Some(
                Size::Number(side)
                | Size::Shorter {
                    shortest_edge: side,
                },
            ) => Some(Resize::Shorter(side)),
            Some(Size::To { height, width }) => Some(Resize::To(width, height)),
        };
        // Hugging Face's processors that resize to height and width crop only if the file says so.
        let cropped = config
            .do_center_crop
            .unwrap_or(!matches!(resize, Some(Resize::To(..))));
        let crop = match config.crop_size {
            _ if !cropped => None,
            None => clip.crop,
            Some(
                Size::Number(side)
                | Size::Shorter {
                    shortest_edge: side,
                },
            ) => Some((side, side)),
            Some(Size::To { height, width }) => Some((width, height)),
        };
        // The numbers of Pillow's filters.
        let filter = match config.resample {
            Some(0) => FilterType::Nearest,
            Some(1) => FilterType::Lanczos3,
            Some(2) => FilterType::Triangle,
            None | Some(3) => FilterType::CatmullRom,
            Some(other) => {
                return Err(format!(
                    "resample is {other}; accepted are 0 (nearest), 1 (Lanczos), 2 (bilinear) and 3 (bicubic)"
                ));
            }
        };
        let scale = match (config.do_rescale, config.rescale_factor) {
            (false, _) => 1.0,
            (true, None) => clip.scale,
            (true, Some(factor)) => factor as f32,
        };
        let (mean, deviation) = if config.do_normalize {
            (
                config.image_mean.unwrap_or(clip.mean),
                config.image_std.unwrap_or(clip.deviation),
            )
        } else {
            ([0.0; 3], [1.0; 3])
        };
        let sides = [
            match resize {
                Some(Resize::Shorter(side)) => side,
                Some(Resize::To(width, height)) => width.min(height),
                None => 1,
            },
            crop.map_or(1, |(width, height)| width.min(height)),
        ];
        if sides.contains(&0) {
            return Err("size and crop_size must be at least 1 pixel".to_owned());
        }
        if deviation.contains(&0.0) {
            return Err(format!(
                "image_std is {deviation:?}; accepted are numbers other than 0"
            ));
        }
        Ok(Self {
            resize,
            filter,
            crop,
            scale,
            mean,
            deviation,
        })
    }

    /// Width and height of the result; `None` if they depend on the picture.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.crop.or(match self.resize {
            Some(Resize::To(width, height)) => Some((width, height)),
            _ => None,
        })
    }

    /// Decodes a PNG, JPEG or WebP file, resizes and crops it. An alpha channel is dropped, as CLIP's processor does.
    ///
    /// # Errors
    /// Returns an error if the file is not such a picture, is damaged, or exceeds 16384 pixels per side.
    pub fn pixels(&self, file: &[u8]) -> Result<RgbImage, String> {
        let mut limits = Limits::default();
        limits.max_image_width = Some(1 << 14);
        limits.max_image_height = Some(1 << 14);
        let mut reader = ImageReader::new(std::io::Cursor::new(file))
            .with_guessed_format()
            .map_err(|error| error.to_string())?;
        if reader.format().is_none() {
            return Err("is not a PNG, JPEG or WebP file".to_owned());
        }
        reader.limits(limits);
        let picture = reader.decode().map_err(|error| error.to_string())?;
        let mut picture = picture.into_rgb8();
        let (width, height) = picture.dimensions();
        let to = match self.resize {
            None => (width, height),
            Some(Resize::To(width, height)) => (width, height),
            Some(Resize::Shorter(side)) => {
                let longer = |of: u32, by: u32| {
                    u32::try_from(u64::from(side) * u64::from(of) / u64::from(by))
                        .unwrap_or(u32::MAX)
                };
                if width <= height {
                    (side, longer(height, width))
                } else {
                    (longer(width, height), side)
                }
            }
        };
        if to.0.max(to.1) > 1 << 14 {
            return Err(format!(
                "is {width} × {height} pixels, which would be resized to {} × {}",
                to.0, to.1
            ));
        }
        if to != (width, height) {
            picture = imageops::resize(&picture, to.0, to.1, self.filter);
        }
        let Some((width, height)) = self.crop else {
            return Ok(picture);
        };
        // A picture smaller than the crop gets a black border.
        let mut cropped = RgbImage::new(width, height);
        let offset = |outer: u32, inner: u32| (i64::from(inner) - i64::from(outer)).div_euclid(2);
        imageops::replace(
            &mut cropped,
            &picture,
            -offset(width, to.0),
            -offset(height, to.1),
        );
        Ok(cropped)
    }

    /// The normalised pixels of a picture: `[3, height, width]` f32, red first.
    pub fn numbers(&self, picture: &RgbImage) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(picture.as_raw().len());
        for channel in 0..3 {
            let (mean, deviation) = (self.mean[channel], self.deviation[channel]);
            let of = |pixel: &image::Rgb<u8>| {
                (f32::from(pixel.0[channel]) * self.scale - mean) / deviation
            };
            numbers.extend(picture.pixels().map(of));
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Preprocessing, String> {
        Preprocessing::of(&serde_json::from_str(json).unwrap())
    }

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbImage::from_fn(width, height, |x, _| image::Rgb([x as u8, 9, 0]));
        let mut file = std::io::Cursor::new(Vec::new());
        picture
            .write_to(&mut file, image::ImageFormat::Png)
            .unwrap();
        file.into_inner()
    }

    #[test]
    fn an_empty_config_is_clips() {
        assert_eq!(of("{}").unwrap(), Preprocessing::default());
        let old = r#"{"size": 224, "crop_size": 224, "resample": 3, "do_center_crop": true}"#;
        assert_eq!(of(old).unwrap(), Preprocessing::default());
    }

    #[test]
    fn a_height_and_a_width_are_not_cropped_unless_told() {
        let siglip = r#"{"size": {"height": 20, "width": 30}, "resample": 2, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5]}"#;
        let siglip = of(siglip).unwrap();
        assert_eq!(siglip.size(), Some((30, 20)));
        let pixels = siglip.pixels(&png(7, 90)).unwrap();
        assert_eq!(pixels.dimensions(), (30, 20));
        assert_eq!(siglip.numbers(&pixels).len(), 3 * 20 * 30);
        let bare = of(
            r#"{"do_resize": false, "do_center_crop": false, "do_rescale": false, "do_normalize": false}"#,
        );
        let bare = bare.unwrap();
        let pixels = bare.pixels(&png(4, 1)).unwrap();
        assert_eq!(
            bare.numbers(&pixels)[..8],
            [0.0, 1.0, 2.0, 3.0, 9.0, 9.0, 9.0, 9.0]
        );
        assert_eq!(bare.size(), None);
    }

    #[test]
    fn what_is_not_done_is_refused() {
        assert!(
            of(r#"{"resample": 4}"#)
                .unwrap_err()
                .contains("resample is 4")
        );
        assert!(of(r#"{"size": 0}"#).unwrap_err().contains("1 pixel"));
        assert!(
            of(r#"{"image_std": [1, 0, 1]}"#)
                .unwrap_err()
                .contains("image_std")
        );
    }

    #[test]
    fn the_crop_is_the_middle_and_pads_what_is_smaller() {
        let crop = Preprocessing {
            resize: None,
            crop: Some((2, 2)),
            ..Preprocessing::default()
        };
        let cut = crop.pixels(&png(5, 4)).unwrap();
        assert_eq!((cut[(0, 0)].0, cut[(1, 1)].0), ([1, 9, 0], [2, 9, 0]));
        let wide = Preprocessing {
            crop: Some((5, 3)),
            ..crop
        };
        let padded = wide.pixels(&png(3, 1)).unwrap();
        assert_eq!(padded[(1, 1)].0, [0, 9, 0]);
        assert_eq!(padded[(3, 1)].0, [2, 9, 0]);
        assert_eq!(padded[(0, 1)].0, [0, 0, 0]);
        assert_eq!(padded[(2, 0)].0, [0, 0, 0]);
    }

    #[test]
    fn what_is_no_picture_says_so() {
        let clip = Preprocessing::default();
        assert_eq!(
            clip.pixels(b"hello"),
            Err("is not a PNG, JPEG or WebP file".to_owned())
        );
        let png = png(9, 9);
        assert!(clip.pixels(&png[..png.len() / 2]).is_err());
        // A picture of one row of 16000 pixels would become 3.5 million wide.
        assert!(
            clip.pixels(&self::png(16_000, 1))
                .unwrap_err()
                .contains("resized")
        );
    }
}
