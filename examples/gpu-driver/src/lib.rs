//! A vendor's check: the GPU driver is loaded and new enough for the product.
//!
//! Build and run it, from the top of the repository:
//!
//! ```sh
//! cargo build --profile plugin --target wasm32-wasip2 -p mortise-example-gpu-driver
//! mortise preflight --plugin target/wasm32-wasip2/plugin/mortise_example_gpu_driver.wasm \
//!   --grant facts=modules --grant files=/proc/driver/nvidia/version:read
//! ```

#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "generated code"))]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/preflight", world: "plugin", generate_all });
    // A native linker, which unit tests need, does not take the names of exports.
    #[cfg(target_family = "wasm")]
    export!(Plugin with_types_in self);
    #[cfg(target_family = "wasm")]
    use super::Plugin;
}

use bindings::exports::mortise::preflight::check::{CheckInfo, Error, Finding, Guest, Report, Severity, Stage};
use bindings::mortise::host::{facts, files};

/// What the host reads before it runs anything.
#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "a link section becomes a custom section"))]
#[cfg_attr(target_family = "wasm", unsafe(link_section = "mortise:manifest"))]
#[used]
static MANIFEST: [u8; include_bytes!("../plugin.yaml").len()] = *include_bytes!("../plugin.yaml");

/// First driver branch that the product supports.
const OLDEST_BRANCH: u32 = 550;

struct Plugin;

impl Guest for Plugin {
    fn list_checks() -> Vec<CheckInfo> {
        let title = "NVIDIA driver is loaded and new enough".into();
        vec![CheckInfo { id: "GpuDriver".into(), title, stage: Stage::Node, severity: Severity::Error }]
    }

    fn run_check(_: String) -> Result<Report, Error> {
        if !facts::modules()?.iter().any(|module| module == "nvidia") {
            return Ok(report(Some("the kernel module nvidia is not loaded".into()), None));
        }
        let content = files::read("/proc/driver/nvidia/version")?;
        let version = version(&String::from_utf8_lossy(&content));
        Ok(report(judge(version.as_deref()), version))
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …` has the version as its first dotted number.
fn version(content: &str) -> Option<String> {
    let numeric = |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    content.lines().next()?.split_whitespace().find(numeric).map(str::to_owned)
}

/// What is wrong with a version, if anything.
fn judge(version: Option<&str>) -> Option<String> {
    let Some(version) = version else { return Some("the driver does not tell its version".into()) };
    let branch: u32 = version.split('.').next().and_then(|branch| branch.parse().ok()).unwrap_or_default();
    (branch < OLDEST_BRANCH).then(|| format!("driver {version} is older than branch {OLDEST_BRANCH}"))
}

fn report(problem: Option<String>, version: Option<String>) -> Report {
    let remedy = Some(format!("install an NVIDIA driver of branch {OLDEST_BRANCH} or newer"));
    let finding = |message| Finding { severity: Severity::Error, message, evidence: vec![], remedy, extra: vec![] };
    let evidence = version.into_iter().map(|version| ("driver".into(), version)).collect();
    Report { skipped: None, findings: problem.map(finding).into_iter().collect(), evidence, extra: vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2.0\n";

    #[test]
    fn finds_the_version_and_judges_its_branch() {
        assert_eq!(version(LINE).as_deref(), Some("535.54.15"));
        assert_eq!(version("GCC\n"), None);
        assert!(judge(Some("535.54.15")).unwrap().contains("older than branch 550"));
        assert_eq!(judge(Some("550.1")), None);
        assert!(judge(None).is_some());
    }
}
