//! Components and the native code made of them, kept by digest.
//!
//! `/var/lib/mortise/plugins`, or an ordinary user's data directory, belongs to the host; no run of a plugin can write
//! there. Native code is kept under what it was made for: digest, engine, settings and CPU. Each has a proof by a key of
//! this store, so that code that was changed, or brought in from elsewhere, is not run but made again.

use std::fs::{File, Metadata};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use thiserror::Error;

use super::code::NativeCode;
use super::engine;
use super::limits::{COMPONENT_BYTES, NATIVE_BYTES};
use crate::registry::Digest;

mod proof;

use proof::KEY_BYTES;

/// Below the root.
const DIRECTORY: &str = "var/lib/mortise/plugins";
/// Below a user's data directory.
const USER_DIRECTORY: &str = "mortise/plugins";
/// File of the store's key.
const KEY: &str = "key";
/// File of a component.
const COMPONENT: &str = "component.wasm";

/// A store that cannot be read or written.
#[derive(Debug, Error)]
#[error("cannot {what} `{path}` in the store of plugins")]
pub struct StoreError {
    /// `read` or `write`.
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What the store has of some native code.
#[derive(Debug)]
pub(super) enum Stored {
    /// Nothing.
    Absent,
    /// Something that is not what was stored.
    Tampered,
    /// The code.
    Code(NativeCode),
}

/// The store of this machine, or of an ordinary user with the machine's behind it.
#[derive(Debug, Clone)]
pub struct Store {
    own: PathBuf,
    /// Read only, for components: another's native code is not taken.
    behind: Option<PathBuf>,
}

impl Store {
    /// The machine's store below a root; for an ordinary user without `--root`, one of the user's own.
    pub fn of(root: &Path) -> Self {
        let machine = root.join(DIRECTORY);
        if root != Path::new("/") || rustix::process::geteuid().is_root() {
            return Self { own: machine, behind: None };
        }
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        match data {
            Some(data) => Self { own: data.join(USER_DIRECTORY), behind: Some(machine) },
            None => Self { own: machine, behind: None },
        }
    }

    /// The file of a component, if there is one. Whoever reads it checks its digest.
    pub fn component(&self, digest: &Digest) -> Option<PathBuf> {
        let directories = std::iter::once(&self.own).chain(&self.behind);
        directories.map(|it| entry(it, digest).join(COMPONENT)).find(|path| path.is_file())
    }

    /// Whether this very store has a component; only then native code of it is kept, so that nothing is left of plugins
    /// that nobody agreed to.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        entry(&self.own, digest).join(COMPONENT).is_file()
    }

    /// Stores a component.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub fn put_component(&self, content: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(content);
        let path = entry(&self.own, &digest).join(COMPONENT);
        if read(&path, COMPONENT_BYTES).is_ok_and(|kept| kept == content) {
            return Ok(digest);
        }
        self.write(&path, content, 0o644)?;
        Ok(digest)
    }

    /// Forgets a component and its native code.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; one that is not there is none.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = entry(&self.own, digest);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StoreError { what: "remove", path, source }),
            _ => Ok(()),
        }
    }

    /// Native code that this store made of a component, for this engine and CPU.
    pub(super) fn native(&self, digest: &Digest) -> Stored {
        let Some((path, proof)) = self.native_files(digest) else { return Stored::Absent };
        match open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::Absent,
            opened => match opened.and_then(|file| self.genuine(digest, file, &proof)) {
                Ok(Some(code)) => Stored::Code(code),
                Ok(None) | Err(_) => Stored::Tampered,
            },
        }
    }

    /// What was read is what is handed out: the file is opened once, and never written in place.
    fn genuine(&self, digest: &Digest, file: File, proof: &Path) -> io::Result<Option<NativeCode>> {
        let meta = file.metadata()?;
        if !is_ours(&meta) || meta.len() > NATIVE_BYTES {
            return Ok(None);
        }
        let proof = read(proof, proof::length(meta.len()))?;
        let key = self.key().map_err(io::Error::other)?;
        let proved = proof::verify(&key, &purpose(digest), &file, meta.len(), &proof)?;
        proved.then(|| NativeCode::in_file(file)).transpose()
    }

    /// Stores native code, the code before what proves it: a crash in between leaves code that is made again.
    pub(super) fn put_native(&self, digest: &Digest, code: &[u8]) -> Result<(), StoreError> {
        let Some((path, proof_path)) = self.native_files(digest) else { return Ok(()) };
        let proof = proof::prove(&self.key()?, &purpose(digest), code, code.len() as u64)
            .map_err(|source| StoreError { what: "write", path: proof_path.clone(), source })?;
        self.write(&path, code, 0o600)?;
        self.write(&proof_path, &proof, 0o600)
    }

    /// Files of native code and of what proves it; none where this machine has no engine.
    fn native_files(&self, digest: &Digest) -> Option<(PathBuf, PathBuf)> {
        let directory = entry(&self.own, digest);
        let made_for = made_for()?;
        Some((directory.join(format!("{made_for}.cwasm")), directory.join(format!("{made_for}.mac"))))
    }

    /// The store's key, made at its first use.
    fn key(&self) -> Result<[u8; KEY_BYTES], StoreError> {
        let path = self.own.join(KEY);
        let kept = open(&path).is_ok_and(|file| file.metadata().is_ok_and(|meta| is_ours(&meta)));
        if let (true, Ok(bytes)) = (kept, read(&path, KEY_BYTES as u64))
            && let Ok(key) = bytes.try_into()
        {
            return Ok(key);
        }
        let mut key = [0; KEY_BYTES];
        aws_lc_rs::rand::fill(&mut key).expect("the kernel has randomness");
        self.write(&path, &key, 0o600)?;
        Ok(key)
    }

    /// A file that appears whole, in a directory that only its owner writes.
    fn write(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
        let cannot = |source| StoreError { what: "write", path: path.to_owned(), source };
        let directory = path.parent().expect("every file of the store is in a directory");
        let write = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            let permissions = std::fs::Permissions::from_mode(mode);
            let mut file = tempfile::Builder::new().prefix(".").permissions(permissions).tempfile_in(directory)?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(cannot)
    }
}

