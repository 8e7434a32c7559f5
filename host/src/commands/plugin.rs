//! `mortise plugin …`: what an operator sees of a plugin before it runs.

use std::path::{Path, PathBuf};

mod agree;
mod distribution;
mod inspection;
mod shown;

use super::plugin_run::plugin_run;
use crate::cli::{OutputFormat, PluginCommand, PluginExplainArgs, PluginGrantsCommand};
use crate::config::{self, Environment, PluginSettings};
use crate::error::Failure;
use crate::output::Reporter;
use crate::plugin::grants::Grants;
use crate::plugin::leaks::leaks;
use crate::plugin::lock::Lock;
use crate::plugin::policy::PolicySubject;
use crate::plugin::store::Store;
use crate::plugin::{embed, inspect};

/// Runs a command about plugins.
///
/// # Errors
///
/// A file that is no plugin, or configuration that does not fit; see [`plugin_run`].
pub async fn plugin(
    command: PluginCommand,
    root: &Path,
    environment: Environment,
    reporter: &Reporter,
) -> Result<(), Failure> {
    match command {
        PluginCommand::Inspect(args) => inspection::show(&args, root).await,
        PluginCommand::Embed(args) => {
            let digest = embed(&args.component, &args.manifest, args.to.as_deref().unwrap_or(&args.component))?;
            println!("{digest}");
            Ok(())
        }
        PluginCommand::Run(args) => plugin_run(args, root, environment, reporter).await,
        PluginCommand::Grants(PluginGrantsCommand::Explain(args)) => explain(args, root).await,
        PluginCommand::Push(args) => distribution::push(args).await,
        PluginCommand::Pull(args) => distribution::pull(args).await,
        PluginCommand::Sign(args) => distribution::sign(args, &environment).await,
        PluginCommand::Verify(args) => distribution::verify(args).await,
        PluginCommand::Bundle(args) => distribution::bundle(args).await,
        PluginCommand::Add(args) => agree::add(args, root).await,
        PluginCommand::List(args) => agree::list(&args, root),
        PluginCommand::Update(args) => agree::update(args, root).await,
        PluginCommand::Remove(args) => agree::remove(&args, root),
        PluginCommand::Revoke(args) => agree::revoke(&args, root),
    }
}

/// A file, or a configured plugin.
struct Found {
    name: String,
    path: PathBuf,
    configured: Option<PluginSettings>,
}

/// What looks like a path is a file; anything else is looked up first.
fn find(plugin: &Path, root: &Path) -> Result<Found, Failure> {
    let name = plugin.to_string_lossy().into_owned();
    if !name.contains('/')
        && let Some(configured) = configured(&name, root)?
    {
        return Ok(Found { name, path: configured.path.clone(), configured: Some(configured) });
    }
    let stem = plugin.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Found { name: stem, path: plugin.to_owned(), configured: None })
}

/// What `conf.d` says of a plugin of this name, else the lock file.
fn configured(name: &str, root: &Path) -> Result<Option<PluginSettings>, Failure> {
    let lock = Lock::load(&Lock::path(root))?;
    let found = config::configured_plugins(root)?.into_iter().find(|it| it.name == name);
    let locked = lock.find(name).map(|locked| PluginSettings {
        name: locked.name.clone(),
        image: Some(locked.name.clone()),
        ..PluginSettings::default()
    });
    let Some(mut found) = found.or(locked) else { return Ok(None) };
    lock.resolve(std::slice::from_mut(&mut found), &Store::of(root))?;
    Ok(Some(found))
}

async fn explain(args: PluginExplainArgs, root: &Path) -> Result<(), Failure> {
    let found = find(&args.plugin, root)?;
    let seen = inspect(&found.name, &found.path)?;
    let configured = found.configured.unwrap_or_default();
    let allowed = match (args.grants.as_slice(), configured.name.as_str()) {
        ([], "") => seen.grants.clone(),
        ([], _) => configured.grants,
        (flags, _) => config::grants_of_flags(flags)?,
    };
    let policy = config::policy(root)?;
    let subject = PolicySubject { id: seen.id.as_deref(), digest: &seen.digest, signer: configured.signer.as_deref() };
    let effective = Grants::intersect(seen.grants.clone(), allowed).below(policy.ceiling(subject));
    let explained = shown::Explained {
        plugin: format!("{}@{}", found.name, seen.version),
        reaches: crate::plugin::explain(&effective, &configured.secrets).await,
        leaks: leaks(&effective.possible()),
        withheld: crate::plugin::withheld(&effective),
    };
    match args.output {
        OutputFormat::Json => println!("{}", explained.json()),
        OutputFormat::Text => print!("{}", explained.text()),
    }
    Ok(())
}
