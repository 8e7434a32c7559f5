//! Plugins without a registry: an OCI image layout in a tar file, with the signatures that were there.
//!
//! Read whole into memory, each blob checked by its digest when it is used; nothing is unpacked, so no name in the file
//! becomes a path.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::path::Path;

use bytes::Bytes;
use serde_json::json;

use super::client::{Fetched, MANIFEST_BYTES, verify};
use super::digest::Digest;
use super::error::RegistryError;
use super::manifest::{Descriptor, INDEX, Index, MANIFEST, Manifest, parse};
use super::reference::Reference;
use super::{Source, artifact, signature};

/// Largest bundle.
const BUNDLE_BYTES: u64 = 1 << 30;
/// Most entries of a bundle.
const ENTRIES: usize = 4096;
/// Annotation of the index: the reference a manifest had, registry and all.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Largest blob of a signature's manifest.
const SIGNATURE_BLOB_BYTES: u64 = 4 << 20;

/// A bundle that was read.
pub struct Layout {
    index: Index,
    blobs: BTreeMap<String, Bytes>,
    file: String,
}

impl Layout {
    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// [`RegistryError::File`], and [`RegistryError::Malformed`] for a file that is no bundle.
    pub fn open(path: &Path) -> Result<Self, RegistryError> {
        let cannot = |source| RegistryError::File { what: "read", path: path.to_owned(), source };
        let what = format!("the bundle `{}`", path.display());
        let bad = |reason: &str| RegistryError::Malformed { what: what.clone(), reason: reason.to_owned() };
        let file = std::fs::File::open(path).map_err(cannot)?;
        if file.metadata().map_err(cannot)?.len() > BUNDLE_BYTES {
            return Err(RegistryError::TooLarge { what, limit: BUNDLE_BYTES });
        }
        let mut archive = tar::Archive::new(file.take(BUNDLE_BYTES));
        let (mut blobs, mut index) = (BTreeMap::new(), None);
        for (count, entry) in archive.entries().map_err(cannot)?.enumerate() {
            let mut entry = entry.map_err(cannot)?;
            if count >= ENTRIES {
                return Err(bad("it has too many entries"));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(cannot)?;
            if name == "index.json" {
                index = Some(parse::<Index>(&what, &content)?);
            } else if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                blobs.insert(format!("sha256:{hex}"), Bytes::from(content));
            }
        }
        let index = index.ok_or_else(|| bad("it has no `index.json`"))?;
        Ok(Self { index, blobs, file: path.display().to_string() })
    }

    /// References of the plugins in it, as they were in their registries.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.index.manifests.iter().filter_map(|it| it.annotations.get(NAME)).map(String::as_str)
    }

    /// A component by its digest, if it is in the bundle as it was.
    pub fn component(&self, digest: &Digest) -> Option<Bytes> {
        self.blobs.get(digest.as_str()).filter(|content| Digest::of(content) == *digest).cloned()
    }

    pub(super) fn manifest(&self, reference: &Reference) -> Result<Fetched, RegistryError> {
        let tagged = reference.tag().map(|tag| reference.at_tag(tag).to_string());
        let wanted = |it: &&Descriptor| match reference.digest() {
            Some(digest) => it.digest == *digest,
            None => it.annotations.get(NAME) == tagged.as_ref(),
        };
        let descriptor = self.index.manifests.iter().find(wanted).ok_or_else(|| RegistryError::NotFound {
            endpoint: self.file.clone(),
            what: format!("manifest `{reference}`"),
        })?;
        let content = self.blob(descriptor, MANIFEST_BYTES)?;
        Ok(Fetched { digest: descriptor.digest.clone(), media_type: descriptor.media_type.clone(), content })
    }

    pub(super) fn blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, RegistryError> {
        let what = format!("blob `{}`", descriptor.digest);
        let found = self.blobs.get(descriptor.digest.as_str());
        let content =
            found.ok_or_else(|| RegistryError::NotFound { endpoint: self.file.clone(), what: what.clone() })?.clone();
        if content.len() as u64 > limit {
            return Err(RegistryError::TooLarge { what, limit });
        }
        verify(what, &descriptor.digest, content)
    }

    pub(super) fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found = Vec::new();
        for descriptor in self.index.manifests.iter().filter(|it| it.media_type == MANIFEST) {
            let manifest: Manifest = parse("a manifest of the bundle", &self.blob(descriptor, MANIFEST_BYTES)?)?;
            if manifest.subject.is_some_and(|subject| subject.digest == *digest) {
                found.push(descriptor.clone());
            }
        }
        Ok(found)
    }
}

/// Writes plugins with their signatures into a bundle. The source of each is its registry.
///
/// # Errors
///
/// [`RegistryError`].
pub async fn bundle(plugins: &[(Reference, Source)], path: &Path) -> Result<(), RegistryError> {
    let mut writer = Writer::default();
    for (reference, source) in plugins {
        let digest = artifact::find(source, reference).await?.digest().clone();
        let name = reference.tag().map(|tag| reference.at_tag(tag).to_string());
        writer.add(source, &reference.at_digest(&digest), name).await?;
        for signature in signature::manifests_of(source, reference, &digest).await? {
            // The old scheme is found by its tag, in a bundle as in a registry.
            let name = signature.tag().map(|tag| reference.at_tag(tag).to_string());
            writer.add(source, &signature, name).await?;
        }
    }
    writer.finish(path)
}

#[derive(Default)]
struct Writer {
    manifests: Vec<Descriptor>,
    blobs: BTreeMap<String, Bytes>,
}

impl Writer {
    async fn add(&mut self, source: &Source, reference: &Reference, name: Option<String>) -> Result<(), RegistryError> {
        let fetched = source.manifest(reference).await?;
        let manifest: Manifest = parse("a manifest", &fetched.content)?;
        let limits = std::iter::once((&manifest.config, SIGNATURE_BLOB_BYTES))
            .chain(manifest.layers.iter().map(|layer| (layer, crate::plugin::COMPONENT_BYTES)));
        for (descriptor, limit) in limits {
            let content = source.blob(reference, descriptor, limit).await?;
            self.blobs.insert(descriptor.digest.hex().to_owned(), content);
        }
        let mut descriptor = Descriptor::of(&fetched.media_type, &fetched.content);
        descriptor.artifact_type = manifest.artifact_type;
        descriptor.annotations.extend(name.map(|name| (NAME.to_owned(), name)));
        self.blobs.insert(fetched.digest.hex().to_owned(), fetched.content);
        if !self.manifests.contains(&descriptor) {
            self.manifests.push(descriptor);
        }
        Ok(())
    }

    fn finish(self, path: &Path) -> Result<(), RegistryError> {
        let cannot = |source| RegistryError::File { what: "write", path: path.to_owned(), source };
        let index = Index { media_type: Some(INDEX.into()), ..Index::new(self.manifests) };
        let index = serde_json::to_vec(&index).expect("texts are written as JSON");
        let write = || {
            let mut archive = tar::Builder::new(Vec::new());
            let mut add = |name: &str, content: &[u8]| {
                let mut header = tar::Header::new_ustar();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                archive.append_data(&mut header, name, content)
            };
            add("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string().as_bytes())?;
            add("index.json", &index)?;
            for (hex, content) in &self.blobs {
                add(&format!("blobs/sha256/{hex}"), content)?;
            }
            let content = archive.into_inner()?;
            let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let mut file = tempfile::Builder::new().prefix(".mortise-").tempfile_in(directory)?;
            file.write_all(&content)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(cannot)
    }
}
