//! With which API server the kubelet of a control plane works while it joins, and whether its version allows it.
//!
//! A kubelet must not be newer than its API server (the version skew policy of Kubernetes). While a control plane joins, its
//! kubelet works with the server that discovery found, which in the middle of an upgrade may be older than the one that this
//! machine will run. Then it goes kubeadm's way: it works with the local server from the start, though none runs yet, and
//! comes to it some seconds later. Behind a balancer one server answers for all.
//!
//! A kubelet newer than the cluster is newer than the local server as well, and no order helps. kubeadm refuses it at
//! `init` by its check `KubeletVersion` and takes it at `join`; here it is refused in the same words, unless ignored.

use k8s_openapi::apimachinery::pkg::version::Info;
use thiserror::Error;

use crate::api::{ApiError, ask};
use crate::error::{Diagnose, ExitCode};
use crate::facts::{Fact, FactRequest, FactSource};
use crate::join::cluster_configuration::minor_version;
use crate::join::{Access, JoinContext};
use crate::output::{Event, printable};
use crate::plugin::{CheckResult, Finding, Severity};

/// As `--ignore-preflight-errors` takes it.
const ID: &str = "KubeletVersion";
/// What `kubelet --version` prints before the version.
const PROGRAM: &str = "Kubernetes ";

/// With which API server the kubelet works until the local one is healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeletServer {
    /// The one that discovery found.
    Discovered,
    /// The local one, as with kubeadm.
    Local,
}

/// The version of this machine's kubelet, for example `v1.37.2`; none: it does not tell, which checks and start complain of.
pub async fn kubelet_version(facts: &dyn FactSource) -> Option<String> {
    let Ok(Fact::Executable(Some(kubelet))) = facts.ask(&FactRequest::Executable { name: "kubelet".into() }).await
    else {
        return None;
    };
    Some(printable(kubelet.version?.strip_prefix(PROGRAM)?.trim()))
}

/// The version of the API server that discovery found, for example `v1.37.2`. Whoever is authenticated may ask for it.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn server_version(access: &Access) -> Result<String, ApiError> {
    let request = http::Request::get("/version").body(Vec::new()).map_err(kube::core::request::Error::BuildRequest);
    Ok(printable(&ask::<Info>(access.client(), request).await?.git_version))
}

/// The server for a kubelet of this version. Where one of the versions is not known, the kubelet counts as not newer.
pub fn choose(kubelet: Option<&str>, server: &str) -> KubeletServer {
    if is_newer(kubelet, server) { KubeletServer::Local } else { KubeletServer::Discovered }
}

/// Patch releases do not count.
fn is_newer(kubelet: Option<&str>, server: &str) -> bool {
    let minors = kubelet.and_then(|kubelet| Some((minor_version(kubelet).ok()?, minor_version(server).ok()?)));
    minors.is_some_and(|(kubelet, server)| kubelet > server)
}

/// Tells the check of a kubelet that is newer than the cluster; of another one, nothing.
///
/// # Errors
///
/// [`SkewError::Failed`].
pub fn check(kubelet: Option<&str>, cluster_version: &str, cx: &JoinContext) -> Result<(), SkewError> {
    let Some(kubelet) = kubelet.filter(|kubelet| is_newer(Some(kubelet), cluster_version)) else { return Ok(()) };
    let mut check = CheckResult::of_host(ID, "the kubelet is not newer than the cluster");
    check.evidence = vec![("kubelet".into(), kubelet.into()), ("cluster".into(), printable(cluster_version))];
    check.findings.push(Finding {
        severity: Severity::Error,
        message: printable(&format!(
            "the kubelet version is higher than the control plane version. This is not a supported version skew and may \
             lead to a malfunctional cluster. Kubelet version: \"{kubelet}\" Control plane version: \"{cluster_version}\""
        )),
        evidence: Vec::new(),
        remedy: Some(printable(&format!(
            "install a kubelet of {cluster_version} on this machine, or upgrade the cluster first, with `kubeadm upgrade \
             apply {kubelet}` on another control plane"
        ))),
    });
    let check = check.weighed(&cx.settings.ignore);
    let failed = check.failed();
    cx.reporter.tell(&Event::Check(check));
    if failed { Err(SkewError::Failed) } else { Ok(()) }
}

/// The kubelet is too new.
#[derive(Debug, Error)]
pub enum SkewError {
    /// The check failed, and is not ignored.
    #[error("preflight checks failed: {ID}")]
    Failed,
}

impl Diagnose for SkewError {
    fn code(&self) -> &'static str {
        "preflight-failed"
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "mend what the check names, or make its errors warnings with `--ignore-preflight-errors={ID}`: the kubelet then \
             works with the local API server from the start"
        ))
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Preflight
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::scripted::{Authority, Reply, Script, status};
    use crate::config::Discovery;
    use crate::join::control_plane::fixture;

    #[test]
    fn a_kubelet_of_a_higher_minor_works_with_the_local_server() {
        for (kubelet, server, chosen) in [
            (Some("v1.37.2"), "v1.36.4", KubeletServer::Local),
            (Some("v1.37.0-rc.1"), "v1.36.4+k3s1", KubeletServer::Local),
            (Some("v1.37.2"), "v1.37.0", KubeletServer::Discovered),
            (Some("v1.36.4"), "v1.37.2", KubeletServer::Discovered),
            (Some("v1.100.0"), "v1.99.0", KubeletServer::Local),
            (None, "v1.36.4", KubeletServer::Discovered),
            (Some("odd"), "v1.36.4", KubeletServer::Discovered),
            (Some("v1.37.2"), "", KubeletServer::Discovered),
        ] {
            assert_eq!(choose(kubelet, server), chosen, "{kubelet:?} at {server}");
        }
    }

    #[test]
    fn a_kubelet_newer_than_the_cluster_is_refused_unless_that_is_ignored() {
        let (_directory, cx) = fixture::machine();
        assert!(check(Some("v1.37.2"), "v1.37.0", &cx).is_ok());
        let refused = check(Some("v1.37.2"), "v1.36.4", &cx).unwrap_err();
        assert_eq!(refused.exit_code(), ExitCode::Preflight);
        assert!(refused.to_string().ends_with(ID));
        let cx = cx.with(|settings| settings.ignore.names = vec!["kubeletversion".into()]);
        assert!(check(Some("v1.37.2"), "v1.36.4", &cx).is_ok());
    }

    // The answer's form is that of a real API server: tests/control-plane/ways.rs compares.
    #[tokio::test]
    async fn the_server_is_asked_for_its_version_as_the_joining_node() {
        let authority = Authority::new();
        let answer = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.4", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-11-01T00:00:00Z", "goVersion": "go1.26", "compiler": "gc", "platform": "linux/amd64"});
        let script = Script::new()
            .listen("api.example:6443", &authority, &["api.example"])
            .get("/version", Reply::Json(200, answer))
            .get("/version", status(403, "Forbidden"))
            .start();
        let (_directory, cx) = crate::api::scripted::test_context(&script.dialer, Discovery::Recorded);
        let cluster = authority.cluster("https://api.example:6443");
        let access = Access::new(cx.dialer.clone(), cluster, None).unwrap();
        assert_eq!(server_version(&access).await.unwrap(), "v1.36.4");
        assert_eq!(server_version(&access).await.unwrap_err().status(), Some(403));
        script.finish();
    }
}
