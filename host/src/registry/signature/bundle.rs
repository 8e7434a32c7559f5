//! Sigstore bundles, version 0.3, by key: a statement about a manifest in a DSSE envelope, or a message's signature.
//!
//! Sources: sigstore's `sigstore_bundle.proto`; DSSE 1.0; in-toto's Statement 1. Entries of transparency logs and
//! timestamps may be in a bundle; by key and without a network they are not looked at.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::super::Digest;
use super::key::{PublicKey, SigningKey};

/// Media type of a bundle.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// `payloadType` of the envelope.
const PAYLOAD: &str = "application/vnd.in-toto+json";
/// `_type` of the statement.
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// `predicateType`: this is a signature and no attestation of something.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";
/// Signatures of one envelope that are looked at.
const SIGNATURES: usize = 8;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    dsse_envelope: Option<Envelope>,
    message_signature: Option<MessageSignature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

#[derive(Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

/// Annotations of the manifest that carries a bundle, as cosign filters by them.
pub(super) fn annotations() -> BTreeMap<String, String> {
    BTreeMap::from([
        ("dev.sigstore.bundle.content".into(), "dsse-envelope".into()),
        ("dev.sigstore.bundle.predicateType".into(), PREDICATE.into()),
    ])
}

/// Checks a bundle about a manifest. The signature is checked before what it signs is read.
pub(super) fn verify_manifest(content: &[u8], digest: &Digest, key: &PublicKey) -> Result<(), &'static str> {
    let envelope = parse(content)?.dsse_envelope.ok_or("is a bundle without an envelope")?;
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| "is not base64")?;
    let message = pre_authentication(&envelope.payload_type, &payload);
    let signed = envelope
        .signatures
        .iter()
        .take(SIGNATURES)
        .any(|signature| STANDARD.decode(&signature.sig).is_ok_and(|signature| key.verify(&message, &signature)));
    if !signed {
        return Err("is by another key, or of changed content");
    }
    if envelope.payload_type != PAYLOAD {
        return Err("signs something else than a statement");
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(|_| "signs something else than a statement")?;
    if statement.kind != STATEMENT || statement.predicate_type != PREDICATE {
        return Err("states something else than a signature");
    }
    let about = |subject: &Subject| subject.digest.get("sha256").is_some_and(|hex| hex == digest.hex());
    if statement.subject.iter().any(about) { Ok(()) } else { Err("signs another digest") }
}

/// Checks a bundle about a file.
pub(super) fn verify_message(content: &[u8], message: &[u8], key: &PublicKey) -> Result<(), &'static str> {
    let signature = parse(content)?.message_signature.ok_or("is a bundle without a message's signature")?;
    let signature = STANDARD.decode(&signature.signature).map_err(|_| "is not base64")?;
    if key.verify(message, &signature) { Ok(()) } else { Err("is by another key, or of changed content") }
}

/// A bundle about a manifest.
pub(super) fn of_manifest(digest: &Digest, key: &SigningKey) -> String {
    let statement = json!({
        "_type": STATEMENT,
        "subject": [{"digest": {"sha256": digest.hex()}, "annotations": {}}],
        "predicateType": PREDICATE,
        "predicate": {},
    });
    let payload = statement.to_string();
    let signature = key.sign(&pre_authentication(PAYLOAD, payload.as_bytes()));
    let envelope = json!({
        "payload": STANDARD.encode(&payload),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": STANDARD.encode(signature)}],
    });
    of("dsseEnvelope", envelope, key)
}

/// A bundle about a file.
pub(super) fn of_message(message: &[u8], key: &SigningKey) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message);
    let signature = json!({
        "messageDigest": {"algorithm": "SHA2_256", "digest": STANDARD.encode(digest.as_ref())},
        "signature": STANDARD.encode(key.sign(message)),
    });
    of("messageSignature", signature, key)
}

fn of(content: &str, value: serde_json::Value, key: &SigningKey) -> String {
    json!({
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": key.public_key().hint()}},
        content: value,
    })
    .to_string()
}

fn parse(content: &[u8]) -> Result<Bundle, &'static str> {
    let bundle: Bundle = serde_json::from_slice(content).map_err(|_| "is no sigstore bundle")?;
    // Before 0.3 the type had the version as a parameter; content by key was the same.
    let known = bundle.media_type == MEDIA_TYPE
        || bundle.media_type.starts_with("application/vnd.dev.sigstore.bundle+json;version=0.");
    if known { Ok(bundle) } else { Err("is a bundle of another version") }
}

/// DSSE's PAE: what is signed of an envelope.
fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::pair;
    use super::*;

    #[test]
    fn a_statement_counts_only_for_its_digest_its_bytes_and_its_key() {
        let (key, public) = pair();
        let digest = Digest::of(b"plugin");
        let bundle = of_manifest(&digest, &key);
        assert_eq!(verify_manifest(bundle.as_bytes(), &digest, &public), Ok(()));
        assert_eq!(verify_manifest(bundle.as_bytes(), &Digest::of(b"x"), &public), Err("signs another digest"));
        let changed = |from: &str, to: &str| {
            assert!(bundle.contains(from), "{bundle}");
            verify_manifest(bundle.replace(from, to).as_bytes(), &digest, &public)
        };
        assert!(changed("in-toto+json", "in-toto+jso").is_err());
        assert!(changed("bundle.v0.3+json", "bundle.v9.3+json").is_err());
        assert!(changed("dsseEnvelope", "envelope").is_err());
        assert!(changed("\"sig\":\"", "\"sig\":\"AAAA").is_err());
    }

    #[test]
    fn an_attestation_is_no_signature() {
        let (key, public) = pair();
        let digest = Digest::of(b"plugin");
        let statement = json!({"_type": STATEMENT, "subject": [{"digest": {"sha256": digest.hex()}}],
            "predicateType": "https://slsa.dev/provenance/v1", "predicate": {}});
        let payload = statement.to_string();
        let signature = key.sign(&pre_authentication(PAYLOAD, payload.as_bytes()));
        let envelope = json!({"payload": STANDARD.encode(&payload), "payloadType": PAYLOAD,
            "signatures": [{"sig": STANDARD.encode(signature)}]});
        let bundle = of("dsseEnvelope", envelope, &key);
        let refused = verify_manifest(bundle.as_bytes(), &digest, &public);
        assert_eq!(refused, Err("states something else than a signature"));
    }

    /// Made by `cosign sign-blob --key cosign.key --signing-config … --bundle` (3.1.3) over "hello\n".
    #[test]
    fn reads_what_cosign_wrote_of_a_file() {
        let (_, public) = pair();
        let bundle = include_bytes!("../../../../tests/fixtures/cosign/hello.sigstore.json");
        assert_eq!(verify_message(bundle, b"hello\n", &public), Ok(()));
        assert!(verify_message(bundle, b"hullo\n", &public).is_err());
    }
}
