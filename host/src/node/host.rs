//! This machine: systemd if `systemctl` is in PATH, else OpenRC, as kubeadm looks for them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::process::Command;

use super::{Machine, NodeError, UnitAction, UnitState, health};

/// systemd gives a unit 90 s to start or stop before it gives up itself.
const ACTION_TIMEOUT: Duration = Duration::from_secs(120);
/// For commands that only look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Where OpenRC's kubelet service logs on Alpine.
const OPENRC_LOG: &str = "/var/log/kubelet/kubelet.log";
/// Most bytes of a log that are looked at.
const MAX_LOG_BYTES: usize = 256 << 10;
/// Most characters of a command's complaint that are kept.
const MAX_COMPLAINT: usize = 600;

/// The machine that this process runs on.
#[derive(Debug, Clone)]
pub struct HostMachine {
    init: Option<Init>,
    journalctl: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Init {
    Systemd { systemctl: PathBuf },
    OpenRc { rc_service: PathBuf },
}

impl HostMachine {
    /// Looks for an init system in PATH. Below another root there is none: the running one is not that root's.
    pub fn detect(root: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let find = |name: &str| find_executable(&path, name);
        if root != Path::new("/") {
            return Self { init: None, journalctl: None };
        }
        let init = match (find("systemctl"), find("openrc"), find("rc-service"), find("rc-update")) {
            (Some(systemctl), ..) => Some(Init::Systemd { systemctl }),
            (None, Some(_), Some(rc_service), Some(_)) => Some(Init::OpenRc { rc_service }),
            _ => None,
        };
        Self { init, journalctl: find("journalctl") }
    }
}

impl Machine for HostMachine {
    fn hostname(&self) -> Result<String, NodeError> {
        let name = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
        if name.is_empty() {
            return Err(NodeError::Hostname(io::ErrorKind::NotFound.into()));
        }
        Ok(name)
    }

    fn unit<'a>(&'a self, action: UnitAction, unit: &'a str) -> BoxFuture<'a, Result<(), NodeError>> {
        Box::pin(async move {
            let (program, arguments) = match (self.init.as_ref().ok_or(NodeError::NoInit)?, action) {
                (Init::Systemd { systemctl }, UnitAction::DaemonReload) => (systemctl, vec!["daemon-reload"]),
                (Init::Systemd { systemctl }, _) => (systemctl, vec![action.as_str(), unit]),
                // OpenRC reads its scripts each time.
                (Init::OpenRc { .. }, UnitAction::DaemonReload) => return Ok(()),
                (Init::OpenRc { rc_service }, _) => (rc_service, vec![unit, action.as_str()]),
            };
            let fail = |message| NodeError::Unit { action: action.as_str(), unit: unit.to_owned(), message };
            let output = run(program, &arguments, ACTION_TIMEOUT).await.map_err(|error| fail(error.to_string()))?;
            if output.status.success() { Ok(()) } else { Err(fail(complaint(&output))) }
        })
    }

    fn unit_state<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<UnitState, NodeError>> {
        Box::pin(async move {
            let fail = |error: io::Error| NodeError::Unit {
                action: "look at",
                unit: unit.to_owned(),
                message: error.to_string(),
            };
            match self.init.as_ref().ok_or(NodeError::NoInit)? {
                Init::Systemd { systemctl } => {
                    let arguments = ["show", unit, "--property=LoadState,ActiveState,NRestarts"];
                    let output = run(systemctl, &arguments, LOOK_TIMEOUT).await.map_err(fail)?;
                    Ok(parse_systemd_state(&String::from_utf8_lossy(&output.stdout)))
                }
                Init::OpenRc { rc_service } => {
                    let output = run(rc_service, &[unit, "status"], LOOK_TIMEOUT).await.map_err(fail)?;
                    let text = format!("{}{}", lossy(&output.stdout), lossy(&output.stderr));
                    Ok(parse_openrc_state(output.status.success(), &text))
                }
            }
        })
    }

    fn unit_log<'a>(&'a self, unit: &'a str, lines: usize) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async move {
            let text = match (&self.init, &self.journalctl) {
                (Some(Init::Systemd { .. }), Some(journalctl)) => {
                    let count = lines.to_string();
                    let arguments = ["-u", unit, "-n", &count, "--no-pager", "-o", "cat"];
                    match run(journalctl, &arguments, LOOK_TIMEOUT).await {
                        Ok(output) if output.status.success() => output.stdout,
                        // The log helps to explain an error: without it that error stands alone.
                        _ => Vec::new(),
                    }
                }
                (Some(Init::OpenRc { .. }), _) => tokio::fs::read(OPENRC_LOG).await.unwrap_or_default(),
                _ => Vec::new(),
            };
            let tail = &text[text.len().saturating_sub(MAX_LOG_BYTES)..];
            let all: Vec<String> = lossy(tail).lines().map(str::to_owned).collect();
            all[all.len().saturating_sub(lines)..].to_vec()
        })
    }

    fn healthz<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<u16, io::Error>> {
        Box::pin(health::get(url))
    }
}

