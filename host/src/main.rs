//! Parse, start logging, run, print one error, return the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything is opened or started: this process may be a helper of another mortise.
    if let Some(code) = mortise::plugin::run_as_helper() {
        return code;
    }
    ExitCode::SUCCESS
}
