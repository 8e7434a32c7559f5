//! Flags, environment and files put together.

use std::path::Path;

use crate::cli::{self, Command};
use crate::config::*;
use crate::error::{Diagnose, ExitCode, Failure};

const TOKEN: &str = "abcdef.0123456789abcdef";
const PIN: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A root with a configuration file in it.
struct Machine {
    root: tempfile::TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Machine {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    fn with(variables: &[(&'static str, &'static str)]) -> Self {
        Self { variables: variables.to_vec(), ..Self::new() }
    }

    fn write(&self, path: &str, text: &str) -> String {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The settings of `mortise` with these words.
    fn settings(&self, words: &[&str]) -> Result<(JoinSettings, Vec<Warning>), ConfigError> {
        let words = std::iter::once("mortise").chain(words.iter().copied()).map(Into::into);
        let args = match cli::parse(words).unwrap_or_else(|error| panic!("{}", error.text(false))).command {
            Command::Join(join) => join.0,
            Command::Preflight(preflight) => preflight.0,
            other => panic!("no join: {other:?}"),
        };
        let variables = self.variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment { variables: variables.collect() };
        join_settings(&args, &environment, "Host-1\n", self.root.path().to_owned())
    }

    /// The settings of `mortise join --config` with this file.
    fn file(&self, text: &str) -> Result<(JoinSettings, Vec<Warning>), ConfigError> {
        let path = self.write("join.yaml", text);
        self.settings(&["join", "--config", &path])
    }

    /// Message and code of what is wrong with this file, its directory left out.
    fn file_error(&self, text: &str) -> (String, &'static str) {
        let error = self.file(text).expect_err(text);
        assert_eq!(error.exit_code(), ExitCode::Usage);
        let code = error.code();
        let root = format!("{}/", self.root.path().display());
        (Failure::from(error).message().replace(&root, ""), code)
    }
}

fn token_discovery(settings: &JoinSettings) -> &TokenDiscovery {
    let Discovery::Token(discovery) = &settings.discovery else { panic!("{:?}", settings.discovery) };
    discovery
}

fn bearer(token: &crate::token::BootstrapToken) -> String {
    token.expose_bearer()
}

const JOIN: &str = "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
discovery:
  bootstrapToken:
    apiServerEndpoint: api:6443
    token: abcdef.0123456789abcdef
    unsafeSkipCAVerification: true
";

#[test]
fn the_line_kubeadm_prints_works_as_pasted() {
    let line = ["join", "1.2.3.4:6443", "--token", TOKEN, "\\\n", " ", "\t--discovery-token-ca-cert-hash", PIN];
    let line = line.map(|word| word.trim_start_matches('\t'));
    let (settings, warnings) = Machine::new().settings(&line).unwrap();
    let discovery = token_discovery(&settings);
    assert_eq!(discovery.endpoints[0].to_string(), "1.2.3.4:6443");
    assert_eq!(discovery.endpoints.len(), 1);
    assert_eq!(discovery.pins[0].to_string(), PIN);
    assert_eq!(bearer(&discovery.token), TOKEN);
    assert_eq!(bearer(settings.tls_bootstrap_token.as_ref().unwrap()), TOKEN);
    assert_eq!(settings.node.name, "host-1");
    assert_eq!(settings.node.cri_socket, None);
    assert_eq!(settings.ca_cert_path, Path::new("/etc/kubernetes/pki/ca.crt"));
    assert_eq!(settings.timeouts, Timeouts::default());
    assert_eq!((settings.wait, settings.tls_bootstrap_by), (Wait::Kubelet, TlsBootstrapBy::Host));
    assert!(!settings.dry_run && !settings.fail_fast);
    assert_eq!(warnings, []);
}

/// kubeadm's §1.1 steps 1 to 3, then the environment below the flags.
#[test]
fn tokens_fill_each_other_as_in_kubeadm() {
    const A: &str = "aaaaaa.aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbb.bbbbbbbbbbbbbbbb";
    const C: &str = "cccccc.cccccccccccccccc";
    let skip = "--discovery-token-unsafe-skip-ca-verification";
    let file = Machine::new();
    let file = file.write("cluster.conf", "");
    type Case<'a> = (&'a [&'a str], &'a [(&'static str, &'static str)], Option<&'a str>, Option<&'a str>);
    let cases: &[Case<'_>] = &[
        (&["a:1", skip, "--token", A], &[], Some(A), Some(A)),
        (&["a:1", skip, "--discovery-token", A, "--token", B], &[], Some(A), Some(A)),
        (&["a:1", skip, "--tls-bootstrap-token", A, "--token", B], &[], Some(B), Some(A)),
        (&["a:1", skip, "--discovery-token", A, "--tls-bootstrap-token", B], &[], Some(A), Some(B)),
        (&["--discovery-file", &file, "--token", B], &[], None, Some(B)),
        (&["--discovery-file", &file], &[], None, None),
        (&["--discovery-file", &file], &[("MORTISE_DISCOVERY_TOKEN", A)], None, None),
        (&["a:1", skip], &[("MORTISE_TOKEN", A)], Some(A), Some(A)),
        (&["a:1", skip], &[("MORTISE_TOKEN", A), ("MORTISE_DISCOVERY_TOKEN", B)], Some(B), Some(A)),
        (&["a:1", skip], &[("MORTISE_DISCOVERY_TOKEN", B)], Some(B), Some(B)),
        (&["a:1", skip, "--token", C], &[("MORTISE_TOKEN", A), ("MORTISE_DISCOVERY_TOKEN", B)], Some(C), Some(C)),
        (&["a:1", skip, "--token", C], &[("MORTISE_TLS_BOOTSTRAP_TOKEN", A)], Some(C), Some(C)),
        (&["a:1", skip, "--discovery-token", C], &[("MORTISE_TLS_BOOTSTRAP_TOKEN", A)], Some(C), Some(C)),
        (
            &["a:1", skip, "--tls-bootstrap-token", C],
            &[("MORTISE_TOKEN", " aaaaaa.aaaaaaaaaaaaaaaa\n")],
            Some(A),
            Some(C),
        ),
    ];
    for (words, variables, discovery, tls) in cases {
        let words: Vec<&str> = std::iter::once("join").chain(words.iter().copied()).collect();
        let (settings, _) =
            Machine::with(variables).settings(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let found = match &settings.discovery {
            Discovery::Token(discovery) => Some(bearer(&discovery.token)),
            _ => None,
        };
        assert_eq!(found.as_deref(), *discovery, "{words:?} {variables:?}");
        assert_eq!(settings.tls_bootstrap_token.as_ref().map(bearer).as_deref(), *tls, "{words:?} {variables:?}");
    }
}

#[test]
fn a_variable_beats_the_file_and_is_no_mixing() {
    const A: &str = "aaaaaa.aaaaaaaaaaaaaaaa";
    let (settings, _) = Machine::with(&[("MORTISE_TOKEN", A)]).file(JOIN).unwrap();
    assert_eq!(bearer(&token_discovery(&settings).token), A);
    assert_eq!(bearer(settings.tls_bootstrap_token.as_ref().unwrap()), A);
    // A token of its own in the file is beaten only by the variable for it.
    let two = format!("{JOIN}  tlsBootstrapToken: bbbbbb.bbbbbbbbbbbbbbbb\n");
    let (settings, _) = Machine::with(&[("MORTISE_DISCOVERY_TOKEN", A)]).file(&two).unwrap();
    assert_eq!(bearer(&token_discovery(&settings).token), A);
    assert_eq!(settings.tls_bootstrap_token.unwrap().id(), "bbbbbb");
}

#[test]
fn a_token_file_counts_as_the_token_flag_also_beside_a_configuration() {
    let machine = Machine::new();
    let token = machine.write("token", "aaaaaa.aaaaaaaaaaaaaaaa\n");
    let join = machine.write("join.yaml", JOIN);
    let (settings, _) = machine.settings(&["join", "--config", &join, "--token-file", &token]).unwrap();
    assert_eq!(token_discovery(&settings).token.id(), "aaaaaa");
    let missing = machine.settings(&["join", "a:1", "--token-file", "/nonexistent"]).unwrap_err();
    assert_eq!(missing.code(), "config-unreadable");
}

#[test]
fn reads_every_field_of_v1beta4() {
    let (settings, warnings) = Machine::new()
        .file(
            "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
dryRun: on
caCertPath: /etc/kubernetes/other/ca.crt
nodeRegistration:
  name: ' Node-7 '
  criSocket: /run/crio/crio.sock
  taints: []
  kubeletExtraArgs: [{name: v, value: '3'}, {name: v, value: ''}]
  ignorePreflightErrors: [Swap, NumCPU, swap]
  imagePullPolicy: Never
  imagePullSerial: false
discovery:
  bootstrapToken:
    token: abcdef.0123456789abcdef
    apiServerEndpoint: '[fd00::1]:6443'
    caCertHashes: [SHA256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855]
    unsafeSkipCAVerification: true
  tlsBootstrapToken: bbbbbb.bbbbbbbbbbbbbbbb
controlPlane: null
skipPhases: [preflight, control-plane-prepare/certs]
patches: {directory: /etc/patches}
timeouts:
  controlPlaneComponentHealthCheck: 1s
  kubeletHealthCheck: 2s
  kubernetesAPICall: 3s
  etcdAPICall: 4s
  tlsBootstrap: 5s
  discovery: 6s
  upgradeManifests: 7s
",
        )
        .unwrap();
    let seconds = std::time::Duration::from_secs;
    assert!(settings.dry_run);
    assert_eq!(settings.ca_cert_path, Path::new("/etc/kubernetes/other/ca.crt"));
    assert_eq!(settings.node.name, "node-7");
    assert_eq!(settings.node.cri_socket.as_deref(), Some("unix:///run/crio/crio.sock"));
    assert_eq!(settings.node.taints, Some(Vec::new()));
    let args: Vec<(&str, &str)> =
        settings.node.kubelet_extra_args.iter().map(|arg| (&*arg.name, &*arg.value)).collect();
    assert_eq!(args, [("v", "3"), ("v", "")]);
    assert_eq!(settings.node.image_pull, ImagePull { policy: ImagePullPolicy::Never, serial: false });
    assert_eq!(settings.ignore.names, ["numcpu", "swap"]);
    let discovery = token_discovery(&settings);
    assert_eq!(discovery.endpoints[0].host, "fd00::1");
    assert_eq!(discovery.pins[0].to_string(), PIN);
    assert!(discovery.unsafe_skip_ca_verification);
    assert_eq!(settings.tls_bootstrap_token.unwrap().id(), "bbbbbb");
    assert_eq!(settings.skip_phases, ["preflight", "control-plane-prepare/certs"]);
    assert_eq!(settings.patches.as_deref(), Some(Path::new("/etc/patches")));
    assert_eq!(settings.timeouts.kubelet_health_check, seconds(2));
    assert_eq!(settings.timeouts.kubernetes_api_call, seconds(3));
    assert_eq!(settings.timeouts.tls_bootstrap, seconds(5));
    assert_eq!(settings.timeouts.discovery, seconds(6));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].0.contains("unix:///run/crio/crio.sock"));
}

#[test]
fn what_config_print_prints_can_be_read() {
    let (settings, warnings) = Machine::new().file(&join_defaults("Some-Host")).unwrap();
    assert_eq!(settings.node.name, "some-host");
    assert_eq!((settings.timeouts, settings.node.taints), (Timeouts::default(), None));
    assert_eq!(settings.node.image_pull, ImagePull::default());
    assert_eq!(warnings, []);
}

#[test]
fn every_misfit_of_a_file_is_named_with_its_place_in_one_run() {
    let (message, code) = Machine::new().file_error(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
dryRun: maybe
nodeRegistration:
  nme: a
  name: 7
  taints: {}
  kubeletExtraArgs: [{value: x}]
discovery:
  bootstrapToken: []
timeouts: {discovery: 5, tlsBootstrap: soon}
dryRun: true
",
    );
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(
        lines,
        [
            "8 problems:",
            "  - `join.yaml:5:3`: `nodeRegistration.nme`: unknown field",
            "  - `join.yaml:6:9`: `nodeRegistration.name`: must be a string, found a number",
            "  - `join.yaml:7:11`: `nodeRegistration.taints`: must be a list, found a mapping",
            "  - `join.yaml:8:22`: `nodeRegistration.kubeletExtraArgs[0].name`: must be set",
            "  - `join.yaml:10:19`: `discovery.bootstrapToken`: must be a mapping, found a list",
            "  - `join.yaml:11:23`: `timeouts.discovery`: must be a string, found a number",
            "  - `join.yaml:11:40`: `timeouts.tlsBootstrap`: `soon` is no duration such as `4m0s`",
            "  - `join.yaml:12:1`: `dryRun`: duplicate field",
        ]
    );
    assert_eq!(code, "config-invalid");
}

#[test]
fn unknown_and_duplicate_fields_only_warn_where_the_user_says_so() {
    let machine = Machine::new();
    let path = machine.write("join.yaml", &format!("{JOIN}extra: 1\ndryRun: false\ndryRun: true\n"));
    let (settings, warnings) = machine.settings(&["join", "--config", &path, "--allow-unknown-fields"]).unwrap();
    assert!(settings.dry_run, "the last of a repeated field counts");
    let texts: Vec<&str> = warnings.iter().map(|warning| &*warning.0).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].contains(":10:1`: `dryRun`: duplicate"), "{texts:?}");
    assert!(texts[1].contains(":8:1`: `extra`: unknown"), "{texts:?}");
}

