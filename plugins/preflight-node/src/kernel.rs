//! The kernel's release and build options, by the rules of system-validators 1.12.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::CgroupVersion;

/// A build option; a later name is an older kernel's.
type Names = &'static [&'static str];

const REQUIRED: &[Names] = &[
    &["NAMESPACES"],
    &["NET_NS"],
    &["PID_NS"],
    &["IPC_NS"],
    &["UTS_NS"],
    &["CPUSETS"],
    &["MEMCG"],
    &["INET"],
    &["EXT4_FS"],
    &["PROC_FS"],
    &["NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT"],
    &["NETFILTER_XT_MATCH_COMMENT"],
    &["FAIR_GROUP_SCHED"],
];

const REQUIRED_ON_V1: &[Names] =
    &[&["CGROUPS"], &["CGROUP_CPUACCT"], &["CGROUP_DEVICE"], &["CGROUP_FREEZER"], &["CGROUP_PIDS"], &["CGROUP_SCHED"]];

const REQUIRED_ON_V2: &[Names] = &[&["CGROUPS"], &["CGROUP_BPF"], &["CGROUP_PIDS"], &["CGROUP_SCHED"]];

const OPTIONAL: &[Names] = &[
    &["OVERLAY_FS", "OVERLAYFS_FS"],
    &["AUFS_FS"],
    &["BLK_DEV_DM"],
    &["CFS_BANDWIDTH"],
    &["SECCOMP"],
    &["SECCOMP_FILTER"],
];

const SUPPORTED: &str =
    "5.4, 5.10 and 5.15 of the 5.x series, and 6.0 or newer; for cgroup v2 5.10 or newer is recommended";

/// Warns about a kernel that is not one of those Kubernetes is tested with.
pub fn judge_release(release: &str) -> Option<Finding> {
    (!is_supported(release)).then(|| {
        Finding::warning(format_args!("kernel release {release} is unsupported; supported are {SUPPORTED}"))
            .seen("kernel", release)
            .remedy("boot a supported kernel, where the distribution has one")
    })
}

