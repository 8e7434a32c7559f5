//! Signatures by key, as cosign makes and reads them, without a network beyond the registry.
//!
//! Three forms are read: a sigstore bundle that refers to the manifest (what cosign 3 writes), the old scheme of a tag
//! `sha256-<hex>.sig`, and a file beside a component. What is missing, malformed or by another key is a refusal; one
//! good signature by the key asked for is enough, whatever others lie beside it.

mod bundle;
mod error;
mod file;
mod key;
mod simple;

use bytes::Bytes;

pub use error::SignatureError;
pub use file::{sign_file, verify_file};
pub use key::{PublicKey, SigningKey};

use super::manifest::{Descriptor, EMPTY, MANIFEST, Manifest, parse};
use super::{Client, Digest, Reference, RegistryError, Source};

/// The most signatures of one manifest that are looked at.
const SIGNATURES: usize = 64;
/// Largest signature, in bytes; a bundle with a transparency log's proof has some 10 KiB.
const SIGNATURE_BYTES: u64 = 1 << 20;

/// How a signature was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A sigstore bundle.
    Bundle,
    /// The tag `sha256-<hex>.sig`.
    Tag,
    /// A bare signature in a file.
    File,
}

/// Checks that the key signed a manifest.
///
/// # Errors
///
/// [`SignatureError::Missing`] without any signature, [`SignatureError::OtherKey`] when none of them is by the key and
/// for the manifest.
pub async fn verify(
    source: &Source,
    reference: &Reference,
    digest: &Digest,
    key: &PublicKey,
) -> Result<Form, SignatureError> {
    let mut seen = Seen::default();
    for referrer in bundles_of(source, reference, digest).await? {
        let manifest = source.manifest(&reference.at_digest(&referrer.digest)).await?;
        let manifest: Manifest = parse("a signature's manifest", &manifest.content)?;
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == bundle::MEDIA_TYPE) {
            let content = source.blob(reference, layer, SIGNATURE_BYTES).await?;
            if seen.note(bundle::verify_manifest(&content, digest, key)) {
                return Ok(Form::Bundle);
            }
        }
    }
    if let Some(manifest) = simple_manifest(source, reference, digest).await? {
        for layer in manifest.layers.iter().filter(|layer| layer.media_type == simple::MEDIA_TYPE).take(SIGNATURES) {
            let content = source.blob(reference, layer, SIGNATURE_BYTES).await?;
            if seen.note(simple::verify(&content, layer, digest, key)) {
                return Ok(Form::Tag);
            }
        }
    }
    Err(seen.refusal(reference.to_string(), key))
}

/// What was wrong with the signatures so far.
#[derive(Default)]
struct Seen {
    reasons: Vec<&'static str>,
}

impl Seen {
    fn note(&mut self, checked: Result<(), &'static str>) -> bool {
        checked.map_err(|reason| self.reasons.push(reason)).is_ok()
    }

    fn refusal(self, subject: String, key: &PublicKey) -> SignatureError {
        let fingerprint = key.fingerprint();
        match self.reasons.last() {
            None => SignatureError::Missing { subject },
            Some(reason) => SignatureError::OtherKey { subject, fingerprint, count: self.reasons.len(), reason },
        }
    }
}

/// Signs a manifest and stores the signature in both forms, so that old programs and registries find one.
///
/// # Errors
///
/// [`SignatureError::Registry`].
pub async fn sign(
    client: &Client,
    reference: &Reference,
    subject: Descriptor,
    key: &SigningKey,
) -> Result<(), SignatureError> {
    let digest = subject.digest.clone();
    let empty = Bytes::from_static(b"{}");
    let content = Bytes::from(bundle::of_manifest(&digest, key));
    let mut config = Descriptor::of(EMPTY, &empty);
    config.artifact_type = Some(bundle::MEDIA_TYPE.into());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.into()),
        artifact_type: Some(bundle::MEDIA_TYPE.into()),
        config,
        layers: vec![Descriptor::of(bundle::MEDIA_TYPE, &content)],
        subject: Some(subject),
        annotations: bundle::annotations(),
    };
    client.push_blob(reference, content).await?;
    client.push_blob(reference, empty).await?;
    let manifest = Bytes::from(serde_json::to_vec(&manifest).expect("texts are written as JSON"));
    let mut descriptor = Descriptor::of(MANIFEST, &manifest);
    descriptor.artifact_type = Some(bundle::MEDIA_TYPE.into());
    client.push_referrer(reference, &digest, descriptor, manifest).await?;

    let fetched = match client.manifest(&reference.at_tag(&simple::tag(&digest))).await {
        Ok(fetched) => Some(parse("the manifest of signatures", &fetched.content)?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    let signed = simple::sign(reference, &digest, key, fetched);
    client.push_blob(reference, signed.payload).await?;
    client.push_blob(reference, signed.config).await?;
    let manifest = serde_json::to_vec(&signed.manifest).expect("texts are written as JSON");
    client.push_manifest(&reference.at_tag(&simple::tag(&digest)), MANIFEST, manifest.into()).await?;
    Ok(())
}

/// References of all manifests that hold signatures of a digest, for a bundle.
pub(super) async fn manifests_of(
    source: &Source,
    reference: &Reference,
    digest: &Digest,
) -> Result<Vec<Reference>, RegistryError> {
    let bundles = bundles_of(source, reference, digest).await?;
    let mut all: Vec<Reference> = bundles.iter().map(|it| reference.at_digest(&it.digest)).collect();
    if simple_manifest(source, reference, digest).await?.is_some() {
        all.push(reference.at_tag(&simple::tag(digest)));
    }
    Ok(all)
}

async fn bundles_of(source: &Source, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
    let mut referrers = source.referrers(reference, digest).await?;
    referrers.retain(|it| it.artifact_type.as_deref() == Some(bundle::MEDIA_TYPE));
    referrers.truncate(SIGNATURES);
    Ok(referrers)
}

async fn simple_manifest(
    source: &Source,
    reference: &Reference,
    digest: &Digest,
) -> Result<Option<Manifest>, RegistryError> {
    match source.manifest(&reference.at_tag(&simple::tag(digest))).await {
        Ok(fetched) => parse("the manifest of signatures", &fetched.content).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
