//! What a dry run would do: the effects a join asked its node for, in order, none of them made.
//!
//! A plan also stands in for the files that would be there, so that a later phase reads what an earlier one would have
//! written. Contents of files that others may not read are never shown.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::plugin::walls::MissingWall;

mod diff;

/// One effect that would be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// A file would appear or change.
    File {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Octal, four digits.
        mode: String,
        /// Numeric `uid:gid`.
        owner: String,
        /// Whether it is there already, with other content.
        replaces: bool,
        /// Hex SHA-256 of the content.
        sha256: String,
        /// Unified diff against what is there; none for a secret file and for anything that is not text.
        diff: Option<String>,
    },
    /// A symbolic link would appear or change.
    Symlink {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// As written.
        target: PathBuf,
    },
    /// A directory would be made.
    Directory {
        /// Absolute, without `--root`.
        path: PathBuf,
        /// Permission bits.
        #[serde(serialize_with = "octal")]
        mode: u32,
    },
    /// A file would be removed.
    Removal {
        /// Absolute, without `--root`.
        path: PathBuf,
    },
    /// A unit would be acted on.
    Unit {
        /// Unit name.
        unit: String,
        /// As `systemctl` takes it.
        action: &'static str,
    },
    /// The API server would be asked to change something.
    ApiCall {
        /// HTTP method.
        method: &'static str,
        /// Path on the API server.
        path: String,
        /// What it would do, a few words.
        what: String,
    },
    /// etcd's members would change.
    EtcdMembers {
        /// As they are, one line each.
        before: Vec<String>,
        /// As they would be.
        after: Vec<String>,
    },
    /// A plugin is part of the join.
    Plugin {
        /// `name@version`.
        name: String,
        /// `sha256:` and hex.
        digest: String,
        /// What it is granted, one line each.
        grants: Vec<String>,
    },
    /// Plugins run with less around them than they could have.
    MissingWalls {
        /// Each with the reason.
        missing: Vec<MissingWall>,
    },
    /// Something would be waited for.
    Wait {
        /// What, a few words.
        what: String,
    },
}

/// The plan of one dry run.
#[derive(Debug, Default)]
pub struct Plan {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    phase: Option<&'static str>,
    steps: Vec<Planned>,
    /// Files as they would be; none: removed.
    contents: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// Without the contents: some are secret.
impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("steps", &self.steps).finish_non_exhaustive()
    }
}

/// A step with the phase that asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Phase id.
    pub phase: Option<&'static str>,
    /// What would be done.
    #[serde(flatten)]
    pub step: Step,
}

impl Plan {
    /// Steps from here on belong to this phase.
    pub fn enter(&self, phase: &'static str) {
        self.inner().phase = Some(phase);
    }

    /// Adds a step.
    pub fn note(&self, step: Step) {
        let mut inner = self.inner();
        let phase = inner.phase;
        inner.steps.push(Planned { phase, step });
    }

    /// Adds a change to the API server.
    pub fn api_call(&self, method: &'static str, path: impl Into<String>, what: impl Into<String>) {
        self.note(Step::ApiCall { method, path: path.into(), what: what.into() });
    }

    /// The steps so far, in order.
    pub fn steps(&self) -> Vec<Planned> {
        self.inner().steps.clone()
    }

    /// Adds a file and shows it to later reads.
    pub(crate) fn file(&self, path: &Path, content: &[u8], mode: u32, old: Option<&[u8]>) {
        let secret = mode & 0o077 == 0;
        let text = |content| std::str::from_utf8(content).ok();
        let diff = match (secret, text(content), old.map_or(Some(""), text)) {
            (false, Some(new), Some(old)) => Some(diff::unified(old, new)),
            _ => None,
        };
        self.note(Step::File {
            path: path.to_owned(),
            mode: format!("{mode:04o}"),
            owner: format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            replaces: old.is_some(),
            sha256: crate::node::sha256_hex(content),
            diff,
        });
        self.inner().contents.insert(path.to_owned(), Some(content.to_owned()));
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.note(Step::Removal { path: path.to_owned() });
        self.inner().contents.insert(path.to_owned(), None);
    }

