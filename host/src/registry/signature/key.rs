//! cosign's keys: a public key in PEM, a private one encrypted with a password.
//!
//! ECDSA on P-256 with SHA-256, the one kind that `cosign generate-key-pair` makes. The private key's file is PEM around
//! JSON: scrypt's parameters, a nonce, and a NaCl secretbox with the key in PKCS #8.

use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::Digest;
use super::error::SignatureError;

/// Largest file of a key.
const KEY_BYTES: u64 = 64 << 10;
/// DER of a SubjectPublicKeyInfo on P-256 up to the uncompressed point's 65 bytes (RFC 5480).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The most blocks scrypt may take; cosign writes 65536, which is 64 MiB.
const SCRYPT_N_MAX: u64 = 1 << 18;
/// scrypt's block size and lanes; cosign writes 8 and 1.
const SCRYPT_R_P_MAX: u32 = 16;

/// A public key on P-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    der: Vec<u8>,
}

impl PublicKey {
    /// Reads `-----BEGIN PUBLIC KEY-----`.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Key`].
    pub fn read(path: &Path) -> Result<Self, SignatureError> {
        let bad = |reason: String| SignatureError::Key { path: path.to_owned(), reason };
        let text = read(path)?;
        if text.contains("PRIVATE KEY-----") {
            return Err(bad("it is a private key; give the public one".into()));
        }
        Self::parse(&text).map_err(|reason| bad(reason.to_owned()))
    }

    /// Reads PEM.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(pem: &str) -> Result<Self, &'static str> {
        Self::of_der(decode(pem, "PUBLIC KEY").ok_or("it is no public key in PEM")?.to_vec())
    }

    /// Reads [`Self::base64`].
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn of_base64(text: &str) -> Result<Self, &'static str> {
        Self::of_der(STANDARD.decode(text).map_err(|_| "it is not base64")?)
    }

    fn of_der(der: Vec<u8>) -> Result<Self, &'static str> {
        if der.len() == P256_PREFIX.len() + 65 && der.starts_with(&P256_PREFIX) {
            Ok(Self { der })
        } else {
            Err("it is no ECDSA key on P-256, which cosign makes")
        }
    }

    /// `sha256:` and 64 hex digits of the key's DER: what a lock file and a policy name a signer by.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// The same as sigstore's bundles hint at it.
    pub(super) fn hint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der);
        STANDARD.encode(digest.as_ref())
    }

    /// Whether a signature in ASN.1 is this key's for the message.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = &self.der[P256_PREFIX.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
    }

    /// The key's DER in base64, one line: for the lock file.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

/// A private key, opened. It has no `Debug`.
pub struct SigningKey {
    pair: EcdsaKeyPair,
}

#[derive(Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Params {
    n: u64,
    #[serde(rename = "r")]
    r: u32,
    #[serde(rename = "p")]
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl SigningKey {
    /// Opens cosign's private key with its password. Takes some tenths of a second and 64 MiB.
    ///
    /// # Errors
    ///
    /// [`SignatureError::Key`]; a wrong password is one.
    pub fn open(path: &Path, password: &SecretString) -> Result<Self, SignatureError> {
        let text = Zeroizing::new(read(path)?);
        open(&text, password).map_err(|refused| match refused {
            Refused::Password => SignatureError::Password { path: path.to_owned() },
            Refused::Key(reason) => SignatureError::Key { path: path.to_owned(), reason: reason.to_owned() },
        })
    }

    /// Its other half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { der: [&P256_PREFIX[..], self.pair.public_key().as_ref()].concat() }
    }

    /// Signs a message; ASN.1.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature.expect("signing fails only without randomness").as_ref().to_vec()
    }
}

/// Why a private key stays closed.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Password,
    Key(&'static str),
}

