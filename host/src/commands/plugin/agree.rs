//! `mortise plugin add|list|update|remove|revoke`: what the operator agrees to, in the lock file and the store.
//!
//! The order is always the same: signature, then content, then wishes and grants; only then is something compiled,
//! stored or recorded.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::distribution::{Subject, source};
use crate::cli::{
    LockArgs, OutputFormat, PluginAddArgs, PluginListArgs, PluginRemoveArgs, PluginRevokeArgs, PluginUpdateArgs,
    SourceArgs,
};
use crate::config::{self, check_plugin_name};
use crate::error::Failure;
use crate::plugin::grants::Grants;
use crate::plugin::lock::{Lock, LockError, Locked};
use crate::plugin::store::Store;
use crate::plugin::{Inspection, Launcher, compile_into, inspect_component, read_component};
use crate::registry::signature::{self, PublicKey};
use crate::registry::{self, Digest};

/// A component whose signature was checked, with what it says of itself.
struct Candidate {
    from: String,
    manifest: Option<Digest>,
    component: Bytes,
    seen: Inspection,
}

/// The lock file, held so that no other command changes it meanwhile.
struct Held {
    path: PathBuf,
    lock: Lock,
    _held: Option<File>,
}

impl Held {
    fn open(args: &LockArgs, root: &Path) -> Result<Self, LockError> {
        let path = args.lock.clone().unwrap_or_else(|| Lock::path(root));
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // One that is not there yet is nobody else's.
        let held = File::open(directory).ok();
        if let Some(held) = &held {
            held.lock().map_err(|source| LockError::File { what: "lock", path: path.clone(), source })?;
        }
        Ok(Self { lock: Lock::load(&path)?, path, _held: held })
    }

    fn save(&self) -> Result<(), LockError> {
        self.lock.save(&self.path)
    }
}

pub(super) async fn add(args: PluginAddArgs, root: &Path) -> Result<(), Failure> {
    let subject = Subject::parse(&args.subject)?;
    let name = args.name.unwrap_or_else(|| subject.name());
    check_plugin_name(&name)?;
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    if key.is_none() && !args.allow_unsigned {
        return Err(LockError::Unsigned { subject: args.subject }.into());
    }
    let allowed = config::grants_of_flags(&args.grants)?;
    let mut held = Held::open(&args.lock, root)?;
    let candidate = fetch(&held.lock, &name, subject, key.as_ref(), &args.source).await?;
    if let Some(other) = held.lock.plugins.iter().find(|it| it.name == name)
        && other.digest.as_str() != candidate.seen.digest
        && !args.replace
    {
        return Err(LockError::Taken { name }.into());
    }
    candidate.seen.verify_granted(&name, &allowed)?;
    let locked = candidate.locked(name, key.as_ref(), &allowed)?;
    keep(&candidate, &locked, root).await?;
    held.lock.put(locked.clone());
    held.save()?;
    println!("{} {} {}", locked.name, locked.version, locked.digest);
    match &locked.signer {
        Some(signer) => eprintln!("signed by {signer}; recorded in `{}`", held.path.display()),
        None => eprintln!("warning: without a signature; recorded in `{}`", held.path.display()),
    }
    Ok(())
}

pub(super) async fn update(args: PluginUpdateArgs, root: &Path) -> Result<(), Failure> {
    let mut held = Held::open(&args.lock, root)?;
    let names = match (args.names.as_slice(), &args.to) {
        ([], None) => held.lock.plugins.iter().map(|it| it.name.clone()).collect(),
        ([_], _) | (_, None) => args.names.clone(),
        _ => return Err(LockError::NotLocked { name: "--to without one name".into() }.into()),
    };
    for name in names {
        let old = held.lock.find(&name).ok_or(LockError::NotLocked { name })?.clone();
        let key = old.public_key()?;
        let subject = Subject::parse(args.to.as_deref().unwrap_or(&old.from))?;
        let candidate = fetch(&held.lock, &old.name, subject, key.as_ref(), &args.source).await?;
        let signer = key.as_ref().map(PublicKey::fingerprint);
        let differences = old.differences(&candidate.seen, signer.as_ref());
        if !differences.is_empty() {
            let (name, from) = (old.name, candidate.from);
            return Err(LockError::Changed { name, differences, from }.into());
        }
        let granted = old
            .granted()
            .map_err(|error| LockError::Malformed { path: held.path.clone(), reason: error.to_string() })?;
        candidate.seen.verify_granted(&old.name, &granted)?;
        let new = candidate.locked(old.name.clone(), key.as_ref(), &granted)?;
        keep(&candidate, &new, root).await?;
        let same = new == old;
        println!("{} {} {}{}", new.name, new.version, new.digest, if same { ", unchanged" } else { "" });
        held.lock.put(new);
        held.save()?;
        if old.digest != held.lock.find(&old.name).map_or(old.digest.clone(), |it| it.digest.clone()) {
            forget(&held.lock, &old.digest, root)?;
        }
    }
    Ok(())
}

