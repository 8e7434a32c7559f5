//! Private keys of a control plane: RSA and ECDSA, in the files' forms that kubeadm writes (PKCS#1, SEC1) and in those it
//! reads (PKCS#8, too).

use aws_lc_rs::encoding::{AsDer as _, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::SecretString;

use super::der;
use crate::join::control_plane::configuration::EncryptionAlgorithm;
use crate::pki::{Pin, pem_block};

/// 1.2.840.113549.1.1.11
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
/// 1.2.840.10045.4.3.2
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// 1.2.840.10045.4.3.3
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
/// 1.2.840.10045.4.3.4
const ECDSA_WITH_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];

/// A private key. `Debug` shows the public half's pin.
pub(in crate::join::control_plane) enum PrivateKey {
    /// 2048 to 8192 bits.
    Rsa(RsaKeyPair),
    /// On one of three curves.
    Ec(EcdsaKeyPair, Curve),
}

/// A curve, with the digest that Go signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::join::control_plane) enum Curve {
    P256,
    P384,
    /// kubeadm generates no such key, but a CA may have one.
    P521,
}

/// The cryptographic library failed, which it does only where the machine has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library cannot generate keys or sign on this machine")]
pub struct KeyError;

impl From<aws_lc_rs::error::Unspecified> for KeyError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn algorithm(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_ASN1_SIGNING,
        }
    }

    fn signature_oid(self) -> &'static [u8] {
        match self {
            Self::P256 => ECDSA_WITH_SHA256,
            Self::P384 => ECDSA_WITH_SHA384,
            Self::P521 => ECDSA_WITH_SHA512,
        }
    }
}

impl PrivateKey {
    /// A new one. RSA takes a tenth of a second to several: not on a thread that others wait for.
    pub(in crate::join::control_plane) fn generate(algorithm: EncryptionAlgorithm) -> Result<Self, KeyError> {
        let rsa = |size| Ok(Self::Rsa(RsaKeyPair::generate(size)?));
        let ec = |curve: Curve| Ok(Self::Ec(EcdsaKeyPair::generate(curve.algorithm())?, curve));
        match algorithm {
            EncryptionAlgorithm::Rsa2048 => rsa(KeySize::Rsa2048),
            EncryptionAlgorithm::Rsa3072 => rsa(KeySize::Rsa3072),
            EncryptionAlgorithm::Rsa4096 => rsa(KeySize::Rsa4096),
            EncryptionAlgorithm::EcdsaP256 => ec(Curve::P256),
            EncryptionAlgorithm::EcdsaP384 => ec(Curve::P384),
        }
    }

    /// The first private key of a PEM text: PKCS#1, SEC1 or PKCS#8. None: there is none that can be used.
    pub(in crate::join::control_plane) fn parse_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivateKeyDer::from_pem_slice(pem).ok()?;
        let ec = |der: &[u8]| {
            Curve::ALL.into_iter().find_map(|curve| {
                Some(Self::Ec(EcdsaKeyPair::from_private_key_der(curve.algorithm(), der).ok()?, curve))
            })
        };
        match &der {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(Self::Rsa),
            PrivateKeyDer::Sec1(der) => ec(der.secret_sec1_der()),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                RsaKeyPair::from_pkcs8(der).ok().map(Self::Rsa).or_else(|| ec(der))
            }
            _ => None,
        }
    }

    /// PEM as kubeadm writes it: `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1).
    pub(in crate::join::control_plane) fn to_pem(&self) -> Result<SecretString, KeyError> {
        let pem = match self {
            Self::Rsa(pair) => {
                let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
                pem_block("RSA PRIVATE KEY", inner_key(pkcs8.as_ref()).expect("PKCS#8 wraps a key"))
            }
            Self::Ec(pair, _) => {
                let sec1: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der()?;
                pem_block("EC PRIVATE KEY", sec1.as_ref())
            }
        };
        Ok(pem.into())
    }

    /// DER of the public key (SubjectPublicKeyInfo).
    pub(in crate::join::control_plane) fn spki(&self) -> Result<Vec<u8>, KeyError> {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rsa(pair) => pair.public_key().as_der()?,
            Self::Ec(pair, _) => pair.public_key().as_der()?,
        };
        Ok(der.as_ref().to_vec())
    }

    /// AlgorithmIdentifier of this key's signatures.
    pub(super) fn signature_algorithm(&self) -> Vec<u8> {
        match self {
            Self::Rsa(_) => der::sequence(&[&der::value(der::OID, SHA256_WITH_RSA), &der::NULL]),
            Self::Ec(_, curve) => der::sequence(&[&der::value(der::OID, curve.signature_oid())]),
        }
    }

    /// Signs as [`PrivateKey::signature_algorithm`] says.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Self::Ec(pair, _) => Ok(pair.sign(&random, message)?.as_ref().to_vec()),
        }
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.spki() {
            Ok(spki) => write!(f, "PrivateKey({})", Pin::of_spki(&spki)),
            Err(_) => f.write_str("PrivateKey"),
        }
    }
}