fn open(pem: &str, password: &SecretString) -> Result<SigningKey, Refused> {
    let labels = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
    let json = labels.iter().find_map(|label| decode(pem, label));
    let json = json.ok_or(Refused::Key("it is no private key as cosign writes it"))?;
    // An error of serde could repeat the text.
    let bad = Refused::Key;
    let Encrypted { kdf, cipher, ciphertext } =
        serde_json::from_slice(&json).map_err(|_| bad("its content is not as cosign writes it"))?;
    if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
        return Err(bad("its cipher is not the one of cosign"));
    }
    let decoded = |text: &str| STANDARD.decode(text).map_err(|_| bad("its content is not base64"));
    let (salt, nonce, sealed) = (decoded(&kdf.salt)?, decoded(&cipher.nonce)?, decoded(&ciphertext)?);
    let Params { n, r, p } = kdf.params;
    let bounded = n.is_power_of_two() && n <= SCRYPT_N_MAX && r <= SCRYPT_R_P_MAX && p <= SCRYPT_R_P_MAX;
    if !bounded || nonce.len() != 24 {
        return Err(bad("its parameters are out of bounds"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).expect("a bounded power");
    let params = scrypt::Params::new(log_n, r, p, 32).map_err(|_| bad("its parameters are out of bounds"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password.expose_secret().as_bytes(), &salt, &params, &mut *key).expect("32 bytes can be derived");
    let opened = XSalsa20Poly1305::new((&*key).into())
        .decrypt(nonce.as_slice().into(), sealed.as_slice())
        .map_err(|_| Refused::Password)?;
    let opened = Zeroizing::new(opened);
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &opened)
        .map_err(|_| bad("it holds no ECDSA key on P-256"))?;
    Ok(SigningKey { pair })
}

fn read(path: &Path) -> Result<String, SignatureError> {
    let bad = |reason: String| SignatureError::Key { path: path.to_owned(), reason };
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut text = String::new();
    file.take(KEY_BYTES).read_to_string(&mut text).map_err(|error| bad(error.to_string()))?;
    Ok(text)
}

/// Content of the first PEM block with this label.
fn decode(pem: &str, label: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    STANDARD.decode(body.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `COSIGN_PASSWORD=tenon cosign generate-key-pair`, cosign 3.1.3.
    const KEY: &str = include_str!("../../../../tests/fixtures/cosign/cosign.key");
    const PUB: &str = include_str!("../../../../tests/fixtures/cosign/cosign.pub");

    /// The fixture's pair.
    pub(in super::super) fn pair() -> (SigningKey, PublicKey) {
        (open(KEY, &"tenon".into()).unwrap(), PublicKey::parse(PUB).unwrap())
    }

    #[test]
    fn opens_a_key_that_cosign_made_and_only_with_its_password() {
        let (key, public) = pair();
        assert_eq!(key.public_key(), public);
        assert!(public.verify(b"message", &key.sign(b"message")));
        assert!(!public.verify(b"massage", &key.sign(b"message")));
        assert_eq!(open(KEY, &"mortise".into()).err(), Some(Refused::Password));
    }

    #[test]
    fn a_public_key_is_written_as_it_was_read() {
        let public = PublicKey::parse(PUB).unwrap();
        assert_eq!(PublicKey::of_base64(&public.base64()), Ok(public.clone()));
        // `openssl pkey -pubin -in cosign.pub -outform DER | sha256sum`
        assert_eq!(
            public.fingerprint().as_str(),
            "sha256:0c3f3b1cb61c5277a36650329b2298d2ee89623ae5f5ec1bc796f7a682510203"
        );
    }

    #[test]
    fn refuses_keys_of_other_kinds_and_parameters_that_eat_memory() {
        let rsa = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK==\n-----END PUBLIC KEY-----\n";
        for text in ["", "x", KEY, rsa, &PUB.replace("MFkwEwYH", "MFkwEwYI"), &PUB[..100]] {
            assert!(PublicKey::parse(text).is_err(), "{text}");
        }
        let body = decode(KEY, "ENCRYPTED SIGSTORE PRIVATE KEY").unwrap();
        let json = String::from_utf8(body.to_vec()).unwrap();
        for (from, to) in
            [("65536", "1099511627776"), ("65536", "65535"), ("\"r\":8", "\"r\":80000"), ("scrypt", "none")]
        {
            assert!(json.contains(from), "{json}");
            let changed = STANDARD.encode(json.replace(from, to));
            let pem = format!(
                "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n{changed}\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
            );
            assert!(matches!(open(&pem, &"tenon".into()), Err(Refused::Key(_))), "{to} was accepted");
        }
    }
}