pub(super) fn list(args: &PluginListArgs, root: &Path) -> Result<(), Failure> {
    let lock = Lock::load(&args.lock.lock.clone().unwrap_or_else(|| Lock::path(root)))?;
    if args.output == OutputFormat::Json {
        println!("{}", serde_json::to_string(&lock).expect("texts are written as JSON"));
        return Ok(());
    }
    for plugin in &lock.plugins {
        println!("{} {}\n  from   {}\n  digest {}", plugin.name, plugin.version, plugin.from, plugin.digest);
        match &plugin.signer {
            Some(signer) => println!("  signer {signer}"),
            None => println!("  signer none: it was added with --allow-unsigned"),
        }
        plugin.grants.iter().for_each(|line| println!("  grant  {line}"));
        let digests: Vec<&Digest> = std::iter::once(&plugin.digest).chain(&plugin.manifest).collect();
        if lock.verify_not_revoked(&plugin.name, &digests, plugin.signer.as_ref()).is_err() {
            println!("  REVOKED");
        }
    }
    lock.revoked.iter().for_each(|digest| println!("revoked {digest}"));
    Ok(())
}

pub(super) fn remove(args: &PluginRemoveArgs, root: &Path) -> Result<(), Failure> {
    let mut held = Held::open(&args.lock, root)?;
    for name in &args.names {
        let at = held.lock.plugins.iter().position(|it| it.name == *name);
        let at = at.ok_or_else(|| LockError::NotLocked { name: name.clone() })?;
        let removed = held.lock.plugins.remove(at);
        held.save()?;
        forget(&held.lock, &removed.digest, root)?;
        println!("{} {} {}", removed.name, removed.version, removed.digest);
    }
    Ok(())
}

pub(super) fn revoke(args: &PluginRevokeArgs, root: &Path) -> Result<(), Failure> {
    let mut held = Held::open(&args.lock, root)?;
    if !held.lock.revoked.contains(&args.digest) {
        held.lock.revoked.push(args.digest.clone());
        held.save()?;
    }
    println!("{}", args.digest);
    for plugin in &held.lock.plugins {
        let digests: Vec<&Digest> = std::iter::once(&plugin.digest).chain(&plugin.manifest).collect();
        if held.lock.verify_not_revoked(&plugin.name, &digests, plugin.signer.as_ref()).is_err() {
            eprintln!("plugin `{}` is refused from now on; take it out with `mortise plugin remove {0}`", plugin.name);
        }
    }
    Ok(())
}

/// Signature first, and nothing else without it.
async fn fetch(
    lock: &Lock,
    name: &str,
    subject: Subject,
    key: Option<&PublicKey>,
    from: &SourceArgs,
) -> Result<Candidate, Failure> {
    let signer = key.map(PublicKey::fingerprint);
    let (from, manifest, component) = match subject {
        Subject::Reference(reference) => {
            let source = source(&reference, from)?;
            let artifact = registry::find(&source, &reference).await?;
            lock.verify_not_revoked(name, &[artifact.digest()], signer.as_ref())?;
            if let Some(key) = key {
                signature::verify(&source, &reference, artifact.digest(), key).await?;
            }
            let component = artifact.component(&source, &reference).await?;
            (reference.to_string(), Some(artifact.digest().clone()), component)
        }
        Subject::File(path) => {
            let path = std::path::absolute(&path).unwrap_or(path);
            let component = Bytes::from(read_component(name, &path)?);
            if let Some(key) = key {
                signature::verify_file(&path, &component, key)?;
            }
            (path.display().to_string(), None, component)
        }
    };
    lock.verify_not_revoked(name, &[&Digest::of(&component)], signer.as_ref())?;
    let seen = inspect_component(name, &component)?;
    Ok(Candidate { from, manifest, component, seen })
}

impl Candidate {
    fn locked(&self, name: String, key: Option<&PublicKey>, grants: &Grants) -> Result<Locked, Failure> {
        Ok(Locked {
            name,
            from: self.from.clone(),
            manifest: self.manifest.clone(),
            digest: Digest::of(&self.component),
            version: self.seen.version.clone(),
            signer: key.map(PublicKey::fingerprint),
            key: key.map(PublicKey::base64),
            wants: self.seen.wants.clone(),
            grants: grants.lines(),
        })
    }
}

/// Compiles before anything is recorded: what does not compile is not agreed to.
async fn keep(candidate: &Candidate, locked: &Locked, root: &Path) -> Result<(), Failure> {
    let store = Store::of(root);
    store.put_component(&candidate.component).map_err(LockError::from)?;
    let launcher = Launcher::default().keeping_code_in(store);
    Ok(compile_into(&launcher, &locked.name, &candidate.component).await?)
}

/// Takes a component out of the store, unless another plugin of the lock file is the same.
fn forget(lock: &Lock, digest: &Digest, root: &Path) -> Result<(), LockError> {
    if lock.plugins.iter().any(|it| it.digest == *digest) {
        return Ok(());
    }
    Ok(Store::of(root).remove(digest)?)
}