/// The key inside PKCS#8: `SEQUENCE { INTEGER, AlgorithmIdentifier, OCTET STRING }` (RFC 5208, section 5).
fn inner_key(pkcs8: &[u8]) -> Option<&[u8]> {
    let (der::SEQUENCE, content, _) = der::read(pkcs8)? else { return None };
    let (der::INTEGER, _, rest) = der::read(content)? else { return None };
    let (der::SEQUENCE, _, rest) = der::read(rest)? else { return None };
    let (der::OCTET_STRING, key, _) = der::read(rest)? else { return None };
    Some(key)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    // That openssl and kubeadm agree about every byte is shown in tests/prepare.
    #[test]
    fn writes_the_old_forms_and_reads_them_back() {
        for (algorithm, label) in [
            (EncryptionAlgorithm::Rsa2048, "RSA"),
            (EncryptionAlgorithm::EcdsaP256, "EC"),
            (EncryptionAlgorithm::EcdsaP384, "EC"),
        ] {
            let key = PrivateKey::generate(algorithm).unwrap();
            let pem = key.to_pem().unwrap();
            let pem = pem.expose_secret();
            assert!(pem.starts_with(&format!("-----BEGIN {label} PRIVATE KEY-----\n")), "{algorithm:?}");
            let read = PrivateKey::parse_pem(pem.as_bytes()).unwrap();
            assert_eq!(read.spki().unwrap(), key.spki().unwrap());
            assert_eq!(read.to_pem().unwrap().expose_secret(), pem);
            assert_eq!(crate::pki::spki_of_key(&pem.into()).unwrap(), key.spki().unwrap());
        }
    }

    #[test]
    fn reads_pkcs8_of_each_algorithm_and_what_openssl_puts_before_a_key() {
        use rcgen::PublicKeyData as _;
        for algorithm in [
            &rcgen::PKCS_RSA_SHA256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
        ] {
            let pair = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let read = PrivateKey::parse_pem(pair.serialize_pem().as_bytes()).unwrap();
            assert_eq!(read.spki().unwrap(), pair.subject_public_key_info());
        }
        let key = PrivateKey::generate(EncryptionAlgorithm::EcdsaP256).unwrap().to_pem().unwrap();
        let prime256v1 = der::value(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
        let with_parameters = pem_block("EC PARAMETERS", &prime256v1) + key.expose_secret();
        assert!(PrivateKey::parse_pem(with_parameters.as_bytes()).is_some());
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(PrivateKey::parse_pem(ed25519.serialize_pem().as_bytes()).is_none());
    }

    #[test]
    fn shows_itself_nowhere() {
        let key = PrivateKey::generate(EncryptionAlgorithm::EcdsaP256).unwrap();
        let shown = format!("{key:?} {:?}", key.to_pem().unwrap());
        assert!(shown.starts_with("PrivateKey(sha256:") && !shown.contains("PRIVATE KEY-"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"] {
                let _ = PrivateKey::parse_pem(pem_block(label, &bytes).as_bytes());
            }
            let _ = inner_key(&bytes);
        }
    }
}
