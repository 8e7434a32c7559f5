//! `mortise.lock`: which plugins this machine has agreed to, by digest and signer, and what it lets them do.
//!
//! Written by `mortise plugin add`, `update`, `remove` and `revoke`; read by every join. What it names was verified when
//! it came in, so that a join needs neither a registry nor a key.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::grants::Grants;
use super::store::Store;
use super::{Inspection, PluginDigest};
use crate::config::PluginSettings;
use crate::registry::signature::PublicKey;
use crate::registry::{Digest, Layout};

mod error;

pub use error::LockError;

/// Below the root.
const FILE: &str = "etc/mortise/mortise.lock";
/// Largest file.
const LOCK_BYTES: u64 = 4 << 20;
const API_VERSION: &str = "mortise.dev/v1alpha1";
const KIND: &str = "PluginLock";

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    api_version: String,
    kind: String,
    /// In the order they were added.
    #[serde(default)]
    pub plugins: Vec<Locked>,
    /// Digests and signers that are refused, whatever else says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<Digest>,
}

/// A plugin that was agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Locked {
    /// As configurations name it.
    pub name: String,
    /// Where it came from: a reference in a registry, or an absolute path.
    pub from: String,
    /// Of the manifest in the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Of the component.
    pub digest: Digest,
    /// Of the plugin's manifest.
    pub version: String,
    /// Fingerprint of the key that signed it. Without one it was added with `--allow-unsigned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<Digest>,
    /// That key, base64 of its DER: the next update must be signed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What it asked for, a line each in the syntax of a manifest.
    #[serde(default)]
    pub wants: Vec<String>,
    /// What it may use of that, likewise.
    #[serde(default)]
    pub grants: Vec<String>,
}

impl Lock {
    /// Path of the lock file below a root.
    pub fn path(root: &Path) -> PathBuf {
        root.join(FILE)
    }

    /// Reads the file; an absent one is an empty one.
    ///
    /// # Errors
    ///
    /// [`LockError::File`], [`LockError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, LockError> {
        let cannot = |source| LockError::File { what: "read", path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(cannot(error)),
        };
        let mut text = String::new();
        file.take(LOCK_BYTES).read_to_string(&mut text).map_err(cannot)?;
        Self::parse(&text).map_err(|reason| LockError::Malformed { path: path.to_owned(), reason })
    }

    /// Reads the text.
    ///
    /// # Errors
    ///
    /// What is wrong, with line and column where there is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lock: Self = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
            .map_err(|error| error.to_string().trim_end().to_owned())?;
        if lock.api_version != API_VERSION || lock.kind != KIND {
            return Err(format!("its `apiVersion` and `kind` are not `{API_VERSION}` and `{KIND}`"));
        }
        for (index, locked) in lock.plugins.iter().enumerate() {
            if lock.plugins[..index].iter().any(|other| other.name == locked.name) {
                return Err(format!("there are two plugins named `{}`", locked.name.escape_debug()));
            }
            locked.granted().map_err(|error| format!("the grants of `{}`: {error}", locked.name.escape_debug()))?;
        }
        Ok(lock)
    }

    /// Writes the file whole.
    ///
    /// # Errors
    ///
    /// [`LockError::File`].
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        let cannot = |source| LockError::File { what: "write", path: path.to_owned(), source };
        let text = serde_saphyr::to_string(self).expect("texts are written as YAML");
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || {
            std::fs::create_dir_all(directory)?;
            let permissions = std::fs::Permissions::from_mode(0o644);
            let mut file =
                tempfile::Builder::new().prefix(".mortise-").permissions(permissions).tempfile_in(directory)?;
            file.write_all(b"# Written by `mortise plugin`; `mortise plugin list` shows it.\n")?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            std::fs::File::open(directory)?.sync_all()
        };
        write().map_err(cannot)
    }

    /// The plugin of this name, or from this place.
    pub fn find(&self, name: &str) -> Option<&Locked> {
        let named = self.plugins.iter().find(|it| it.name == name);
        named.or_else(|| self.plugins.iter().find(|it| it.from == name))
    }

    /// Puts a plugin in the place of the one of its name, else at the end.
    pub fn put(&mut self, locked: Locked) {
        match self.plugins.iter_mut().find(|it| it.name == locked.name) {
            Some(place) => *place = locked,
            None => self.plugins.push(locked),
        }
    }

    /// Refuses what was revoked: a component, a registry's manifest, or a signer.
    ///
    /// # Errors
    ///
    /// [`LockError::Revoked`].
    pub fn verify_not_revoked(
        &self,
        name: &str,
        digests: &[&Digest],
        signer: Option<&Digest>,
    ) -> Result<(), LockError> {
        let refused =
            |what, digest: &Digest| LockError::Revoked { name: name.to_owned(), what, digest: digest.clone() };
        if let Some(digest) = digests.iter().find(|it| self.revoked.contains(it)) {
            return Err(refused("its digest", digest));
        }
        match signer.filter(|it| self.revoked.contains(it)) {
            Some(signer) => Err(refused("its signer", signer)),
            None => Ok(()),
        }
    }

    /// Refuses plugins that a join uses from files, too, where their digest was revoked.
    ///
    /// # Errors
    ///
    /// [`LockError::Revoked`].
    pub fn verify_all(&self, plugins: &[PluginDigest]) -> Result<(), LockError> {
        for plugin in plugins {
            if let Ok(digest) = plugin.digest.parse() {
                self.verify_not_revoked(&plugin.name, &[&digest], None)?;
            }
        }
        Ok(())
    }

    /// Puts components that settings name, and that are not in the store, from a bundle into it. Their digests were
    /// agreed to; what is not in the bundle is left to [`Self::resolve`].
    ///
    /// # Errors
    ///
    /// [`LockError::Store`].
    pub fn fetch(&self, plugins: &[PluginSettings], store: &Store, bundle: &Layout) -> Result<(), LockError> {
        let wanted = plugins.iter().filter_map(|plugin| self.find(plugin.image.as_deref()?));
        for locked in wanted.filter(|locked| store.component(&locked.digest).is_none()) {
            if let Some(component) = bundle.component(&locked.digest) {
                store.put_component(&component)?;
            }
        }
        Ok(())
    }

    /// Gives settings that name a plugin of the lock its file in the store, its digest and its grants.
    ///
    /// # Errors
    ///
    /// [`LockError`] for the first plugin that is not agreed to, revoked, or not stored.
    pub fn resolve(&self, plugins: &mut [PluginSettings], store: &Store) -> Result<(), LockError> {
        for plugin in plugins {
            let Some(image) = plugin.image.take() else { continue };
            let locked = self.find(&image).ok_or(LockError::NotLocked { name: image })?;
            let digests: Vec<&Digest> = std::iter::once(&locked.digest).chain(&locked.manifest).collect();
            self.verify_not_revoked(&locked.name, &digests, locked.signer.as_ref())?;
            if let Some(configured) = &plugin.digest
                && !digests.iter().any(|digest| digest.as_str() == configured)
            {
                let (name, configured) = (plugin.name.clone(), configured.clone());
                return Err(LockError::OtherDigest { name, configured, locked: locked.digest.clone() });
            }
            plugin.path = store.component(&locked.digest).ok_or_else(|| LockError::NotStored {
                name: locked.name.clone(),
                digest: locked.digest.clone(),
                from: locked.from.clone(),
            })?;
            plugin.digest = Some(locked.digest.to_string());
            plugin.signer = locked.signer.as_ref().map(ToString::to_string);
            plugin.grants.merge(locked.granted().expect("it was parsed when the file was read"));
        }
        Ok(())
    }
}

