//! A join's settings: flags, environment and files put together, every rule checked.
//!
//! With `--config` the file says it all; without, the flags do. Only a few flags may stand beside a file
//! ([`BESIDE_CONFIG`]). Tokens: a flag beats the environment, which beats the file; among the flags, and among the
//! variables, the narrower one wins. All broken rules are reported in one run.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::error::{At, ConfigError, Fault, shown};
use super::join_configuration::{BootstrapTokenInput, JoinConfiguration};
use super::join_plugins::JoinPlugins;
use super::reader::UnknownFields;
use super::{
    ControlPlaneSettings, Discovery, Environment, IgnoredChecks, ImagePull, ImagePullPolicy, JoinSettings,
    NodeSettings, PluginSettings, TlsBootstrapBy, TokenDiscovery, Wait, Warning, check_socket, control_plane,
    discovery_file, endpoint, file, ignored_checks, join_plugins, mixed, phases, socket_url,
};
use crate::cli::{JoinArgs, Scope};
use crate::pki::{Pin, PinError};
use crate::plugin::policy::Policy;
use crate::token::BootstrapToken;

/// Flags that may stand beside `--config`: kubeadm's, then ours. So may all that begin with `skip-`.
const BESIDE_CONFIG: &[&str] = &[
    "config",
    "dry-run",
    "ignore-preflight-errors",
    "node-name",
    "output",
    "root",
    "v",
    "allow-unknown-fields",
    "bundle",
    "certificate-key-file",
    "etcd-snapshot",
    "fail-fast",
    "grant",
    "plugin",
    "replace-member",
    "tls-bootstrap-by",
    "token-file",
    "wait",
];

/// kubeadm's `caCertPath`.
const DEFAULT_CA_CERT_PATH: &str = "/etc/kubernetes/pki/ca.crt";

const TOKEN: &str = "discovery.bootstrapToken.token";
const TLS_TOKEN: &str = "discovery.tlsBootstrapToken";

/// What a join, a phase run alone, or `mortise preflight` is asked to do.
///
/// `hostname` names the node where nobody else does. Reads the configuration files, the token file and whether a
/// discovery file exists; changes nothing.
///
/// # Errors
///
/// [`ConfigError`], with everything that is wrong at once, as far as it can be seen.
pub fn join_settings(
    args: &JoinArgs,
    environment: &Environment,
    hostname: &str,
    root: PathBuf,
) -> Result<(JoinSettings, Vec<Warning>), ConfigError> {
    let unknown_fields = if args.allow_unknown_fields { UnknownFields::Warn } else { UnknownFields::Refuse };
    let mut warnings = Vec::new();
    let mut plugins = Vec::new();
    let written = match &args.config {
        Some(path) => {
            mixed(&args.given, BESIDE_CONFIG)?;
            if !args.endpoints.is_empty() {
                warnings.push(Warning("the API server endpoint is ignored beside `--config`".to_owned()));
            }
            let mut loaded = file::load(path, unknown_fields)?;
            warnings.append(&mut loaded.warnings);
            plugins.push(loaded.plugins);
            loaded.join.ok_or_else(|| file::missing(path, "JoinConfiguration"))?
        }
        None => from_flags(args, &mut warnings),
    };
    for mut loaded in file::load_conf_d(&root, unknown_fields)? {
        warnings.append(&mut loaded.warnings);
        plugins.push(loaded.plugins);
    }
    let token_flag = token_flag(args)?;
    let key_flag = key_flag(args)?;
    let policy = super::policy(&root)?;
    let resolver = Resolver { args, environment, token_flag, key_flag, errors: Vec::new(), warnings };
    resolver.resolve(written, plugins, policy, hostname, root)
}

