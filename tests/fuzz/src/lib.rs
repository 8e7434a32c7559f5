//! What must hold of grants, wherever they were read from.

use mortise::plugin::grants::{Grant, Grants};

/// Each grant is read back from its line as what it was, and from its flag, where it has one, as what
/// it was but for sizes and times.
///
/// # Panics
///
/// Where it is not.
pub fn verify_printed(grants: &Grants) {
    for grant in grants.iter() {
        let line = grant.line();
        let again = Grants::parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        verify_same(grant, &again, &line);
        assert_eq!(again.lines(), [line]);
        if let Some(flag) = grant.flag() {
            let word = unquoted(flag.strip_prefix("--grant ").expect("a flag has its name"));
            let again = Grants::parse_flag(&word).unwrap_or_else(|error| panic!("{flag}: {error}"));
            verify_same(grant, &again, &flag);
        }
    }
}

fn verify_same(grant: Grant<'_>, again: &Grants, text: &str) {
    let again: Vec<Grant<'_>> = again.iter().collect();
    assert_eq!(again.len(), 1, "{text:?} is not one grant");
    assert!(again[0].covers(grant) && grant.covers(again[0]), "{text:?} says something else");
}

/// What a shell makes of one word.
fn unquoted(word: &str) -> String {
    match word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')) {
        Some(inner) => inner.replace(r"'\''", "'"),
        None => word.to_owned(),
    }
}

/// No text that reaches a terminal, or a line of a log, moves its cursor.
///
/// # Panics
///
/// Where one does.
pub fn verify_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?} has a control character");
}
