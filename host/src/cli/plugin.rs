//! Flags of `mortise plugin …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::OutputFormat;

mod distribution;

pub use distribution::{
    LockArgs, PluginAddArgs, PluginBundleArgs, PluginListArgs, PluginPullArgs, PluginPushArgs, PluginRemoveArgs,
    PluginRevokeArgs, PluginSignArgs, PluginUpdateArgs, PluginVerifyArgs, RegistryArgs, SourceArgs,
};

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Show what a plugin is, what it wants and why, without running it
    ///
    /// One in a registry is read into memory; nothing of it is kept, compiled or run.
    Inspect(PluginInspectArgs),
    /// Run a plugin of any kind on this machine and print its answer
    ///
    /// It runs as in a join or in the approver: same walls, same limits, and no more than the grants given here.
    Run(PluginRunArgs),
    /// Put a manifest into a component whose tools cannot
    ///
    /// The manifest is checked as at a join. Rust plugins embed theirs when they are built and do not need this.
    Embed(PluginEmbedArgs),
    /// Ask about grants
    #[command(subcommand)]
    Grants(PluginGrantsCommand),
    /// Store a component in a registry
    ///
    /// As an OCI artifact that any registry takes and oras reads. Prints the reference with its digest.
    Push(PluginPushArgs),
    /// Fetch a component from a registry into a file
    Pull(PluginPullArgs),
    /// Sign a plugin in a registry, or a component's file
    ///
    /// In the forms that cosign writes and reads. A file's signature is written beside it.
    Sign(PluginSignArgs),
    /// Check that a key signed a plugin in a registry, or a component's file
    ///
    /// By key and without a transparency log. Exits with 1 where it did not.
    Verify(PluginVerifyArgs),
    /// Put plugins and their signatures into one file
    Bundle(PluginBundleArgs),
    /// Agree to a plugin: its signer, its digest, and what it may use
    ///
    /// Checks the signature, keeps the component, compiles it for this machine, and records it in the lock file. A join
    /// then needs neither the registry nor the key: `--plugin NAME`, or `image: REF` in a JoinPlugins document.
    Add(PluginAddArgs),
    /// List the plugins that were agreed to
    List(PluginListArgs),
    /// Take a new version of plugins that were agreed to
    ///
    /// One that the same key signed and that wants no more passes; anything else stops and shows the difference.
    Update(PluginUpdateArgs),
    /// Forget plugins that were agreed to
    Remove(PluginRemoveArgs),
    /// Refuse a digest or a signer from now on, whatever else says otherwise
    Revoke(PluginRevokeArgs),
}

impl PluginCommand {
    /// Form of the output.
    pub fn output(&self) -> OutputFormat {
        match self {
            Self::Inspect(args) => args.output,
            Self::Run(args) => args.output,
            Self::Embed(_) => OutputFormat::Text,
            Self::Grants(PluginGrantsCommand::Explain(args)) => args.output,
            Self::Verify(args) => args.output,
            Self::List(args) => args.output,
            Self::Push(_) | Self::Pull(_) | Self::Sign(_) | Self::Bundle(_) => OutputFormat::Text,
            Self::Add(_) | Self::Update(_) | Self::Remove(_) | Self::Revoke(_) => OutputFormat::Text,
        }
    }
}

/// Flags of `plugin inspect`.
#[derive(Debug, Clone, Args)]
pub struct PluginInspectArgs {
    /// A component's file, the name of a plugin that is configured or was added, or one in a registry
    #[arg(value_name = "FILE.wasm|NAME|REF")]
    pub plugin: PathBuf,
    /// Show only what this key signed; unset: look whether a key of the lock file did
    #[arg(long, value_name = "PUB")]
    pub key: Option<PathBuf>,
    /// Where it is read from
    #[command(flatten)]
    pub source: SourceArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// Flags of `plugin embed`.
#[derive(Debug, Clone, Args)]
pub struct PluginEmbedArgs {
    /// A component's file
    #[arg(value_name = "FILE.wasm")]
    pub component: PathBuf,
    /// The manifest
    #[arg(long, value_name = "FILE.yaml", default_value = "plugin.yaml")]
    pub manifest: PathBuf,
    /// Where the whole component goes; unset: it replaces the first
    #[arg(long, value_name = "FILE.wasm")]
    pub to: Option<PathBuf>,
}

/// When a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CheckStage {
    /// Before the cluster is contacted
    #[default]
    Node,
    /// When the cluster's configuration is known
    Cluster,
    /// When the node has joined
    Joined,
}

impl From<CheckStage> for crate::plugin::Stage {
    fn from(stage: CheckStage) -> Self {
        match stage {
            CheckStage::Node => Self::Node,
            CheckStage::Cluster => Self::Cluster,
            CheckStage::Joined => Self::Joined,
        }
    }
}

/// Flags of `plugin run`.
#[derive(Debug, Clone, Args)]
pub struct PluginRunArgs {
    /// A component's file
    #[arg(value_name = "FILE.wasm")]
    pub plugin: PathBuf,
    /// What the plugin may use; may be repeated
    #[arg(long = "grant", value_name = "KIND=VALUE|FILE.yaml")]
    pub grants: Vec<String>,
    /// The plugin's settings: a mapping in YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// What an approval hook judges: a request in PEM, or what `kubectl get csr NAME -o yaml` prints
    ///
    /// A PEM with alternative names is judged as the node's own request for a serving certificate, one without as a
    /// newcomer's with a bootstrap token.
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Run the checks of this stage
    #[arg(long, value_enum, default_value_t)]
    pub stage: CheckStage,
    /// Name that the Node would have; unset: the host name
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// As if the machine was to become a control plane
    #[arg(long)]
    pub control_plane: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// What to ask about grants.
#[derive(Debug, Subcommand)]
pub enum PluginGrantsCommand {
    /// List what a plugin could reach on this machine now
    ///
    /// With --grant: if these grants were given, and no others. Without: with what is configured for a plugin that is
    /// named, and with everything its manifest asks for where a file is given. Runs nothing of the plugin.
    Explain(PluginExplainArgs),
}

/// Flags of `plugin grants explain`.
#[derive(Debug, Clone, Args)]
pub struct PluginExplainArgs {
    /// A component's file, or the name of a plugin that is configured in /etc/mortise/conf.d
    #[arg(value_name = "FILE.wasm|NAME")]
    pub plugin: PathBuf,
    /// What the plugin may use; may be repeated
    #[arg(long = "grant", value_name = "KIND=VALUE|FILE.yaml")]
    pub grants: Vec<String>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}
