//! Which command has which flags, and what they take.

use std::collections::BTreeSet;

use crate::cli::{self, Cli, Command, JoinArgs, Scope};

fn parse(words: &[&str]) -> Result<Cli, String> {
    let words = std::iter::once("mortise").chain(words.iter().copied()).map(Into::into);
    cli::parse(words).map_err(|error| error.text(false))
}

fn join(words: &[&str]) -> JoinArgs {
    match parse(words).unwrap_or_else(|error| panic!("{words:?}: {error}")).command {
        Command::Join(join) => join.0,
        Command::Preflight(preflight) => preflight.0,
        other => panic!("{other:?}"),
    }
}

/// Long names of a command's flags, those of every command left out.
fn flags_of(path: &[&str]) -> BTreeSet<String> {
    let mut command = &cli::command();
    for name in path {
        command = command.find_subcommand(name).unwrap_or_else(|| panic!("no command {path:?}"));
    }
    let everywhere = ["v", "vmodule", "root", "help"];
    let longs = command.get_arguments().filter_map(|arg| arg.get_long());
    longs.filter(|long| !everywhere.contains(long)).map(ToOwned::to_owned).collect()
}

#[test]
fn the_command_line_is_consistent() {
    cli::command().debug_assert();
}

#[test]
fn join_has_every_flag_of_kubeadm() {
    let flags = flags_of(&["join"]);
    for flag in [
        "apiserver-advertise-address",
        "apiserver-bind-port",
        "certificate-key",
        "config",
        "control-plane",
        "cri-socket",
        "discovery-file",
        "discovery-token",
        "discovery-token-ca-cert-hash",
        "discovery-token-unsafe-skip-ca-verification",
        "dry-run",
        "ignore-preflight-errors",
        "node-name",
        "patches",
        "skip-phases",
        "tls-bootstrap-token",
        "token",
    ] {
        assert!(flags.contains(flag), "{flag} is missing");
    }
}

/// kubeadm's table of flags per phase; ours come beside them.
#[test]
fn each_phase_command_has_the_flags_of_kubeadm() {
    const D: &str = "discovery-file discovery-token discovery-token-ca-cert-hash tls-bootstrap-token token \
                     discovery-token-unsafe-skip-ca-verification config dry-run";
    let ours = [
        "allow-unknown-fields",
        "output",
        "token-file",
        "fail-fast",
        "plugin",
        "grant",
        "bundle",
        "tls-bootstrap-by",
        "certificate-key-file",
        "etcd-snapshot",
        "replace-member",
    ];
    let (a, b, c, k) = ("apiserver-advertise-address", "apiserver-bind-port", "control-plane", "certificate-key");
    let (n, r, p, i, x) = ("node-name", "cri-socket", "patches", "ignore-preflight-errors", "config dry-run");
    let cases: &[(&[&str], &[&str], bool)] = &[
        (&["preflight"], &[D, a, b, c, k, n, r, i], true),
        (&["control-plane-prepare", "all"], &[D, a, b, c, k, n, p], true),
        (&["control-plane-prepare", "download-certs"], &[D, c, k], true),
        (&["control-plane-prepare", "kubeconfig"], &[D, c, k], true),
        (&["control-plane-prepare", "certs"], &[D, a, c, n], true),
        (&["control-plane-prepare", "control-plane"], &[x, a, b, c, p], false),
        (&["kubelet-start"], &[D, n, r, p], true),
        (&["etcd-join"], &[x, a, c, n, p], false),
        (&["control-plane-join", "all"], &[x, a, c, n, p], false),
        (&["kubelet-wait-bootstrap"], &[x, r], true),
        (&["control-plane-join", "mark-control-plane"], &[x, c, n], false),
        // kubeadm gives it none, so that alone it waits for nothing.
        (&["wait-control-plane"], &[x, a, b, c, n], true),
    ];
    for (phase, groups, endpoint) in cases {
        let path: Vec<&str> = ["join", "phase"].iter().chain(*phase).copied().collect();
        let expected: BTreeSet<String> =
            groups.iter().flat_map(|group| group.split_whitespace()).map(ToOwned::to_owned).collect();
        let found: BTreeSet<String> = flags_of(&path).into_iter().filter(|flag| !ours.contains(&&**flag)).collect();
        assert_eq!(found, expected, "{phase:?}");
        let words: Vec<&str> = path.iter().copied().chain(["a:1"]).collect();
        assert_eq!(parse(&words).is_ok(), *endpoint, "{phase:?}");
        let id = phase.join("/");
        assert!(matches!(join(&path).scope, Scope::Phase(scope) if scope.id == id), "{phase:?}");
    }
    assert!(parse(&["join", "phase", "check-etcd"]).is_err(), "check-etcd can only be skipped");
}

