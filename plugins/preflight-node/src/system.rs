//! `SystemVerification`: kernel, operating system and control groups, by the rules of system-validators 1.12; and swap.
//!
//! Unlike kubeadm, a missing controller does not hide that cgroup v1 is the cause.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::{CgroupInfo, CgroupVersion, ExecutableInfo, KernelInfo};
use crate::bindings::mortise::host::types::Error;
use crate::report::words;
use crate::version::Version;
use crate::{kernel, kubelet};

const CONTROLLERS_V1: &[&str] = &["cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"];
const CONTROLLERS_V1_OPTIONAL: &[&str] = &["hugetlb", "blkio"];
const CONTROLLERS_V2: &[&str] = &["cpu", "cpuset", "devices", "freezer", "memory", "pids"];
const CONTROLLERS_V2_OPTIONAL: &[&str] = &["hugetlb", "io"];

/// The first minor whose kubelet refuses to start on cgroup v1 unless told otherwise.
const FIRST_MINOR_WITHOUT_V1: u32 = 35;

/// What `SystemVerification` looks at.
pub struct System<'a> {
    /// The kubelet found on the search path.
    pub kubelet: Option<&'a ExecutableInfo>,
    /// uname.
    pub kernel: &'a KernelInfo,
    /// Control groups.
    pub cgroups: &'a CgroupInfo,
    /// Values of [`kernel::option_names`], or why there are none.
    pub options: &'a Result<Vec<Option<String>>, Error>,
}

/// `SystemVerification`. A kubelet whose version is not known is the only finding then: the rules depend on it.
pub fn judge_system(system: &System<'_>) -> Report {
    let version = match kubelet::installed_version(system.kubelet) {
        Ok(version) => version,
        Err(why) => return Report::of(kubelet::no_version(&why)),
    };
    let mut report = Report::passed()
        .seen("os", &system.kernel.name)
        .seen("kernel", &system.kernel.release)
        .seen("kubelet", &version)
        .seen("cgroup version", version_name(system.cgroups.version))
        .seen("cgroup controllers", words(&system.cgroups.controllers));
    report.findings.extend(kernel::judge_release(&system.kernel.release));
    report = match system.options {
        Ok(values) => kernel::judge_options(system.cgroups.version, values, report),
        Err(error) => report.with(
            Finding::error(format_args!("failed to parse kernel config: {}", error.message))
                .remedy("install the package with the kernel's build configuration (`/boot/config-$(uname -r)`), or run `modprobe configs`"),
        ),
    };
    if system.kernel.name != "Linux" {
        report.findings.push(Finding::error(format_args!("unsupported operating system: {}", system.kernel.name)));
    }
    judge_cgroups(system.cgroups, &version, report)
}

fn judge_cgroups(cgroups: &CgroupInfo, kubelet: &Version, mut report: Report) -> Report {
    let (required, optional) = match cgroups.version {
        CgroupVersion::None => {
            return report.with(
                Finding::error("cannot get a cgroup mount point: no cgroup file system in `/proc/mounts`")
                    .remedy("mount it: `mount -t cgroup2 none /sys/fs/cgroup`; systemd does so at boot"),
            );
        }
        CgroupVersion::V1 => {
            report.findings.push(deprecated(kubelet));
            (CONTROLLERS_V1, CONTROLLERS_V1_OPTIONAL)
        }
        CgroupVersion::V2 => (CONTROLLERS_V2, CONTROLLERS_V2_OPTIONAL),
    };
    let missing = |wanted: &[&str]| {
        let absent = wanted.iter().filter(|name| !cgroups.controllers.iter().any(|enabled| enabled == **name));
        absent.fold(String::new(), |list, name| if list.is_empty() { (*name).to_owned() } else { list + " " + name })
    };
    let missing_required = missing(required);
    if !missing_required.is_empty() {
        report.findings.push(
            Finding::error(format_args!("missing required cgroups: {missing_required}"))
                .seen("cgroup version", version_name(cgroups.version))
                .seen("enabled", words(&cgroups.controllers))
                .remedy("enable them on the kernel command line (for `memory`: `cgroup_enable=memory`) and reboot"),
        );
    }
    let missing_optional = missing(optional);
    if !missing_optional.is_empty() {
        report.findings.push(
            Finding::warning(format_args!("missing optional cgroups: {missing_optional}"))
                .seen("enabled", words(&cgroups.controllers)),
        );
    }
    report
}

fn deprecated(kubelet: &Version) -> Finding {
    let refused = (kubelet.major, kubelet.minor) >= (1, FIRST_MINOR_WITHOUT_V1);
    let message =
        "cgroups v1 support is deprecated and will be removed in a future release; please migrate to cgroups v2";
    let finding = if refused {
        Finding::error(format_args!(
            "{message}. A kubelet of v1.{FIRST_MINOR_WITHOUT_V1} or newer starts on cgroups v1 only with 'failCgroupV1: false' in its configuration, \
             and this check must be ignored"
        ))
    } else {
        Finding::warning(message)
    };
    finding.seen("cgroup version", "v1").seen("kubelet", kubelet).remedy(
        "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel command line; or keep v1: set `failCgroupV1: false` in the \
         cluster's kubelet configuration and pass `--ignore-preflight-errors=SystemVerification`",
    )
}

fn version_name(version: CgroupVersion) -> &'static str {
    match version {
        CgroupVersion::None => "none",
        CgroupVersion::V1 => "v1",
        CgroupVersion::V2 => "v2",
    }
}

