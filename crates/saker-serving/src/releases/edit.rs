//! Changing a `config.pbtxt` that stands already, line by line, so that what a person has added stays.
//!
//! Each of these fields is one line where `saker assemble` wrote it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use saker_contract::release::DEPLOYMENT;

/// A string of the protobuf text format. Non-ASCII text stands as it is, in UTF-8.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The line that says which versions Triton loads.
pub fn version_policy(versions: &[u64]) -> String {
    let versions: Vec<String> = versions.iter().map(u64::to_string).collect();
    format!(
        "version_policy: {{ specific {{ versions: [ {} ] }} }}",
        versions.join(", ")
    )
}

/// The line that says how many instances there are.
pub fn instance_group(count: usize) -> String {
    format!("instance_group [ {{ kind: KIND_CPU count: {count} }} ]")
}

/// The line of one parameter.
pub fn parameter(key: &str, value: &str) -> String {
    format!(
        "parameters {{ key: {} value {{ string_value: {} }} }}",
        quote(key),
        quote(value)
    )
}

/// Says which versions Triton loads.
///
/// # Errors
/// The text says it over several lines.
pub fn admit(text: &str, versions: &[u64]) -> Result<String> {
    replace(text, "version_policy", &version_policy(versions))
}

/// Takes the settings that belong to the place and not to a release from another text: instances, and the parameters of
/// [`DEPLOYMENT`].
///
/// # Errors
/// The text says the instances over several lines.
pub fn deploy(text: &str, from: &str) -> Result<String> {
    let instances = from.lines().find(|line| line.starts_with("instance_group"));
    let mut text = match instances {
        Some(line) => replace(text, "instance_group", line)?,
        None => text.to_owned(),
    };
    for (key, value) in parameters(from) {
        if DEPLOYMENT.contains(&key.as_str()) {
            text = set_parameter(&text, &key, &value);
        }
    }
    Ok(text)
}

/// Puts a line in place of the one that starts with `field`, or after `max_batch_size` where there is none.
fn replace(text: &str, field: &str, line: &str) -> Result<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().position(|line| line.starts_with(field)) else {
        let after = lines
            .iter()
            .position(|line| line.starts_with("max_batch_size"));
        lines.insert(after.map_or(lines.len(), |at| at + 1), line);
        return Ok(lines.join("\n") + "\n");
    };
    let open = |bracket| lines[at].matches(bracket).count();
    if open('{') != open('}') || open('[') != open(']') {
        bail!("{field} stands on several lines; write it as one, such as: {line}");
    }
    lines[at] = line;
    Ok(lines.join("\n") + "\n")
}

/// Sets a parameter; text around its line stays.
pub fn set_parameter(text: &str, key: &str, value: &str) -> String {
    let line = parameter(key, value);
    let mut lines: Vec<&str> = text.lines().collect();
    let known = |line: &&str| parse_parameter(line).is_some_and(|(known, _)| known == key);
    match lines.iter().position(known) {
        Some(at) => lines[at] = &line,
        None => lines.push(&line),
    }
    lines.join("\n") + "\n"
}

/// The parameters, those alone that stand on a line of their own.
pub fn parameters(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(parse_parameter).collect()
}

fn parse_parameter(line: &str) -> Option<(String, String)> {
    let rest = line.trim().strip_prefix("parameters")?.trim_start();
    let (key, rest) = string_after(rest, "key:")?;
    let (value, _) = string_after(rest, "string_value:")?;
    Some((key, value))
}

/// The quoted string behind a field's name, and what follows it.
fn string_after<'t>(text: &'t str, field: &str) -> Option<(String, &'t str)> {
    let (_, rest) = text.split_once(field)?;
    let rest = rest.trim_start().strip_prefix('"')?;
    let mut string = String::new();
    let mut characters = rest.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((string, &rest[at + 1..])),
            '\\' => string.push(match characters.next()?.1 {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            other => string.push(other),
        }
    }
    None
}

