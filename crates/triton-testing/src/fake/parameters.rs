//! The content that a load's error must have if it refuses a parameter.

use super::failure::Failure;

/// Values that most parameters refuse.
const ODD: &[&str] = &[
    "",
    "0",
    "-1",
    "1e400",
    "no\u{a0}thing",
    "{",
    r#"{"nobody": "nothing"}"#,
    r#"{"age": [[]], "device_type": [[]]}"#,
    "redis://nobody:port",
];

/// Loads a model with odd values of every parameter that it accepts, one after the other. `load` takes a parameter and its
/// value. Which parameters there are, the error about an unknown one says.
///
/// # Panics
/// Panics if a load fails without naming the parameter, or none fails.
pub fn parameters_are_named(load: impl Fn(&str, &str) -> Result<(), Failure>) {
    let unknown = "NO_SUCH_PARAMETER";
    let Err(failure) = load(unknown, "7") else {
        panic!("a model takes the parameter {unknown}");
    };
    let (_, accepted) = (failure.message.rsplit_once("accepted: "))
        .unwrap_or_else(|| panic!("no accepted parameters: {}", failure.message));
    let mut refused = 0;
    for key in accepted.split(", ") {
        for value in ODD {
            if let Err(failure) = load(key, value) {
                refused += 1;
                let mut words = (failure.message).split(|letter: char| {
                    !letter.is_ascii_alphanumeric() && !"_.".contains(letter)
                });
                assert!(
                    words.any(|word| word.trim_end_matches('.') == key),
                    "{key} = {value:?}: {}",
                    failure.message
                );
            }
        }
    }
    assert!(refused > 0, "no odd value is refused of: {accepted}");
}
