//! Keys, certificate requests, public-key pins.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// SHA-256 of a certificate's SubjectPublicKeyInfo (DER), 32 bytes.
///
/// Written `sha256:` (case does not matter) and 64 hex digits. Definition: RFC 7469, section 2.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

/// Why a text is no pin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PinError {
    /// Any prefix other than `sha256:`.
    #[error("the pin `{0}` does not begin with `sha256:`")]
    Algorithm(String),
    /// Anything but 64 hex digits after the prefix.
    #[error("the pin `{0}` does not have 64 hex digits after `sha256:`")]
    Length(String),
}

impl Pin {
    /// The pin of a DER-encoded SubjectPublicKeyInfo.
    pub fn of_spki(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let hex = match text.split_once(':') {
            Some((algorithm, hex)) if algorithm.eq_ignore_ascii_case("sha256") => hex,
            _ => return Err(PinError::Algorithm(text.to_owned())),
        };
        let length = || PinError::Length(text.to_owned());
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(length());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| length())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| length())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
