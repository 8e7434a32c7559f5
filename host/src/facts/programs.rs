//! Programs on the search path, the kubelet's version, and units of the init system.
//!
//! Children get the search path and nothing else of the environment, no input, and a deadline.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::{ExecutableInfo, HostError, UnitInfo};

/// Where programs are looked for when PATH is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `kubelet --version` takes some 50 ms; on a busy small machine perhaps a second.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// For one question to the init system.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Of each stream; the rest is read and dropped.
const MAX_OUTPUT_BYTES: u64 = 64 * 1024;

/// The directories of PATH.
#[derive(Debug, Clone)]
pub(super) struct SearchPath {
    directories: Vec<PathBuf>,
}

impl Default for SearchPath {
    fn default() -> Self {
        Self::new(None)
    }
}

impl SearchPath {
    /// Relative and empty entries are left out: they would depend on where the join was started.
    pub(super) fn new(path: Option<&str>) -> Self {
        let directories = std::env::split_paths(path.unwrap_or(DEFAULT_PATH));
        Self { directories: directories.filter(|directory| directory.is_absolute()).collect() }
    }

    /// The first regular file of this name that anybody may execute.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        self.directories.iter().map(|directory| directory.join(name)).find(runs)
    }

    fn to_variable(&self) -> std::ffi::OsString {
        std::env::join_paths(&self.directories).expect("the directories come from splitting such a variable")
    }
}

/// What a child left behind.
#[derive(Debug)]
pub(super) struct Ended {
    /// None: ended by a signal.
    pub(super) status: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    /// Status and the last line it wrote, for a person.
    pub(super) fn failure(&self) -> String {
        let status = self.status.map_or("was ended by a signal".to_owned(), |status| format!("exited with {status}"));
        let lines = self.stderr.lines().chain(self.stdout.lines());
        match lines.map(str::trim).rfind(|line| !line.is_empty()) {
            Some(line) => format!("{status}: {line}"),
            None => status,
        }
    }
}

/// Runs a program to its end.
pub(super) async fn run(
    program: &Path,
    arguments: &[&str],
    search_path: &SearchPath,
    timeout: Duration,
) -> Result<Ended, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", search_path.to_variable())
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let running = async {
        let (status, stdout, stderr) = tokio::try_join!(child.wait(), captured(stdout), captured(stderr))?;
        Ok::<_, io::Error>(Ended { status: status.code(), stdout, stderr })
    };
    match tokio::time::timeout(timeout, running).await {
        Ok(ended) => ended.map_err(|error| format!("cannot be waited for: {error}")),
        Err(_) => Err(format!("did not end within {} s", timeout.as_secs())),
    }
}

async fn captured(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut kept = Vec::new();
    (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}

/// A program by base name, with the version where the host knows how to ask.
pub(super) async fn executable(name: &str, search_path: &SearchPath) -> Result<Option<ExecutableInfo>, HostError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
        return Err(HostError::invalid(format_args!("`{name}` is not the base name of a program")));
    }
    let Some(path) = search_path.find(name) else { return Ok(None) };
    let (mut version, mut version_error) = (None, None);
    if name == "kubelet" {
        match run(&path, &["--version"], search_path, VERSION_TIMEOUT).await {
            Ok(ended) if ended.status == Some(0) => version = Some(ended.stdout.trim().to_owned()),
            Ok(ended) => version_error = Some(ended.failure()),
            Err(why) => version_error = Some(why),
        }
    }
    Ok(Some(ExecutableInfo { path: path.to_string_lossy().into_owned(), version, version_error }))
}

/// One unit. The init system is systemd where `systemctl` is on the path, else OpenRC, as in kubeadm.
pub(super) async fn unit(name: &str, search_path: &SearchPath) -> Result<UnitInfo, HostError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":_.\\@-".contains(&byte);
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_plain) {
        return Err(HostError::invalid(format_args!("`{name}` is not the name of a unit")));
    }
    if let Some(systemctl) = search_path.find("systemctl") {
        return systemd_unit(name, &systemctl, search_path).await;
    }
    if search_path.find("openrc").is_none() {
        return Ok(UnitInfo { init_system: None, exists: false, enabled: false, active: false });
    }
    let helper = |program: &str| {
        let missing =
            || HostError::unavailable(format_args!("openrc detected, but missing required binary: {program}"));
        search_path.find(program).ok_or_else(missing)
    };
    openrc_unit(name, &helper("rc-service")?, &helper("rc-update")?, search_path).await
}