/// `Swap`: active swap needs a kubelet that is told about it.
pub fn judge_swap(areas: &[String]) -> Report {
    if areas.is_empty() {
        return Report::passed().seen("swap", "off");
    }
    Report::of(
        Finding::warning(
            "swap is supported for cgroup v2 only; the kubelet must be properly configured to use swap, or disable swap on the node",
        )
        .seen("swap areas", words(areas))
        .remedy(
            "`swapoff -a`, and remove the areas from `/etc/fstab`; or set `failSwapOn: false` and `memorySwap.swapBehavior` in the \
             cluster's kubelet configuration",
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::{self, Error as Fatal, Warning};

    struct Machine {
        kubelet: ExecutableInfo,
        kernel: KernelInfo,
        cgroups: CgroupInfo,
        options: Result<Vec<Option<String>>, Error>,
    }

    fn machine(version: CgroupVersion, controllers: &str) -> Machine {
        Machine {
            kubelet: ExecutableInfo {
                path: "/usr/bin/kubelet".into(),
                version: Some("Kubernetes v1.37.2".into()),
                version_error: None,
            },
            kernel: KernelInfo { name: "Linux".into(), release: "6.1.0-18-amd64".into(), machine: "x86_64".into() },
            cgroups: CgroupInfo { version, controllers: controllers.split_whitespace().map(str::to_owned).collect() },
            options: Ok(vec![Some("y".into()); kernel::option_names(version).len()]),
        }
    }

    impl Machine {
        fn judge(&self) -> Report {
            judge_system(&System {
                kubelet: Some(&self.kubelet),
                kernel: &self.kernel,
                cgroups: &self.cgroups,
                options: &self.options,
            })
        }
    }

    const ALL_V1: &str = "cpu cpuacct cpuset devices freezer memory pids hugetlb blkio";
    const ALL_V2: &str = "devices freezer cpuset cpu io memory hugetlb pids rdma";

    fn severities(report: &Report) -> Vec<Severity> {
        report.findings.iter().map(|finding| finding.severity).collect()
    }

    #[test]
    fn healthy_machine_passes_with_evidence() {
        let report = machine(CgroupVersion::V2, ALL_V2).judge();
        assert_eq!(report.told(), []);
        assert!(report.evidence.contains(&("cgroup version".to_owned(), "v2".to_owned())));
    }

    #[test]
    fn cgroup_v1_is_an_error_from_kubelet_1_35_on_and_a_warning_before() {
        let mut machine = machine(CgroupVersion::V1, ALL_V1);
        for (kubelet, severity) in
            [("1.37.2", Fatal), ("1.35.0", Fatal), ("1.35.0-alpha.1", Fatal), ("1.34.8", Warning)]
        {
            machine.kubelet.version = Some(format!("Kubernetes v{kubelet}"));
            let report = machine.judge();
            assert_eq!(severities(&report), [severity], "{kubelet}");
            assert!(report.findings[0].message.starts_with("cgroups v1 support is deprecated"), "{kubelet}");
        }
    }

    #[test]
    fn missing_controller_does_not_hide_the_cgroup_v1_error() {
        let report = machine(CgroupVersion::V1, "cpu cpuacct cpuset devices freezer hugetlb blkio").judge();
        assert_eq!(severities(&report), [Fatal, Fatal]);
        assert_eq!(report.told()[1], (Fatal, "missing required cgroups: memory pids"));
    }

    #[test]
    fn missing_optional_controllers_warn() {
        let report = machine(CgroupVersion::V2, "devices freezer cpuset cpu memory pids").judge();
        assert_eq!(report.told(), [(Warning, "missing optional cgroups: hugetlb io")]);
    }

    #[test]
    fn no_control_groups_is_an_error() {
        let report = machine(CgroupVersion::None, "").judge();
        assert_eq!(severities(&report), [Fatal]);
        assert!(report.told()[0].1.starts_with("cannot get a cgroup mount point"));
    }

    #[test]
    fn unknown_kubelet_version_is_the_only_finding() {
        let mut machine = machine(CgroupVersion::V1, "");
        machine.kubelet.version = None;
        machine.kernel.release = "4.4.0".into();
        let report = machine.judge();
        assert_eq!(severities(&report), [Fatal]);
        assert!(report.told()[0].1.starts_with("couldn't get kubelet version"));
    }

    #[test]
    fn unreadable_configuration_old_kernel_and_other_system_are_found_in_order() {
        let mut machine = machine(CgroupVersion::V2, ALL_V2);
        machine.kernel = KernelInfo { name: "GNU".into(), release: "4.19.0".into(), machine: "i686".into() };
        machine.options =
            Err(Error { code: "not-found".into(), message: "looked at /proc/config.gz".into(), retryable: false });
        let report = machine.judge();
        assert_eq!(severities(&report), [Warning, Fatal, Fatal]);
        assert!(report.told()[0].1.starts_with("kernel release 4.19.0 is unsupported"));
        assert_eq!(report.told()[1].1, "failed to parse kernel config: looked at /proc/config.gz");
        assert_eq!(report.told()[2].1, "unsupported operating system: GNU");
    }

    #[test]
    fn swap_warns_and_names_the_areas() {
        assert_eq!(judge_swap(&[]).told(), []);
        let report = judge_swap(&["/dev/sda2".into(), "/swapfile".into()]);
        assert_eq!(severities(&report), [Warning]);
        assert_eq!(report.findings[0].evidence, [("swap areas".to_owned(), "/dev/sda2 /swapfile".to_owned())]);
    }
}
