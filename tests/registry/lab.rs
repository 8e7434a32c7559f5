//! A registry, a vendor with keys, and a node with an empty root.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a registry may take to listen.
const START: Duration = Duration::from_secs(20);
const INTERVAL: Duration = Duration::from_millis(20);
/// Password of the vendor's key.
pub(crate) const PASSWORD: &str = "tenon-and-mortise";
/// What the example needs.
pub(crate) const GRANTS: [&str; 4] = ["--grant", "facts=modules", "--grant", "files=/proc/driver/nvidia/version:read"];

/// Directory of oras and cosign.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| mortise_cluster::ensure_registry_tools(&|text| eprintln!("{text}")).expect("oras and cosign"))
}

/// The example's component, built once.
pub(crate) fn component() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| crate::built::built("mortise-example-gpu-driver"))
}

/// The example with a text of its manifest replaced by another of the same length.
pub(crate) fn component_with(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut content = component().to_vec();
    let manifest = content.windows(SCHEMA.len()).rposition(|window| window == SCHEMA.as_bytes()).expect("a manifest");
    let at = content[manifest..].windows(from.len()).position(|window| window == from.as_bytes()).expect("it has it");
    content[manifest + at..][..to.len()].copy_from_slice(to.as_bytes());
    content
}

/// How a manifest begins.
const SCHEMA: &str = "schema: mortise.dev/plugin/";

/// `docker-registry`, killed at the end.
pub(crate) struct Registry {
    process: Child,
    directory: tempfile::TempDir,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::start_with("", "")
    }

    /// With lines for `http:` and lines of its own.
    pub(crate) fn start_with(http: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let address = format!("127.0.0.1:{port}");
        let storage = directory.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \
             {address}\n{http}{more}",
            storage.display()
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("it is written");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        tools();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        let mut registry = Self { process, directory, address };
        let started = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            let ended = registry.process.try_wait().expect("its state is known");
            let log = std::fs::read_to_string(registry.directory.path().join("log")).unwrap_or_default();
            assert!(ended.is_none() && started.elapsed() < START, "docker-registry does not listen: {log}");
            std::thread::sleep(INTERVAL);
        }
        registry
    }

    /// `127.0.0.1:port/vendor/name:tag`.
    pub(crate) fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/vendor/{name}:{tag}", self.address)
    }

    /// The file in which the registry keeps a blob.
    pub(crate) fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let blobs = self.directory.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a command ended.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its output, if it succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Its error, if it ended with this status and says this.
    #[track_caller]
    pub(crate) fn refused(self, status: i32, says: &str) -> String {
        assert_eq!(self.status, status, "{}{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(says), "{says:?} is not in: {}", self.stderr);
        self.stderr
    }
}

/// A directory in which the vendor and the operator work, with keys, and a root of a node in it.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Self { directory: tempfile::tempdir().expect("a directory") };
        desk.write("gpu-driver.wasm", component());
        desk.write("signing-config.json", SIGNING_CONFIG.as_bytes());
        let bin = desk.path("bin");
        std::fs::create_dir(&bin).expect("a directory");
        // Whatever is typed as `mortise` works on the root of this test.
        let script =
            format!("#!/bin/sh\nexec {} --root {} \"$@\"\n", env!("CARGO_BIN_EXE_mortise"), desk.root().display());
        desk.write_program("bin/mortise", &script);
        desk
    }

    /// With a pair of keys by cosign.
    pub(crate) fn with_keys() -> Self {
        let desk = Self::new();
        desk.cosign(&["generate-key-pair"]).good();
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let mut file = std::fs::File::create(self.path(name)).expect("it can be made");
        file.write_all(content).expect("it is written");
    }

    /// Writes a program, by a process of its own: one that this process had open while another thread starts something
    /// could not be run yet ("text file busy").
    pub(crate) fn write_program(&self, name: &str, content: &str) {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
            .arg(self.path(name))
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        child.stdin.take().expect("a pipe").write_all(content.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    }

    /// Puts a second vendor's public key at `other.pub` and the private one at `other.key`.
    pub(crate) fn make_other_keys(&self) {
        self.cosign(&["generate-key-pair", "--output-key-prefix", "other"]).good();
    }

    pub(crate) fn mortise(&self, arguments: &[&str]) -> Ran {
        self.run("mortise", arguments)
    }

    /// `mortise plugin …`.
    pub(crate) fn plugin(&self, arguments: &[&str]) -> Ran {
        self.mortise(&[&["plugin"], arguments].concat())
    }

    pub(crate) fn cosign(&self, arguments: &[&str]) -> Ran {
        self.run("cosign", arguments)
    }

    pub(crate) fn oras(&self, arguments: &[&str]) -> Ran {
        self.run("oras", arguments)
    }

    /// A line as it is typed.
    pub(crate) fn shell(&self, line: &str) -> Ran {
        self.run("sh", &["-c", line])
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        let path = format!("{}:{}:/usr/bin:/bin", self.path("bin").display(), tools().display());
        let found = std::env::split_paths(&path).map(|it| it.join(program)).find(|it| it.is_file());
        let output = Command::new(found.unwrap_or_else(|| program.into()))
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", &path)
            .env("HOME", self.directory.path())
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("COSIGN_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let ran = Ran {
            status: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(PASSWORD), "the password is in the output");
        ran
    }

    /// Pushes the example to a registry.
    pub(crate) fn push(&self, registry: &Registry, tag: &str) -> String {
        let reference = registry.reference("gpu-driver", tag);
        self.plugin(&["push", "gpu-driver.wasm", &reference]).good();
        reference
    }

    /// Pushes and signs it.
    pub(crate) fn push_signed(&self, registry: &Registry, tag: &str) -> String {
        let reference = self.push(registry, tag);
        self.plugin(&["sign", "--key", "cosign.key", &reference]).good();
        reference
    }

    /// `plugin add` with the example's grants and more arguments.
    pub(crate) fn add(&self, subject: &str, more: &[&str]) -> Ran {
        self.plugin(&[&["add", subject], more, &GRANTS].concat())
    }

    /// Whether anything was kept or compiled on the node.
    pub(crate) fn store_is_empty(&self) -> bool {
        !self.root().join("var/lib/mortise/plugins").exists()
    }
}

/// `cosign signing-config create`: no transparency log, no timestamps.
const SIGNING_CONFIG: &str =
    r#"{"mediaType":"application/vnd.dev.sigstore.signingconfig.v0.2+json","rekorTlogConfig":{},"tsaConfig":{}}"#;
