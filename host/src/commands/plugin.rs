//! `mortise plugin …`: what an operator sees of a plugin before it runs.

use std::path::{Path, PathBuf};

mod agree;
mod distribution;

use super::plugin_run::plugin_run;
use crate::cli::{OutputFormat, PluginCommand, PluginExplainArgs, PluginGrantsCommand, PluginInspectArgs};
use crate::config::{self, Environment, PluginSettings};
use crate::error::Failure;
use crate::output::Reporter;
use crate::plugin::grants::Grants;
use crate::plugin::lock::Lock;
use crate::plugin::store::Store;
use crate::plugin::{Inspection, embed, inspect};

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
        PluginCommand::Inspect(args) => show(&args, root),
        PluginCommand::Embed(args) => {
            let digest = embed(&args.component, &args.manifest, args.to.as_deref().unwrap_or(&args.component))?;
            println!("{digest}");
            Ok(())
        }
        PluginCommand::Run(args) => plugin_run(args, root, environment, reporter).await,
        PluginCommand::Grants(PluginGrantsCommand::Explain(args)) => explain(args, root),
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

fn show(args: &PluginInspectArgs, root: &Path) -> Result<(), Failure> {
    let found = find(&args.plugin, root)?;
    let seen = inspect(&found.name, &found.path)?;
    match args.output {
        OutputFormat::Json => println!("{}", json(&seen)),
        OutputFormat::Text => {
            println!("{} {}\n{}", seen.id.as_deref().unwrap_or("no manifest"), seen.version, seen.digest);
            seen.wants.iter().for_each(|line| println!("wants {line}"));
        }
    }
    Ok(())
}

fn explain(args: PluginExplainArgs, root: &Path) -> Result<(), Failure> {
    let found = find(&args.plugin, root)?;
    let seen = inspect(&found.name, &found.path)?;
    let allowed = match (args.grants.as_slice(), found.configured) {
        ([], None) => seen.grants.clone(),
        ([], Some(configured)) => configured.grants,
        (flags, _) => config::grants_of_flags(flags)?,
    };
    let lines = Grants::intersect(seen.grants, allowed).lines();
    match args.output {
        OutputFormat::Json => println!("{}", serde_json::json!({ "grants": lines })),
        OutputFormat::Text => lines.iter().for_each(|line| println!("{line}")),
    }
    Ok(())
}

fn json(seen: &Inspection) -> String {
    serde_json::to_string(seen).expect("texts are written as JSON")
}
