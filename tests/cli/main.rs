//! The binary: exit code, both streams, no secret; asked wrongly, nothing done.

mod examples;
mod grants;
mod sandbox;
mod usage;

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// How one run of the binary ended.
pub struct Run {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `mortise` with these words, with no environment but the given variables.
pub fn mortise(words: &[&str], variables: &[(&str, &str)]) -> Run {
    let output: Output = Command::new(env!("CARGO_BIN_EXE_mortise"))
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    Run {
        status: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("output is UTF-8"),
    }
}

/// A directory to be used as `--root`, with this configuration file in it.
pub fn configuration(text: &str) -> (tempfile::TempDir, String) {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("join.yaml");
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("temporary paths are UTF-8").to_owned();
    (root, path)
}

/// Names of what is in a directory.
pub fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("the directory exists");
    entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned()).collect()
}
