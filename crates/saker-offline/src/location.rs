//! Addresses: a folder, `file://` or `s3://`.

use std::path::Path as Folder;

use object_store::path::Path;
use object_store::{ObjectStore, parse_url_opts};
use url::Url;

use crate::Error;

/// Opens a location. Returns the storage, and the root's path in it. Creates a missing folder. `settings` are those of the AWS clients,
/// by the names of their environment variables; other settings are ignored.
///
/// # Errors
/// Returns an error if the location is not a folder, a `file://` or an `s3://` address, or if the folder cannot be created.
pub fn open(
    location: &str,
    settings: impl IntoIterator<Item = (String, String)>,
) -> Result<(Box<dyn ObjectStore>, Path), Error> {
    let wrong = |reason: String| Error::Location {
        location: location.to_owned(),
        reason,
    };
    let url = if location.contains("://") {
        Url::parse(location).map_err(|error| wrong(error.to_string()))?
    } else {
        let folder =
            std::path::absolute(Folder::new(location)).map_err(|error| wrong(error.to_string()))?;
        Url::from_directory_path(&folder)
            .map_err(|()| wrong("it is no path of this system".to_owned()))?
    };
    match url.scheme() {
        "s3" => {}
        "file" => {
            let folder = url
                .to_file_path()
                .map_err(|()| wrong("it is no path of this system".to_owned()))?;
            std::fs::create_dir_all(&folder)
                .map_err(|error| wrong(format!("it cannot be made: {error}")))?;
        }
        other => return Err(wrong(format!("'{other}' is no storage that is known here"))),
    }
    let settings = settings
        .into_iter()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value));
    parse_url_opts(&url, settings).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::open;

    #[test]
    fn other_addresses_are_refused_with_what_is_accepted() {
        for location in [
            "gopher://shop/features",
            "s3:/bucket://",
            "http://shop/features",
        ] {
            let error = open(location, []).expect_err("refused").to_string();
            assert!(
                error.contains(location) && error.contains("s3://bucket"),
                "{error}"
            );
        }
    }
}
