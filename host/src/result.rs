//! How the last join on this machine ended: `/run/mortise/result.json`, for tools that start it and look later, and
//! after a failure that nobody watched one line on the console.
//!
//! The file is written once, at the end, whole; nothing secret in it. Fields are only ever added.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::config::hide_tokens;
use crate::error::Failure;
use crate::node;
use crate::output::printable;
use crate::plugin::walls::MissingWall;

/// Its directory.
pub const RESULT_DIRECTORY: &str = "/run/mortise";
/// The file.
pub const RESULT_PATH: &str = "/run/mortise/result.json";
/// Where a cloud shows what a machine says while it boots.
pub const CONSOLE_PATH: &str = "/dev/console";
/// Characters of the console's line, its end left out.
const CONSOLE_LINE_CHARS: usize = 400;
/// Version of its format.
const VERSION: u32 = 1;

/// How a join ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResult {
    version: u32,
    /// `joined` or `failed`.
    outcome: Outcome,
    mortise: &'static str,
    node_name: String,
    /// Name of the certificate request that was made or adopted.
    csr_name: Option<String>,
    /// RFC 3339, UTC.
    started: String,
    /// RFC 3339, UTC.
    ended: String,
    took_ms: u64,
    /// Walls that did not stand around the plugins that ran.
    missing_walls: Vec<MissingWall>,
    /// Of a failure.
    error: Option<ErrorResult>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Joined,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorResult {
    phase: Option<&'static str>,
    code: &'static str,
    message: String,
    hint: Option<String>,
    /// Of the process.
    exit_code: u8,
}

impl JoinResult {
    /// The result of a join that ends now.
    pub fn of(
        node_name: &str,
        csr_name: Option<&str>,
        took: std::time::Duration,
        ended_with: Result<(), &Failure>,
    ) -> Self {
        let ended = Timestamp::now();
        let started = ended.checked_sub(took).unwrap_or(ended);
        let error = ended_with.err().map(|failure| ErrorResult {
            phase: failure.phase(),
            code: failure.code(),
            message: hide_tokens(&failure.message()),
            hint: failure.hint(),
            exit_code: failure.exit_code().status(),
        });
        Self {
            version: VERSION,
            outcome: if error.is_none() { Outcome::Joined } else { Outcome::Failed },
            mortise: env!("CARGO_PKG_VERSION"),
            node_name: node_name.to_owned(),
            csr_name: csr_name.map(str::to_owned),
            started: format!("{started:.3}"),
            ended: format!("{ended:.3}"),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            missing_walls: Vec::new(),
            error,
        }
    }

    /// The same, of a join whose plugins ran without these walls.
    #[must_use]
    pub fn without_walls(self, missing_walls: Vec<MissingWall>) -> Self {
        Self { missing_walls, ..self }
    }

    /// Writes it, mode 0644, its directory 0755.
    ///
    /// # Errors
    ///
    /// With the path. The join's own result stands: the caller warns.
    pub fn write(&self, root: &Path) -> Result<(), (PathBuf, io::Error)> {
        let located = |path: &str| root.join(path.trim_start_matches('/'));
        let path = located(RESULT_PATH);
        let mut text = serde_json::to_vec_pretty(self).expect("a result holds only strings, numbers and enums");
        text.push(b'\n');
        node::write_unrecorded(&located(RESULT_DIRECTORY), &path, &text).map_err(|error| (path, error))
    }
}

/// Writes `mortise: error: …` with code, phase and message to the console at this path.
///
/// Best effort: a machine without a console, or with one that takes nothing now, has the file still.
pub fn tell_console(path: &Path, failure: &Failure) {
    let text = format!("mortise: error: {}: {failure}", failure.code());
    let mut line: String = printable(&hide_tokens(&text)).chars().take(CONSOLE_LINE_CHARS).collect();
    // It shares the screen with the kernel, which may be in the middle of a line.
    line.insert_str(0, "\r\n");
    line.push_str("\r\n");
    // Never made, never our controlling terminal, never waited for.
    let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
    let written = File::options().write(true).custom_flags(flags).open(path);
    let _ = written.and_then(|mut console| console.write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::node::NodeError;

    fn written(result: &JoinResult) -> serde_json::Value {
        let root = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            result.write(root.path()).unwrap();
        }
        let directory = root.path().join("run/mortise");
        let names: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["result.json"]);
        let path = directory.join("result.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn tells_a_success() {
        let json = written(&JoinResult::of("n2", Some("node-csr-x"), Duration::from_millis(412), Ok(())));
        assert_eq!(json["outcome"], "joined");
        assert_eq!((json["csrName"].as_str(), json["tookMs"].as_u64()), (Some("node-csr-x"), Some(412)));
        assert!(json["error"].is_null());
        let time = |field: &str| json[field].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert_eq!(time("ended").duration_since(time("started")).as_millis(), 412);
    }

    #[test]
    fn tells_a_failure_with_its_phase_and_code() {
        let failure = Failure::from(NodeError::NoInit).in_phase("kubelet-start");
        let json = written(&JoinResult::of("n2", None, Duration::ZERO, Err(&failure)));
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["error"]["phase"], "kubelet-start");
        assert_eq!(json["error"]["code"], "node-no-init");
        assert_eq!(json["error"]["exitCode"], 1);
    }

    #[test]
    fn the_console_gets_one_bounded_line_without_secrets_or_control_characters() {
        let console = tempfile::NamedTempFile::new().unwrap();
        let source = io::Error::other(format!("\u{1b}[2J abcdef.0123456789abcdef {}", "x".repeat(5000)));
        let error = NodeError::File { action: "write", path: "/a\nb".into(), source };
        tell_console(console.path(), &Failure::from(error).in_phase("kubelet-start"));
        let text = std::fs::read_to_string(console.path()).unwrap();
        assert!(text.starts_with("\r\nmortise: error: node-file: phase `kubelet-start`: "), "{text:?}");
        assert!(text.ends_with("x\r\n") && text.chars().count() == CONSOLE_LINE_CHARS + 4, "{text:?}");
        assert!(!text.trim().contains(char::is_control) && !text.contains("0123456789abcdef"), "{text:?}");
    }

    #[test]
    fn a_missing_console_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        tell_console(&path, &Failure::from(NodeError::NoInit));
        assert!(!path.exists());
    }

    #[test]
    fn says_where_it_cannot_be_written() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("run"), "").unwrap();
        let (path, _) = JoinResult::of("n2", None, Duration::ZERO, Ok(())).write(root.path()).unwrap_err();
        assert!(path.ends_with("run/mortise/result.json"));
    }
}
