//! Manifests and indexes of the OCI image specification 1.1, as far as plugins and signatures use them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::RegistryError;

/// Media type of a manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of docker's manifest, which signatures of old programs may have.
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of `{}`.
pub(super) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Annotation of a layer: the name of its file, which oras writes it to.
pub(super) const TITLE: &str = "org.opencontainers.image.title";

/// What names a blob or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Of the content.
    pub media_type: String,
    /// Of a manifest: what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Free texts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Of this content.
    pub(super) fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            artifact_type: None,
            digest: Digest::of(content),
            size: content.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

/// A manifest: a configuration, layers, and perhaps a subject it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Repeated from the answer's header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is about, where the configuration does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The content.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free texts by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

impl Index {
    pub(super) fn new(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: Some(INDEX.into()), manifests }
    }
}

/// Reads JSON that came from a registry or a bundle.
pub(super) fn parse<T: serde::de::DeserializeOwned>(what: &str, content: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(content)
        .map_err(|error| RegistryError::Malformed { what: what.to_owned(), reason: error.to_string() })
}
