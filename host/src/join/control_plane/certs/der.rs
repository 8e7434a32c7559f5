//! DER, as far as a certificate and its key need it.
//!
//! `rcgen` has a writer, too, but rebuilds the issuer's name from the parts it knows: a CA of a company's own PKI, with
//! several units in its name, would no longer be found as the issuer. Here its name goes into the certificate byte for byte,
//! and the extensions stand in the order in which Go writes them.

/// Universal and context tags that are written.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// `TRUE`.
pub(super) const TRUE: [u8; 3] = [0x01, 0x01, 0xff];
/// `NULL`.
pub(super) const NULL: [u8; 2] = [0x05, 0x00];

/// One value: tag, length, content.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let significant = &length[length.iter().position(|&byte| byte != 0).unwrap_or(length.len() - 1)..];
            out.push(0x80 | u8::try_from(significant.len()).expect("a length has at most 8 bytes"));
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A sequence of values that are encoded already.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    value(SEQUENCE, &parts.concat())
}

/// A bit string without unused bits.
pub(super) fn bits(content: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], content].concat())
}

/// An integer that is not negative.
pub(super) fn unsigned(number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let mut content = bytes[bytes.iter().position(|&byte| byte != 0).unwrap_or(7)..].to_vec();
    if content[0] & 0x80 != 0 {
        content.insert(0, 0);
    }
    value(INTEGER, &content)
}

/// The first value of what is encoded: its tag, its content, and what follows it.
pub(super) fn read(encoded: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = encoded.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short_and_not_negative() {
        assert_eq!(unsigned(0), [2, 1, 0]);
        assert_eq!(unsigned(127), [2, 1, 127]);
        assert_eq!(unsigned(128), [2, 2, 0, 128]);
        assert_eq!(unsigned(u64::MAX).len(), 11);
    }

    proptest! {
        #[test]
        fn reads_back_what_it_writes(content in prop::collection::vec(any::<u8>(), 0..70_000), rest: Vec<u8>) {
            let mut written = value(OCTET_STRING, &content);
            written.extend_from_slice(&rest);
            prop_assert_eq!(read(&written), Some((OCTET_STRING, &content[..], &rest[..])));
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