    /// What a file would hold, if the plan changes it; the inner none: it would be gone.
    pub(crate) fn content(&self, path: &Path) -> Option<Option<Vec<u8>>> {
        self.inner().contents.get(path).cloned()
    }

    pub(crate) fn makes_directory(&self, directory: &Path) -> bool {
        self.inner()
            .steps
            .iter()
            .any(|planned| matches!(&planned.step, Step::Directory { path, .. } if path.starts_with(directory)))
    }

    /// The plan as text for a person, nothing left out but secrets.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Planned { phase, step } in &self.inner().steps {
            let phase = phase.map(|phase| format!("[{phase}] ")).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{phase}{}", line(step));
            if let Step::File { diff, sha256, .. } = step {
                let body = diff.clone().unwrap_or_else(|| format!("<hidden>, sha256 {sha256}\n"));
                for line in body.lines() {
                    let _ = writeln!(text, "    {}", crate::output::printable(line));
                }
            }
        }
        text
    }

    /// The plan as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "plan": self.inner().steps })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn line(step: &Step) -> String {
    match step {
        Step::File { path, mode, owner, replaces, .. } => {
            let verb = if *replaces { "replace" } else { "write" };
            format!("would {verb} {} (mode {mode}, owner {owner})", path.display())
        }
        Step::Symlink { path, target } => format!("would link {} -> {}", path.display(), target.display()),
        Step::Directory { path, mode } => format!("would make the directory {} (mode {mode:04o})", path.display()),
        Step::Removal { path } => format!("would remove {}", path.display()),
        Step::Unit { action: "daemon-reload", .. } => "would reload the init system's units".into(),
        Step::Unit { unit, action } => format!("would {action} the unit {unit}"),
        Step::ApiCall { method, path, what } => format!("would ask the API server to {what} ({method} {path})"),
        Step::EtcdMembers { before, after } => {
            format!("would change etcd's members\n    from {}\n    to   {}", before.join("; "), after.join("; "))
        }
        Step::Plugin { name, digest, grants } => {
            let grants = if grants.is_empty() { "nothing".into() } else { grants.join(", ") };
            format!("plugin {name} ({digest}), granted: {grants}")
        }
        Step::MissingWalls { missing } => {
            let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
            format!("walls missing around plugins: {}", missing.join(", "))
        }
        Step::Wait { what } => format!("would wait for {what}"),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn octal<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_text_as_a_diff_and_secrets_as_a_hash() {
        let plan = Plan::default();
        plan.enter("kubelet-start");
        plan.file(Path::new("/var/lib/kubelet/config.yaml"), b"a: 1\nb: 2\n", 0o644, Some(b"a: 1\nb: 1\n"));
        plan.file(Path::new("/etc/kubernetes/kubelet.conf"), b"token: canary", 0o600, None);
        plan.note(Step::Unit { unit: "kubelet".into(), action: "restart" });
        let text = plan.text();
        assert!(
            text.contains("[kubelet-start] would replace /var/lib/kubelet/config.yaml (mode 0644, owner "),
            "{text}"
        );
        assert!(text.contains("     a: 1\n    -b: 1\n    +b: 2\n"), "{text}");
        assert!(text.contains("[kubelet-start] would restart the unit kubelet\n"), "{text}");
        assert!(text.contains("    <hidden>, sha256 "), "{text}");
        for shown in [text, plan.json().to_string(), format!("{plan:?}")] {
            assert!(!shown.contains("canary") && !shown.contains("116, 111, 107"), "{shown}");
        }
    }

    #[test]
    fn json_has_one_object_a_step() {
        let plan = Plan::default();
        plan.enter("tls-bootstrap");
        plan.api_call("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "make a request");
        plan.note(Step::Directory { path: "/etc/kubernetes".into(), mode: 0o755 });
        assert_eq!(
            plan.json(),
            serde_json::json!({"plan": [
                {"phase": "tls-bootstrap", "step": "api-call", "method": "POST",
                 "path": "/apis/certificates.k8s.io/v1/certificatesigningrequests", "what": "make a request"},
                {"phase": "tls-bootstrap", "step": "directory", "path": "/etc/kubernetes", "mode": "0755"},
            ]})
        );
    }
}
