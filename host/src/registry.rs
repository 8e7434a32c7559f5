//! Registries: components pushed and pulled as OCI artifacts, and their signatures.
//!
//! The client is our own, over the HTTP and TLS that are in the tree: `oci-client` would bring a second HTTP client with
//! a second set of rules for proxies and authorities. It asks for exactly what a plugin needs: manifests, blobs and
//! referrers of the distribution specification 1.1, with a bearer token or a password from docker's configuration.
//! Every answer has a bound; every byte that is used has the digest it was asked by.

mod artifact;
mod auth;
mod client;
mod credentials;
mod digest;
mod error;
mod http;
mod layout;
mod manifest;
mod reference;
pub mod signature;

pub use artifact::{Artifact, find, push};
pub use client::{Client, Options};
pub use digest::Digest;
pub use error::RegistryError;
pub use layout::{Layout, bundle};
pub use manifest::{Descriptor, Manifest};
pub use reference::Reference;

/// Where manifests and blobs are read from.
pub enum Source {
    /// A registry.
    Registry(Client),
    /// A file made by `mortise plugin bundle`.
    Layout(Layout),
}

impl Source {
    /// The manifest a reference names, with its digest and media type.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; [`RegistryError::NotFound`] when there is none.
    pub async fn manifest(&self, reference: &Reference) -> Result<client::Fetched, RegistryError> {
        match self {
            Self::Registry(client) => client.manifest(reference).await,
            Self::Layout(layout) => layout.manifest(reference),
        }
    }

    /// A blob of exactly the size and digest of its descriptor.
    ///
    /// # Errors
    ///
    /// [`RegistryError`].
    pub async fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<bytes::Bytes, RegistryError> {
        match self {
            Self::Registry(client) => client.blob(reference, descriptor, limit).await,
            Self::Layout(layout) => layout.blob(descriptor, limit),
        }
    }

    /// What refers to a manifest: its signatures among others.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; no referrers is no error.
    pub async fn referrers(&self, reference: &Reference, digest: &Digest) -> Result<Vec<Descriptor>, RegistryError> {
        match self {
            Self::Registry(client) => client.referrers(reference, digest).await,
            Self::Layout(layout) => layout.referrers(digest),
        }
    }
}
