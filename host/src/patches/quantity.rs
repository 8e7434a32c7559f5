//! `resource.Quantity` of apimachinery: which texts it takes, and how it writes them.

/// Powers of ten, a step of three apart, from nano.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Powers of 1024 from the first.
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const NANO: i32 = -9;
/// Of a binary quantity.
const MAX: i128 = i64::MAX as i128;
/// Digits that are told apart; a longer number is refused, which apimachinery would round.
const MAX_DIGITS: usize = 18;
/// Largest power of ten that a quantity of that many digits may have.
const MAX_EXPONENT: i32 = 18;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Decimal,
    Exponent,
    /// With the power of two.
    Binary(u32),
}

/// The canonical text of a quantity; none: it is none, or out of bounds.
pub(super) fn canonical(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.trim_start_matches('0');
    if unsigned.is_empty() || fraction.contains('.') || whole.len() + fraction.len() > MAX_DIGITS {
        return None;
    }
    let (format, exponent) = suffix_of(suffix)?;
    let digits = format!("{whole}{fraction}");
    let mantissa: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let scale = exponent - i32::try_from(fraction.len()).ok()?;
    if mantissa == 0 {
        return Some("0".into());
    }
    if keeps_its_text(format, mantissa, &digits, scale) {
        return Some(text.to_owned());
    }
    let negative = text.starts_with('-');
    let (mantissa, scale, format) = match format {
        Format::Binary(power) => {
            let (value, scale) = at_least_nano(mantissa.checked_mul(1_i128.checked_shl(power)?)?, scale);
            let small = value < 1024 * ten(-scale)?;
            let whole = value % ten(-scale)? == 0;
            let value = value.min(MAX.checked_mul(ten(-scale)?)?);
            if small || !whole { (value, scale, Format::Decimal) } else { (value / ten(-scale)?, 0, format) }
        }
        _ => {
            let (mantissa, scale) = at_least_nano(mantissa, scale);
            (mantissa, scale, format)
        }
    };
    let text = match format {
        Format::Binary(_) => binary(mantissa),
        _ => decimal(mantissa, scale, format)?,
    };
    Some(if negative { format!("-{text}") } else { text })
}

fn suffix_of(suffix: &str) -> Option<(Format, i32)> {
    let step = |n: usize| i32::try_from(n).unwrap_or_default();
    if let Some(n) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((Format::Decimal, NANO + 3 * step(n)));
    }
    if let Some(n) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Format::Binary(10 * (u32::try_from(n).unwrap_or_default() + 1)), 0));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (exponent.abs() <= MAX_EXPONENT).then_some((Format::Exponent, exponent))
}

/// A text that apimachinery takes for canonical stays as it was written.
fn keeps_its_text(format: Format, mantissa: i128, digits: &str, scale: i32) -> bool {
    match format {
        Format::Binary(_) => scale == 0 && mantissa & 7 != 0,
        _ => scale >= NANO && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0'),
    }
}

/// Rounds away from zero to a multiple of nano.
fn at_least_nano(mut mantissa: i128, mut scale: i32) -> (i128, i32) {
    while scale < NANO {
        mantissa = mantissa / 10 + i128::from(mantissa % 10 != 0);
        scale += 1;
    }
    (mantissa, scale)
}

fn ten(power: i32) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(power).ok()?)
}

fn decimal(mut mantissa: i128, mut scale: i32, format: Format) -> Option<String> {
    while mantissa % 10 == 0 {
        mantissa /= 10;
        scale += 1;
    }
    let over = scale.rem_euclid(3);
    mantissa = mantissa.checked_mul(ten(over)?)?;
    scale -= over;
    if format == Format::Exponent {
        return Some(if scale == 0 { mantissa.to_string() } else { format!("{mantissa}e{scale}") });
    }
    let suffix = DECIMAL.get(usize::try_from((scale - NANO) / 3).ok()?)?;
    Some(format!("{mantissa}{suffix}"))
}

fn binary(mut value: i128) -> String {
    let mut suffix = "";
    for next in BINARY {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = next;
    }
    format!("{value}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_quantities_as_go_does() {
        // Printed by apimachinery 0.37.2: a Quantity unmarshalled from JSON and marshalled again.
        for (text, expected) in GO {
            assert_eq!(canonical(text.trim()).as_deref(), *expected, "{text}");
        }
    }

    /// By `generate_quantities.go`.
    const GO: &[(&str, Option<&str>)] = &include!("quantities.in");
}
