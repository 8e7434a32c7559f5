//! Go's `%q`.

/// A Go string literal in double quotes: `strconv.Quote`.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c => match u32::from(c) {
                code @ 0..=0x7f => quoted.push_str(&format!("\\x{code:02x}")),
                code @ 0x80..=0xffff => quoted.push_str(&format!("\\u{code:04x}")),
                code => quoted.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    quoted.push('"');
    quoted
}

/// Letters, marks, numbers, punctuation, symbols and the plain space.
fn is_printable(c: char) -> bool {
    match c {
        ' '..='~' => true,
        '\0'..='\u{9f}' => false,
        // After a letter `escape_debug` leaves marks alone, as Go does.
        _ => format!("a{c}").escape_debug().nth(1) == Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        // Printed by Go 1.26: fmt.Printf("%q", text).
        for (text, expected) in [
            ("", r#""""#),
            ("--a=b --c=d", r#""--a=b --c=d""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{1b}\u{7f}", r#""\a\b\f\n\r\t\v\x00\x1b\x7f""#),
            ("é日本😀e\u{301}", "\"é日本😀e\u{301}\""),
            ("\u{85}\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}\u{e000}", r#""\u0085\u00a0\u00ad\u200b\u2028\ufeff\ue000""#),
        ] {
            assert_eq!(quote(text), expected);
        }
    }
}
