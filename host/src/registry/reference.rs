//! `registry.example:5000/vendor/gpu-driver:1.2.0@sha256:…`

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::RegistryError;

/// Longest reference, in bytes: a repository may have 255, a tag 128.
const REFERENCE_BYTES: usize = 1024;

/// Names a manifest in a registry.
///
/// The registry must be named: nothing is fetched from Docker Hub because a host was forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`, as written.
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `host[:port]`, as written: what credentials are kept under.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path of the repository below `/v2/`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one: the manifest must have it.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository, by digest.
    #[must_use]
    pub fn at_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The same repository, by tag.
    #[must_use]
    pub fn at_tag(&self, tag: &str) -> Self {
        Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() }
    }

    /// What stands last in the path of a request: the digest, else the tag.
    pub fn identifier(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag()).unwrap_or_default()
    }

    /// Last part of the repository: the name a plugin has unless another is given.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let bad = |reason| RegistryError::Reference { text: text.chars().take(200).collect(), reason };
        if text.len() > REFERENCE_BYTES {
            return Err(bad("it is too long"));
        }
        if text.contains("://") {
            return Err(bad("it begins with a scheme; write the registry's host alone"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(bad)?)),
            None => (text, None),
        };
        let (registry, path) = name.split_once('/').ok_or_else(|| bad("it names no registry"))?;
        if !(registry.contains(['.', ':']) || registry == "localhost") {
            return Err(bad("it names no registry: the first part is neither `localhost` nor has a dot or a port"));
        }
        if !is_registry(registry) {
            return Err(bad("its registry is no `host` or `host:port`"));
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if !repository.split('/').all(is_component) || repository.len() > 255 {
            return Err(bad("its repository is not lower-case names separated by `/`"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("its tag is not 1 to 128 of letters, digits, `_`, `.` and `-`"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(bad("it has neither a tag nor a digest"));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

/// Name, IPv4 address or bracketed IPv6 address, and a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, after)) if host.parse::<std::net::Ipv6Addr>().is_ok() => (None, after.strip_prefix(':')),
            _ => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    host.is_none_or(|host| !host.is_empty() && host.bytes().all(plain) && !host.starts_with(['.', '-']))
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn is_component(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let first = text.bytes().next().is_some_and(plain);
    let last = text.bytes().next_back().is_some_and(plain);
    first && last && text.bytes().all(|b| plain(b) || b"._-".contains(&b)) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_references_and_writes_them_back_equal() {
        let digest = Digest::of(b"x");
        for (text, registry, repository, tag) in [
            ("localhost:5000/gpu:1.2.0", "localhost:5000", "gpu", Some("1.2.0")),
            ("localhost/gpu:v1", "localhost", "gpu", Some("v1")),
            ("registry.example/vendor/a-b/c_d:1", "registry.example", "vendor/a-b/c_d", Some("1")),
            ("[::1]:5000/gpu:1", "[::1]:5000", "gpu", Some("1")),
            (&format!("r.example/gpu@{digest}"), "r.example", "gpu", None),
            (&format!("r.example:443/gpu:1@{digest}"), "r.example:443", "gpu", Some("1")),
        ] {
            let reference: Reference = text.parse().unwrap();
            let parts = (reference.registry(), reference.repository(), reference.tag());
            assert_eq!(parts, (registry, repository, tag));
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn refuses_what_would_be_asked_for_elsewhere() {
        for text in [
            "",
            "gpu",
            "gpu:1",
            "vendor/gpu:1",
            "r.example/gpu",
            "https://r.example/gpu:1",
            "r.example/GPU:1",
            "r.example/../gpu:1",
            "r.example//gpu:1",
            "r.example/gpu:",
            "r.example/gpu:-1",
            "r.example/gpu:1@sha256:00",
            "r.example:0/gpu:1",
            "r.example:x/gpu:1",
            "user@r.example/gpu:1",
            "r.example/gpu?x=1:1",
            "[::1/gpu:1",
            "r.example/gpu:1\n",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
    }
}
