//! Flags, help, names of environment variables; no behaviour.
//!
//! The flags of `join` are kubeadm's by name and meaning; they are one table in module `join`, from which `join`, every
//! `join phase …` and `preflight` take theirs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::config::{PluginFlag, hide_tokens};
use crate::output::Format;

mod join;
mod plugin;
mod values;

pub use join::{JoinArgs, JoinCommand, PreflightCommand, Scope};
pub use plugin::{
    CheckStage, LockArgs, PluginAddArgs, PluginBundleArgs, PluginCommand, PluginEmbedArgs, PluginExplainArgs,
    PluginGrantsCommand, PluginInspectArgs, PluginListArgs, PluginPullArgs, PluginPushArgs, PluginRemoveArgs,
    PluginRevokeArgs, PluginRunArgs, PluginSignArgs, PluginUpdateArgs, PluginVerifyArgs, RegistryArgs, SourceArgs,
};

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "mortise",
    version,
    about = "kubeadm join with every site-specific part a sandboxed plugin",
    max_term_width = 120,
    infer_long_args = false
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct Common {
    /// Log level: 0 warnings, 1 to 3 progress, 4 to 7 details, 8 and more everything
    #[arg(
        short = 'v',
        long = "v",
        id = "v",
        value_name = "LEVEL",
        default_value_t = 0,
        global = true,
        display_order = 900
    )]
    pub verbosity: u8,
    /// Accepted for the sake of kubeadm's command lines; without effect
    #[arg(long, id = "vmodule", value_name = "PATTERNS", global = true, display_order = 901)]
    pub vmodule: Option<String>,
    /// Directory that prefixes every path of the machine that is read or written
    #[arg(long, id = "root", alias = "rootfs", value_name = "DIR", global = true, display_order = 902)]
    pub root: Option<PathBuf>,
}

impl Common {
    /// `--root` as an absolute path; `/` without it.
    ///
    /// # Errors
    ///
    /// An empty path, or no working directory.
    pub fn root(&self) -> std::io::Result<PathBuf> {
        self.root.as_deref().map_or_else(|| Ok(PathBuf::from("/")), std::path::absolute)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join this machine to an existing cluster
    Join(JoinCommand),
    /// Run the preflight checks alone
    ///
    /// Changes nothing. With discovery flags the checks that need the cluster's configuration run, too.
    Preflight(PreflightCommand),
    /// Undo what a join did to this machine
    Reset(ResetArgs),
    /// Compare this machine and its cluster with the record of its join
    ///
    /// Exits with 1 where they differ.
    Verify(VerifyArgs),
    /// Look at plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Try a join without a cluster
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Print configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script
    ///
    /// For bash: `source <(mortise completion bash)`
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Form of a command's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// Lines for a person
    #[default]
    Text,
    /// One JSON object a line on stdout
    Json,
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Text => Self::Text,
            OutputFormat::Json => Self::Json,
        }
    }
}

/// Flags of `reset`: kubeadm's.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub struct ResetArgs {
    /// Directory of the certificates; unset: the cluster's, else /etc/kubernetes/pki
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<String>,
    /// Empty /etc/kubernetes/tmp, too
    #[arg(long, value_name = "BOOL", value_parser = values::go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cleanup_tmp_dir: Option<bool>,
    /// Path to a configuration file with a ResetConfiguration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Socket of the container runtime; unset: detected
    #[arg(long, value_name = "URL")]
    pub cri_socket: Option<String>,
    /// Change nothing; print what would be done
    #[arg(long, value_name = "BOOL", value_parser = values::go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dry_run: Option<bool>,
    /// Ask nothing
    #[arg(short, long, value_name = "BOOL", value_parser = values::go_bool, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub force: Option<bool>,
    /// Checks whose errors only warn; `all` for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ignore_preflight_errors: Vec<String>,
    /// Kubeconfig to talk to the cluster with
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/admin.conf")]
    pub kubeconfig: PathBuf,
    /// Phases to leave out: preflight, remove-etcd-member, cleanup-node
    #[arg(long, value_name = "PHASES", value_delimiter = ',')]
    pub skip_phases: Vec<String>,
    /// Only warn of unknown and duplicate fields in the configuration, as kubeadm does
    #[arg(long)]
    pub allow_unknown_fields: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Names of the flags on the command line.
    #[arg(skip)]
    pub given: BTreeSet<String>,
}

