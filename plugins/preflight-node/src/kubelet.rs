//! The kubelet: its version, its unit, its port.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::{ExecutableInfo, PortState, UnitInfo};
use crate::bindings::mortise::host::types::Error;
use crate::version::Version;

/// The port of the kubelet's API.
pub const PORT: u16 = 10250;

/// kubeadm supports a kubelet of its own minor and of this many before it.
const SUPPORTED_MINORS_BACK: u32 = 3;

/// The installed kubelet's version, or why there is none.
///
/// # Errors
///
/// One line: not found, did not run, or printed something else.
pub fn installed_version(kubelet: Option<&ExecutableInfo>) -> Result<Version, String> {
    let kubelet = kubelet.ok_or("cannot execute 'kubelet --version': kubelet not found in system path")?;
    let Some(output) = &kubelet.version else {
        let why = kubelet.version_error.as_deref().unwrap_or("it printed nothing");
        return Err(format!("cannot execute '{} --version': {why}", kubelet.path));
    };
    Version::parse_kubelet_output(output).ok_or_else(|| format!("unable to parse output from kubelet: \"{output}\""))
}

/// The finding for a kubelet whose version is not known.
pub fn no_version(why: &str) -> Finding {
    Finding::error(format_args!("couldn't get kubelet version: {why}"))
        .remedy("install the package `kubelet` in the cluster's version, then try `kubelet --version`")
}

/// `KubeletVersion`: not older than what this mortise, built for Kubernetes 1.`minor`, supports.
pub fn judge_version(kubelet: Option<&ExecutableInfo>, minor: u32) -> Report {
    let version = match installed_version(kubelet) {
        Ok(version) => version,
        Err(why) => return Report::of(no_version(&why)),
    };
    let oldest = Version::release(1, minor.saturating_sub(SUPPORTED_MINORS_BACK), 0);
    let report = Report::passed().seen("kubelet", &version).seen("oldest supported", &oldest);
    if version >= oldest {
        return report;
    }
    report.with(
        Finding::error(format_args!(
            "kubelet version \"{version}\" is lower than mortise can support; please upgrade kubelet"
        ))
        .seen("kubelet", &version)
        .seen("oldest supported", &oldest)
        .remedy(format_args!("install a kubelet of 1.{} to 1.{minor}, not newer than the API server", oldest.minor)),
    )
}

/// `Service-kubelet`: the init system will start the kubelet at boot.
pub fn judge_service(unit: &UnitInfo) -> Report {
    let Some(init_system) = &unit.init_system else {
        return Report::of(
            Finding::warning("no supported init system detected, skipping checking for services")
                .seen("looked for", "systemctl, openrc")
                .remedy("make sure that something starts the kubelet after the join and at boot"),
        );
    };
    let enable = match init_system.as_str() {
        "openrc" => "rc-update add kubelet default",
        _ => "systemctl enable kubelet.service",
    };
    let report =
        Report::passed().seen("init system", init_system).seen("enabled", unit.enabled).seen("active", unit.active);
    if !unit.exists {
        return report.with(
            Finding::warning("kubelet service does not exist")
                .seen("init system", init_system)
                .remedy("install the package `kubelet`, which brings the service"),
        );
    }
    if unit.enabled {
        return report;
    }
    report.with(
        Finding::warning(format_args!("kubelet service is not enabled, please run '{enable}'"))
            .seen("init system", init_system)
            .remedy(format_args!("run `{enable}`")),
    )
}