fn entry(directory: &Path, digest: &Digest) -> PathBuf {
    directory.join(format!("sha256-{}", digest.hex()))
}

/// What native code is made for: engine, settings and CPU, in 16 hex digits.
fn made_for() -> Option<&'static str> {
    static MADE_FOR: OnceLock<Option<String>> = OnceLock::new();
    let compute = || {
        let engine = engine::new(engine::Cpu::Native).ok()?;
        // Keys are fixed, so that the next process finds it.
        let mut hasher = std::hash::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        Some(format!("{:016x}", hasher.finish()))
    };
    MADE_FOR.get_or_init(compute).as_deref()
}

/// What a proof binds code to: its component and this engine.
fn purpose(digest: &Digest) -> String {
    format!("{digest} {}", made_for().unwrap_or_default())
}

/// Whether a regular file belongs to this user and nobody else can write it.
fn is_ours(meta: &Metadata) -> bool {
    meta.is_file() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    File::options().read(true).custom_flags(flags).open(path)
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than anything the store writes"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store { own: directory.path().join("plugins"), behind: None };
        (directory, store)
    }

    fn files(store: &Store, digest: &Digest) -> (PathBuf, PathBuf) {
        store.native_files(digest).unwrap()
    }

    #[test]
    fn code_comes_back_as_it_was_stored_and_only_for_its_component() {
        let (_directory, store) = store();
        let (digest, other) = (Digest::of(b"component"), Digest::of(b"other"));
        assert!(matches!(store.native(&digest), Stored::Absent));
        store.put_native(&digest, b"code").unwrap();
        assert!(matches!(store.native(&digest), Stored::Code(code) if code.bytes() == 4));
        let (from, to) = (files(&store, &digest), files(&store, &other));
        std::fs::create_dir_all(to.0.parent().unwrap()).unwrap();
        std::fs::copy(&from.0, &to.0).unwrap();
        std::fs::copy(&from.1, &to.1).unwrap();
        assert!(matches!(store.native(&other), Stored::Tampered), "one component's code was taken for another's");
    }

    #[test]
    fn changed_foreign_and_unproved_code_is_not_taken() {
        type Change = fn(&Path, &Path, &Store);
        let changes: [(&str, Change); 6] = [
            ("a bit", |code, _, _| std::fs::write(code, b"cude").unwrap()),
            ("its proof", |_, mac, _| std::fs::write(mac, [0; 28]).unwrap()),
            ("a shorter proof", |_, mac, _| std::fs::write(mac, b"").unwrap()),
            ("no proof", |_, mac, _| std::fs::remove_file(mac).unwrap()),
            ("another key", |_, _, store| std::fs::write(store.own.join(KEY), [7; KEY_BYTES]).unwrap()),
            ("its mode", |code, _, _| {
                std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o666)).unwrap();
            }),
        ];
        for (what, change) in changes {
            let (_directory, store) = store();
            let digest = Digest::of(b"component");
            store.put_native(&digest, b"code").unwrap();
            let (code, mac) = files(&store, &digest);
            change(&code, &mac, &store);
            assert!(matches!(store.native(&digest), Stored::Tampered), "{what} was changed and taken");
            store.put_native(&digest, b"code").unwrap();
            assert!(matches!(store.native(&digest), Stored::Code(_)), "{what}: it was not made again");
        }
    }

    #[test]
    fn a_link_in_the_place_of_code_is_not_followed() {
        let (directory, store) = store();
        let digest = Digest::of(b"component");
        store.put_native(&digest, b"code").unwrap();
        let (code, _) = files(&store, &digest);
        std::fs::rename(&code, directory.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(directory.path().join("moved"), &code).unwrap();
        assert!(matches!(store.native(&digest), Stored::Tampered));
    }

    #[test]
    fn a_component_is_kept_by_its_digest_and_forgotten_with_its_code() {
        let (_directory, store) = store();
        let digest = store.put_component(b"component").unwrap();
        assert_eq!(std::fs::read(store.component(&digest).unwrap()).unwrap(), b"component");
        store.put_native(&digest, b"code").unwrap();
        store.remove(&digest).unwrap();
        store.remove(&digest).unwrap();
        assert!(store.component(&digest).is_none() && matches!(store.native(&digest), Stored::Absent));
    }
}