#[test]
fn documents_count_or_are_refused_by_group_version_and_kind() {
    let machine = Machine::new();
    let with = |document: &str| format!("{JOIN}---\n{document}");
    let (_, warnings) = machine
        .file(&with("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nunknown: 1\n---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\n"))
        .unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].0.contains("KubeletConfiguration"));
    for (text, code, part) in [
        (with(JOIN), "config-kind-twice", "`join.yaml:9:1`: the kind `JoinConfiguration` is specified twice"),
        (with("a: 1"), "config-untyped-document", "`join.yaml:9:1`"),
        (with("apiVersion: v1\nkind: X"), "config-untyped-document", "group"),
        (with("apiVersion: mortise.dev/v2\nkind: JoinPlugins"), "config-unknown-version", "`mortise.dev/v2`"),
        (with("apiVersion: mortise.dev/v1alpha1\nkind: Other"), "config-unknown-version", "`Other`"),
        (JOIN.replace("v1beta4", "v1beta3"), "config-old-version", "`kubeadm.k8s.io/v1beta3`"),
        (JOIN.replace("v1beta4", "v1"), "config-experimental-version", "experimental"),
        (JOIN.replace("v1beta4", "v2"), "config-unknown-version", "`kubeadm.k8s.io/v2`"),
        (JOIN.replace("kubeadm.k8s.io", "example.com"), "config-unknown-version", "`example.com/v1beta4`"),
        ("apiVersion: a/v1\nkind: B".to_owned(), "config-kind-missing", "`join.yaml`: no `JoinConfiguration`"),
        (String::new(), "config-kind-missing", "no `JoinConfiguration`"),
        ("a: [1".to_owned(), "config-syntax", "`join.yaml:"),
        ("just text".to_owned(), "config-untyped-document", "kind"),
    ] {
        let (message, found) = machine.file_error(&text);
        assert_eq!(found, code, "{text}: {message}");
        assert!(message.contains(part), "{message}");
    }
    let old = machine.file(&JOIN.replace("v1beta4", "v1beta2")).unwrap_err();
    assert!(old.hint().unwrap().contains("kubeadm v1.22: `kubeadm config migrate"));
}

