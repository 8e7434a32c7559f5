//! `join`, `join phase …` and `preflight`: one table of flags, one structure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, ValueEnum};
use secrecy::SecretString;

use super::{OutputFormat, values};
use crate::config::{self, PHASES, PhaseName, PluginFlag, TlsBootstrapBy, Wait};

/// The positional argument.
const ENDPOINT: &str = "api-server-endpoint";

/// Groups of flags (see [`config::Command::Alone`]) of the whole join.
const JOIN: &str = "XDABCKENRPITGS";
/// Groups of flags of `preflight`.
const PREFLIGHT: &str = "XDNRIG";

/// How much of a join is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Join,
    /// One phase alone.
    Phase(&'static PhaseName),
    /// The checks alone; nothing is changed.
    Preflight,
}

/// What was given on the command line of `join`, `join phase …` or `preflight`. Nothing is checked yet but types.
///
/// Flags a command does not have are absent. `Debug` hides tokens.
#[derive(Debug, Clone)]
pub struct JoinArgs {
    /// How much of a join is asked for.
    pub scope: Scope,
    /// `host:port`, in order of preference; each may hold several, separated by commas.
    pub endpoints: Vec<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--dry-run`, also `--dry-run=false`.
    pub dry_run: Option<bool>,
    /// `--allow-unknown-fields`.
    pub allow_unknown_fields: bool,
    /// `--output`.
    pub output: OutputFormat,
    /// `--token`.
    pub token: Option<SecretString>,
    /// `--token-file`; `-` is standard input.
    pub token_file: Option<PathBuf>,
    /// `--discovery-token`.
    pub discovery_token: Option<SecretString>,
    /// `--tls-bootstrap-token`.
    pub tls_bootstrap_token: Option<SecretString>,
    /// `--discovery-token-ca-cert-hash`.
    pub discovery_token_ca_cert_hash: Vec<String>,
    /// `--discovery-token-unsafe-skip-ca-verification`.
    pub discovery_token_unsafe_skip_ca_verification: bool,
    /// `--discovery-file`.
    pub discovery_file: Option<String>,
    /// `--fail-fast`.
    pub fail_fast: bool,
    /// `--control-plane`.
    pub control_plane: bool,
    /// `--apiserver-advertise-address`.
    pub apiserver_advertise_address: Option<String>,
    /// `--apiserver-bind-port`.
    pub apiserver_bind_port: Option<i32>,
    /// `--certificate-key`.
    pub certificate_key: Option<SecretString>,
    /// `--certificate-key-file`; `-` is standard input.
    pub certificate_key_file: Option<PathBuf>,
    /// `--etcd-snapshot`.
    pub etcd_snapshot: Option<PathBuf>,
    /// `--replace-member`.
    pub replace_member: Option<String>,
    /// `--node-name`.
    pub node_name: Option<String>,
    /// `--cri-socket`.
    pub cri_socket: Option<String>,
    /// `--patches`.
    pub patches: Option<String>,
    /// `--ignore-preflight-errors`.
    pub ignore_preflight_errors: Vec<String>,
    /// `--skip-phases`.
    pub skip_phases: Vec<String>,
    /// `--tls-bootstrap-by`.
    pub tls_bootstrap_by: Option<TlsBootstrapBy>,
    /// `--wait`.
    pub wait: Option<Wait>,
    /// `--plugin` with its `--grant`s.
    pub plugins: Vec<PluginFlag>,
    /// `--bundle`.
    pub bundle: Option<PathBuf>,
    /// Names of the flags on the command line, without dashes.
    pub given: BTreeSet<String>,
}

/// `join` and its phases.
#[derive(Debug, Clone)]
pub struct JoinCommand(pub JoinArgs);

/// `preflight`.
#[derive(Debug, Clone)]
pub struct PreflightCommand(pub JoinArgs);

impl Args for JoinCommand {
    fn augment_args(command: clap::Command) -> clap::Command {
        command
            .long_about(LONG_ABOUT)
            .arg(endpoint())
            .args(flags(JOIN))
            .args_conflicts_with_subcommands(true)
            .subcommand(phase_command())
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for JoinCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut id = String::new();
        let mut inner = matches;
        // `phase`, then the segments of its id.
        while let Some((name, next)) = inner.subcommand() {
            if name != "phase" {
                id = if id.is_empty() { name.to_owned() } else { format!("{id}/{name}") };
            }
            inner = next;
        }
        let scope = PHASES.iter().find(|phase| phase.id == id).map_or(Scope::Join, Scope::Phase);
        JoinArgs::of(inner, scope).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for PreflightCommand {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.arg(endpoint()).args(flags(PREFLIGHT))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PreflightCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        JoinArgs::of(matches, Scope::Preflight).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `phase` with a command for each phase that can be run alone.
fn phase_command() -> clap::Command {
    let mut all = clap::Command::new("phase")
        .about("Run one phase of the join alone")
        .subcommand_required(true)
        .arg_required_else_help(true);
    for phase in PHASES.iter().filter(|phase| !phase.id.contains('/')) {
        let command = clap::Command::new(phase.id).about(phase.summary);
        match phase.command {
            config::Command::Hidden => {}
            config::Command::Alone { flags, endpoint } => all = all.subcommand(with_flags(command, flags, endpoint)),
            config::Command::Parent => {
                let mut command = command.subcommand_required(true).arg_required_else_help(true);
                for child in PHASES {
                    if let Some((parent, name)) = child.id.split_once('/')
                        && parent == phase.id
                        && let config::Command::Alone { flags, endpoint } = child.command
                    {
                        let child = clap::Command::new(name).about(child.summary);
                        command = command.subcommand(with_flags(child, flags, endpoint));
                    }
                }
                all = all.subcommand(command);
            }
        }
    }
    all
}

fn with_flags(command: clap::Command, groups: &str, positional: bool) -> clap::Command {
    let command = if positional { command.arg(endpoint()) } else { command };
    command.args(flags(groups))
}

fn endpoint() -> Arg {
    append(Arg::new(ENDPOINT))
        .num_args(0..)
        .value_name("HOST:PORT")
        .help("API server to ask first for the cluster; several are asked in order")
}

/// The flags of these groups, in the order of the groups.
fn flags(groups: &str) -> Vec<Arg> {
    groups.chars().flat_map(group).collect()
}

fn group(letter: char) -> Vec<Arg> {
    match letter {
        'X' => vec![
            path("config", "FILE").help("Configuration: a JoinConfiguration (v1beta4), JoinPlugins beside it"),
            switch("dry-run").help("Change nothing; print what would be done"),
            switch("allow-unknown-fields").help("Only warn of unknown and duplicate fields, as kubeadm does"),
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FORMAT")
                .value_parser(clap::value_parser!(OutputFormat))
                .default_value("text")
                .help("Form of the output"),
        ],
        'D' => vec![
            text("token", "TOKEN").help("Token for both purposes below, unless given there [env: MORTISE_TOKEN]"),
            path("token-file", "FILE")
                .conflicts_with("token")
                .help("File that holds the token of `--token`; `-` is standard input"),
            text("discovery-token", "TOKEN")
                .help("Token that proves the cluster's identity [env: MORTISE_DISCOVERY_TOKEN]"),
            text("tls-bootstrap-token", "TOKEN")
                .help("Token that the certificate is asked for with [env: MORTISE_TLS_BOOTSTRAP_TOKEN]"),
            list("discovery-token-ca-cert-hash", "PINS")
                .help("Public keys the cluster's CA may have, each `sha256:` and 64 hex digits"),
            switch("discovery-token-unsafe-skip-ca-verification")
                .help("Join without such a pin: trust whoever answers"),
            text("discovery-file", "FILE|URL").help("Kubeconfig of the cluster, a file or an https URL"),
            switch("fail-fast").help("Do not wait for a token, server or signature that may still come"),
        ],
        'A' => vec![text("apiserver-advertise-address", "IP").help("Control plane: address of its API server")],
        'B' => vec![
            text("apiserver-bind-port", "PORT")
                .value_parser(clap::value_parser!(i32))
                .default_value("6443")
                .help("Control plane: port of its API server"),
        ],
        'C' => vec![switch("control-plane").help("Join as a control plane")],
        'K' => vec![
            text("certificate-key", "HEX")
                .help("Control plane: key of the uploaded certificates [env: MORTISE_CERTIFICATE_KEY]"),
            path("certificate-key-file", "FILE")
                .conflicts_with("certificate-key")
                .help("File that holds this key; `-` is standard input"),
        ],
        'E' => vec![
            path("etcd-snapshot", "DIR")
                .help("Control plane: save a snapshot of etcd there before the new member votes"),
            text("replace-member", "ID").help("Control plane: etcd member that this machine takes the place of"),
        ],
        'N' => vec![text("node-name", "NAME").help("Name of the node; unset: the host's name")],
        'R' => vec![text("cri-socket", "URL").help("Socket of the container runtime; unset: detected")],
        'P' => vec![text("patches", "DIR").help("Directory of patches such as `kubeletconfiguration0+merge.yaml`")],
        'I' => vec![list("ignore-preflight-errors", "NAMES").help("Checks whose errors only warn; `all` for all")],
        'T' => vec![
            text("tls-bootstrap-by", "WHO")
                .value_parser(clap::value_parser!(TlsBootstrapBy))
                .help("Who asks for the kubelet's certificate: host (default) or kubelet, as with kubeadm")
                .hide_possible_values(true),
        ],
        'G' => {
            let bundle =
                path("bundle", "FILE").help("Bundle with plugins of the lock file that are not in the store yet");
            plugin_flags().into_iter().chain([bundle]).collect()
        }
        'S' => vec![
            list("skip-phases", "PHASES").help("Phases to leave out; `mortise join phase --help` lists them"),
            Arg::new("wait")
                .long("wait")
                .value_name("UNTIL")
                .value_parser(wait_parser())
                .default_value("kubelet")
                .help("When the command is done"),
        ],
        other => unreachable!("no group of flags is named {other}"),
    }
}

/// `--plugin` and `--grant`: a grant belongs to the plugin before it.
pub(super) fn plugin_flags() -> Vec<Arg> {
    vec![
        append(path("plugin", "FILE.wasm|NAME"))
            .help("Plugin to use beside the built-in ones, a file or a name of the lock file; may be repeated"),
        append(text("grant", "KIND=VALUE|FILE.yaml"))
            .help("What the plugin before it may use; may be repeated")
            .long_help(
                "What the plugin before it may use; may be repeated.\n\nKIND=VALUE allows one thing, FILE.yaml holds a \
                 mapping of kinds as in a plugin's manifest.",
            ),
    ]
}

fn text(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

fn path(name: &'static str, value: &'static str) -> Arg {
    text(name, value).value_parser(clap::value_parser!(PathBuf))
}

/// Takes any number of values over any number of occurrences.
fn append(arg: Arg) -> Arg {
    arg.action(ArgAction::Append)
}

fn list(name: &'static str, value: &'static str) -> Arg {
    append(text(name, value)).value_delimiter(',')
}

/// A flag that may be given alone or, as kubeadm's, as `--flag=false`.
fn switch(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("BOOL")
        .hide_possible_values(true)
        .value_parser(values::go_bool)
}

fn wait_parser() -> clap::builder::ValueParser {
    let values = Wait::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let values: Vec<PossibleValue> = values.collect();
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(values)
        .map(|name| Wait::from_str(&name, false).expect("clap passes only the names above"))
        .into()
}

impl JoinArgs {
    /// Whether one of the flags that only a control plane needs differs from its default.
    pub fn has_control_plane_flags(&self) -> bool {
        use secrecy::ExposeSecret as _;
        self.certificate_key.as_ref().is_some_and(|key| !key.expose_secret().is_empty())
            || self.certificate_key_file.is_some()
            || self.apiserver_advertise_address.as_ref().is_some_and(|text| !text.is_empty())
            || !matches!(self.apiserver_bind_port, None | Some(0))
                && self.apiserver_bind_port != Some(config::DEFAULT_BIND_PORT.into())
            || self.etcd_snapshot.is_some()
            || self.replace_member.is_some()
    }

    fn of(matches: &ArgMatches, scope: Scope) -> Result<Self, clap::Error> {
        let text = |name| one::<String>(matches, name);
        let secret = |name| text(name).map(SecretString::from);
        let is_set = |name| one::<bool>(matches, name).unwrap_or(false);
        Ok(Self {
            scope,
            endpoints: endpoints(matches),
            config: one(matches, "config"),
            dry_run: one(matches, "dry-run"),
            allow_unknown_fields: is_set("allow-unknown-fields"),
            output: one(matches, "output").unwrap_or_default(),
            token: secret("token"),
            token_file: one(matches, "token-file"),
            discovery_token: secret("discovery-token"),
            tls_bootstrap_token: secret("tls-bootstrap-token"),
            discovery_token_ca_cert_hash: many(matches, "discovery-token-ca-cert-hash"),
            discovery_token_unsafe_skip_ca_verification: is_set("discovery-token-unsafe-skip-ca-verification"),
            discovery_file: text("discovery-file"),
            fail_fast: is_set("fail-fast"),
            control_plane: is_set("control-plane"),
            apiserver_advertise_address: text("apiserver-advertise-address"),
            apiserver_bind_port: one(matches, "apiserver-bind-port"),
            certificate_key: secret("certificate-key"),
            certificate_key_file: one(matches, "certificate-key-file"),
            etcd_snapshot: one(matches, "etcd-snapshot"),
            replace_member: text("replace-member"),
            node_name: text("node-name"),
            cri_socket: text("cri-socket"),
            patches: text("patches"),
            ignore_preflight_errors: many(matches, "ignore-preflight-errors"),
            skip_phases: many(matches, "skip-phases"),
            tls_bootstrap_by: one(matches, "tls-bootstrap-by"),
            wait: one(matches, "wait"),
            plugins: plugins_of(matches)?,
            bundle: one(matches, "bundle"),
            given: given_flags(matches),
        })
    }
}

/// The endpoints, without what a broken line continuation leaves: arguments of blanks and backslashes.
fn endpoints(matches: &ArgMatches) -> Vec<String> {
    let blank = |text: &str| text.chars().all(|c| c.is_whitespace() || c == '\\');
    many::<String>(matches, ENDPOINT).into_iter().filter(|text| !blank(text)).collect()
}

/// A value, where the command has the flag and somebody gave it or it has a default.
fn one<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.try_get_one::<T>(name).ok().flatten().cloned()
}

fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.try_get_many::<T>(name).ok().flatten().map(|values| values.cloned().collect()).unwrap_or_default()
}

/// Names of the flags that stand on the command line.
pub(super) fn given_flags(matches: &ArgMatches) -> BTreeSet<String> {
    let names = matches.ids().map(|id| id.as_str());
    names
        .filter(|name| *name != ENDPOINT && matches.value_source(name) == Some(ValueSource::CommandLine))
        // Derived ids have underscores.
        .map(|name| name.replace('_', "-"))
        .collect()
}

/// Each plugin with the grants between it and the next one.
pub(super) fn plugins_of(matches: &ArgMatches) -> Result<Vec<PluginFlag>, clap::Error> {
    let indexed = |name| matches.indices_of(name).into_iter().flatten();
    if matches.try_contains_id("plugin").is_err() {
        return Ok(Vec::new());
    }
    let plugins: Vec<(usize, PathBuf)> = indexed("plugin").zip(many(matches, "plugin")).collect();
    let mut flags: Vec<PluginFlag> =
        plugins.iter().map(|(_, path)| PluginFlag { path: path.clone(), grants: Vec::new() }).collect();
    for (index, grant) in indexed("grant").zip(many::<String>(matches, "grant")) {
        match plugins.iter().rposition(|(at, _)| *at < index) {
            Some(plugin) => flags[plugin].grants.push(grant),
            None => {
                let message = "`--grant` must follow the `--plugin` it belongs to";
                return Err(clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, message));
            }
        }
    }
    Ok(flags)
}

const LONG_ABOUT: &str = "Join this machine to an existing cluster.

The flags are those of `kubeadm join`, and so is the line that `kubeadm token create --print-join-command` prints:

    mortise join HOST:PORT --token TOKEN --discovery-token-ca-cert-hash sha256:HASH

With --control-plane, and the key that `kubeadm init phase upload-certs --upload-certs` prints, it joins as a control plane.

The cluster is found either by a bootstrap token (an endpoint, a token and a pin of the cluster's CA) or by a kubeconfig \
(--discovery-file). Several endpoints may be given, separated by spaces or commas; they are tried in order.

Secrets need not stand on the command line: see --token-file, --certificate-key-file and the variables MORTISE_TOKEN, \
MORTISE_DISCOVERY_TOKEN, MORTISE_TLS_BOOTSTRAP_TOKEN and MORTISE_CERTIFICATE_KEY. A flag beats a variable, and that beats the configuration file.

Beside --config only these may stand: --allow-unknown-fields, --bundle, --certificate-key-file, --dry-run, --etcd-snapshot, \
--fail-fast, --grant, --ignore-preflight-errors, --node-name, --output, --plugin, --replace-member, --root, --skip-phases, \
--tls-bootstrap-by, --token-file, --v, --wait.";

#[cfg(test)]
mod tests;