async fn systemd_unit(name: &str, systemctl: &Path, search_path: &SearchPath) -> Result<UnitInfo, HostError> {
    let ask = |verb: &'static str| async move {
        run(systemctl, &[verb, name], search_path, INIT_TIMEOUT)
            .await
            .map_err(|why| HostError::unavailable(format_args!("`systemctl {verb} {name}` {why}")))
    };
    let (status, enabled, active) = tokio::try_join!(ask("status"), ask("is-enabled"), ask("is-active"))?;
    let absent = |text: &str| text.contains("Loaded: not-found") || text.contains("could not be found");
    Ok(UnitInfo {
        init_system: Some("systemd".to_owned()),
        // The second text goes to stderr, where kubeadm does not look.
        exists: !absent(&status.stdout) && !absent(&status.stderr),
        enabled: enabled.status == Some(0),
        // A kubelet that waits for its configuration is restarted all the time: `activating`.
        active: matches!(active.stdout.trim(), "active" | "activating"),
    })
}

async fn openrc_unit(
    name: &str,
    rc_service: &Path,
    rc_update: &Path,
    search_path: &SearchPath,
) -> Result<UnitInfo, HostError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |why: String| HostError::unavailable(format_args!("`{what}` {why}"))
    };
    let (status, runlevel) = tokio::try_join!(
        async { run(rc_service, &[name, "status"], search_path, INIT_TIMEOUT).await.map_err(failed("rc-service")) },
        async { run(rc_update, &["show", "default"], search_path, INIT_TIMEOUT).await.map_err(failed("rc-update")) },
    )?;
    let says = |text: &str| status.stdout.contains(text) || status.stderr.contains(text);
    Ok(UnitInfo {
        init_system: Some("openrc".to_owned()),
        exists: !says("does not exist"),
        enabled: runlevel.stdout.lines().any(|line| line.split('|').next().is_some_and(|unit| unit.trim() == name)),
        active: !says("stopped") && !says("does not exist"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of shell scripts, searched first.
    fn scripts(scripts: &[(&str, &str)]) -> (tempfile::TempDir, SearchPath) {
        let directory = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = SearchPath::new(directory.path().to_str());
        (directory, path)
    }

    #[test]
    fn only_executable_regular_files_in_absolute_directories_are_found() {
        let (directory, path) = scripts(&[("tool", ""), ("data", "")]);
        std::fs::set_permissions(directory.path().join("data"), std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::create_dir(directory.path().join("folder")).unwrap();
        assert_eq!(path.find("tool"), Some(directory.path().join("tool")));
        assert_eq!((path.find("data"), path.find("folder"), path.find("absent")), (None, None, None));
        assert_eq!(SearchPath::new(Some(":.:bin")).directories, Vec::<PathBuf>::new());
        assert!(SearchPath::default().find("sh").is_some());
    }

    #[tokio::test]
    async fn kubelet_is_asked_for_its_version_and_others_are_not() {
        let (directory, path) = scripts(&[("kubelet", "echo Kubernetes v1.37.2"), ("losetup", "echo no > $0.ran")]);
        let kubelet = executable("kubelet", &path).await.unwrap().unwrap();
        assert_eq!(kubelet.version.as_deref(), Some("Kubernetes v1.37.2"));
        let losetup = executable("losetup", &path).await.unwrap().unwrap();
        assert_eq!((losetup.version, losetup.version_error), (None, None));
        assert!(!directory.path().join("losetup.ran").exists());
        assert_eq!(executable("absent", &path).await, Ok(None));
    }

    #[tokio::test]
    async fn kubelet_that_fails_tells_status_and_last_line() {
        let (_directory, path) = scripts(&[("kubelet", "echo first >&2; echo cannot load libc >&2; exit 3")]);
        let kubelet = executable("kubelet", &path).await.unwrap().unwrap();
        assert_eq!(kubelet.version_error.as_deref(), Some("exited with 3: cannot load libc"));
        let (_directory, path) = scripts(&[("kubelet", "kill -9 $$")]);
        let kubelet = executable("kubelet", &path).await.unwrap().unwrap();
        assert_eq!(kubelet.version_error.as_deref(), Some("was ended by a signal"));
    }

    #[tokio::test]
    async fn children_see_nothing_of_the_environment() {
        let (_directory, path) = scripts(&[("show", "/usr/bin/env")]);
        let program = path.find("show").unwrap();
        let ended = run(&program, &[], &path, Duration::from_secs(10)).await.unwrap();
        let mut names: Vec<_> =
            ended.stdout.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        // The shell itself adds PWD, and some shells SHLVL and _.
        names.retain(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name));
        assert_eq!(names, ["LC_ALL", "PATH"]);
    }

    #[tokio::test]
    async fn endless_and_talkative_children_are_bounded() {
        let (_directory, path) =
            scripts(&[("sleeper", "exec /bin/sleep 60"), ("talker", "/usr/bin/yes | /usr/bin/head -c 1000000")]);
        let why = run(&path.find("sleeper").unwrap(), &[], &path, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(why, "did not end within 0 s");
        let ended = run(&path.find("talker").unwrap(), &[], &path, Duration::from_secs(10)).await.unwrap();
        assert_eq!((ended.status, ended.stdout.len() as u64), (Some(0), MAX_OUTPUT_BYTES));
    }

    #[tokio::test]
    async fn systemd_unit_is_asked_three_questions() {
        let script = "case $1 in status) echo '     Loaded: loaded'; exit 3;; is-enabled) echo enabled;; is-active) echo activating; exit 3;; esac";
        let (_directory, path) = scripts(&[("systemctl", script)]);
        let expected = UnitInfo { init_system: Some("systemd".into()), exists: true, enabled: true, active: true };
        assert_eq!(unit("kubelet", &path).await, Ok(expected));
        let script = "echo 'Unit kubelet.service could not be found.' >&2; exit 4";
        let (_directory, path) = scripts(&[("systemctl", script)]);
        let expected = UnitInfo { init_system: Some("systemd".into()), exists: false, enabled: false, active: false };
        assert_eq!(unit("kubelet", &path).await, Ok(expected));
    }

    #[tokio::test]
    async fn openrc_unit_is_read_off_its_two_tools() {
        let tools = |status: &'static str| {
            [
                ("openrc", ""),
                ("rc-service", status),
                ("rc-update", "echo '   kubelet-extra | default'; echo ' kubelet | default'"),
            ]
        };
        let (_directory, path) = scripts(&tools("echo ' * status: started'"));
        let expected = UnitInfo { init_system: Some("openrc".into()), exists: true, enabled: true, active: true };
        assert_eq!(unit("kubelet", &path).await, Ok(expected));
        let (_directory, path) = scripts(&tools("echo ' * rc-service: service kubelet does not exist' >&2; exit 1"));
        let absent = unit("kubelet", &path).await.unwrap();
        assert_eq!((absent.exists, absent.active), (false, false));
        let (_directory, path) = scripts(&[("openrc", "")]);
        assert_eq!(unit("kubelet", &path).await.unwrap_err().code, "unavailable");
    }

    #[tokio::test]
    async fn no_init_system_is_an_answer_and_odd_names_are_invalid() {
        let (_directory, path) = scripts(&[]);
        assert_eq!(unit("kubelet", &path).await.unwrap().init_system, None);
        for bad in ["", "-x", "a b", "a/b", "a;b"] {
            assert_eq!(unit(bad, &path).await.unwrap_err().code, "invalid", "{bad}");
            assert_eq!(
                executable(bad, &path).await.map_err(|error| error.code),
                if bad == "-x" { Ok(None) } else { Err("invalid".into()) }
            );
        }
    }
}
