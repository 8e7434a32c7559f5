//! Parse, run, print one error, return the exit code. Called `systemctl` or `journalctl`, it is a node's stand-in.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use mortise_cluster::cli::{self, Cli, STAND_INS};

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let result = if STAND_INS.contains(&called) {
        cli::run_stand_in(called, &arguments.collect::<Vec<_>>())
    } else {
        cli::run(Cli::parse())
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
