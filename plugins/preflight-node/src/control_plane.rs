//! What only a control plane needs: a larger machine, free ports and directories, an etcd it can reach.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::facts::UnitInfo;
use crate::bindings::mortise::host::types::Error;

/// Processors that a control plane needs.
const CPUS: u32 = 2;
/// Memory that a control plane needs, in MiB; kubeadm leaves room for what a machine of 2 GB keeps for itself.
const MEMORY_MIB: u64 = 1700;

/// `NumCPU`.
pub fn judge_cpus(usable: u32) -> Report {
    let report = Report::passed().seen("usable CPUs", usable).seen("required", CPUS);
    if usable >= CPUS {
        return report;
    }
    report.with(
        Finding::error(format_args!("the number of available CPUs {usable} is less than the required {CPUS}"))
            .remedy("give the machine more processors, or this process more of them (`taskset -p $$`)"),
    )
}

/// `Mem`.
pub fn judge_memory(total_bytes: u64) -> Report {
    let mib = total_bytes >> 20;
    let report = Report::passed().seen("memory in MiB", mib).seen("required", MEMORY_MIB);
    if mib >= MEMORY_MIB {
        return report;
    }
    report.with(
        Finding::error(format_args!("the system RAM ({mib} MB) is less than the minimum {MEMORY_MIB} MB"))
            .remedy("give the machine more memory"),
    )
}

/// `KubernetesVersion`: the cluster is not of a later minor than this mortise, built for Kubernetes 1.`minor`.
pub fn judge_cluster_version(version: &str, minor: u32) -> Report {
    let report = Report::passed().seen("cluster", version).seen("newest supported", format_args!("1.{minor}"));
    let mut numbers = version.trim_start_matches('v').split('.').map(|number| number.parse::<u32>().ok());
    let (Some(Some(major)), Some(Some(cluster_minor))) = (numbers.next(), numbers.next()) else {
        return report.with(
            Finding::error(format_args!("couldn't parse Kubernetes version \"{version}\""))
                .remedy("`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows `kubernetesVersion`"),
        );
    };
    if (major, cluster_minor) <= (1, minor) {
        return report;
    }
    report.with(
        Finding::warning(format_args!(
            "Kubernetes version is greater than mortise version. Please consider to upgrade mortise. Kubernetes \
             version: {version}. Mortise is for: 1.{minor}.x"
        ))
        .remedy("join with a mortise that is built for the cluster's version"),
    )
}

/// `Firewalld`: one that runs lets nothing through that it is not told to.
pub fn judge_firewall(unit: &UnitInfo, ports: &[u16]) -> Report {
    if unit.init_system.is_none() {
        return Report::of(
            Finding::warning("no supported init system detected, skipping checking for services")
                .seen("looked for", "systemctl, openrc")
                .remedy("make sure that no firewall closes the ports of the API server and the kubelet"),
        );
    }
    let report = Report::passed().seen("firewalld exists", unit.exists).seen("active", unit.active);
    if !(unit.exists && unit.active) {
        return report;
    }
    let listed = ports.iter().map(u16::to_string).reduce(|list, port| list + " " + &port).unwrap_or_default();
    let open = ports.iter().fold(String::new(), |flags, port| format!("{flags} --add-port={port}/tcp"));
    report.with(
        Finding::warning(format_args!(
            "firewalld is active, please ensure ports [{listed}] are open or your cluster may not function correctly"
        ))
        .remedy(format_args!("`firewall-cmd --permanent{open} && firewall-cmd --reload`")),
    )
}

/// What is in etcd's data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directory {
    /// Nothing, or it does not exist.
    Empty,
    /// Only what an earlier run of this join had made there.
    Ours,
    /// Something else, by one name.
    Foreign(String),
}

/// `DirAvailable-…`: no other member left its data.
pub fn judge_directory(path: &str, found: &Result<Directory, Error>) -> Report {
    let keep = "if this machine is to leave the cluster it was in, run `mortise reset`; if its data still matters, save it first";
    match found {
        Ok(Directory::Empty) => Report::passed().seen(path, "empty or absent"),
        Ok(Directory::Ours) => Report::passed().seen(path, "filled since an earlier run of this join"),
        Ok(Directory::Foreign(name)) => {
            Report::of(Finding::error(format_args!("{path} is not empty")).seen(path, name).remedy(keep))
        }
        Err(error) => Report::of(
            Finding::error(format_args!("unable to check if {path} is empty: {}", error.message)).remedy(keep),
        ),
    }
}

