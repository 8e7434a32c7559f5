//! Flags of the commands between a vendor's registry and a node.

use std::path::PathBuf;

use clap::Args;

use crate::cli::OutputFormat;

/// How a registry is spoken to. Logins come from docker's configuration, proxies from the environment.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct RegistryArgs {
    /// Speak plain HTTP to the registry; one on loopback is spoken to so anyway
    #[arg(long)]
    pub plain_http: bool,
    /// Authorities to trust for the registry, beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Where plugins are read from.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct SourceArgs {
    /// Read a bundle in the registry's place
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// The registry
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of `plugin push`.
#[derive(Debug, Clone, Args)]
pub struct PluginPushArgs {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    pub file: PathBuf,
    /// Where to: registry.example/vendor/plugin:1.0.0
    #[arg(value_name = "REF")]
    pub reference: String,
    /// The registry
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of `plugin pull`.
#[derive(Debug, Clone, Args)]
pub struct PluginPullArgs {
    /// What: registry.example/vendor/plugin:1.0.0, or with @sha256:…
    #[arg(value_name = "REF")]
    pub reference: String,
    /// Where to; unset: the last part of the repository, with .wasm
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Take only what this key signed
    #[arg(long, value_name = "PUB")]
    pub key: Option<PathBuf>,
    /// Where it is read from
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Flags of `plugin sign`.
#[derive(Debug, Clone, Args)]
pub struct PluginSignArgs {
    /// What to sign: a plugin in a registry, or a component's file
    #[arg(value_name = "REF|FILE.wasm")]
    pub subject: String,
    /// Private key as cosign makes it; its password is in COSIGN_PASSWORD
    #[arg(long, value_name = "KEY")]
    pub key: PathBuf,
    /// The registry
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of `plugin verify`.
#[derive(Debug, Clone, Args)]
pub struct PluginVerifyArgs {
    /// What to check: a plugin in a registry, or a component's file
    #[arg(value_name = "REF|FILE.wasm")]
    pub subject: String,
    /// Public key that must have signed it
    #[arg(long, value_name = "PUB")]
    pub key: PathBuf,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Where it is read from
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Flags of `plugin bundle`.
#[derive(Debug, Clone, Args)]
pub struct PluginBundleArgs {
    /// Plugins to put in
    #[arg(value_name = "REF", required = true)]
    pub references: Vec<String>,
    /// The bundle: an OCI image layout in a tar file
    #[arg(short, long, value_name = "FILE.tar")]
    pub output: PathBuf,
    /// The registry
    #[command(flatten)]
    pub registry: RegistryArgs,
}

/// Flags of `plugin add`.
#[derive(Debug, Clone, Args)]
pub struct PluginAddArgs {
    /// A plugin in a registry, or a component's file with its signature beside it
    #[arg(value_name = "REF|FILE.wasm")]
    pub subject: String,
    /// Name in configurations; unset: the last part of the repository, or the file's name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Public key that must have signed it, and every update of it
    #[arg(long, value_name = "PUB")]
    pub key: Option<PathBuf>,
    /// Take it without a signature, and record that
    #[arg(long, conflicts_with = "key")]
    pub allow_unsigned: bool,
    /// What it may use; may be repeated
    #[arg(long = "grant", value_name = "KIND=VALUE|FILE.yaml")]
    pub grants: Vec<String>,
    /// Take the place of the plugin of this name
    #[arg(long)]
    pub replace: bool,
    /// Where it is recorded
    #[command(flatten)]
    pub lock: LockArgs,
    /// Where it is read from
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Flags of `plugin update`.
#[derive(Debug, Clone, Args)]
pub struct PluginUpdateArgs {
    /// Plugins of the lock file; none: all
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Take this version of the one plugin named, in the place of the tag it came from
    #[arg(long, value_name = "REF")]
    pub to: Option<String>,
    /// Where it is recorded
    #[command(flatten)]
    pub lock: LockArgs,
    /// Where it is read from
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Flags of `plugin list`.
#[derive(Debug, Clone, Args)]
pub struct PluginListArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// What is listed
    #[command(flatten)]
    pub lock: LockArgs,
}

/// Flags of `plugin remove`.
#[derive(Debug, Clone, Args)]
pub struct PluginRemoveArgs {
    /// Plugins of the lock file
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Where they are recorded
    #[command(flatten)]
    pub lock: LockArgs,
}

/// Flags of `plugin revoke`.
#[derive(Debug, Clone, Args)]
pub struct PluginRevokeArgs {
    /// Digest of a component or of a registry's manifest, or fingerprint of a key; `plugin list` shows them
    #[arg(value_name = "DIGEST|SIGNER")]
    pub digest: crate::registry::Digest,
    /// Where it is recorded
    #[command(flatten)]
    pub lock: LockArgs,
}

/// Which lock file.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct LockArgs {
    /// The lock file; unset: /etc/mortise/mortise.lock below --root
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
}
