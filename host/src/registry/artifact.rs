//! A component as an OCI artifact, in the layout that the CNCF's wasm working group describes: a configuration with
//! what the component imports and exports, and one layer that is the component.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::digest::Digest;
use super::error::RegistryError;
use super::manifest::{Descriptor, MANIFEST, Manifest, TITLE, parse};
use super::reference::Reference;
use super::{Source, client};
use crate::plugin::{COMPONENT_BYTES, Interfaces};

/// Media type of the configuration.
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of the layer.
const LAYER: &str = "application/wasm";
/// Largest configuration.
const CONFIG_BYTES: u64 = 1 << 20;
/// The one time of creation: a component pushed twice is one artifact, with one digest and one signature.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A plugin's manifest.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The manifest by digest.
    pub subject: Descriptor,
    manifest: Manifest,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    created: String,
    architecture: String,
    os: String,
    layer_digests: Vec<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    component: Option<Interfaces>,
}

/// Stores a component under the reference's tag. The digest of the manifest is the result.
///
/// `interfaces` and `version` are what the component says of itself; `file` is the name other programs write it to.
///
/// # Errors
///
/// [`RegistryError`]; a reference without a tag.
pub async fn push(
    client: &Client,
    reference: &Reference,
    component: Bytes,
    interfaces: Interfaces,
    version: Option<&str>,
    file: &str,
) -> Result<Digest, RegistryError> {
    if reference.tag().is_none() || reference.digest().is_some() {
        let reason = "a plugin is pushed to a tag; its digest is what comes out";
        return Err(RegistryError::Reference { text: reference.to_string(), reason });
    }
    let mut layer = Descriptor::of(LAYER, &component);
    layer.annotations.insert(TITLE.into(), file.to_owned());
    let config = Config {
        created: CREATED.into(),
        architecture: "wasm".into(),
        os: "wasip2".into(),
        layer_digests: vec![layer.digest.clone()],
        component: Some(interfaces),
    };
    let config = Bytes::from(serde_json::to_vec(&config).expect("texts are written as JSON"));
    let mut manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.into()),
        artifact_type: None,
        config: Descriptor::of(CONFIG, &config),
        layers: vec![layer],
        subject: None,
        annotations: Default::default(),
    };
    if let Some(version) = version {
        manifest.annotations.insert("org.opencontainers.image.version".into(), version.to_owned());
    }
    let content = Bytes::from(serde_json::to_vec(&manifest).expect("texts are written as JSON"));
    client.push_blob(reference, component).await?;
    client.push_blob(reference, config).await?;
    let digest = Digest::of(&content);
    client.push_manifest(reference, MANIFEST, content).await?;
    Ok(digest)
}

/// Reads the manifest a reference names and checks that it is a plugin's. No content yet, so that a signature can be
/// checked first.
///
/// # Errors
///
/// [`RegistryError::NotPlugin`] for container images, charts and the like.
pub async fn find(source: &Source, reference: &Reference) -> Result<Artifact, RegistryError> {
    let fetched = source.manifest(reference).await?;
    let manifest = plugin_manifest(reference, &fetched)?;
    Ok(Artifact { subject: Descriptor::of(MANIFEST, &fetched.content), manifest })
}

impl Artifact {
    /// Digest of the manifest: what is signed.
    pub fn digest(&self) -> &Digest {
        &self.subject.digest
    }

    /// Reads the component; the bytes are those the manifest names.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn component(&self, source: &Source, reference: &Reference) -> Result<Bytes, RegistryError> {
        let config = source.blob(reference, &self.manifest.config, CONFIG_BYTES).await?;
        let _: Config = parse("the plugin's configuration", &config)?;
        source.blob(reference, &self.manifest.layers[0], COMPONENT_BYTES).await
    }
}

fn plugin_manifest(reference: &Reference, fetched: &client::Fetched) -> Result<Manifest, RegistryError> {
    let not = |reason: String| RegistryError::NotPlugin { reference: reference.to_string(), reason };
    if fetched.media_type != MANIFEST {
        return Err(not(format!("its manifest is of type `{}`", crate::output::printable(&fetched.media_type))));
    }
    let manifest: Manifest = parse("the plugin's manifest", &fetched.content)?;
    if manifest.config.media_type != CONFIG {
        let found = crate::output::printable(&manifest.config.media_type);
        return Err(not(format!("its configuration is of type `{found}`, not `{CONFIG}`")));
    }
    match manifest.layers.as_slice() {
        [layer] if layer.media_type == LAYER => Ok(manifest),
        [_] => Err(not(format!("its layer is not of type `{LAYER}`"))),
        layers => Err(not(format!("it has {} layers, not one", layers.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manifest: serde_json::Value) -> Result<Manifest, RegistryError> {
        let media_type = manifest["mediaType"].as_str().unwrap_or_default().to_owned();
        let content = Bytes::from(manifest.to_string());
        let fetched = client::Fetched { digest: Digest::of(&content), media_type, content };
        plugin_manifest(&"localhost/x:1".parse().unwrap(), &fetched)
    }

    #[test]
    fn only_one_component_with_its_configuration_is_a_plugin() {
        let blob = |kind: &str| serde_json::json!({"mediaType": kind, "digest": Digest::of(b""), "size": 0});
        let manifest = |kind: &str, config: &str, layers: &[&str]| {
            let layers: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
            serde_json::json!({"schemaVersion": 2, "mediaType": kind, "config": blob(config), "layers": layers})
        };
        assert!(check(manifest(MANIFEST, CONFIG, &[LAYER])).is_ok());
        for bad in [
            manifest(MANIFEST, "application/vnd.oci.image.config.v1+json", &[LAYER]),
            manifest(MANIFEST, CONFIG, &["application/vnd.oci.image.layer.v1.tar+gzip"]),
            manifest(MANIFEST, CONFIG, &[]),
            manifest(MANIFEST, CONFIG, &[LAYER, LAYER]),
            manifest("application/vnd.oci.image.index.v1+json", CONFIG, &[LAYER]),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }
}
