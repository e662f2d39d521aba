//! Pictures of the products: a drawing per category in the item's colours, with a pattern that shows its style.

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree};

use crate::catalogue::Item;
use crate::error::{Error, Result};
use crate::taxonomy::{CATEGORIES, COLOURS, Style};

/// Width and height in pixels, the input size of common image encoders.
pub const SIDE: u32 = 224;

/// The colours of the drawings in `shapes/`; the item's colours replace them.
const MAIN: &str = "#3366cc";
const ACCENT: &str = "#ffcc00";
const LINE: &str = "#223344";

/// An item's picture as an SVG.
pub(crate) fn svg(item: &Item) -> String {
    let (main, accent) = (item.colour().rgb, COLOURS[item.accent].rgb);
    let line = if is_dark(main) { "#8a8f98" } else { "#33373d" };
    let marks = pattern(item.style, accent);
    let fill = if marks.is_empty() {
        format!("fill=\"{main}\"")
    } else {
        "fill=\"url(#cloth)\"".to_owned()
    };
    let background = format!(
        "<defs><pattern id=\"cloth\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\">\
         <rect width=\"8\" height=\"8\" fill=\"{main}\"/>{marks}</pattern></defs>\
         <rect width=\"100\" height=\"100\" fill=\"#eceff3\"/><ellipse cx=\"50\" cy=\"92\" rx=\"38\" ry=\"4\" fill=\"#dde2e8\"/>"
    );
    let drawing = CATEGORIES[item.category]
        .shape
        .replace(&format!("fill=\"{MAIN}\""), &fill)
        .replace(MAIN, main)
        .replace(ACCENT, accent)
        .replace(LINE, line);
    match drawing.split_once('>') {
        Some((root, shapes)) => format!("{root}>{background}{shapes}"),
        None => drawing,
    }
}

/// The marks on a cell of 8 by 8; empty for plain cloth.
fn pattern(style: Style, accent: &str) -> String {
    match style {
        Style::Classic => format!("<path d=\"M2 0V8\" stroke=\"{accent}\" stroke-width=\"0.7\"/>"),
        Style::Sporty => {
            format!("<path d=\"M-2 10L10 -2M2 14L14 2\" stroke=\"{accent}\" stroke-width=\"1.4\"/>")
        }
        Style::Bohemian => {
            format!("<path d=\"M4 1L7 4L4 7L1 4Z\" fill=\"{accent}\" fill-opacity=\"0.7\"/>")
        }
        Style::Glamorous => {
            format!(
                "<circle cx=\"2\" cy=\"2\" r=\"0.9\" fill=\"{accent}\"/><circle cx=\"6\" cy=\"6\" r=\"0.9\" fill=\"{accent}\"/>"
            )
        }
        Style::Outdoor => format!(
            "<path d=\"M0 2H8M2 0V8\" stroke=\"{accent}\" stroke-width=\"1.2\" stroke-opacity=\"0.5\"/>"
        ),
        Style::Casual | Style::Minimal | Style::Streetwear => String::new(),
    }
}

/// Whether a dark outline would be invisible on this `#rrggbb`.
fn is_dark(rgb: &str) -> bool {
    let channel = |at: usize| {
        rgb.get(at..at + 2)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .unwrap_or_default()
    };
    // Rec. 601 luma
    299 * channel(1) + 587 * channel(3) + 114 * channel(5) < 90_000
}

/// An item's picture as a PNG of [`SIDE`] by [`SIDE`] pixels.
///
/// # Errors
/// Returns an error if the renderer refuses the drawing.
pub(crate) fn png(item: &Item) -> Result<Vec<u8>> {
    let failed = |reason: String| Error::Picture {
        item: item.id,
        reason,
    };
    let tree = Tree::from_str(&svg(item), &Options::default())
        .map_err(|error| failed(error.to_string()))?;
    let mut pixels =
        Pixmap::new(SIDE, SIDE).ok_or_else(|| failed("cannot allocate the pixels".to_owned()))?;
    let scale = SIDE as f32 / tree.size().width();
    resvg::render(
        &tree,
        Transform::from_scale(scale, scale),
        &mut pixels.as_mut(),
    );
    pixels
        .encode_png()
        .map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use resvg::tiny_skia::PremultipliedColorU8;

    use super::*;
    use crate::catalogue;
    use crate::settings::{Scale, Settings};

    #[test]
    fn every_drawing_names_the_colours_that_stand_for_the_items() {
        for category in CATEGORIES {
            for colour in [MAIN, ACCENT, LINE] {
                assert!(
                    category.shape.contains(colour),
                    "{} lacks {colour}",
                    category.name
                );
            }
        }
    }

    #[test]
    fn a_picture_shows_the_colour_of_its_item() -> Result<()> {
        let plain = |item: &Item| pattern(item.style, "").is_empty();
        let items = catalogue::items(&Settings::new(Scale::Small));
        for item in items.iter().filter(|item| plain(item)).take(60) {
            let picture = Pixmap::decode_png(&png(item)?).map_err(|error| Error::Picture {
                item: item.id,
                reason: error.to_string(),
            })?;
            assert_eq!((picture.width(), picture.height()), (SIDE, SIDE));
            let is_main = |pixel: &&PremultipliedColorU8| {
                let rgb = format!(
                    "#{:02x}{:02x}{:02x}",
                    pixel.red(),
                    pixel.green(),
                    pixel.blue()
                );
                rgb == item.colour().rgb
            };
            let coloured = picture.pixels().iter().filter(is_main).count();
            let name = CATEGORIES[item.category].name;
            assert!(
                coloured > 600,
                "{name} {}: {coloured} pixels",
                item.colour().name
            );
        }
        Ok(())
    }
}
