//! The stand-in for `systemctl`: the command, which only asks, and the node's first process, which answers.
//!
//! Output and exit codes are those of systemd 252. A verb it does not know fails loudly.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::UNIT_DIRECTORY;
use super::journal::Journal;
use super::report::{cat, select, show, status};
use super::service::Phase;
use super::supervisor::Supervisor;

const SOCKET: &str = "/run/systemd/stand-in.sock";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Reply {
    code: u8,
    stdout: String,
    stderr: String,
}

impl Reply {
    fn failure(code: u8, stderr: String) -> Self {
        Self { code, stderr: stderr + "\n", ..Self::default() }
    }
}

/// `systemctl`: passes its arguments on and its answer through.
pub(crate) fn systemctl(arguments: &[String]) -> Result<ExitCode> {
    let mut stream =
        UnixStream::connect(SOCKET).with_context(|| format!("asking the node's first process at `{SOCKET}`"))?;
    stream.write_all(&serde_json::to_vec(arguments)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let reply: Reply = serde_json::from_str(&reply).context("the node's first process did not answer")?;
    print!("{}", reply.stdout);
    eprint!("{}", reply.stderr);
    Ok(ExitCode::from(reply.code))
}

/// Answers `systemctl` in threads of its own.
pub(crate) fn serve(supervisor: Arc<Supervisor>) -> Result<()> {
    let listener = UnixListener::bind(SOCKET).with_context(|| format!("binding `{SOCKET}`"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let supervisor = Arc::clone(&supervisor);
            std::thread::spawn(move || {
                // Whoever asked is gone or sent rubbish; either way there is nobody to tell.
                let _ = converse(&supervisor, stream);
            });
        }
    });
    Ok(())
}

fn converse(supervisor: &Arc<Supervisor>, mut stream: UnixStream) -> Result<()> {
    let mut request = String::new();
    stream.read_to_string(&mut request)?;
    let arguments: Vec<String> = serde_json::from_str(&request)?;
    Journal::of("systemctl").line("systemctl", 1, &arguments.join(" "));
    let reply = answer(supervisor, &arguments).unwrap_or_else(|error| Reply::failure(1, format!("{error:#}")));
    stream.write_all(&serde_json::to_vec(&reply)?)?;
    Ok(())
}

/// The command line, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    verb: String,
    units: Vec<String>,
    pub(super) properties: Vec<String>,
    now: bool,
    quiet: bool,
    pub(super) value_only: bool,
}

fn parse_request(arguments: &[String]) -> Request {
    let mut request = Request::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut list = |text: &str| request.properties.extend(text.split(',').map(str::to_owned));
        match argument.as_str() {
            "-p" | "--property" => list(rest.next().map_or("", String::as_str)),
            "--now" => request.now = true,
            "-q" | "--quiet" => request.quiet = true,
            "--value" => request.value_only = true,
            // Only these carry a value; `--no-pager`, `--no-block`, `-l` and their like change nothing here.
            "-n" | "--lines" | "-o" | "--output" | "-t" | "--type" | "-s" | "--signal" => {
                rest.next();
            }
            option if option.starts_with("--property=") => list(&option["--property=".len()..]),
            option if option.starts_with("-p") && option.len() > 2 => list(&option[2..]),
            option if option.starts_with('-') => {}
            verb if request.verb.is_empty() => verb.clone_into(&mut request.verb),
            unit => request.units.push(unit.trim_end_matches(".service").to_owned()),
        }
    }
    request
}

fn answer(supervisor: &Arc<Supervisor>, arguments: &[String]) -> Result<Reply> {
    let request = parse_request(arguments);
    if matches!(request.verb.as_str(), "daemon-reload" | "daemon-reexec") {
        supervisor.reload()?;
        return Ok(Reply::default());
    }
    let (mut total, mut codes) = (Reply::default(), Vec::new());
    for unit in &request.units {
        let reply = answer_for(supervisor, &request, unit)?;
        total.stdout.push_str(&reply.stdout);
        total.stderr.push_str(&reply.stderr);
        codes.push(reply.code);
    }
    // One that is enough makes a question's answer yes; one that failed makes a job's answer no.
    let asks = matches!(request.verb.as_str(), "is-active" | "is-failed" | "is-enabled");
    let failed = codes.iter().copied().find(|code| *code != 0).unwrap_or(0);
    total.code = if asks && codes.contains(&0) { 0 } else { failed };
    if request.units.is_empty() {
        return Ok(Reply::failure(1, format!("Unknown command verb {}, or it needs a unit.", request.verb)));
    }
    if request.quiet {
        total.stdout.clear();
    }
    Ok(total)
}

