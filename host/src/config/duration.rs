//! Durations as Go writes them: `4m0s`, `1h`, `500ms`, `1.5h`.

use std::time::Duration;

/// Units of Go's `time.ParseDuration`, in nanoseconds. Longer names come before their prefixes.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Go's limit: an `int64` of nanoseconds.
const MAX_NANOSECONDS: u128 = i64::MAX as u128;

/// Parses a duration as Go's `time.ParseDuration` does, without a minus: a timeout cannot be negative.
///
/// None for anything else, also where the sum exceeds 2^63 - 1 nanoseconds.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // `1m30s`: the unit ends where the next number begins.
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(*scale)?)?;
        // More digits than nanoseconds can hold change nothing.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let value: u128 = fraction.parse().ok()?;
            total = total.checked_add(value * scale / 10u128.pow(u32::try_from(fraction.len()).ok()?))?;
        }
        rest = after;
    }
    (total <= MAX_NANOSECONDS).then(|| Duration::from_nanos(u64::try_from(total).unwrap_or(u64::MAX)))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes() {
        for (text, millis) in [
            ("4m0s", 240_000),
            ("1h", 3_600_000),
            ("500ms", 500),
            ("1h15m30.918s", 4_530_918),
            ("0", 0),
            ("0s", 0),
            ("+5s", 5_000),
            (".5s", 500),
            ("1.s", 1_000),
            ("1.5h", 5_400_000),
            ("2000000us", 2_000),
            ("1000µs", 1),
            ("1000μs", 1),
            ("1000000ns", 1),
            ("2562047h", 2_562_047 * 3_600_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("0.000000001s"), Some(Duration::from_nanos(1)));
        assert_eq!(parse("0.1234567891234567891s"), Some(Duration::from_nanos(123_456_789)));
    }

    #[test]
    fn refuses_what_go_refuses_and_what_is_negative() {
        for text in
            ["", "4", "m", "4 m", "4min", "-1s", "1s-", ".s", "1..5s", "4m0", "ten", "9999999h", "1d", "s1", "+", "ß"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(&format!("{}s", "9".repeat(60))), None);
    }
}
