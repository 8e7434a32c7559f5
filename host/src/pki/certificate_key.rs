//! The key under which a control plane stores the shared certificates in Secret `kube-system/kubeadm-certs`.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

/// Bytes of the key: AES-256.
const KEY_BYTES: usize = 32;

/// A certificate key: 32 bytes, written as 64 hex digits of either case.
///
/// Whoever has it and any valid bootstrap token gets the keys of the cluster's CAs, so nothing shows it. Source:
/// kubeadm, `certificateKey` of v1beta4.
#[derive(Clone)]
pub struct CertificateKey(Zeroizing<[u8; KEY_BYTES]>);

/// Why a text is no certificate key. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CertificateKeyError {
    /// Not 64 characters long.
    #[error("a certificate key has 64 hex digits; this one has {0} characters")]
    Length(usize),
    /// Something that is no hex digit.
    #[error("a certificate key has 64 hex digits; this one has another character")]
    Digit,
}

impl FromStr for CertificateKey {
    type Err = CertificateKeyError;

    fn from_str(text: &str) -> Result<Self, CertificateKeyError> {
        let chars = text.chars().count();
        if chars != 2 * KEY_BYTES {
            return Err(CertificateKeyError::Length(chars));
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |at: usize| digits.get(at).and_then(|digit| char::from(*digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else { return Err(CertificateKeyError::Digit) };
            *byte = u8::try_from(high * 16 + low).expect("two hex digits are one byte");
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey")
    }
}

impl CertificateKey {
    /// Opens one entry of the Secret: a nonce of 12 bytes, AES-256-GCM of the content without further data, a tag of 16
    /// bytes. None: it was sealed with another key, or is damaged; the two cannot be told apart.
    pub fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, content) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut content = Zeroizing::new(content.to_vec());
        let opened = self.cipher().open_in_place(nonce, Aad::empty(), &mut content).ok()?.len();
        content[opened..].zeroize();
        content.truncate(opened);
        Some(content)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &*self.0).expect("the key has the length of AES-256"))
    }

    /// What `kubeadm init phase upload-certs` stores for this content.
    #[cfg(test)]
    pub(crate) fn seal(&self, content: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).unwrap();
        let mut sealed = content.to_vec();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.cipher().seal_in_place_append_tag(unique, Aad::empty(), &mut sealed).unwrap();
        [&nonce[..], &sealed].concat()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANARY: &str = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff";

    #[test]
    fn takes_64_hex_digits_and_nothing_else() {
        let key: CertificateKey = CANARY.parse().unwrap();
        let upper: CertificateKey = CANARY.to_uppercase().parse().unwrap();
        assert_eq!(*key.0, *upper.0);
        assert_eq!(key.0[..3], [0xc0, 0xff, 0xee]);
        for (bad, why) in [
            ("", CertificateKeyError::Length(0)),
            (&CANARY[1..], CertificateKeyError::Length(63)),
            (&format!("{CANARY}0"), CertificateKeyError::Length(65)),
            (&CANARY.replace('f', "g"), CertificateKeyError::Digit),
            (&CANARY.replacen("c0", "+0", 1), CertificateKeyError::Digit),
            (&CANARY.replacen('c', "é", 1), CertificateKeyError::Digit),
        ] {
            assert_eq!(bad.parse::<CertificateKey>().unwrap_err(), why, "{bad}");
        }
    }

    #[test]
    fn shows_itself_nowhere() {
        let key: CertificateKey = CANARY.parse().unwrap();
        assert_eq!(format!("{key:?} {key:#?}"), "CertificateKey CertificateKey");
        let error = CANARY[2..].parse::<CertificateKey>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("ffee"));
    }

    /// Made with Python's `cryptography`: `nonce + AESGCM(key).encrypt(nonce, b"-----BEGIN", None)`, nonce 0 to 11.
    const SEALED: &str = "000102030405060708090a0b30a8d6ef7508a5e902c37cbb39b7028a04e059fda980f1421bf4";

    #[test]
    fn opens_what_another_implementation_sealed() {
        let sealed: Vec<u8> =
            (0..SEALED.len()).step_by(2).map(|at| u8::from_str_radix(&SEALED[at..at + 2], 16).unwrap()).collect();
        assert_eq!(**CANARY.parse::<CertificateKey>().unwrap().open(&sealed).unwrap(), *b"-----BEGIN");
    }

    proptest! {
        #[test]
        fn opens_only_what_was_sealed_with_it(content: Vec<u8>, at: prop::sample::Index) {
            let key: CertificateKey = CANARY.parse().unwrap();
            let mut sealed = key.seal(&content);
            prop_assert_eq!(&**key.open(&sealed).unwrap(), &content);
            let other: CertificateKey = CANARY.replace('c', "d").parse().unwrap();
            prop_assert!(other.open(&sealed).is_none());
            let at = at.index(sealed.len());
            sealed[at] ^= 1;
            prop_assert!(key.open(&sealed).is_none());
            prop_assert!(key.open(&sealed[..at]).is_none());
        }
    }
}