fn answer_for(supervisor: &Arc<Supervisor>, request: &Request, unit: &str) -> Result<Reply> {
    let Some(service) = supervisor.service(unit)? else {
        return Ok(answer_unknown(request, unit));
    };
    let say = |code, stdout: &str| Reply { code, stdout: format!("{stdout}\n"), ..Reply::default() };
    let (active, _) = service.phase.names();
    let job = |result: Result<()>, verb: &str| match result {
        Ok(()) => Reply::default(),
        Err(error) => Reply::failure(1, format!("Job for {unit}.service failed to {verb}: {error:#}.")),
    };
    Ok(match request.verb.as_str() {
        "start" => job(supervisor.start(unit), "start"),
        "stop" => job(supervisor.stop(unit), "stop"),
        "restart" | "reload-or-restart" => job(supervisor.stop(unit).and_then(|()| supervisor.start(unit)), "restart"),
        "try-restart" | "condrestart" if service.phase != Phase::Active => Reply::default(),
        "try-restart" | "condrestart" => job(supervisor.stop(unit).and_then(|()| supervisor.start(unit)), "restart"),
        "reset-failed" => Reply::default(),
        "is-active" => say(if service.phase == Phase::Active { 0 } else { 3 }, active),
        "is-failed" => say(u8::from(service.phase != Phase::Failed), active),
        "is-enabled" if is_enabled(unit) => say(0, "enabled"),
        "is-enabled" => say(1, "disabled"),
        "enable" => {
            enable(unit)?;
            if request.now { job(supervisor.start(unit), "start") } else { Reply::default() }
        }
        "disable" => {
            // Already disabled is what was asked for.
            let _ = fs::remove_file(wanted(unit));
            if request.now { job(supervisor.stop(unit), "stop") } else { Reply::default() }
        }
        "cat" => Reply { stdout: cat(&service)?, ..Reply::default() },
        "show" => Reply { stdout: show(&service, request), ..Reply::default() },
        "status" => {
            let code = if service.phase == Phase::Active { 0 } else { 3 };
            Reply { code, stdout: status(&service), ..Reply::default() }
        }
        verb => Reply::failure(1, format!("Unknown command verb {verb} (this is a stand-in for systemctl).")),
    })
}

fn answer_unknown(request: &Request, unit: &str) -> Reply {
    match request.verb.as_str() {
        "is-active" | "is-failed" => Reply {
            code: if request.verb == "is-active" { 3 } else { 1 },
            stdout: "inactive\n".into(),
            ..Reply::default()
        },
        "is-enabled" | "enable" | "disable" => {
            Reply::failure(1, format!("Failed to get unit file state for {unit}.service: No such file or directory"))
        }
        "status" => Reply::failure(4, format!("Unit {unit}.service could not be found.")),
        "cat" => Reply::failure(1, format!("No files found for {unit}.service.")),
        "show" => {
            let properties = [
                ("Id", format!("{unit}.service")),
                ("LoadState", "not-found".into()),
                ("ActiveState", "inactive".into()),
                ("SubState", "dead".into()),
                ("UnitFileState", String::new()),
            ];
            Reply { stdout: select(&properties, request), ..Reply::default() }
        }
        verb => Reply::failure(5, format!("Failed to {verb} {unit}.service: Unit {unit}.service not found.")),
    }
}

fn wanted(unit: &str) -> PathBuf {
    Path::new(UNIT_DIRECTORY).join("multi-user.target.wants").join(format!("{unit}.service"))
}

pub(crate) fn is_enabled(unit: &str) -> bool {
    wanted(unit).is_symlink()
}

/// What `systemctl enable` leaves on disk.
pub(crate) fn enable(unit: &str) -> Result<()> {
    let link = wanted(unit);
    if link.is_symlink() {
        return Ok(());
    }
    let directory = Path::new(UNIT_DIRECTORY).join("multi-user.target.wants");
    fs::create_dir_all(&directory).with_context(|| format!("making `{}`", directory.display()))?;
    std::os::unix::fs::symlink(Path::new(UNIT_DIRECTORY).join(format!("{unit}.service")), &link)
        .with_context(|| format!("linking `{}`", link.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_command_lines_apart() {
        let request = |text: &str| parse_request(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let show = request("show kubelet.service -p ActiveState,SubState --property=NRestarts --value --no-pager");
        assert_eq!((show.verb.as_str(), show.value_only), ("show", true));
        assert_eq!(show.units, ["kubelet"]);
        assert_eq!(show.properties, ["ActiveState", "SubState", "NRestarts"]);
        let quiet = request("is-active --quiet containerd kubelet");
        assert_eq!((quiet.units.len(), quiet.quiet), (2, true));
    }
}