/// The models of an ensemble's steps, in their order.
pub fn steps(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.trim_start().starts_with("model_name:"))
        .filter_map(|line| Some(string_after(line, "model_name:")?.0))
        .collect()
}

/// The version that all steps of an ensemble are pinned to.
///
/// # Errors
/// They are pinned to none or to several.
pub fn pinned(text: &str) -> Result<u64> {
    let versions = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(PIN))
        .map(|version| {
            let version = version.trim();
            version
                .parse()
                .with_context(|| format!("model_version: {version} pins no version"))
        })
        .collect::<Result<BTreeSet<u64>>>()?;
    match versions.iter().collect::<Vec<_>>()[..] {
        [version] => Ok(*version),
        [] => bail!("its steps name no model_version"),
        [one, other, ..] => {
            bail!("its steps mix the versions {one} and {other}; pin all to one of them")
        }
    }
}

/// Pins all steps of an ensemble to a version.
pub fn pin(text: &str, version: u64) -> String {
    let mut pinned = String::with_capacity(text.len());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().strip_prefix(PIN) {
            Some(_) => pinned.push_str(&format!("{}{PIN} {version}", &line[..indent])),
            None => pinned.push_str(line),
        }
        pinned.push('\n');
    }
    pinned
}

const PIN: &str = "model_version:";

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: &str = "name: \"m\"\nmax_batch_size: 0\n# by hand\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n\
                          parameters { key: \"A\" value { string_value: \"{\\\"x\\\":1}\" } }\n";

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quote(r#"{"gender":-1}"#), r#""{\"gender\":-1}""#);
        assert_eq!(quote("a\\b\n"), r#""a\\b\n""#);
    }

    #[test]
    fn versions_are_admitted_and_the_rest_stays() {
        let text = admit(MEMBER, &[3, 4]).unwrap();
        assert_eq!(
            text,
            MEMBER.replace(
                "# by hand",
                "version_policy: { specific { versions: [ 3, 4 ] } }\n# by hand"
            )
        );
        assert_eq!(admit(&text, &[4]).unwrap(), text.replace("3, 4", "4"));
        let spread = "max_batch_size: 0\nversion_policy: {\n  all { }\n}\n";
        let error = admit(spread, &[1]).unwrap_err().to_string();
        assert!(error.contains("version_policy"), "{error}");
    }

    #[test]
    fn parameters_are_read_and_set() {
        let expected = BTreeMap::from([("A".to_owned(), "{\"x\":1}".to_owned())]);
        assert_eq!(parameters(MEMBER), expected);
        let text = set_parameter(&set_parameter(MEMBER, "A", "a\n\"b\""), "B", "2");
        assert_eq!(parameters(&text)["A"], "a\n\"b\"");
        assert_eq!(parameters(&text)["B"], "2");
        assert_eq!(text.lines().count(), MEMBER.lines().count() + 1);
        assert_eq!(
            deploy(MEMBER, &instance_group(4)).unwrap(),
            MEMBER.replace("count: 1", "count: 4")
        );
    }

    #[test]
    fn an_ensemble_is_pinned_as_a_whole() {
        let text = "step [\n  {\n    model_name: \"a\"\n    model_version: 1\n  },\n  {\n    model_name: \"b\"\n    \
                    model_version: 1\n  }\n]\n";
        assert_eq!(steps(text), ["a", "b"]);
        assert_eq!(pinned(text).unwrap(), 1);
        let next = pin(text, 12);
        assert_eq!(next, text.replace("version: 1", "version: 12"));
        assert_eq!(pinned(&next).unwrap(), 12);
        let mixed = text.replacen("version: 1", "version: 2", 1);
        let error = pinned(&mixed).unwrap_err().to_string();
        assert!(error.contains("1 and 2"), "{error}");
        assert!(pinned(&text.replace("version: 1", "version: -1")).is_err());
        assert!(pinned("name: \"m\"").is_err());
    }
}