#[test]
fn lists_may_be_repeated_or_separated_by_commas() {
    let args = join(&["join", "--skip-phases", "a,b", "--skip-phases=c", "--ignore-preflight-errors", "X,Y"]);
    assert_eq!(args.skip_phases, ["a", "b", "c"]);
    assert_eq!(args.ignore_preflight_errors, ["X", "Y"]);
    let args = join(&["join", "--discovery-token-ca-cert-hash", "p,q", "--discovery-token-ca-cert-hash=r"]);
    assert_eq!(args.discovery_token_ca_cert_hash, ["p", "q", "r"]);
}

#[test]
fn the_last_of_a_repeated_flag_counts_and_switches_take_values_with_equals() {
    let args =
        join(&["join", "--node-name", "a", "--node-name=b", "--dry-run", "--dry-run=F", "--control-plane", "x:1"]);
    assert_eq!(args.node_name.as_deref(), Some("b"));
    assert_eq!(args.dry_run, Some(false));
    assert!(args.control_plane);
    assert_eq!(args.endpoints, ["x:1"]);
}

#[test]
fn common_flags_work_before_and_after_the_command() {
    for words in [
        &["--rootfs", "/r", "-v", "5", "join"][..],
        &["join", "--root=/r", "-v5"],
        &["join", "--root=/r", "--v=5", "--vmodule", "x=1"],
        &["-v=5", "join", "phase", "preflight", "--rootfs=/r"],
    ] {
        let cli = parse(words).unwrap();
        assert_eq!(cli.common.verbosity, 5, "{words:?}");
        assert_eq!(cli.common.root().unwrap(), std::path::Path::new("/r"), "{words:?}");
    }
    assert_eq!(parse(&["join"]).unwrap().common.root().unwrap(), std::path::Path::new("/"));
}

#[test]
fn a_grant_belongs_to_the_plugin_before_it() {
    let args = join(&[
        "preflight",
        "--plugin",
        "a.wasm",
        "--grant",
        "facts=pci",
        "--grant=g.yaml",
        "--plugin=b.wasm",
        "--plugin",
        "c.wasm",
        "--grant",
        "facts=a,b",
    ]);
    let grants: Vec<&[String]> = args.plugins.iter().map(|plugin| &*plugin.grants).collect();
    assert_eq!(grants, [&["facts=pci".to_owned(), "g.yaml".to_owned()][..], &[], &["facts=a,b".to_owned()]]);
    assert!(parse(&["join", "--grant", "x=y", "--plugin", "a.wasm"]).unwrap_err().contains("must follow"));
    assert!(parse(&["sandbox", "join", "--grant", "x=y"]).unwrap_err().contains("must follow"));
}

#[test]
fn a_token_and_a_token_file_exclude_each_other() {
    assert!(parse(&["join", "--token", "x", "--token-file", "y"]).is_err());
}

#[test]
fn only_flags_of_the_command_line_count_as_given() {
    let args = join(&["-v", "3", "join", "a:1", "--wait", "ready", "--rootfs", "/x"]);
    assert_eq!(args.given, ["root", "v", "wait"].map(ToOwned::to_owned).into());
}
