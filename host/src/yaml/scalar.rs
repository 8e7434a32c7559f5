//! How a scalar is written: quoted if it would be read as something else, or could not be read at all.

use serde_json::Number;

/// Form of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

/// The form go-yaml gives to a string (`stringv`, then `yaml_emitter_select_scalar_style`).
pub(super) fn style(text: &str, key: bool) -> Style {
    let allowed = analyze(text);
    let wanted = if text.contains('\n') {
        Style::Literal
    } else if is_other_type(text) {
        Style::DoubleQuoted
    } else {
        Style::Plain
    };
    match wanted {
        _ if key && allowed.multiline => Style::DoubleQuoted,
        // go-yaml writes such a key plain, and then takes it for a merge.
        _ if key && text == "<<" => Style::DoubleQuoted,
        Style::Plain if allowed.plain => Style::Plain,
        Style::Plain if allowed.single_quoted => Style::SingleQuoted,
        Style::Literal if allowed.block => Style::Literal,
        _ => Style::DoubleQuoted,
    }
}

#[derive(Debug)]
struct Allowed {
    multiline: bool,
    plain: bool,
    single_quoted: bool,
    block: bool,
}

fn analyze(text: &str) -> Allowed {
    let characters: Vec<char> = text.chars().collect();
    let (Some(first), Some(last)) = (characters.first().copied(), characters.last().copied()) else {
        return Allowed { multiline: false, plain: true, single_quoted: true, block: false };
    };
    let mut indicators = text.starts_with("---") || text.starts_with("...");
    let (mut special, mut break_then_space, mut space_then_break) = (false, false, false);
    for (index, c) in characters.iter().copied().enumerate() {
        let before = index.checked_sub(1).map(|index| characters[index]);
        let blank_follows = characters.get(index + 1).is_none_or(|next| matches!(next, ' ' | '\t'));
        indicators |= match (c, before) {
            ('#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`', None) => {
                true
            }
            ('?' | ':' | '-', None) | (':', Some(_)) => blank_follows,
            ('#', Some(before)) => before == ' ' || before == '\t' || before == '\0' || is_break(before),
            _ => false,
        };
        special |= !is_printable(c);
        break_then_space |= c == ' ' && before.is_some_and(is_break);
        space_then_break |= is_break(c) && before == Some(' ');
    }
    let multiline = characters.iter().copied().any(is_break);
    let framed = |c: char| c == ' ' || is_break(c);
    let unquotable = space_then_break || special;
    Allowed {
        multiline,
        plain: !(framed(first) || framed(last) || break_then_space || unquotable || multiline || indicators),
        single_quoted: !(break_then_space || unquotable),
        block: !(last == ' ' || unquotable),
    }
}

pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Characters beyond the basic plane are escaped, as go-yaml does.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

pub(super) fn needs_escape(c: char) -> bool {
    !is_printable(c) || is_break(c) || matches!(c, '"' | '\\')
}

pub(super) fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        _ => {
            return match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02X}"),
                code @ 0x100..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// As Go's `strconv` writes it: integers as they are, the rest with format `g` and as few digits as needed.
pub(super) fn number(number: &Number) -> String {
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (None, None, Some(float)) => go_float(float),
        _ => number.to_string(),
    }
}

