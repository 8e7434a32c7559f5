//! The signature of cluster-info: a detached JWS (RFC 7515, appendix F) over the kubeconfig's exact bytes.
//!
//! Only one serialisation exists: header `{"alg":"HS256","kid":"<token id>"}`, no padding. It is made again and
//! compared, so that nothing in the received one is believed; a difference is looked at afterwards, for the error alone.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::DiscoveryError;
use crate::output::printable;
use crate::token::BootstrapToken;

/// Longest algorithm name that an error repeats.
const ALGORITHM_LIMIT_CHARS: usize = 32;

/// The detached signature of a payload.
pub(crate) fn sign(payload: &str, token: &BootstrapToken) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}"}}"#, token.id()));
    let signing_input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.expose_secret().as_bytes());
    let mac = hmac::sign(&key, signing_input.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
}

/// Checks a detached signature in constant time.
///
/// # Errors
///
/// [`DiscoveryError::BadSignature`], [`DiscoveryError::SignatureAlgorithm`], [`DiscoveryError::SignatureMalformed`].
pub(super) fn verify(
    payload: &str,
    signature: &str,
    token: &BootstrapToken,
    ca_is_pinned: bool,
) -> Result<(), DiscoveryError> {
    if verify_slices_are_equal(sign(payload, token).as_bytes(), signature.as_bytes()).is_ok() {
        return Ok(());
    }
    let id = token.id().to_owned();
    match algorithm(signature) {
        None => Err(DiscoveryError::SignatureMalformed { id }),
        Some(algorithm) if algorithm != "HS256" => {
            let short: String = algorithm.chars().take(ALGORITHM_LIMIT_CHARS).collect();
            Err(DiscoveryError::SignatureAlgorithm { algorithm: printable(&short) })
        }
        Some(_) => Err(DiscoveryError::BadSignature { id, ca_is_pinned }),
    }
}

/// The algorithm that the header of a detached JWS names.
fn algorithm(signature: &str) -> Option<String> {
    let mut parts = signature.split('.');
    let (header, payload, mac) = (parts.next()?, parts.next()?, parts.next()?);
    if !payload.is_empty() || mac.is_empty() || parts.next().is_some() {
        return None;
    }
    URL_SAFE_NO_PAD.decode(mac).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    Some(header.get("alg")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> BootstrapToken {
        "abcdef.0123456789abcdef".parse().unwrap()
    }

    #[test]
    fn signs_as_kubeadm_does() {
        // python3: hmac.new(b"0123456789abcdef", header + b"." + b64(payload), "sha256"), see the module's header.
        assert_eq!(
            sign("apiVersion: v1\n", &token()),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..K1chermAQEq0rdqy-ehj0VDfmA_ytv8Wzh9g26FldrE"
        );
    }

    #[test]
    fn tells_a_wrong_secret_another_algorithm_and_garbage_apart() {
        let other: BootstrapToken = "abcdef.0123456789abcdee".parse().unwrap();
        let verify = |signature: &str| verify("x", signature, &token(), false).unwrap_err();
        assert!(matches!(verify(&sign("x", &other)), DiscoveryError::BadSignature { .. }));
        assert!(matches!(verify(&sign("y", &token())), DiscoveryError::BadSignature { .. }));
        let mac = sign("x", &token()).rsplit_once('.').unwrap().1.to_owned();
        let none = format!("{}..{mac}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"abcdef"}"#));
        assert!(matches!(verify(&none), DiscoveryError::SignatureAlgorithm { .. }));
        for garbage in ["x", "..", "a..b.c", &format!("{mac}.{mac}.{mac}"), "eyJ9..x"] {
            assert!(matches!(verify(garbage), DiscoveryError::SignatureMalformed { .. }), "{garbage}");
        }
    }

    proptest! {
        #[test]
        fn a_signature_holds_for_its_payload_and_token_alone(
            payload in ".{0,200}",
            position: prop::sample::Index,
            bit in 0u8..7,
            id in "[a-z0-9]{6}",
            secret in "[a-z0-9]{16}",
        ) {
            let token: BootstrapToken = format!("{id}.{secret}").parse().unwrap();
            let signature = sign(&payload, &token);
            prop_assert!(verify(&payload, &signature, &token, false).is_ok());
            let mut changed = signature.into_bytes();
            let at = position.index(changed.len());
            changed[at] ^= 1 << bit;
            let changed = String::from_utf8(changed).unwrap();
            prop_assert!(verify(&payload, &changed, &token, false).is_err());
        }

        #[test]
        fn no_signature_panics(text: String) {
            prop_assert!(verify("payload", &text, &token(), true).is_err());
        }
    }
}