/// Runs a program with closed input. Our own environment may hold tokens: the child does not get those.
async fn run(program: &Path, arguments: &[&str], timeout: Duration) -> io::Result<std::process::Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MORTISE_") {
            command.env_remove(name);
        }
    }
    tokio::time::timeout(timeout, command.output()).await.unwrap_or_else(|_| {
        let message = format!("`{}` did not end within {} s", program.display(), timeout.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, message))
    })
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// What a command said on its way out, on one line.
fn complaint(output: &std::process::Output) -> String {
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = lossy(said);
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if line.is_empty() {
        return output.status.to_string();
    }
    crate::output::printable(&line.join("; ").chars().take(MAX_COMPLAINT).collect::<String>())
}

fn parse_systemd_state(text: &str) -> UnitState {
    let value = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::trim).unwrap_or_default()
    };
    UnitState {
        exists: !matches!(value("LoadState"), "not-found" | ""),
        active: matches!(value("ActiveState"), "active" | "activating" | "reloading"),
        restarts: value("NRestarts").parse().ok(),
    }
}

/// OpenRC tells by words: `* status: started`, or that the service `does not exist`.
fn parse_openrc_state(success: bool, text: &str) -> UnitState {
    UnitState { exists: !text.contains("does not exist"), active: success && !text.contains("stopped"), restarts: None }
}

fn find_executable(path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    std::env::split_paths(path).filter(|directory| directory.is_absolute()).map(|directory| directory.join(name)).find(
        |file| {
            std::fs::metadata(file)
                .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose commands are shell scripts in a directory of the test.
    fn machine(directory: &Path, init: &str, script: &str) -> HostMachine {
        use std::os::unix::fs::PermissionsExt;
        let write = |name: &str, script: &str| {
            let file = directory.join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
            file
        };
        let program = write(init, script);
        let journalctl = write("journalctl", "echo \"$@\"; seq 1 30");
        let init = match init {
            "systemctl" => Init::Systemd { systemctl: program },
            _ => Init::OpenRc { rc_service: program },
        };
        HostMachine { init: Some(init), journalctl: Some(journalctl) }
    }

    #[tokio::test]
    async fn acts_by_systemctl_and_repeats_its_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let good = machine(directory.path(), "systemctl", &format!("echo \"$@\" >> {}", log.display()));
        good.unit(UnitAction::Stop, "kubelet").await.unwrap();
        good.unit(UnitAction::DaemonReload, "kubelet").await.unwrap();
        good.unit(UnitAction::Restart, "kubelet").await.unwrap();
        assert_eq!(std::fs::read_to_string(log).unwrap(), "stop kubelet\ndaemon-reload\nrestart kubelet\n");
        let bad = machine(directory.path(), "systemctl", "echo 'Failed to restart: \x1b[31mno such unit' >&2; exit 5");
        let error = bad.unit(UnitAction::Restart, "kubelet").await.unwrap_err().to_string();
        assert_eq!(error, "cannot restart unit `kubelet`: Failed to restart: \\u{1b}[31mno such unit");
    }

    #[tokio::test]
    async fn acts_by_rc_service() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let machine = machine(directory.path(), "rc-service", &format!("echo \"$@\" >> {}", log.display()));
        machine.unit(UnitAction::Restart, "kubelet").await.unwrap();
        machine.unit(UnitAction::DaemonReload, "kubelet").await.unwrap();
        assert_eq!(std::fs::read_to_string(log).unwrap(), "kubelet restart\n");
    }

    #[tokio::test]
    async fn hands_a_child_none_of_our_tokens() {
        let directory = tempfile::tempdir().unwrap();
        let seen = directory.path().join("seen");
        let machine = machine(directory.path(), "systemctl", &format!("env > {}", seen.display()));
        machine.unit(UnitAction::Stop, "kubelet").await.unwrap();
        let seen = std::fs::read_to_string(seen).unwrap();
        assert!(seen.contains("PATH="), "{seen}");
        assert!(!seen.contains("MORTISE_"), "{seen}");
    }

    #[tokio::test]
    async fn asks_for_the_last_log_lines() {
        let directory = tempfile::tempdir().unwrap();
        let lines = machine(directory.path(), "systemctl", "").unit_log("kubelet", 30).await;
        assert_eq!(lines.len(), 30);
        assert_eq!(lines.last().unwrap(), "30");
        let lines = machine(directory.path(), "systemctl", "").unit_log("kubelet", 31).await;
        assert_eq!(lines[0], "-u kubelet -n 31 --no-pager -o cat");
    }

    #[test]
    fn reads_unit_states() {
        let state = |text| parse_systemd_state(text);
        let active = UnitState { exists: true, active: true, restarts: Some(3) };
        assert_eq!(state("LoadState=loaded\nActiveState=active\nNRestarts=3\n"), active);
        assert_eq!(state("NRestarts=3\nActiveState=activating\nLoadState=loaded\n"), active);
        let dead = UnitState { exists: true, active: false, restarts: Some(0) };
        assert_eq!(state("LoadState=loaded\nActiveState=failed\nNRestarts=0\n"), dead);
        let missing = UnitState { exists: false, active: false, restarts: None };
        assert_eq!(state("LoadState=not-found\nActiveState=inactive\n"), missing);
        assert_eq!(state(""), missing);
        assert!(parse_openrc_state(true, " * status: started\n").active);
        assert!(!parse_openrc_state(false, " * status: crashed\n").active);
        assert!(!parse_openrc_state(false, " * rc-service: service `kubelet' does not exist\n").exists);
    }

    #[test]
    fn another_root_has_no_running_init_system() {
        assert!(HostMachine::detect(Path::new("/somewhere")).init.is_none());
    }
}
