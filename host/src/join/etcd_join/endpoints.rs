//! Where etcd's members are, found by the annotation that kubeadm puts on their static Pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Resource as _;
use kube::api::ListParams;
use kube::core::ObjectList;

use super::{EtcdJoinError, PHASE};
use crate::api::retry::{Finding, Patience};
use crate::api::{ApiError, ask, quoted};
use crate::output::Reporter;

/// The labels of etcd's static Pods.
const LABELS: &str = "component=etcd,tier=control-plane";
/// The annotation of kubeadm, the same whatever the member's extra arguments say.
const ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";

/// What the Pods tell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    /// Client URLs, each once.
    endpoints: Vec<String>,
    /// Pods without the annotation.
    silent: Vec<String>,
}

/// Client URLs of all members whose Pods tell them. A Pod that does not is told to the user: kubeadm stops there, but the
/// members know each other.
///
/// # Errors
///
/// [`EtcdJoinError::Pods`], [`EtcdJoinError::NoPods`], after `timeout` where that may pass.
pub async fn find(
    api: &kube::Client,
    reporter: &Reporter,
    timeout: Duration,
    fail_fast: bool,
) -> Result<Vec<String>, EtcdJoinError> {
    let patience = Patience { reporter, phase: PHASE, what: "the list of etcd's Pods", timeout, fail_fast };
    let told = patience
        .until_ok(async || match list(api).await {
            Ok(told) if told.endpoints.is_empty() => {
                Err(Finding::MayPass(EtcdJoinError::NoPods { silent: told.silent }))
            }
            Ok(told) => Ok(told),
            Err(source) => {
                let passes = source.may_pass() && !matches!(source.status(), Some(401 | 403));
                let error = EtcdJoinError::Pods { source };
                Err(if passes { Finding::MayPass(error) } else { Finding::Final(error) })
            }
        })
        .await?;
    if !told.silent.is_empty() {
        let pods = told.silent.join("`, `");
        reporter.warn(
            Some(PHASE),
            format!("Pod `{pods}` has no annotation `{ANNOTATION}`; its member is found by the others"),
        );
    }
    Ok(told.endpoints)
}

async fn list(api: &kube::Client) -> Result<Told, ApiError> {
    let path = kube::core::Request::new(Pod::url_path(&(), Some("kube-system")));
    let pods: ObjectList<Pod> = ask(api, path.list(&ListParams::default().labels(LABELS))).await?;
    Ok(told_by(&pods.items))
}

fn told_by(pods: &[Pod]) -> Told {
    let mut told = Told { endpoints: Vec::new(), silent: Vec::new() };
    for pod in pods {
        let annotations = pod.metadata.annotations.as_ref();
        let urls = annotations.and_then(|annotations| annotations.get(ANNOTATION)).map_or("", String::as_str);
        let mut urls = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).peekable();
        if urls.peek().is_none() {
            told.silent.push(quoted(pod.metadata.name.as_deref().unwrap_or("?")));
        }
        for url in urls {
            if !told.endpoints.iter().any(|other| other == url) {
                told.endpoints.push(url.to_owned());
            }
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, urls: Option<&str>) -> Pod {
        let annotations = urls.map(|urls| [(ANNOTATION.to_owned(), urls.to_owned())].into());
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.annotations = annotations;
        pod
    }

    #[test]
    fn keeps_every_endpoint_and_names_the_pods_that_have_none() {
        let pods = [
            pod("etcd-a", Some("https://192.0.2.11:2379")),
            pod("etcd-b", None),
            pod("etcd-c", Some("https://192.0.2.13:2379, https://[2001:db8::3]:2379")),
            pod("etcd-d", Some("")),
            pod("etcd-e", Some("https://192.0.2.11:2379")),
        ];
        let told = told_by(&pods);
        assert_eq!(
            told.endpoints,
            ["https://192.0.2.11:2379", "https://192.0.2.13:2379", "https://[2001:db8::3]:2379"]
        );
        assert_eq!(told.silent, ["etcd-b", "etcd-d"]);
    }
}