/// The object that kubeadm's flags fill. Tokens come later.
fn from_flags(args: &JoinArgs, warnings: &mut Vec<Warning>) -> JoinConfiguration {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if !args.control_plane && args.has_control_plane_flags() {
        warnings.push(Warning(
            "--control-plane is also required when passing control-plane related flags such as [certificate-key, \
             apiserver-advertise-address, apiserver-bind-port]"
                .to_owned(),
        ));
    }
    let token_discovery = (!args.endpoints.is_empty()).then(|| BootstrapTokenInput {
        token: None,
        endpoint: Some(args.endpoints.join(",")),
        hashes: args.discovery_token_ca_cert_hash.clone(),
        unsafe_skip: args.discovery_token_unsafe_skip_ca_verification,
    });
    let origins = [
        ("discovery.bootstrapToken.apiServerEndpoint", "api-server-endpoint"),
        ("discovery.bootstrapToken.caCertHashes", "--discovery-token-ca-cert-hash"),
        ("discovery.file.kubeConfigPath", "--discovery-file"),
        ("nodeRegistration.criSocket", "--cri-socket"),
        (control_plane::ADVERTISE_ADDRESS, "--apiserver-advertise-address"),
        (control_plane::BIND_PORT, "--apiserver-bind-port"),
    ];
    JoinConfiguration {
        node_name: filled(&args.node_name),
        cri_socket: filled(&args.cri_socket),
        bootstrap_token: token_discovery,
        file: filled(&args.discovery_file),
        control_plane: args.control_plane.then(|| control_plane::Written {
            certificate_key: None,
            advertise_address: filled(&args.apiserver_advertise_address),
            bind_port: args.apiserver_bind_port.map(i64::from),
        }),
        origins: origins.map(|(field, name)| (field.to_owned(), At::Named(name))).into(),
        ..Default::default()
    }
}

/// `--token`, or what `--token-file` holds.
fn token_flag(args: &JoinArgs) -> Result<Option<(SecretString, At)>, ConfigError> {
    if let Some(token) = &args.token {
        return Ok(Some((token.clone(), At::Named("--token"))));
    }
    let Some(path) = &args.token_file else { return Ok(None) };
    let text =
        if path.as_os_str() == "-" { file::read_stdin("the token")? } else { file::read_text(path, "the token")? };
    Ok(Some((text.trim().to_owned().into(), At::Named("--token-file"))))
}

/// `--certificate-key`, or what `--certificate-key-file` holds.
fn key_flag(args: &JoinArgs) -> Result<Option<control_plane::Given>, ConfigError> {
    if let Some(key) = given(&args.certificate_key) {
        return Ok(Some((key, At::Named("--certificate-key"))));
    }
    let Some(path) = &args.certificate_key_file else { return Ok(None) };
    let what = "the certificate key";
    let text = if path.as_os_str() == "-" { file::read_stdin(what)? } else { file::read_text(path, what)? };
    Ok(Some((text.into(), At::Named("--certificate-key-file"))))
}

/// Checks one rule after the other and keeps what is wrong.
struct Resolver<'a> {
    args: &'a JoinArgs,
    environment: &'a Environment,
    token_flag: Option<(SecretString, At)>,
    key_flag: Option<control_plane::Given>,
    errors: Vec<ConfigError>,
    warnings: Vec<Warning>,
}