/// `^5\.4.*$`, `^5\.10.*$`, `^5\.15.*$` or `^([6-9]|[1-9][0-9]+)\.([0-9]+)\.([0-9]+).*$`.
fn is_supported(release: &str) -> bool {
    if ["5.4", "5.10", "5.15"].iter().any(|series| release.starts_with(series)) {
        return true;
    }
    let mut parts = release.splitn(3, '.');
    let (Some(major), Some(minor), Some(patch)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(major)
        && !major.starts_with('0')
        && (major.len() > 1 || major >= "6")
        && digits(minor)
        && patch.starts_with(|first: char| first.is_ascii_digit())
}

/// Every name that [`judge_options`] wants to know, in its order.
pub fn option_names(cgroups: CgroupVersion) -> Vec<String> {
    wanted(cgroups).flat_map(|(names, _)| names.iter().map(|name| (*name).to_owned())).collect()
}

/// Judges the values of [`option_names`]: missing required ones are one error; missing optional ones are evidence.
///
/// `y` and `m` are set; anything else counts as missing.
pub fn judge_options(cgroups: CgroupVersion, values: &[Option<String>], report: Report) -> Report {
    let mut values = values.iter();
    let (mut unset, mut unset_optional, mut required_count) = (Vec::new(), Vec::new(), 0);
    for (names, required) in wanted(cgroups) {
        // All of them, so that the next option finds its own.
        let given: Vec<_> = values.by_ref().take(names.len()).collect();
        let known = names.iter().zip(given).find_map(|(name, value)| Some((*name, value.as_deref()?)));
        // kubeadm names the last alias it tried.
        let (name, value) = known.unwrap_or((names[names.len() - 1], "not set"));
        required_count += usize::from(required);
        match (matches!(value, "y" | "m"), required) {
            (true, _) => {}
            (false, true) => unset.push((name, value)),
            (false, false) => unset_optional.push(name),
        }
    }
    let mut report = report
        .seen("required kernel options set", format_args!("{} of {required_count}", required_count - unset.len()));
    if !unset_optional.is_empty() {
        report = report.seen("optional kernel options not set", listed(&unset_optional));
    }
    if unset.is_empty() {
        return report;
    }
    let names: Vec<_> = unset.iter().map(|(name, _)| *name).collect();
    let mut finding = Finding::error(format_args!("unexpected kernel config: {}", listed(&names)))
        .remedy("boot a kernel that was built with these options, as modules or built in");
    for (name, value) in unset {
        finding = finding.seen(&format!("CONFIG_{name}"), value);
    }
    report.with(finding)
}

fn wanted(cgroups: CgroupVersion) -> impl Iterator<Item = (Names, bool)> {
    let of_cgroups = if cgroups == CgroupVersion::V2 { REQUIRED_ON_V2 } else { REQUIRED_ON_V1 };
    let required = REQUIRED.iter().chain(of_cgroups).map(|names| (*names, true));
    required.chain(OPTIONAL.iter().map(|names| (*names, false)))
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("CONFIG_{name}")).reduce(|list, name| list + " " + &name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::Error as Fatal;

    fn values(cgroups: CgroupVersion, differ: &[(&str, Option<&str>)]) -> Vec<Option<String>> {
        let value = |name: &String| match differ.iter().find(|(different, _)| different == name) {
            Some((_, value)) => value.map(str::to_owned),
            None => Some("y".to_owned()),
        };
        option_names(cgroups).iter().map(value).collect()
    }

    #[test]
    fn releases_are_matched_as_kubeadm_matches_them() {
        for release in [
            "5.4.0",
            "5.4",
            "5.40.1",
            "5.10.0-28-amd64",
            "5.15.167.4-WSL2",
            "6.1.0-18-amd64",
            "6.18.0",
            "10.0.1",
            "7.0.0rc1",
        ] {
            assert!(judge_release(release).is_none(), "{release}");
        }
        for release in ["4.19.0", "5.11.0", "6.1", "6.x.1", "06.1.0", "5", "", "6..1", "6.1.", "6.1.x", "x.1.1"] {
            assert!(judge_release(release).is_some(), "{release}");
        }
    }

    #[test]
    fn full_configuration_passes_built_in_or_as_modules() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            let mut all = values(version, &[]);
            assert_eq!(judge_options(version, &all, Report::passed()).told(), []);
            all.fill(Some("m".to_owned()));
            assert_eq!(judge_options(version, &all, Report::passed()).told(), []);
        }
    }

    #[test]
    fn missing_options_are_one_error_that_names_all_and_their_values() {
        let values = values(CgroupVersion::V2, &[("MEMCG", None), ("INET", Some("n")), ("CGROUP_BPF", None)]);
        let report = judge_options(CgroupVersion::V2, &values, Report::passed());
        assert_eq!(report.told(), [(Fatal, "unexpected kernel config: CONFIG_MEMCG CONFIG_INET CONFIG_CGROUP_BPF")]);
        let evidence = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            report.findings[0].evidence,
            [
                evidence("CONFIG_MEMCG", "not set"),
                evidence("CONFIG_INET", "n"),
                evidence("CONFIG_CGROUP_BPF", "not set")
            ]
        );
        assert_eq!(report.evidence[0], evidence("required kernel options set", "14 of 17"));
    }

    #[test]
    fn alias_stands_in_for_its_option() {
        let (new, old) = ("NETFILTER_XT_TARGET_REDIRECT", "IP_NF_TARGET_REDIRECT");
        let judge =
            |differ: &[_]| judge_options(CgroupVersion::V2, &values(CgroupVersion::V2, differ), Report::passed());
        assert_eq!(judge(&[(new, None)]).told(), []);
        assert_eq!(judge(&[(old, None)]).told(), []);
        let told = [(Fatal, "unexpected kernel config: CONFIG_IP_NF_TARGET_REDIRECT")];
        assert_eq!(judge(&[(new, None), (old, None)]).told(), told);
    }

    #[test]
    fn missing_optional_options_are_evidence_only() {
        let report = judge_options(
            CgroupVersion::V1,
            &values(CgroupVersion::V1, &[("AUFS_FS", None), ("SECCOMP", Some("n"))]),
            Report::passed(),
        );
        assert_eq!(report.told(), []);
        assert_eq!(report.evidence[1].1, "CONFIG_AUFS_FS CONFIG_SECCOMP");
    }

    #[test]
    fn options_of_the_other_cgroup_version_are_not_asked_for() {
        assert!(option_names(CgroupVersion::V1).contains(&"CGROUP_CPUACCT".to_owned()));
        assert!(!option_names(CgroupVersion::V2).contains(&"CGROUP_CPUACCT".to_owned()));
        assert!(!option_names(CgroupVersion::V1).contains(&"CGROUP_BPF".to_owned()));
    }

    #[test]
    fn too_few_values_count_as_missing() {
        assert_eq!(judge_options(CgroupVersion::V2, &[], Report::passed()).findings.len(), 1);
    }
}
