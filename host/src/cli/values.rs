//! Parsers of single flag values.

/// A boolean as Go's `strconv.ParseBool` takes it.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither `true` nor `false`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_booleans_of_go() {
        for (text, value) in [("1", true), ("T", true), ("True", true), ("0", false), ("f", false), ("FALSE", false)] {
            assert_eq!(go_bool(text), Ok(value));
        }
        for text in ["", "yes", "tRUE", "on", "2"] {
            assert!(go_bool(text).is_err(), "{text:?} was accepted");
        }
    }
}
