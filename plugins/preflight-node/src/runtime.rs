//! The container runtime, asked over CRI v1.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::RuntimeInfo;
use crate::bindings::mortise::host::types::Error;

/// `CRI`: the runtime answers and does not say that it is not ready. That its network is not ready is no concern:
/// a network plugin comes with the first Pods.
pub fn judge_runtime(socket: &str, runtime: &Result<RuntimeInfo, Error>) -> Report {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Report::of(no_connection(socket, error)),
    };
    let report = seen(socket, runtime);
    if runtime.ready != Some(false) {
        return report;
    }
    report.with(
        Finding::error(format_args!(
            "container runtime condition \"RuntimeReady\" is not true: {}",
            if runtime.ready_message.is_empty() { "no reason given" } else { &runtime.ready_message }
        ))
        .seen("runtime", format_args!("{} {}", runtime.name, runtime.version))
        .seen("socket", socket)
        .remedy(format_args!(
            "`crictl --runtime-endpoint {socket} info` shows its state, `journalctl -u {}` its log",
            unit(&runtime.name)
        )),
    )
}

/// `ContainerRuntimeVersion`: the runtime can tell its cgroup driver, which the kubelet will rely on.
pub fn judge_runtime_version(socket: &str, runtime: &Result<RuntimeInfo, Error>) -> Report {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return Report::of(no_connection(socket, error)),
    };
    let report = seen(socket, runtime);
    let about = |finding: Finding| {
        finding.seen("runtime", format_args!("{} {}", runtime.name, runtime.version)).seen("socket", socket)
    };
    if let Some(error) = &runtime.config_error {
        return report
            .with(about(Finding::error(format_args!("failed to call the CRI method RuntimeConfig: {error}"))).remedy(
                format_args!("`journalctl -u {}` shows the log of the container runtime", unit(&runtime.name)),
            ));
    }
    if runtime.config_supported {
        return report;
    }
    report.with(
        about(Finding::warning(
            "the container runtime does not support the CRI method RuntimeConfig; a kubelet of 1.38 or newer will not \
             fall back to the cgroupDriver of its own configuration",
        ))
        .remedy("update the container runtime (containerd 2.0 or newer, CRI-O 1.28 or newer)"),
    )
}

fn seen(socket: &str, runtime: &RuntimeInfo) -> Report {
    let report =
        Report::passed().seen("socket", socket).seen("runtime", format_args!("{} {}", runtime.name, runtime.version));
    match &runtime.cgroup_driver {
        Some(driver) => report.seen("cgroup driver", driver),
        None => report,
    }
}

fn no_connection(socket: &str, error: &Error) -> Finding {
    Finding::error(format_args!("could not connect to the container runtime: {}", error.message)).seen("socket", socket).remedy(
        "start the container runtime (`systemctl start containerd`), enable its CRI plugin if the service is unknown, or \
         name its socket with `--cri-socket`",
    )
}

/// Name of the runtime's unit, as distributions name it.
fn unit(runtime: &str) -> &str {
    if runtime == "cri-o" { "crio" } else { runtime }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::{Error as Fatal, Warning};

    const SOCKET: &str = "unix:///var/run/containerd/containerd.sock";

    fn healthy() -> RuntimeInfo {
        RuntimeInfo {
            name: "containerd".into(),
            version: "2.4.2".into(),
            ready: Some(true),
            ready_message: String::new(),
            config_supported: true,
            cgroup_driver: Some("systemd".into()),
            config_error: None,
        }
    }

    #[test]
    fn healthy_runtime_and_one_without_conditions_pass() {
        for ready in [Some(true), None] {
            let runtime = Ok(RuntimeInfo { ready, ..healthy() });
            assert_eq!(judge_runtime(SOCKET, &runtime).told(), []);
            assert_eq!(judge_runtime_version(SOCKET, &runtime).told(), []);
        }
    }

    #[test]
    fn runtime_that_is_not_ready_tells_its_reason() {
        let runtime =
            Ok(RuntimeInfo { ready: Some(false), ready_message: "Boot: shim is missing".into(), ..healthy() });
        assert_eq!(
            judge_runtime(SOCKET, &runtime).told(),
            [(Fatal, "container runtime condition \"RuntimeReady\" is not true: Boot: shim is missing")]
        );
        assert_eq!(judge_runtime_version(SOCKET, &runtime).told(), []);
    }

    #[test]
    fn no_answer_fails_both_checks() {
        let runtime = Err(Error { code: "unavailable".into(), message: "no such file".into(), retryable: true });
        let told = [(Fatal, "could not connect to the container runtime: no such file")];
        assert_eq!(judge_runtime(SOCKET, &runtime).told(), told);
        assert_eq!(judge_runtime_version(SOCKET, &runtime).told(), told);
    }

    #[test]
    fn runtime_config_missing_warns_and_failing_is_an_error() {
        let old = Ok(RuntimeInfo { config_supported: false, cgroup_driver: None, ..healthy() });
        assert_eq!(judge_runtime_version(SOCKET, &old).told()[0].0, Warning);
        let broken = Ok(RuntimeInfo { config_error: Some("deadline exceeded".into()), ..healthy() });
        assert_eq!(
            judge_runtime_version(SOCKET, &broken).told(),
            [(Fatal, "failed to call the CRI method RuntimeConfig: deadline exceeded")]
        );
    }
}