/// `Port-…`: the kubelet, or a component of the control plane, can listen. A failure other than a port in use says what it is.
pub fn judge_port(port: u16, address: Option<&str>, state: &Result<PortState, Error>) -> Report {
    let name = match address {
        None => format!("TCP port {port}"),
        Some(address) => format!("TCP port {port} on {address}"),
    };
    match state {
        Ok(PortState::Free) => Report::passed().seen(&name, "free"),
        Ok(PortState::Ours) => Report::passed().seen(&name, "used by what an earlier run of this join started"),
        Ok(PortState::InUse) => {
            let who = if port == PORT { "a kubelet" } else { "a static Pod" };
            Report::of(Finding::error(format_args!("Port {port} is in use")).seen(&name, "in use").remedy(format_args!(
                "`ss -ltnp 'sport = :{port}'` names the process; if it is {who} of an earlier join, run `mortise reset`"
            )))
        }
        Err(error) => Report::of(
            Finding::error(format_args!("port {port} cannot be listened on: {}", error.message))
                .seen(&name, &error.message),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::{Error as Fatal, Warning};

    fn kubelet(version: &str) -> ExecutableInfo {
        ExecutableInfo { path: "/usr/bin/kubelet".into(), version: Some(version.into()), version_error: None }
    }

    #[test]
    fn supports_the_minor_it_is_built_for_and_three_before() {
        for version in ["1.37.2", "1.34.0", "1.36.0-rc.1", "1.38.0"] {
            assert_eq!(judge_version(Some(&kubelet(&format!("Kubernetes v{version}"))), 37).told(), [], "{version}");
        }
        for version in ["1.33.9", "1.34.0-rc.1"] {
            let report = judge_version(Some(&kubelet(&format!("Kubernetes v{version}"))), 37);
            let message =
                format!("kubelet version \"{version}\" is lower than mortise can support; please upgrade kubelet");
            assert_eq!(report.told(), [(Fatal, message.as_str())]);
        }
    }

    #[test]
    fn kubelet_that_is_missing_or_breaks_is_an_error_with_the_cause() {
        assert_eq!(
            judge_version(None, 37).told(),
            [(
                Fatal,
                "couldn't get kubelet version: cannot execute 'kubelet --version': kubelet not found in system path"
            )]
        );
        let broken = ExecutableInfo { version: None, version_error: Some("exited with 1".into()), ..kubelet("") };
        assert_eq!(
            judge_version(Some(&broken), 37).told(),
            [(Fatal, "couldn't get kubelet version: cannot execute '/usr/bin/kubelet --version': exited with 1")]
        );
        assert_eq!(
            judge_version(Some(&kubelet("v1")), 37).told(),
            [(Fatal, "couldn't get kubelet version: unable to parse output from kubelet: \"v1\"")]
        );
    }

    #[test]
    fn service_is_only_ever_a_warning() {
        let healthy = UnitInfo { init_system: Some("systemd".into()), exists: true, enabled: true, active: false };
        assert_eq!(judge_service(&healthy).told(), []);
        let cases = [
            (
                UnitInfo { init_system: None, exists: false, enabled: false, active: false },
                "no supported init system detected, skipping checking for services",
            ),
            (UnitInfo { exists: false, enabled: false, ..healthy.clone() }, "kubelet service does not exist"),
            (
                UnitInfo { enabled: false, ..healthy.clone() },
                "kubelet service is not enabled, please run 'systemctl enable kubelet.service'",
            ),
            (
                UnitInfo { init_system: Some("openrc".into()), enabled: false, ..healthy },
                "kubelet service is not enabled, please run 'rc-update add kubelet default'",
            ),
        ];
        for (unit, message) in cases {
            assert_eq!(judge_service(&unit).told(), [(Warning, message)]);
        }
    }

    #[test]
    fn port_of_our_own_kubelet_passes_and_a_refusal_is_not_called_in_use() {
        assert_eq!(judge_port(PORT, None, &Ok(PortState::Free)).told(), []);
        assert_eq!(judge_port(PORT, None, &Ok(PortState::Ours)).told(), []);
        assert_eq!(judge_port(PORT, None, &Ok(PortState::InUse)).told(), [(Fatal, "Port 10250 is in use")]);
        let refused = Err(Error { code: "unavailable".into(), message: "permission denied".into(), retryable: false });
        assert_eq!(
            judge_port(PORT, None, &refused).told(),
            [(Fatal, "port 10250 cannot be listened on: permission denied")]
        );
    }
}
