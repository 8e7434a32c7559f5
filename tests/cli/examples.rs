//! The configurations of `examples/` are read without a warning, and in the strictest way.

use std::path::Path;

use mortise::cli::{self, Command};
use mortise::config::{self, Environment};

#[test]
fn every_example_configuration_is_a_valid_join() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let root = tempfile::tempdir().unwrap();
    let variables = [("MORTISE_TLS_BOOTSTRAP_TOKEN".to_owned(), "abcdef.0123456789abcdef".to_owned())];
    let environment = Environment { variables: variables.into() };
    let mut read = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let words = ["mortise", "join", "--config"].map(Into::into).into_iter().chain([path.clone().into_os_string()]);
        let Ok(cli) = cli::parse(words) else { panic!("{}", path.display()) };
        let Command::Join(join) = cli.command else { panic!("no join") };
        let (_, warnings) = config::join_settings(&join.0, &environment, "host", root.path().to_owned())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(warnings, [], "{}", path.display());
        read += 1;
    }
    assert!(read >= 2, "the examples moved");
}