impl Default for Lock {
    fn default() -> Self {
        Self { api_version: API_VERSION.into(), kind: KIND.into(), plugins: Vec::new(), revoked: Vec::new() }
    }
}

impl Locked {
    /// What it may use.
    ///
    /// # Errors
    ///
    /// A line that is no grant.
    pub fn granted(&self) -> Result<Grants, super::grants::GrantError> {
        let mut all = Grants::default();
        for line in &self.grants {
            all.merge(Grants::parse(line)?);
        }
        Ok(all)
    }

    /// The key that signed it.
    ///
    /// # Errors
    ///
    /// [`LockError::Key`] when it does not fit the signer.
    pub fn public_key(&self) -> Result<Option<PublicKey>, LockError> {
        let wrong = |reason: &str| LockError::Key { name: self.name.clone(), reason: reason.to_owned() };
        let Some(text) = &self.key else {
            return if self.signer.is_none() { Ok(None) } else { Err(wrong("it is missing")) };
        };
        let key = PublicKey::of_base64(text).map_err(wrong)?;
        if Some(key.fingerprint()) == self.signer { Ok(Some(key)) } else { Err(wrong("it is not the signer's")) }
    }

    /// What an update brings that was not agreed to: another signer, another plugin, more wishes. None: it passes.
    pub fn differences(&self, seen: &Inspection, signer: Option<&Digest>) -> Vec<String> {
        let mut differences = Vec::new();
        if self.signer.as_ref() != signer {
            let shown = |signer: Option<&Digest>| signer.map_or("nobody".to_owned(), ToString::to_string);
            differences.push(format!("it was signed by {}, now by {}", shown(self.signer.as_ref()), shown(signer)));
        }
        let more = seen.wants.iter().filter(|line| !self.wants.contains(line));
        differences.extend(more.map(|line| format!("it wants more: {}", crate::output::printable(line))));
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked() -> Locked {
        Locked {
            name: "gpu".into(),
            from: "r.example/gpu:1".into(),
            manifest: Some(Digest::of(b"manifest")),
            digest: Digest::of(b"component"),
            version: "1.0.0".into(),
            signer: Some(Digest::of(b"key")),
            key: Some("a2V5".repeat(31)),
            wants: vec!["facts: [kernel]".into(), "facts: [\"sysctl:net.ipv4.*\"]".into()],
            grants: vec!["facts: [kernel]".into()],
        }
    }

    fn seen(wants: &[&str]) -> Inspection {
        Inspection {
            wants: wants.iter().map(|&line| line.to_owned()).collect(),
            ..crate::plugin::inspect_component("x", EMPTY).unwrap()
        }
    }

    /// A component that exports what a preflight plugin does would be large; only its wishes matter here.
    const EMPTY: &[u8] = crate::plugin::engine::builtin::COMPONENT;

    #[test]
    fn is_written_and_read_back_equal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc/mortise.lock");
        assert_eq!(Lock::load(&path).unwrap(), Lock::default());
        let mut lock = Lock::default();
        lock.put(locked());
        lock.put(Locked { name: "other".into(), key: None, signer: None, ..locked() });
        lock.revoked.push(Digest::of(b"bad"));
        lock.save(&path).unwrap();
        assert_eq!(Lock::load(&path).unwrap(), lock);
    }

