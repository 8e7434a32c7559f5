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
                // An API server that starts forbids everything until it has read the cluster's roles, so 403 may pass.
                let passes = source.may_pass() && source.status() != Some(401);
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
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::api::scripted::{Authority, Reply, Script, status, test_context};
    use crate::config::Discovery;
    use crate::join::Access;

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

    // Seen where etcd, and with it the only API server, had just come back.
    #[tokio::test]
    async fn asks_again_where_a_starting_api_server_forbids_it_and_not_where_it_knows_nobody() {
        const PATH: &str = "/api/v1/namespaces/kube-system/pods?";
        let authority = Authority::new();
        let script = Script::new()
            .listen("api.example:6443", &authority, &["api.example"])
            .on(Method::GET, PATH, |_| status(403, "Forbidden"))
            .on(Method::GET, PATH, |_| {
                let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {},
                    "items": [pod("etcd-a", Some("https://192.0.2.11:2379"))]});
                Reply::Json(200, list)
            })
            .on(Method::GET, PATH, |_| status(401, "Unauthorized"))
            .start();
        let (_directory, cx) = test_context(&script.dialer, Discovery::Recorded);
        let cluster = authority.cluster("https://api.example:6443");
        let access = Access::new(cx.dialer.clone(), cluster, None).unwrap();
        let patience = Duration::from_secs(30);
        let found = find(access.client(), &cx.reporter, patience, false).await.unwrap();
        assert_eq!(found, ["https://192.0.2.11:2379"]);
        let refused = find(access.client(), &cx.reporter, patience, false).await.unwrap_err();
        assert!(matches!(refused, EtcdJoinError::Pods { source } if source.status() == Some(401)));
        script.finish();
    }
}
