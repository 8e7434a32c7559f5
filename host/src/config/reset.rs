//! What a reset is asked to do: flags of `mortise reset`, or `ResetConfiguration` of `kubeadm.k8s.io/v1beta4`.

use std::path::PathBuf;

use super::error::{At, ConfigError, Fault, shown};
use super::file;
use super::join_configuration::read_timeouts;
use super::reader::{Fields, Notes, UnknownFields};
use super::yaml::Node;
use super::{IgnoredChecks, Warning, check_socket, ignored_checks, mixed, socket_url};
use crate::cli::ResetArgs;

/// Phases of a reset, as `--skip-phases` takes them.
pub const RESET_PHASES: [&str; 3] = ["preflight", "remove-etcd-member", "cleanup-node"];

/// Flags that may stand beside `--config`.
const BESIDE_CONFIG: &[&str] =
    &["config", "dry-run", "ignore-preflight-errors", "kubeconfig", "output", "root", "v", "allow-unknown-fields"];

/// A reset as the user asked for it, every rule checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetSettings {
    /// `--cert-dir`; none: the cluster's, else `/etc/kubernetes/pki`.
    pub certificates_dir: Option<PathBuf>,
    /// Whether `/etc/kubernetes/tmp` is emptied, too.
    pub cleanup_tmp_dir: bool,
    /// URL of the runtime's socket, scheme `unix`. None: to be detected.
    pub cri_socket: Option<String>,
    /// Whether only the plan is printed.
    pub dry_run: bool,
    /// Whether nothing is asked.
    pub force: bool,
    /// Checks whose errors only warn.
    pub ignore: IgnoredChecks,
    /// Kubeconfig to talk to the cluster with.
    pub kubeconfig: PathBuf,
    /// Of [`RESET_PHASES`].
    pub skip_phases: Vec<String>,
    /// `unmountFlags`: `MNT_FORCE`, `MNT_DETACH`, `MNT_EXPIRE`, `UMOUNT_NOFOLLOW`.
    pub unmount_flags: Vec<String>,
    /// Prefix of every path; `/` unless `--root`.
    pub root: PathBuf,
}

/// `ResetConfiguration` as written.
#[derive(Debug, Default)]
pub(super) struct ResetConfiguration {
    cleanup_tmp_dir: bool,
    certificates_dir: Option<String>,
    cri_socket: Option<String>,
    dry_run: bool,
    force: bool,
    ignore: Vec<String>,
    skip_phases: Vec<String>,
    unmount_flags: Vec<String>,
}

pub(super) fn read(document: &Node, notes: &mut Notes) -> ResetConfiguration {
    let mut all = Fields::of(document, "", notes);
    all.text("apiVersion", notes);
    all.text("kind", notes);
    let read = ResetConfiguration {
        cleanup_tmp_dir: all.flag("cleanupTmpDir", notes).unwrap_or(false),
        certificates_dir: all.filled("certificatesDir", notes),
        cri_socket: all.filled("criSocket", notes),
        dry_run: all.flag("dryRun", notes).unwrap_or(false),
        force: all.flag("force", notes).unwrap_or(false),
        ignore: all.texts("ignorePreflightErrors", notes),
        skip_phases: all.texts("skipPhases", notes),
        unmount_flags: all.texts("unmountFlags", notes),
    };
    read_timeouts(&mut all, notes);
    all.finish(notes);
    read
}

