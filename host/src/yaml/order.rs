//! The order of keys: numbers inside them by value, letters after everything else (go-yaml's `sorter.go`).

/// Whether `a` comes before `b`.
pub(super) fn less(a: &str, b: &str) -> bool {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(i) = a.iter().zip(&b).position(|(a, b)| a != b) else { return a.len() < b.len() };
    match (a[i].is_alphabetic(), b[i].is_alphabetic()) {
        (true, true) => return a[i] < b[i],
        (false, false) => {}
        (_, b_is_letter) => return b_is_letter,
    }
    let digit = |c: char| c.is_ascii_digit();
    // A digit that differs inside a number weighs by its place: zeros count once something stands before them.
    let inside_number =
        (a[i] == '0' || b[i] == '0') && a[..i].iter().rev().take_while(|c| digit(**c)).any(|c| *c != '0');
    let number = |text: &[char]| {
        let digits: Vec<char> = text[i..].iter().copied().take_while(|c| digit(*c)).collect();
        let start = i64::from(inside_number);
        let value = digits
            .iter()
            .fold(start, |sum, c| sum.wrapping_mul(10).wrapping_add(i64::from(c.to_digit(10).unwrap_or_default())));
        (value, i + digits.len())
    };
    let ((a_value, a_end), (b_value, b_end)) = (number(&a), number(&b));
    if a_value != b_value {
        return a_value < b_value;
    }
    if a_end != b_end {
        return a_end < b_end;
    }
    a[i] < b[i]
}