/// Flags of `verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// What to do in the sandbox.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Run a whole worker join against a simulated control plane, into a directory, as an ordinary user
    Join(SandboxJoinArgs),
}

/// Where the sandbox takes the machine's facts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Facts {
    /// A recorded healthy node
    #[default]
    Recorded,
    /// This machine
    Host,
}

/// Flags of `sandbox join`. `--root` names the directory.
#[derive(Debug, Clone, Args)]
pub struct SandboxJoinArgs {
    /// Name of the node
    #[arg(long, value_name = "NAME", default_value = "sandbox")]
    pub node_name: String,
    /// Where the machine's facts come from
    #[arg(long, value_enum, default_value_t)]
    pub facts: Facts,
    /// Checks whose errors only warn; `all` for all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ignore_preflight_errors: Vec<String>,
    /// Who makes the kubelet's key and certificate request
    #[arg(long, value_enum, default_value = "host", value_name = "WHO")]
    pub tls_bootstrap_by: crate::config::TlsBootstrapBy,
    /// Plugins with the grants that follow each.
    #[command(flatten)]
    pub plugins: PluginFlags,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `--plugin` and `--grant`, in the order of the command line.
#[derive(Debug, Clone, Default)]
pub struct PluginFlags(pub Vec<PluginFlag>);

/// What to print of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print default configurations
    #[command(subcommand)]
    Print(PrintCommand),
}

/// Which default configuration to print.
#[derive(Debug, Subcommand)]
pub enum PrintCommand {
    /// Print a JoinConfiguration to start from
    JoinDefaults,
}

/// Flags of `version`.
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: VersionFormat,
}

/// Form of `version`'s output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum VersionFormat {
    /// A line for a person
    #[default]
    Text,
    /// The bare version
    Short,
    /// A JSON object
    Json,
    /// A YAML mapping
    Yaml,
}

/// A command line that is none, or a request for help or the version.
#[derive(Debug)]
pub struct CliError {
    error: clap::Error,
    json: bool,
}

impl CliError {
    /// The text to print, without secrets, its colours as the terminal wants them.
    pub fn text(&self, color: bool) -> String {
        let text = self.error.render();
        hide_tokens(&if color { text.ansi().to_string() } else { text.to_string() })
    }

    /// One line of it.
    pub fn message(&self) -> String {
        let text = hide_tokens(&self.error.render().to_string());
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    }

    /// Whether it is help or the version, for stdout and with exit status 0.
    pub fn is_help(&self) -> bool {
        !self.error.use_stderr()
    }

    /// Whether the command line asks for JSON, as far as one can tell.
    pub fn wants_json(&self) -> bool {
        self.json
    }
}

/// Reads the command line, the program's name first.
///
/// # Errors
///
/// [`CliError`] for a wrong one, and for `--help`.
pub fn parse<I: IntoIterator<Item = OsString>>(arguments: I) -> Result<Cli, CliError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = asks_for_json(&arguments);
    let fail = |error| CliError { error, json };
    let mut command = command();
    let matches = command.try_get_matches_from_mut(&arguments).map_err(fail)?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| fail(error.format(&mut command)))?;
    if let (Command::Reset(reset), Some(("reset", matches))) = (&mut cli.command, matches.subcommand()) {
        reset.given = join::given_flags(matches);
    }
    Ok(cli)
}

/// The whole command line, for completions and help.
pub fn command() -> clap::Command {
    // As in kubeadm, the last of a repeated flag counts.
    fn last_wins(command: clap::Command) -> clap::Command {
        command.args_override_self(true).mut_subcommands(last_wins)
    }
    last_wins(Cli::command())
}

fn asks_for_json(arguments: &[OsString]) -> bool {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    texts.iter().any(|text| ["-ojson", "-o=json", "--output=json"].contains(text))
        || texts.windows(2).any(|pair| ["-o", "--output"].contains(&pair[0]) && pair[1] == "json")
}

impl Args for PluginFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(join::plugin_flags())
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PluginFlags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        join::plugins_of(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