/// `ExternalEtcdClientCertificates`: each file that the cluster's configuration names, and whether it is there.
pub fn judge_certificates(files: &[(String, bool)]) -> Report {
    let mut report = Report::passed();
    for (path, exists) in files {
        if *exists {
            report = report.seen(path, "present");
        } else {
            report.findings.push(Finding::error(format_args!("{path} doesn't exist")).seen(path, "absent").remedy(
                "copy the file from another control plane, or let `--certificate-key` fetch it from the cluster",
            ));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::{Error as Fatal, Warning};

    #[test]
    fn two_processors_and_1700_mib_are_enough() {
        assert_eq!(judge_cpus(2).told(), []);
        let few = judge_cpus(1);
        assert_eq!(few.told(), [(Fatal, "the number of available CPUs 1 is less than the required 2")]);
        assert_eq!(judge_memory(1700 << 20).told(), []);
        let little = judge_memory((1700 << 20) - 1);
        assert_eq!(little.told(), [(Fatal, "the system RAM (1699 MB) is less than the minimum 1700 MB")]);
    }

    #[test]
    fn cluster_of_a_later_minor_warns_from_its_first_pre_release_on() {
        for version in ["v1.37.2", "v1.37.99", "v1.34.0-rc.1+abc", "1.36.0"] {
            assert_eq!(judge_cluster_version(version, 37).told(), [], "{version}");
        }
        for version in ["v1.38.0-alpha.0", "v1.38.0", "v2.0.0"] {
            let report = judge_cluster_version(version, 37);
            assert_eq!(report.findings[0].severity, Warning, "{version}");
            assert!(report.findings[0].message.ends_with(&format!("version: {version}. Mortise is for: 1.37.x")));
        }
        for version in ["", "v1", "1.x.0"] {
            assert_eq!(judge_cluster_version(version, 37).findings[0].severity, Fatal, "{version}");
        }
    }

    #[test]
    fn firewall_is_a_warning_that_names_the_ports() {
        let unit = |exists, active| UnitInfo { init_system: Some("systemd".into()), exists, enabled: true, active };
        assert_eq!(judge_firewall(&unit(false, false), &[6443, 10250]).told(), []);
        assert_eq!(judge_firewall(&unit(true, false), &[6443, 10250]).told(), []);
        let report = judge_firewall(&unit(true, true), &[6443, 10250]);
        let message =
            "firewalld is active, please ensure ports [6443 10250] are open or your cluster may not function correctly";
        assert_eq!(report.told(), [(Warning, message)]);
        assert!(report.findings[0].remedy.as_ref().unwrap().contains("--add-port=6443/tcp --add-port=10250/tcp &&"));
        let none = UnitInfo { init_system: None, exists: false, enabled: false, active: false };
        assert_eq!(judge_firewall(&none, &[]).findings[0].severity, Warning);
    }

    #[test]
    fn data_of_another_member_is_an_error_and_our_own_is_not() {
        let path = "/var/lib/etcd";
        assert_eq!(judge_directory(path, &Ok(Directory::Empty)).told(), []);
        assert_eq!(judge_directory(path, &Ok(Directory::Ours)).told(), []);
        let foreign = judge_directory(path, &Ok(Directory::Foreign("member".into())));
        assert_eq!(foreign.told(), [(Fatal, "/var/lib/etcd is not empty")]);
        assert_eq!(foreign.findings[0].evidence, [(path.to_owned(), "member".to_owned())]);
        let error = Error { code: "invalid".into(), message: "it is a file".into(), retryable: false };
        let unseen = judge_directory(path, &Err(error));
        assert_eq!(unseen.told(), [(Fatal, "unable to check if /var/lib/etcd is empty: it is a file")]);
    }

    #[test]
    fn each_absent_certificate_of_an_external_etcd_is_an_error() {
        let files = [("/e/ca.crt".to_owned(), true), ("/e/c.crt".to_owned(), false), ("/e/c.key".to_owned(), false)];
        let expected = [(Fatal, "/e/c.crt doesn't exist"), (Fatal, "/e/c.key doesn't exist")];
        assert_eq!(judge_certificates(&files).told(), expected);
        assert_eq!(judge_certificates(&files[..1]).told(), []);
    }
}
