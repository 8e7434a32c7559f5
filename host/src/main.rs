//! Parse, start logging, run, print one error, return the exit code.
fn main() {}
