//! `mortise plugin inspect`: a file, a plugin that is configured or was added, or one in a registry. Nothing is kept,
//! compiled or run.

use std::path::Path;

use super::distribution::{Subject, source};
use super::{find, shown};
use crate::cli::{OutputFormat, PluginInspectArgs};
use crate::error::Failure;
use crate::plugin::lock::Lock;
use crate::plugin::{Inspection, inspect_component, read_component};
use crate::registry::signature::{self, PublicKey};
use crate::registry::{self, Digest, Reference};

/// What is known of a plugin's origin.
struct Origin {
    /// The reference with its digest; none of a file.
    from: Option<String>,
    /// Fingerprint of a key that signed it.
    signer: Option<String>,
}

pub(super) async fn show(args: &PluginInspectArgs, root: &Path) -> Result<(), Failure> {
    let text = args.plugin.to_string_lossy().into_owned();
    let key = args.key.as_deref().map(PublicKey::read).transpose()?;
    let (seen, origin) = match remote(&text, args)? {
        Some(reference) => fetched(&reference, key.as_ref(), args, root).await?,
        None => local(key.as_ref(), args, root)?,
    };
    let (from, signer) = (origin.from.as_deref(), origin.signer.as_deref());
    match args.output {
        OutputFormat::Json => println!("{}", shown::inspection_json(&seen, from, signer)),
        OutputFormat::Text => print!("{}", shown::inspection_text(&seen, from, signer)),
    }
    Ok(())
}

/// A reference has a repository, and is no path; in a bundle nothing else is looked for.
fn remote(text: &str, args: &PluginInspectArgs) -> Result<Option<Reference>, Failure> {
    if args.source.bundle.is_none() && !text.contains('/') {
        return Ok(None);
    }
    match Subject::parse(text)? {
        Subject::Reference(reference) => Ok(Some(reference)),
        Subject::File(_) => Ok(None),
    }
}

/// With a key: its signature is checked before the component is asked for. Without: those of the lock file are tried.
async fn fetched(
    reference: &Reference,
    key: Option<&PublicKey>,
    args: &PluginInspectArgs,
    root: &Path,
) -> Result<(Inspection, Origin), Failure> {
    let source = source(reference, &args.source)?;
    let artifact = registry::find(&source, reference).await?;
    let mut signer = None;
    if let Some(key) = key {
        signature::verify(&source, reference, artifact.digest(), key).await?;
        signer = Some(key.fingerprint());
    } else {
        for key in known_keys(root)? {
            // A key that did not sign it is no reason not to show it.
            if signer.is_none() && signature::verify(&source, reference, artifact.digest(), &key).await.is_ok() {
                signer = Some(key.fingerprint());
            }
        }
    }
    let component = artifact.component(&source, reference).await?;
    let seen = inspect_component(reference.name(), &component)?;
    let from = Some(reference.at_digest(artifact.digest()).to_string());
    Ok((seen, Origin { from, signer: signer.as_ref().map(Digest::to_string) }))
}

/// Public keys of the plugins that were agreed to, each once.
fn known_keys(root: &Path) -> Result<Vec<PublicKey>, Failure> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for locked in &Lock::load(&Lock::path(root))?.plugins {
        if let Some(key) = locked.public_key()?
            && keys.iter().all(|it| it.fingerprint() != key.fingerprint())
        {
            keys.push(key);
        }
    }
    Ok(keys)
}

fn local(key: Option<&PublicKey>, args: &PluginInspectArgs, root: &Path) -> Result<(Inspection, Origin), Failure> {
    let found = find(&args.plugin, root)?;
    let component = read_component(&found.name, &found.path)?;
    let mut signer = found.configured.as_ref().and_then(|it| it.signer.clone());
    if let Some(key) = key {
        let fingerprint = key.fingerprint().to_string();
        // What was added was checked then; a file has its signature beside it.
        if signer.as_ref() != Some(&fingerprint) {
            signature::verify_file(&found.path, &component, key)?;
        }
        signer = Some(fingerprint);
    }
    Ok((inspect_component(&found.name, &component)?, Origin { from: None, signer }))
}
