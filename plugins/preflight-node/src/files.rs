//! Files that must not be there, programs that must, and who runs the join.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::ExecutableInfo;
use crate::bindings::mortise::host::files::FileInfo;

/// `IsPrivilegedUser`: the join must run as root.
pub fn judge_user(uid: u32) -> Report {
    let report = Report::passed().seen("uid", uid);
    if uid == 0 {
        return report;
    }
    report.with(
        Finding::error("user is not running as root")
            .seen("uid", uid)
            .remedy("run the same command with `sudo`, or try a join as an ordinary user with `mortise sandbox join`"),
    )
}

/// `FileAvailable-…`: nothing but what this very join wrote may stand at the path.
pub fn judge_available(path: &str, found: Option<&FileInfo>) -> Report {
    match found {
        None => Report::passed().seen(path, "absent"),
        Some(file) if file.ours => Report::passed().seen(path, "written by an earlier run of this join"),
        Some(file) => Report::of(
            Finding::error(format_args!("{path} already exists"))
                .seen("size", format_args!("{} bytes", file.size_bytes))
                .seen("mode", format_args!("{:04o}", file.mode & 0o7777))
                .seen("owner", format_args!("{}:{}", file.uid, file.gid))
                .remedy(format_args!(
                    "if this machine is to leave the cluster it was in, run `mortise reset`; if it is not in one, move `{path}` away"
                )),
        ),
    }
}

/// `FileExisting-…`: a program on the search path.
pub fn judge_program(name: &str, found: Option<&ExecutableInfo>) -> Report {
    match found {
        Some(program) => Report::passed().seen(name, &program.path),
        None => {
            let package = if name == "cp" { "coreutils" } else { "util-linux or mount" };
            Report::of(
                Finding::error(format_args!("{name} not found in system path"))
                    .remedy(format_args!("install `{name}` (package {package}) or add its directory to PATH")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::Error;
    use crate::bindings::mortise::host::files::FileKind;

    fn file(ours: bool) -> FileInfo {
        FileInfo { kind: FileKind::Regular, size_bytes: 1234, mode: 0o100_600, uid: 0, gid: 0, ours }
    }

    #[test]
    fn only_root_may_join() {
        assert_eq!(judge_user(0).told(), []);
        assert_eq!(judge_user(1000).told(), [(Error, "user is not running as root")]);
        assert_eq!(judge_user(1000).findings[0].evidence, [("uid".to_owned(), "1000".to_owned())]);
    }

    #[test]
    fn absent_file_and_own_file_pass() {
        let path = "/etc/kubernetes/kubelet.conf";
        assert_eq!(judge_available(path, None).told(), []);
        assert_eq!(judge_available(path, Some(&file(true))).told(), []);
    }

    #[test]
    fn file_of_somebody_else_is_an_error_with_mode_and_remedy() {
        let report = judge_available("/etc/kubernetes/kubelet.conf", Some(&file(false)));
        assert_eq!(report.told(), [(Error, "/etc/kubernetes/kubelet.conf already exists")]);
        assert!(report.findings[0].evidence.contains(&("mode".to_owned(), "0600".to_owned())));
        assert!(report.findings[0].remedy.as_ref().unwrap().contains("mortise reset"));
    }

    #[test]
    fn missing_program_is_an_error() {
        let found = ExecutableInfo { path: "/usr/bin/cp".into(), version: None, version_error: None };
        assert_eq!(judge_program("cp", Some(&found)).told(), []);
        assert_eq!(judge_program("losetup", None).told(), [(Error, "losetup not found in system path")]);
    }
}
