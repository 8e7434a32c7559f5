//! Python plugins: componentize-py, in one version, in the cache; components, built once for the same sources.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::plugin::top;

/// As `examples/README.md` names it.
pub(crate) const COMPONENTIZE_PY: &str = "0.25.1";

/// The component that a module becomes: its name, where it and what it imports are, and its world.
pub(crate) fn component(module: &str, directories: &[PathBuf], wit: &str, world: &str) -> Vec<u8> {
    let wit = top().join(wit);
    let mut hasher = DefaultHasher::new();
    (COMPONENTIZE_PY, module, world).hash(&mut hasher);
    directories.iter().for_each(|directory| hash_sources(directory, &mut hasher));
    hash_sources(&wit, &mut hasher);
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{module}-{:016x}.wasm", hasher.finish()));
    if let Ok(component) = std::fs::read(&built) {
        return component;
    }
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = directory.path().join("it.wasm");
    let mut python = tool();
    python.arg("-d").arg(&wit).args(["-w", world, "componentize", "--stub-wasi", module, "-o"]).arg(&output);
    directories.iter().for_each(|directory| {
        python.arg("-p").arg(directory);
    });
    run(&mut python, "componentize-py");
    std::fs::rename(&output, &built).unwrap();
    std::fs::read(built).unwrap()
}

/// Names and contents of all files, links to directories followed.
fn hash_sources(directory: &Path, hasher: &mut DefaultHasher) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|it| it.unwrap().path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| !path.ends_with("__pycache__")) {
        path.file_name().hash(hasher);
        if path.is_dir() {
            hash_sources(path, hasher);
        } else {
            std::fs::read(path).unwrap().hash(hasher);
        }
    }
}

/// componentize-py, installed where the cluster's programs are, if it is not there yet.
fn tool() -> Command {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    let tool = TOOL.get_or_init(|| {
        let cache = mortise_cluster::cache_root().unwrap();
        let tool = cache.join(format!("componentize-py-{COMPONENTIZE_PY}"));
        if !tool.is_dir() {
            std::fs::create_dir_all(&cache).unwrap();
            let directory = tempfile::tempdir_in(&cache).unwrap();
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--target"]);
            pip.arg(directory.path().join("it")).arg(format!("componentize-py=={COMPONENTIZE_PY}"));
            run(&mut pip, "pip");
            // Another test run may have been faster.
            let _ = std::fs::rename(directory.path().join("it"), &tool);
        }
        tool
    });
    let mut python = Command::new("python3");
    // Not beside the sources, which belong to the repository.
    python.env("PYTHONPATH", tool).env("PYTHONDONTWRITEBYTECODE", "1");
    python.args(["-c", "from componentize_py import script; script()", "--quiet"]);
    python
}

fn run(command: &mut Command, name: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("python3 is needed, with pip: {error}"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}
