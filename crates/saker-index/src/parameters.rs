//! Search parameters by name: `nprobe=8`, `efSearch=64`, several with commas between.

use crate::Error;

/// Splits `a=1,b=2` into names and values. Spaces around names, values and commas are allowed. An empty string has no parameters.
pub(crate) fn parse(text: &str) -> Result<Vec<(&str, f64)>, Error> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(parse_one)
        .collect()
}

fn parse_one(part: &str) -> Result<(&str, f64), Error> {
    let wrong = |reason: &str| Error::Parameter {
        parameter: part.to_owned(),
        reason: reason.to_owned(),
    };
    let (name, value) = part.split_once('=').ok_or_else(|| wrong("has no '='"))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err(wrong("has no name"));
    }
    match value.parse::<f64>() {
        // FAISS turns most values into a size_t, for which a negative one would be enormous.
        Ok(number) if number.is_finite() && number >= 0.0 => Ok((name, number)),
        _ => Err(wrong("its value is not a number of 0 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert_eq!(parse("nprobe=8").unwrap(), [("nprobe", 8.0)]);
        assert_eq!(
            parse(" nprobe = 8 , quantizer_efSearch=64 ").unwrap(),
            [("nprobe", 8.0), ("quantizer_efSearch", 64.0)]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("nprobe", "has no '='"),
            ("=8", "has no name"),
            ("nprobe=many", "not a number"),
            ("nprobe=-1", "0 or more"),
            ("nprobe=NaN", "not a number"),
            ("nprobe=inf", "not a number"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text}: {message}");
            assert!(message.contains(text), "{text}: {message}");
        }
    }
}