impl Resolver<'_> {
    fn resolve(
        mut self,
        written: JoinConfiguration,
        documents: Vec<JoinPlugins>,
        policy: Policy,
        hostname: &str,
        root: PathBuf,
    ) -> Result<(JoinSettings, Vec<Warning>), ConfigError> {
        let (discovery, tls_bootstrap_token) = self.discovery(&written);
        let node = self.node(&written, hostname);
        let control_plane = self.control_plane(&written);
        let ca_cert_path = self.ca_cert_path(&written);
        let skip_phases = self.skip_phases(&written);
        let ignore = self.ignored(&written);
        let (tls_bootstrap_by, plugins) = self.plugins(documents);
        let patches = self.args.patches.clone().filter(|path| !path.is_empty()).or(written.patches);
        if let Some(error) = ConfigError::of(self.errors) {
            return Err(error);
        }
        let settings = JoinSettings {
            node: node.expect("a node that cannot be is an error"),
            discovery: discovery.expect("a discovery that cannot be is an error"),
            tls_bootstrap_token,
            tls_bootstrap_by,
            control_plane,
            ca_cert_path,
            skip_phases,
            patches: patches.map(PathBuf::from),
            timeouts: written.timeouts,
            ignore,
            dry_run: self.args.dry_run.or(written.dry_run).unwrap_or(false),
            wait: self.args.wait.unwrap_or(Wait::Kubelet),
            fail_fast: self.args.fail_fast,
            plugins,
            bundle: self.args.bundle.clone(),
            policy,
            root,
        };
        Ok((settings, self.warnings))
    }

    fn fault(&mut self, at: At, field: &str, fault: Fault) {
        self.errors.push(ConfigError::Field { at, field: field.to_owned(), fault });
    }

    /// Notes the fault of a result, if it is one.
    fn checked<T>(&mut self, at: At, field: &str, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.fault(at, field, fault)).ok()
    }

    fn discovery(&mut self, written: &JoinConfiguration) -> (Option<Discovery>, Option<BootstrapToken>) {
        if written.bootstrap_token.is_some() && written.file.is_some() {
            self.fault(At::Nowhere, "discovery", Fault::TwoDiscoveries);
        }
        let mut discovery = None;
        let mut default_tls_token = None;
        match (&written.bootstrap_token, &written.file) {
            (None, None) => match self.args.scope {
                Scope::Join => self.fault(At::Nowhere, "discovery", Fault::NoDiscovery),
                Scope::Phase(phase) if phase.needs_discovery() => {
                    self.fault(At::Nowhere, "discovery", Fault::NoDiscovery);
                }
                Scope::Phase(_) | Scope::Preflight => discovery = Some(Discovery::Recorded),
            },
            (Some(input), _) => {
                let token = self.token_discovery(input, written);
                default_tls_token = token.as_ref().map(|discovery| discovery.token.clone());
                discovery = token.map(Discovery::Token);
            }
            (None, Some(text)) => {
                let field = "discovery.file.kubeConfigPath";
                discovery = self.checked(written.origin(field), field, discovery_file::parse(text));
            }
        }
        let tls_token = match self.tls_token(written) {
            Some((text, at)) => self.token(&text, at, TLS_TOKEN),
            None => default_tls_token,
        };
        (discovery, tls_token)
    }

    fn token_discovery(&mut self, input: &BootstrapTokenInput, written: &JoinConfiguration) -> Option<TokenDiscovery> {
        let token = match self.discovery_token(input, written) {
            Some((text, at)) => self.token(&text, at, TOKEN),
            None => {
                self.fault(At::Nowhere, TOKEN, Fault::NoToken);
                None
            }
        };
        let field = "discovery.bootstrapToken.apiServerEndpoint";
        let endpoints = match &input.endpoint {
            Some(text) => self.checked(written.origin(field), field, endpoint::parse_list(text)),
            None => {
                self.fault(At::Nowhere, field, Fault::Missing);
                None
            }
        };
        let field = "discovery.bootstrapToken.caCertHashes";
        let mut pins = Vec::new();
        for text in input.hashes.iter().filter(|text| !text.is_empty()) {
            pins.extend(self.checked(written.origin(field), field, parse_pin(text)));
        }
        if input.hashes.iter().all(String::is_empty) && !input.unsafe_skip {
            self.fault(At::Nowhere, field, Fault::Unpinned);
        }
        Some(TokenDiscovery {
            token: token?,
            endpoints: endpoints?,
            pins,
            unsafe_skip_ca_verification: input.unsafe_skip,
        })
    }

    /// The discovery token and who gave it: flag, environment, file.
    fn discovery_token(&self, input: &BootstrapTokenInput, written: &JoinConfiguration) -> Option<(SecretString, At)> {
        let flag = |token: &Option<SecretString>, name| given(token).map(|token| (token, At::Named(name)));
        flag(&self.args.discovery_token, "--discovery-token")
            .or_else(|| self.token_flag.clone())
            .or_else(|| self.variable("MORTISE_DISCOVERY_TOKEN"))
            .or_else(|| self.variable("MORTISE_TOKEN"))
            .or_else(|| given(&input.token).map(|token| (token, written.origin(TOKEN))))
    }

    /// The TLS bootstrap token, where somebody gave one other than the discovery token.
    fn tls_token(&self, written: &JoinConfiguration) -> Option<(SecretString, At)> {
        let flag = |token: &Option<SecretString>, name| given(token).map(|token| (token, At::Named(name)));
        flag(&self.args.tls_bootstrap_token, "--tls-bootstrap-token")
            .or_else(|| flag(&self.args.discovery_token, "--discovery-token"))
            .or_else(|| self.token_flag.clone())
            .or_else(|| self.variable("MORTISE_TLS_BOOTSTRAP_TOKEN"))
            .or_else(|| self.variable("MORTISE_TOKEN"))
            .or_else(|| given(&written.tls_bootstrap_token).map(|token| (token, written.origin(TLS_TOKEN))))
    }

    fn variable(&self, name: &'static str) -> Option<(SecretString, At)> {
        self.environment.filled(name).map(|value| (value.to_owned().into(), At::Named(name)))
    }

    /// Parses a token; one malformed text used for both purposes is reported once.
    fn token(&mut self, text: &SecretString, at: At, field: &'static str) -> Option<BootstrapToken> {
        match text.expose_secret().parse() {
            Ok(token) => Some(token),
            Err(error) => {
                let fault = Fault::Token(error);
                let known = |earlier: &ConfigError| matches!(earlier, ConfigError::Field { at: there, fault: other, .. } if *there == at && *other == fault);
                if !matches!(at, At::Named(_)) || !self.errors.iter().any(known) {
                    self.fault(at, field, fault);
                }
                None
            }
        }
    }

    fn node(&mut self, written: &JoinConfiguration, hostname: &str) -> Option<NodeSettings> {
        let field = "nodeRegistration.name";
        let flag = self.args.node_name.as_deref().filter(|name| !name.is_empty());
        let configured = written.node_name.as_deref().unwrap_or(hostname).trim().to_lowercase();
        // As in kubeadm the flag counts as it is. Other than in kubeadm it is checked, lower-cased as the kubelet does.
        let (at, checked) = match flag {
            Some(name) => (At::Named("--node-name"), name.to_lowercase()),
            None => (written.origin(field), configured.clone()),
        };
        let name = self.checked(at, field, check_node_name(&checked));
        if let Some(name) = flag.filter(|name| **name != checked) {
            let (name, checked) = (shown(name), shown(&checked));
            self.warnings.push(Warning(format!(
                "the node name `{name}` has upper-case letters; the kubelet registers it as `{checked}`"
            )));
        }
        let field = "nodeRegistration.criSocket";
        let cri_socket = written.cri_socket.as_deref().map(|socket| socket_url(socket, &mut self.warnings));
        if let Some(socket) = &cri_socket {
            self.checked(written.origin(field), field, check_socket(socket));
        }
        let mut image_pull = ImagePull::default();
        image_pull.serial = written.image_pull_serial.unwrap_or(image_pull.serial);
        if let Some(policy) = &written.image_pull_policy {
            match ImagePullPolicy::parse(policy) {
                Some(policy) => image_pull.policy = policy,
                None => {
                    let field = "nodeRegistration.imagePullPolicy";
                    let reason = "is none of `Always`, `IfNotPresent`, `Never`".to_owned();
                    self.fault(written.origin(field), field, Fault::Value { value: shown(policy), reason });
                }
            }
        }
        name.map(|()| NodeSettings {
            name: flag.map_or(configured, ToOwned::to_owned),
            cri_socket,
            taints: written.taints.clone(),
            kubelet_extra_args: written.kubelet_extra_args.clone(),
            image_pull,
        })
    }

    /// What a control plane is told; none for a worker, and where something is wrong.
    fn control_plane(&mut self, written: &JoinConfiguration) -> Option<ControlPlaneSettings> {
        let asked = written.control_plane.as_ref()?;
        let key =
            self.key_flag.clone().or_else(|| self.variable("MORTISE_CERTIFICATE_KEY")).or_else(|| {
                given(&asked.certificate_key).map(|key| (key, written.origin(control_plane::CERTIFICATE_KEY)))
            });
        let certificate_key = key.and_then(|(text, at)| {
            self.checked(at, control_plane::CERTIFICATE_KEY, control_plane::certificate_key(&text))
        });
        let field = control_plane::ADVERTISE_ADDRESS;
        let address = control_plane::advertise_address(asked.advertise_address.as_deref());
        let advertise_address = self.checked(written.origin(field), field, address);
        let field = control_plane::BIND_PORT;
        let bind_port = self.checked(written.origin(field), field, control_plane::bind_port(asked.bind_port));
        let replace_member = self.args.replace_member.as_deref().map(control_plane::member_id);
        let replace_member = replace_member.and_then(|id| self.checked(At::Named("--replace-member"), "etcd", id));
        Some(ControlPlaneSettings {
            advertise_address: advertise_address?,
            bind_port: bind_port?,
            certificate_key,
            etcd_snapshot: self.args.etcd_snapshot.clone(),
            replace_member,
        })
    }

    fn ca_cert_path(&mut self, written: &JoinConfiguration) -> PathBuf {
        let path = written.ca_cert_path.as_deref().unwrap_or(DEFAULT_CA_CERT_PATH);
        if !path.starts_with('/') || !path.ends_with(".crt") {
            let reason = "must be an absolute path that ends in `.crt`".to_owned();
            self.fault(written.origin("caCertPath"), "caCertPath", Fault::Value { value: shown(path), reason });
        }
        path.into()
    }

    /// The flag's list, else, in a whole join, the file's.
    fn skip_phases(&mut self, written: &JoinConfiguration) -> Vec<String> {
        let flags: Vec<String> = self.args.skip_phases.iter().filter(|id| !id.is_empty()).cloned().collect();
        let (at, field, list) = match self.args.scope {
            _ if !flags.is_empty() => (At::Named("--skip-phases"), "skipPhases", flags),
            Scope::Join => (written.origin("skipPhases"), "skipPhases", written.skip_phases.clone()),
            Scope::Phase(_) | Scope::Preflight => return Vec::new(),
        };
        for id in &list {
            self.checked(at.clone(), field, phases::find(id));
        }
        list
    }

    fn ignored(&mut self, written: &JoinConfiguration) -> IgnoredChecks {
        let ignored = ignored_checks(&written.ignore, &self.args.ignore_preflight_errors);
        self.checked(At::Nowhere, "ignore-preflight-errors", ignored).unwrap_or_default()
    }

    /// Plugins of the file, of the directory, then of the flags. The first who says it decides on TLS bootstrap.
    fn plugins(&mut self, documents: Vec<JoinPlugins>) -> (TlsBootstrapBy, Vec<PluginSettings>) {
        let configured = documents.iter().find_map(|document| document.tls_bootstrap_by);
        let by = self.args.tls_bootstrap_by.or(configured).unwrap_or(TlsBootstrapBy::Host);
        let mut plugins: Vec<_> = documents.into_iter().flat_map(|document| document.plugins).collect();
        match join_plugins::of_flags(&self.args.plugins) {
            Ok(more) => plugins.extend(more.into_iter().map(|plugin| (At::Named("--plugin"), plugin))),
            Err(error) => self.errors.push(error),
        }
        self.errors.extend(join_plugins::name_twice(&plugins));
        let plugins = plugins.into_iter().map(|(_, plugin)| plugin).collect();
        (by, plugins)
    }
}

/// An empty text counts as absent, as in Go.
fn given(token: &Option<SecretString>) -> Option<SecretString> {
    token.clone().filter(|token| !token.expose_secret().is_empty())
}

fn parse_pin(text: &str) -> Result<Pin, Fault> {
    text.parse().map_err(|error| {
        let reason = match error {
            PinError::Algorithm(_) => "does not begin with `sha256:`",
            _ => "does not have 64 hex digits after `sha256:`",
        };
        Fault::Pin { value: shown(text), reason }
    })
}

/// RFC 1123 subdomain, as Kubernetes defines it: at most 253 characters, labels of `[a-z0-9]` with `-` inside.
fn check_node_name(name: &str) -> Result<(), Fault> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-');
    if name.is_empty() {
        return Err(Fault::Value { value: String::new(), reason: "is empty: pass `--node-name`".to_owned() });
    }
    if name.len() > 253 || !name.split('.').all(label) {
        let reason = "is no node name: lower-case letters, digits, `-` and `.`, beginning and ending with a letter or \
                      digit, at most 253 characters";
        return Err(Fault::Value { value: shown(name), reason: reason.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
