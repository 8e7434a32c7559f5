//! Components of every released version of every interface, from each language, linked and run by this host.
//!
//! They stand below `tests/fixtures/components/<package>/<version>/` as `<language>.wasm`, large ones compressed by xz. The
//! Python one exports all three interfaces, so that a release stores 4 MB and not 12; it is found in `every-kind`.
//! `make release-interfaces` wrote them, and the texts of `tests/fixtures/wit`, from `examples/` and `wit/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mortise::error::Diagnose;
use mortise::plugin::{Answer, EndingKind, Kind};

use crate::examples;
use crate::machine::Machine;
use crate::plugin::{Request, Setup, everything_it_wants, reporter, top};

const LANGUAGES: [&str; 2] = ["python", "rust"];

fn components() -> PathBuf {
    top().join("tests/fixtures/components")
}

/// Packages of components with the interfaces that each has to export.
const PACKAGES: [(&str, &[Kind]); 4] = [
    ("preflight", &[Kind::Preflight]),
    ("discovery", &[Kind::Discovery]),
    ("approval", &[Kind::Approval]),
    ("every-kind", &[Kind::Preflight, Kind::Discovery, Kind::Approval]),
];

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn load(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|it| it == "xz") {
        let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
        let output = output.unwrap_or_else(|error| panic!("xz is needed for `{}`: {error}", path.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return output.stdout;
    }
    std::fs::read(path).unwrap()
}

#[test]
fn each_released_version_has_a_component_of_each_language() {
    for kind in Kind::ALL {
        for version in names(&top().join("tests/fixtures/wit").join(kind.name())) {
            for language in LANGUAGES {
                let stored = PACKAGES.iter().any(|(package, kinds)| {
                    let files = names(&components().join(package).join(&version));
                    kinds.contains(&kind) && files.iter().any(|file| file.split('.').next() == Some(language))
                });
                assert!(stored, "no {language} component of mortise:{kind}@{version}: run `make release-interfaces`");
            }
        }
    }
}

/// Grants are looked at below all versions of the interfaces: an old one is no way around them.
#[test]
fn stored_components_get_nothing_that_is_not_granted() {
    for (package, _) in PACKAGES {
        for version in names(&components().join(package)) {
            for file in names(&components().join(package).join(&version)) {
                let component = load(&components().join(package).join(&version).join(&file));
                let error = Setup::new(&component).prepare().err().expect("it was prepared without what it needs");
                assert_eq!(error.code(), "plugin-missing-grants", "{package}/{version}/{file}: {error}");
            }
        }
    }
}

/// Each export answers, or says why it cannot: nothing of a released interface has become a trap or a missing import.
#[tokio::test]
async fn stored_components_still_link_and_run() {
    for (package, kinds) in PACKAGES {
        for version in names(&components().join(package)) {
            for file in names(&components().join(package).join(&version)) {
                let which = format!("{package}/{version}/{file}");
                let component = load(&components().join(&which));
                let setup = Setup::new(&component).grants(everything_it_wants(&component));
                let setup = setup.machine(Arc::<Machine>::default());
                let plugins = setup.prepare().unwrap_or_else(|error| panic!("{which}: {error}"));
                assert_eq!(plugins.kinds(), kinds, "{which}");
                for kind in kinds {
                    run(kind, &plugins, &which).await;
                }
            }
        }
    }
}

async fn run(kind: &Kind, plugins: &mortise::plugin::Plugins, which: &str) {
    let told = |ending| matches!(ending, EndingKind::Answered | EndingKind::Refused);
    match kind {
        Kind::Preflight => {
            let ignore = mortise::config::IgnoredChecks::default();
            let results = plugins.run_stage(mortise::plugin::Stage::Node, &ignore, &reporter()).await;
            assert!(
                !results.is_empty() && results.iter().all(|it| it.answer == Answer::Report),
                "{which}: {results:#?}"
            );
        }
        Kind::Discovery => {
            let asked = plugins.discover("guest", &reporter()).await.unwrap();
            assert!(told(asked.ending()), "{which}: {:?}", asked.answer);
        }
        Kind::Approval => {
            let request = Request::new("kubernetes.io/kubelet-serving", "worker-1");
            let asked = plugins.review("guest", Some(request.parsed()), &reporter()).await.unwrap();
            assert!(told(asked.ending()), "{which}: {:?}", asked.answer);
        }
    }
}

#[test]
#[ignore = "writes tests/fixtures: `make release-interfaces`, when an interface is released"]
fn writes_the_texts_and_components_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    for package in ["host", "preflight", "discovery", "approval"] {
        let (from, to) =
            (top().join("wit").join(package), top().join("tests/fixtures/wit").join(package).join(version));
        std::fs::create_dir_all(&to).unwrap();
        for file in names(&from).iter().filter(|name| name.ends_with(".wit")) {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
    let write = |package: &str, file: &str, component: &[u8]| {
        let directory = components().join(package).join(version);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(file), component).unwrap();
    };
    for (kind, component) in examples::rust_examples() {
        write(kind.name(), "rust.wasm", &component);
    }
    write("every-kind", "python.wasm", &examples::python_examples());
    let whole = components().join("every-kind").join(version).join("python.wasm");
    let status = Command::new("xz").args(["-9", "--force"]).arg(whole).status();
    assert!(status.unwrap().success(), "xz is needed");
}