    #[test]
    fn refuses_a_file_that_says_something_it_does_not_know() {
        let text = serde_saphyr::to_string(&Lock { plugins: vec![locked()], ..Lock::default() }).unwrap();
        assert!(Lock::parse(&text).is_ok(), "{text}");
        for (from, to) in [
            ("kind: PluginLock", "kind: Lock"),
            ("v1alpha1", "v2"),
            ("version: ", "versio: "),
            ("sha256:", "sha512:"),
            ("- \"facts: [kernel]\"", "- \"fact: [kernel]\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from} is not in\n{text}");
            assert!(Lock::parse(&changed).is_err(), "{to} was accepted");
        }
    }

    #[test]
    fn an_update_passes_only_from_the_same_signer_and_without_more_wishes() {
        let (locked, signer) = (locked(), Digest::of(b"key"));
        let same = ["facts: [kernel]", "facts: [\"sysctl:net.ipv4.*\"]"];
        assert_eq!(locked.differences(&seen(&same), Some(&signer)), [""; 0]);
        assert_eq!(locked.differences(&seen(&same[..1]), Some(&signer)), [""; 0], "fewer wishes");
        let more = locked.differences(&seen(&["facts: [kernel]", "facts: [swap]"]), Some(&signer));
        assert_eq!(more, ["it wants more: facts: [swap]"]);
        assert_eq!(locked.differences(&seen(&same), None).len(), 1, "unsigned");
        assert_eq!(locked.differences(&seen(&same), Some(&Digest::of(b"other"))).len(), 1, "another signer");
    }

    #[test]
    fn what_is_revoked_is_refused_by_digest_and_by_signer() {
        let locked = locked();
        for revoked in [locked.digest.clone(), locked.manifest.clone().unwrap(), locked.signer.clone().unwrap()] {
            let lock = Lock { plugins: vec![locked.clone()], revoked: vec![revoked], ..Lock::default() };
            let digests = [&locked.digest, locked.manifest.as_ref().unwrap()];
            let refused = lock.verify_not_revoked("gpu", &digests, locked.signer.as_ref());
            assert!(matches!(refused, Err(LockError::Revoked { .. })));
        }
        let lock = Lock { revoked: vec![Digest::of(b"else")], ..Lock::default() };
        assert!(lock.verify_not_revoked("gpu", &[&locked.digest], locked.signer.as_ref()).is_ok());
    }

    #[test]
    fn a_plugin_gets_its_file_digest_and_grants_from_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::of(directory.path());
        let lock = Lock { plugins: vec![locked()], ..Lock::default() };
        let named = |image: &str, digest: Option<&str>| PluginSettings {
            name: "mine".into(),
            image: Some(image.into()),
            digest: digest.map(Into::into),
            ..PluginSettings::default()
        };
        let resolve = |image: &str, digest: Option<&str>| {
            let mut plugins = [named(image, digest)];
            lock.resolve(&mut plugins, &store).map(|()| plugins)
        };
        assert!(matches!(resolve("gpu", None), Err(LockError::NotStored { .. })));
        store.put_component(b"component").unwrap();
        for image in ["gpu", "r.example/gpu:1"] {
            let [plugin] = resolve(image, None).unwrap();
            assert_eq!(std::fs::read(&plugin.path).unwrap(), b"component");
            assert_eq!(plugin.digest, Some(locked().digest.to_string()));
            assert_eq!(plugin.grants, locked().granted().unwrap());
        }
        assert!(resolve("gpu", locked().manifest.as_ref().map(Digest::as_str)).is_ok());
        assert!(matches!(resolve("gpu", Some(Digest::of(b"x").as_str())), Err(LockError::OtherDigest { .. })));
        assert!(matches!(resolve("r.example/gpu:2", None), Err(LockError::NotLocked { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Lock::parse(&text);
        }
    }
}