#[test]
fn every_broken_rule_is_named_with_the_field_as_kubeadm_names_it() {
    let (message, _) = Machine::new().file_error(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: JoinConfiguration
caCertPath: ca.crt
nodeRegistration:
  name: a_b
  imagePullPolicy: Sometimes
discovery:
  bootstrapToken:
    token: abcdef.CANARY
    apiServerEndpoint: api
    caCertHashes: ['md5:1', 'sha256:zz']
  file:
    kubeConfigPath: /nonexistent
  tlsBootstrapToken: CANARY
skipPhases: [etcd]
",
    );
    for part in [
        "`discovery`: bootstrapToken and file cannot both be set",
        "`join.yaml:9:12`: `discovery.bootstrapToken.token`: a bootstrap token has the form",
        "`join.yaml:10:24`: `discovery.bootstrapToken.apiServerEndpoint`: `api` is no `host:port`: the port is missing",
        "`join.yaml:11:19`: `discovery.bootstrapToken.caCertHashes`: the pin `md5:1` does not begin with `sha256:`",
        "the pin `sha256:zz` does not have 64 hex digits",
        "`join.yaml:14:22`: `discovery.tlsBootstrapToken`: a bootstrap token",
        "`join.yaml:5:9`: `nodeRegistration.name`: `a_b` is no node name",
        "`join.yaml:6:20`: `nodeRegistration.imagePullPolicy`: `Sometimes` is none of",
        "`join.yaml:3:13`: `caCertPath`: `ca.crt` must be an absolute path",
        "`join.yaml:15:13`: `skipPhases`: invalid phase name: etcd",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
    assert!(message.starts_with("10 problems:"), "{message}");
    assert!(!message.contains("CANARY"), "{message}");
}

#[test]
fn single_rules_of_flags_have_their_own_codes() {
    let machine = Machine::new();
    let file = machine.write("cluster.conf", "");
    let good = ["join", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN];
    assert!(machine.settings(&good).is_ok());
    for (more, code) in [
        (&["--discovery-file", &file][..], "config-two-discoveries"),
        (&["--control-plane", "--apiserver-advertise-address", "0.0.0.0"], "config-invalid-value"),
        (&["--control-plane", "--apiserver-bind-port", "65536"], "config-invalid-value"),
        (&["--control-plane", "--replace-member", "n2"], "config-invalid-value"),
        (&["--control-plane", "--certificate-key", "CANARY"], "certificate-key-malformed"),
        (&["--node-name", "a b"], "config-invalid-value"),
        (&["--node-name=-a"], "config-invalid-value"),
        (&["--cri-socket", "unix://relative"], "config-invalid-value"),
        (&["--cri-socket", "unixtcp:///x"], "config-invalid-value"),
        (&["--skip-phases", "preflight,Preflight"], "config-unknown-phase"),
        (&["--skip-phases", "control-plane-join/etcd"], "config-unknown-phase"),
        (&["--ignore-preflight-errors", "ALL,Swap"], "config-ignore-all"),
        (&["--discovery-token-ca-cert-hash", "sha256:00"], "config-pin"),
        (&["--tls-bootstrap-token", "x"], "token-malformed"),
        (&["--plugin", "a.wasm", "--plugin", "/b/a.wasm"], "config-plugin-name"),
        (&["--plugin", "a b.wasm"], "config-invalid-value"),
        (&["--plugin", "a.wasm", "--grant", "/nonexistent"], "config-grant"),
        (&["--plugin", "a.wasm", "--grant", "facts=kernel,nonsense"], "config-grant"),
    ] {
        let words: Vec<&str> = good.iter().chain(more).copied().collect();
        let error = machine.settings(&words).expect_err(&format!("{more:?}"));
        assert_eq!(error.code(), code, "{error}");
    }
    for (words, code) in [
        (&["join"][..], "config-no-discovery"),
        (&["join", "--token", TOKEN], "config-no-discovery"),
        (&["join", "a:1", "--token", TOKEN], "config-unpinned"),
        (&["join", "a:1", "--discovery-token-ca-cert-hash", PIN], "token-missing"),
        (&["join", "a", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN], "config-endpoint"),
        (&["join", "--discovery-file", "/nonexistent"], "config-invalid-value"),
        (&["join", "phase", "preflight"], "config-no-discovery"),
        (&["join", "--config", "/nonexistent"], "config-unreadable"),
    ] {
        let error = machine.settings(words).expect_err(&format!("{words:?}"));
        assert_eq!(error.code(), code, "{error}");
    }
}

#[test]
fn one_token_used_twice_is_reported_once() {
    let error = Machine::new().settings(&["join", "a:1", "--token", "x", "--discovery-token-ca-cert-hash", PIN]);
    assert_eq!(error.unwrap_err().code(), "token-malformed");
}

#[test]
fn few_flags_may_stand_beside_a_file() {
    let machine = Machine::new();
    let path = machine.write("join.yaml", &format!("{JOIN}dryRun: true\nskipPhases: [preflight]\n"));
    let beside = |more: &[&str]| {
        let words: Vec<&str> = ["join", "--config", &path].iter().chain(more).copied().collect();
        machine.settings(&words)
    };
    let allowed = [
        "--dry-run=false",
        "--node-name=Other",
        "--ignore-preflight-errors=Swap",
        "--skip-phases=check-etcd",
        "--wait=ready",
        "--fail-fast",
        "--tls-bootstrap-by=kubelet",
        "--plugin=x.wasm",
        "--grant=facts=kernel",
        "--output=json",
        "--v=3",
    ];
    let (settings, warnings) = beside(&allowed).unwrap();
    assert_eq!(settings.plugins[0].grants.lines(), ["facts: [kernel]"]);
    assert!(!settings.dry_run);
    assert_eq!(settings.node.name, "Other");
    assert_eq!(settings.ignore.names, ["swap"]);
    assert_eq!(settings.skip_phases, ["check-etcd"]);
    assert_eq!((settings.wait, settings.tls_bootstrap_by), (Wait::Ready, TlsBootstrapBy::Kubelet));
    assert!(settings.fail_fast);
    assert_eq!(settings.plugins[0].name, "x");
    assert!(warnings.iter().any(|warning| warning.0.contains("`other`")), "{warnings:?}");

    let (_, warnings) = beside(&["a:1"]).unwrap();
    assert!(warnings[0].0.contains("ignored"), "{warnings:?}");

    let mixed =
        beside(&["--token", TOKEN, "--patches=/x", "--cri-socket=y", "--apiserver-bind-port=6443", "--vmodule=a=1"]);
    assert_eq!(
        mixed.unwrap_err().to_string(),
        "can not mix '--config' with arguments [apiserver-bind-port cri-socket patches token vmodule]"
    );
}

#[test]
fn control_plane_flags_without_the_first_of_them_warn() {
    let machine = Machine::new();
    let line =
        ["join", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN, "--apiserver-bind-port", "7443"];
    let (settings, warnings) = machine.settings(&line).unwrap();
    assert!(warnings[0].0.contains("--control-plane is also required"));
    assert!(settings.control_plane.is_none());
}

#[test]
fn the_certificate_key_comes_from_the_flag_else_the_environment_else_the_file_and_is_never_shown() {
    let [flag, variable, file] = ["aa", "bb", "cc"].map(|byte| byte.repeat(32));
    let written =
        format!("{JOIN}controlPlane: {{certificateKey: {file}, localAPIEndpoint: {{advertiseAddress: 10.0.0.7}}}}\n");
    let opened_by = |machine: &Machine, words: &[&str]| {
        let path = machine.write("join.yaml", &written);
        let words = [&["join", "--config", &path], words].concat();
        let (settings, _) = machine.settings(&words).unwrap();
        let shown = format!("{settings:?}");
        assert!([&*flag, &*variable, &*file].iter().all(|key| !shown.contains(&key[..8])), "{shown}");
        let control_plane = settings.control_plane.unwrap();
        assert_eq!((control_plane.advertise_address.to_string(), control_plane.bind_port), ("10.0.0.7".into(), 6443));
        let key = control_plane.certificate_key.unwrap();
        [&*flag, &*variable, &*file].map(|text: &str| {
            let sealed = text.parse::<crate::pki::CertificateKey>().unwrap().seal(b"x");
            key.open(&sealed).is_some()
        })
    };
    let machine = Machine::new();
    let key_file = machine.write("key", &format!("{flag}\n"));
    assert_eq!(opened_by(&machine, &["--certificate-key-file", &key_file]), [true, false, false]);
    assert_eq!(opened_by(&machine, &[]), [false, false, true]);
    let variable: &'static str = variable.clone().leak();
    assert_eq!(opened_by(&Machine::with(&[("MORTISE_CERTIFICATE_KEY", variable)]), &[]), [false, true, false]);
    let (message, code) = machine.file_error(&format!("{JOIN}controlPlane: {{certificateKey: CANARY}}\n"));
    assert_eq!(code, "certificate-key-malformed");
    assert!(!message.contains("CANARY") && message.contains("64 hex digits"), "{message}");
}

#[test]
fn preflight_and_late_phases_need_no_discovery() {
    let machine = Machine::new();
    for words in [
        &["preflight"][..],
        &["preflight", "--node-name", "n1", "--plugin", "x.wasm", "-o", "json"],
        &["join", "phase", "kubelet-start", "--node-name", "n1"],
        &["join", "phase", "tls-bootstrap", "--token", TOKEN],
        &["join", "phase", "kubelet-wait-bootstrap"],
        &["join", "phase", "control-plane-join", "mark-control-plane"],
    ] {
        let (settings, _) = machine.settings(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(matches!(settings.discovery, Discovery::Recorded), "{words:?}");
    }
    let words = ["preflight", "a:1", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN];
    assert_eq!(token_discovery(&machine.settings(&words).unwrap().0).endpoints[0].host, "a");
}

#[test]
fn several_endpoints_keep_their_order() {
    let machine = Machine::new();
    let words = ["join", "b:1", "a:2,[::1]:3", "--token", TOKEN, "--discovery-token-ca-cert-hash", PIN];
    let (settings, _) = machine.settings(&words).unwrap();
    let endpoints: Vec<String> = token_discovery(&settings).endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["b:1", "a:2", "[::1]:3"]);
}

#[test]
fn plugins_come_from_the_file_the_directory_and_the_flags_in_this_order() {
    let machine = Machine::new();
    let plugins = |by: &str, name: &str| {
        format!(
            "apiVersion: mortise.dev/v1alpha1\nkind: JoinPlugins\n{by}plugins:\n- name: {name}\n  path: /p/{name}.wasm\n  \
             digest: {PIN}\n  settings: {{a: [1, {{b: yes}}]}}\n  grants: {{facts: [kernel]}}\n"
        )
    };
    let join = machine.write("join.yaml", &format!("{JOIN}---\n{}", plugins("", "one")));
    machine.write("etc/mortise/conf.d/20.yaml", &plugins("tlsBootstrapBy: host\n", "three"));
    machine.write("etc/mortise/conf.d/10.yaml", &plugins("tlsBootstrapBy: kubelet\n", "two"));
    machine.write("etc/mortise/conf.d/.30.yaml", "not: [yaml");
    machine.write("etc/mortise/conf.d/README", "not: [yaml");
    let (settings, _) = machine.settings(&["join", "--config", &join, "--plugin", "four.wasm"]).unwrap();
    let names: Vec<&str> = settings.plugins.iter().map(|plugin| &*plugin.name).collect();
    assert_eq!(names, ["one", "two", "three", "four"]);
    assert_eq!(settings.tls_bootstrap_by, TlsBootstrapBy::Kubelet);
    assert_eq!(settings.plugins[0].path, Path::new("/p/one.wasm"));
    assert_eq!(settings.plugins[0].grants.lines(), ["facts: [kernel]"]);
    assert_eq!(settings.plugins[0].digest.as_deref(), Some(PIN));
    assert_eq!(
        serde_json::Value::from(settings.plugins[0].settings.clone()),
        serde_json::json!({"a": [1, {"b": true}]})
    );

    machine.write("etc/mortise/conf.d/20.yaml", JOIN);
    let error = machine.settings(&["join", "--config", &join]).unwrap_err();
    assert_eq!(error.code(), "config-misplaced-document");
}

#[test]
fn a_plugin_of_the_lock_file_is_named_by_its_image_or_its_name() {
    let machine = Machine::new();
    let image = "registry.example/vendor/gpu:1.0.0";
    let join = format!(
        "{JOIN}---\napiVersion: mortise.dev/v1alpha1\nkind: JoinPlugins\nplugins: [{{name: one, image: {image}}}]\n"
    );
    let join = machine.write("join.yaml", &join);
    let (settings, _) = machine.settings(&["join", "--config", &join, "--plugin", "gpu-driver"]).unwrap();
    let named: Vec<_> = settings.plugins.iter().map(|plugin| (&*plugin.name, plugin.image.as_deref())).collect();
    assert_eq!(named, [("one", Some(image)), ("gpu-driver", Some("gpu-driver"))]);
}

#[test]
fn bad_plugins_are_refused_with_their_place() {
    let (message, _) = Machine::new().file_error(&format!(
        "{JOIN}---
apiVersion: mortise.dev/v1alpha1
kind: JoinPlugins
tlsBootstrapBy: nobody
plugins:
  - path: relative.wasm
  - name: a b
    path: /a.wasm
    digest: sha256:00
  - name: c
    image: c:1
  - name: d
  - name: e
    path: /e.wasm
    settings: [1]
    grants: everything
    timeout: 5s
"
    ));
    for part in [
        "`join.yaml:11:17`: `tlsBootstrapBy`: `nobody` is neither",
        "`plugins[0].path`: `relative.wasm` is no absolute path",
        "`plugins[0].name`: must be set",
        "`join.yaml:14:11`: `plugins[1].name`: `a b` is no plugin name",
        "`plugins[1].digest`: `sha256:00` is not",
        "`join.yaml:18:12`: `plugins[2].image`: `c:1` is no reference such as",
        "`plugins[3].path`: must be set",
        "`plugins[4].settings`: must be a mapping, found a list",
        "`plugins[4].grants`: not a grant",
        "`join.yaml:24:5`: `plugins[4].timeout`: unknown field",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
    assert!(message.starts_with("10 problems:"), "{message}");
}

#[test]
fn no_settings_show_a_token() {
    let words = ["join", "a:1", "--token", "abcdef.canarycanarycana", "--discovery-token-unsafe-skip-ca-verification"];
    let machine = Machine::with(&[("MORTISE_TOKEN", "canarycanary")]);
    let (settings, _) = machine.settings(&words).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    let cli = cli::parse(std::iter::once("mortise").chain(words).map(Into::into)).unwrap();
    assert!(!format!("{cli:?}").contains("canary"));
    let environment = Environment { variables: [("A".to_owned(), "canary".to_owned())].into() };
    assert!(!format!("{environment:?}").contains("canary"));
}