fn go_float(float: f64) -> String {
    /// Go's `g` with as few digits as needed writes other numbers with an exponent.
    const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..6;
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if PLAIN_EXPONENTS.contains(&exponent) {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Whether go-yaml reads this plain text as anything but a string (`resolve`), or other readers might.
fn is_other_type(text: &str) -> bool {
    let Some(first) = text.chars().next() else { return true };
    match first {
        'y' | 'Y' | 'n' | 'N' | 't' | 'T' | 'f' | 'F' | 'o' | 'O' | '~' => is_word(text),
        '.' => is_word(text) || is_finite_float(text),
        '+' | '-' | '0'..='9' => is_word(text) || is_timestamp(text) || is_numeric(text) || is_base_60(text),
        _ => false,
    }
}

fn is_word(text: &str) -> bool {
    matches!(
        text,
        "y" | "Y"
            | "yes"
            | "Yes"
            | "YES"
            | "true"
            | "True"
            | "TRUE"
            | "on"
            | "On"
            | "ON"
            | "n"
            | "N"
            | "no"
            | "No"
            | "NO"
            | "false"
            | "False"
            | "FALSE"
            | "off"
            | "Off"
            | "OFF"
            | "~"
            | "null"
            | "Null"
            | "NULL"
            | ".nan"
            | ".NaN"
            | ".NAN"
            | ".inf"
            | ".Inf"
            | ".INF"
            | "+.inf"
            | "+.Inf"
            | "+.INF"
            | "-.inf"
            | "-.Inf"
            | "-.INF"
    )
}

fn is_numeric(text: &str) -> bool {
    let plain = text.replace('_', "");
    let (sign, unsigned) = match plain.strip_prefix(['+', '-']) {
        Some(unsigned) => (plain.chars().next(), unsigned),
        None => (None, plain.as_str()),
    };
    let prefixed = |lower: &str, upper: &str| unsigned.strip_prefix(lower).or_else(|| unsigned.strip_prefix(upper));
    let (digits, radix) = if let Some(digits) = prefixed("0x", "0X") {
        (digits, 16)
    } else if let Some(digits) = prefixed("0b", "0B") {
        (digits, 2)
    } else if let Some(digits) = prefixed("0o", "0O") {
        (digits, 8)
    } else if unsigned.len() > 1 && unsigned.starts_with('0') {
        (&unsigned[1..], 8)
    } else {
        (unsigned, 10)
    };
    // Rust would take another sign here.
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    let fits = u64::from_str_radix(digits, radix).is_ok_and(|value| match sign {
        None => true,
        Some('-') => value <= i64::MIN.unsigned_abs(),
        Some(_) => i64::try_from(value).is_ok(),
    });
    // Only this prefix may have its sign behind.
    let binary = plain.strip_prefix("0b").is_some_and(|digits| i64::from_str_radix(digits, 2).is_ok());
    all_digits && fits || binary || is_decimal(unsigned) && is_finite_float(unsigned)
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let mantissa = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, "")) => digits(whole),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(mantissa),
    };
    mantissa && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)))
}

fn is_finite_float(text: &str) -> bool {
    is_decimal(text) && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`: 190:20:30, a number in YAML 1.1.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let places = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let mut parts = whole.split(':');
    let head = parts.next().unwrap_or_default();
    let sixty = |part: &str| match part.as_bytes() {
        [ones] => ones.is_ascii_digit(),
        [tens, ones] => (b'0'..=b'5').contains(tens) && ones.is_ascii_digit(),
        _ => false,
    };
    whole.contains(':')
        && head.starts_with(|c: char| c.is_ascii_digit())
        && places(head)
        && places(fraction)
        && parts.all(sixty)
}

/// `2006-1-2`, alone or with `T15:4:5.9Z`, `t15:4:5+01:00` or ` 15:4:5.9`.
fn is_timestamp(text: &str) -> bool {
    let Some((year, rest)) = text.split_once('-') else { return false };
    if year.len() != 4 || !year.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let mut rest = rest;
    let Some(month) = take_number(&mut rest, 1..=12) else { return false };
    let Some(after) = rest.strip_prefix('-') else { return false };
    rest = after;
    let days = match (month, year.parse::<u32>().unwrap_or_default()) {
        (4 | 6 | 9 | 11, _) => 30,
        (2, year) if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        (2, _) => 28,
        _ => 31,
    };
    if take_number(&mut rest, 1..=days).is_none() {
        return false;
    }
    match rest.chars().next() {
        None => true,
        Some('T' | 't') => take_time(&rest[1..]).is_some_and(is_zone),
        Some(' ') => take_time(&rest[1..]).is_some_and(str::is_empty),
        Some(_) => false,
    }
}

/// One or two digits in a range.
fn take_number(rest: &mut &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
    let number = rest[..digits].parse().ok().filter(|number| range.contains(number))?;
    *rest = &rest[digits..];
    Some(number)
}

/// What follows `15:4:5.999`.
fn take_time(text: &str) -> Option<&str> {
    let mut rest = text;
    take_number(&mut rest, 0..=23)?;
    rest = rest.strip_prefix(':')?;
    take_number(&mut rest, 0..=59)?;
    rest = rest.strip_prefix(':')?;
    take_number(&mut rest, 0..=59)?;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            rest = &fraction[digits..];
        }
    }
    Some(rest)
}

/// `Z` or `+01:00`.
fn is_zone(text: &str) -> bool {
    let bytes = text.as_bytes();
    let pair = |at: usize, most: u8| {
        bytes[at..at + 2].iter().all(u8::is_ascii_digit) && (bytes[at] - b'0') * 10 + (bytes[at + 1] - b'0') <= most
    };
    text == "Z" || bytes.len() == 6 && matches!(bytes[0], b'+' | b'-') && bytes[3] == b':' && pair(1, 24) && pair(4, 60)
}