/// What a reset is asked to do.
///
/// # Errors
///
/// As [`super::join_settings`].
pub fn reset_settings(args: &ResetArgs, root: PathBuf) -> Result<(ResetSettings, Vec<Warning>), ConfigError> {
    let mut warnings = Vec::new();
    let mut written = ResetConfiguration {
        cleanup_tmp_dir: args.cleanup_tmp_dir.unwrap_or(false),
        certificates_dir: args.cert_dir.clone(),
        cri_socket: args.cri_socket.clone().filter(|socket| !socket.is_empty()),
        force: args.force.unwrap_or(false),
        ..Default::default()
    };
    if let Some(path) = &args.config {
        mixed(&args.given, BESIDE_CONFIG)?;
        let unknown = if args.allow_unknown_fields { UnknownFields::Warn } else { UnknownFields::Refuse };
        let mut loaded = file::load(path, unknown)?;
        warnings.append(&mut loaded.warnings);
        written = loaded.reset.ok_or_else(|| file::missing(path, "ResetConfiguration"))?;
    }
    let mut errors = Vec::new();
    let mut refuse = |field: &str, fault| {
        errors.push(ConfigError::Field { at: At::Nowhere, field: field.to_owned(), fault });
    };
    let cri_socket = written.cri_socket.map(|socket| socket_url(&socket, &mut warnings));
    if let Some(Err(fault)) = cri_socket.as_deref().map(check_socket) {
        refuse("criSocket", fault);
    }
    let certificates_dir = written.certificates_dir.filter(|path| !path.is_empty());
    if let Some(path) = certificates_dir.as_deref().filter(|path| !path.starts_with('/')) {
        refuse("certificatesDir", Fault::Value { value: shown(path), reason: "is not absolute".to_owned() });
    }
    let skip_phases = if args.skip_phases.is_empty() { written.skip_phases } else { args.skip_phases.clone() };
    for phase in skip_phases.iter().filter(|phase| !RESET_PHASES.contains(&phase.as_str())) {
        refuse("skipPhases", Fault::UnknownPhase(shown(phase)));
    }
    for flag in &written.unmount_flags {
        if !["MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW"].contains(&flag.as_str()) {
            refuse("unmountFlags", Fault::Value { value: shown(flag), reason: "is no unmount flag".to_owned() });
        }
    }
    let ignore = match ignored_checks(&written.ignore, &args.ignore_preflight_errors) {
        Ok(ignore) => ignore,
        Err(fault) => {
            refuse("ignore-preflight-errors", fault);
            IgnoredChecks::default()
        }
    };
    if let Some(error) = ConfigError::of(errors) {
        return Err(error);
    }
    let settings = ResetSettings {
        certificates_dir: certificates_dir.map(PathBuf::from),
        cleanup_tmp_dir: written.cleanup_tmp_dir,
        cri_socket,
        dry_run: args.dry_run.unwrap_or(written.dry_run),
        force: written.force,
        ignore,
        kubeconfig: args.kubeconfig.clone(),
        skip_phases,
        unmount_flags: written.unmount_flags,
        root,
    };
    Ok((settings, warnings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};
    use crate::error::Diagnose;

    fn settings(words: &[&str]) -> Result<(ResetSettings, Vec<Warning>), ConfigError> {
        let words = ["mortise", "reset"].iter().chain(words).map(Into::into);
        let cli = cli::parse(words).unwrap_or_else(|error| panic!("{}", error.text(false)));
        let Command::Reset(reset) = cli.command else { panic!("no reset") };
        reset_settings(&reset, "/".into())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_say_it_all_without_a_file() {
        let (bare, warnings) = settings(&[]).unwrap();
        assert!(!bare.force && !bare.dry_run && !bare.cleanup_tmp_dir);
        assert_eq!(bare.kubeconfig, std::path::Path::new("/etc/kubernetes/admin.conf"));
        assert_eq!((bare.certificates_dir, warnings), (None, Vec::new()));
        let words = ["-f", "--dry-run", "--cleanup-tmp-dir", "--cert-dir=/pki", "--cri-socket=/run/x.sock"];
        let (all, warnings) = settings(&words).unwrap();
        assert!(all.force && all.dry_run && all.cleanup_tmp_dir);
        assert_eq!(all.cri_socket.as_deref(), Some("unix:///run/x.sock"));
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn reads_reset_configuration_and_refuses_most_flags_beside_it() {
        let file = file(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\nforce: true\ndryRun: true\n\
             certificatesDir: /pki\nunmountFlags: [MNT_FORCE]\nskipPhases: [preflight]\ncleanupTmpDir: true\n",
        );
        let path = file.path().to_str().unwrap();
        let (read, _) = settings(&["--config", path, "--dry-run=false", "--ignore-preflight-errors=all"]).unwrap();
        assert!(read.force && read.cleanup_tmp_dir && !read.dry_run);
        assert_eq!(read.certificates_dir.as_deref(), Some(std::path::Path::new("/pki")));
        assert_eq!(read.skip_phases, ["preflight"]);
        assert_eq!(read.ignore.names, ["all"]);
        let mixed = settings(&["--config", path, "--force", "--cert-dir=/x"]).unwrap_err();
        assert_eq!(mixed.to_string(), "can not mix '--config' with arguments [cert-dir force]");
    }

    #[test]
    fn names_everything_that_is_wrong() {
        let file = file(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ResetConfiguration\ncertificatesDir: pki\n\
             criSocket: 'unix:x'\nunmountFlags: [FORCE]\nskipPhases: [cleanup]\n",
        );
        let error = settings(&["--config", file.path().to_str().unwrap()]).unwrap_err();
        assert!(error.to_string().starts_with("4 problems:"), "{error}");
        assert_eq!(error.code(), "config-invalid");
    }
}
