//! The old scheme: a manifest under the tag `sha256-<hex>.sig`, each layer a claim about the digest, signed in an
//! annotation.
//!
//! Source: cosign's SIGNATURE_SPEC.md, "simple signing".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::super::manifest::{Descriptor, MANIFEST, Manifest};
use super::super::{Digest, Reference};
use super::key::{PublicKey, SigningKey};

/// Media type of a claim.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of its layer.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// `critical.type` of a claim.
const TYPE: &str = "cosign container image signature";
/// Media type of the manifest's configuration.
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

#[derive(Deserialize)]
struct Claim {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    r#type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

/// What is stored for a signature.
pub(super) struct Signed {
    pub(super) payload: Bytes,
    pub(super) config: Bytes,
    pub(super) manifest: Manifest,
}

/// Tag of a digest's signatures.
pub(super) fn tag(digest: &Digest) -> String {
    format!("sha256-{}.sig", digest.hex())
}

/// Checks one layer. The signature is checked before what it signs is read.
pub(super) fn verify(payload: &[u8], layer: &Descriptor, digest: &Digest, key: &PublicKey) -> Result<(), &'static str> {
    let signature = layer.annotations.get(SIGNATURE).ok_or("has no signature in its annotations")?;
    let signature = STANDARD.decode(signature).map_err(|_| "is not base64")?;
    if !key.verify(payload, &signature) {
        return Err("is by another key, or of changed content");
    }
    let claim: Claim = serde_json::from_slice(payload).map_err(|_| "signs something else than an image")?;
    if claim.critical.r#type != TYPE {
        return Err("signs something else than an image");
    }
    if claim.critical.image.docker_manifest_digest != *digest {
        return Err("signs another digest");
    }
    Ok(())
}

/// A signature beside those that are there.
pub(super) fn sign(reference: &Reference, digest: &Digest, key: &SigningKey, others: Option<Manifest>) -> Signed {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest},
            "type": TYPE,
        },
        "optional": null,
    });
    let payload = Bytes::from(payload.to_string());
    let mut layer = Descriptor::of(MEDIA_TYPE, &payload);
    layer.annotations.insert(SIGNATURE.into(), STANDARD.encode(key.sign(&payload)));
    let mut layers = others.map(|manifest| manifest.layers).unwrap_or_default();
    layers.push(layer);
    let digests: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
    let config = json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": vec![json!({"created": "0001-01-01T00:00:00Z"}); layers.len()],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let config = Bytes::from(config.to_string());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.into()),
        artifact_type: None,
        config: Descriptor::of(CONFIG, &config),
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    Signed { payload, config, manifest }
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::pair;
    use super::*;

    #[test]
    fn a_claim_counts_only_for_its_digest_its_bytes_and_its_key() {
        let (key, public) = pair();
        let (digest, reference) = (Digest::of(b"plugin"), "localhost/x:1".parse().unwrap());
        let Signed { payload, manifest, .. } = sign(&reference, &digest, &key, None);
        let layer = &manifest.layers[0];
        assert_eq!(verify(&payload, layer, &digest, &public), Ok(()));
        assert_eq!(verify(&payload, layer, &Digest::of(b"other"), &public), Err("signs another digest"));
        let changed = String::from_utf8(payload.to_vec()).unwrap().replace("localhost", "elsewhere");
        assert!(verify(changed.as_bytes(), layer, &digest, &public).is_err());
        let mut bare = layer.clone();
        bare.annotations.clear();
        assert!(verify(&payload, &bare, &digest, &public).is_err());
        let other = br#"{"critical":{"image":{"docker-manifest-digest":"x"},"type":"atomic container signature"}}"#;
        let mut signed = layer.clone();
        signed.annotations.insert(SIGNATURE.into(), STANDARD.encode(key.sign(other)));
        assert_eq!(verify(other, &signed, &digest, &public), Err("signs something else than an image"));
    }

    #[test]
    fn a_second_signature_keeps_the_first() {
        let (key, public) = pair();
        let (digest, reference) = (Digest::of(b"plugin"), "localhost/x:1".parse().unwrap());
        let first = sign(&reference, &digest, &key, None);
        let second = sign(&reference, &digest, &key, Some(first.manifest.clone()));
        assert_eq!(second.manifest.layers.len(), 2);
        assert_eq!(second.manifest.layers[0], first.manifest.layers[0]);
        assert_eq!(verify(&second.payload, &second.manifest.layers[1], &digest, &public), Ok(()));
    }
}
