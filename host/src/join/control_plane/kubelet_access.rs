//! Whether this machine's API server may talk to kubelets: what `kubectl logs` and `exec` through it need.
//!
//! Since 1.37 and the patch releases of its time, kubeadm gives the API server's client certificate no organization; its
//! rights come from ClusterRoleBinding `kubeadm:apiserver-kubelet-client`, which `init` and `upgrade apply` make and `join`
//! does not. In a cluster that an older kubeadm made it is missing, and nobody notices before the first 403. So the cluster
//! is asked what this machine's certificate may do; another binding, or an organization in a certificate of the operator's
//! own, does as well.

use std::path::Path;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};

use super::admin::Admin;
use super::certs::{FILE_LIMIT_BYTES, file};
use super::configuration::ControlPlaneConfiguration;
use crate::api::{ApiError, create};
use crate::join::JoinContext;
use crate::output::printable;
use crate::pki::Certificate;

/// Phase id of what is told.
const PHASE: &str = "wait-control-plane";
/// Everybody who is authenticated is in it.
const AUTHENTICATED: &str = "system:authenticated";

/// Warns where this machine's API server is not allowed to talk to kubelets. Nothing else depends on it, so that it never
/// fails a join.
pub async fn look(configuration: &ControlPlaneConfiguration, cx: &JoinContext) {
    let step = cx.reporter.step(PHASE, "look whether the API server may talk to kubelets");
    match allowed(configuration, cx).await {
        Ok(Allowed::Yes) => step.done("it may"),
        Ok(Allowed::No { user }) => cx.reporter.warn(Some(PHASE), refused(&user)),
        Err(why) => {
            cx.reporter.warn(Some(PHASE), format!("cannot see whether the API server may talk to kubelets: {why}"))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    Yes,
    No {
        /// Who is not, printable.
        user: String,
    },
}

/// What to do about it.
fn refused(user: &str) -> String {
    format!(
        "the cluster does not allow user `{user}`, as whom this machine's API server talks to kubelets, what `kubectl logs` \
         and `kubectl exec` need; an older kubeadm made it without the binding. This makes it: `kubectl create \
         clusterrolebinding kubeadm:apiserver-kubelet-client --clusterrole=system:kubelet-api-admin --user={user}`"
    )
}

async fn allowed(configuration: &ControlPlaneConfiguration, cx: &JoinContext) -> Result<Allowed, String> {
    let certificate = certificate(&file(configuration, "apiserver-kubelet-client.crt"), cx)?;
    let client = Admin::load(cx).and_then(|admin| admin.client(cx)).map_err(|error| error.to_string())?;
    ask(&client, &certificate).await.map_err(|error| error.to_string())
}

async fn ask(client: &kube::Client, certificate: &Certificate) -> Result<Allowed, ApiError> {
    let groups = certificate.organizations.iter().cloned().chain([AUTHENTICATED.to_owned()]);
    let question = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(certificate.common_name.clone()),
            groups: Some(groups.collect()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some("create".into()),
                resource: Some("nodes".into()),
                subresource: Some("proxy".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = create(client, None, &question).await?;
    Ok(match answer.status {
        Some(status) if status.allowed => Allowed::Yes,
        _ => Allowed::No { user: printable(&certificate.common_name) },
    })
}

fn certificate(path: &Path, cx: &JoinContext) -> Result<Certificate, String> {
    let content = cx.node.read(path, FILE_LIMIT_BYTES).map_err(|error| error.to_string())?;
    let content = content.ok_or_else(|| format!("`{}` is missing", path.display()))?;
    let mut chain = Certificate::parse_pem(&content).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(chain.swap_remove(0))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::scripted::{Authority, Reply, Script, status, test_context};
    use crate::config::Discovery;
    use crate::join::Access;
    use crate::join::control_plane::keys_ahead::Keys;
    use crate::join::control_plane::{certs, fixture};

    const PATH: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews?";

    fn answer(allowed: bool) -> Reply {
        let status = json!({"allowed": allowed, "denied": false});
        let review = json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {},
            "spec": {}, "status": status});
        Reply::Json(201, review)
    }

    // That a real cluster answers so is shown in tests/control-plane/ways.rs.
    #[tokio::test]
    async fn the_cluster_is_asked_what_the_certificate_on_this_machine_may_do() {
        let authority = Authority::new();
        let script = Script::new()
            .listen("api.example:6443", &authority, &["api.example"])
            .on(Method::POST, PATH, |request| {
                let asked: Value = serde_json::from_slice(request.body()).unwrap();
                let expected = json!({"user": "kube-apiserver-kubelet-client", "groups": [AUTHENTICATED],
                    "resourceAttributes": {"verb": "create", "resource": "nodes", "subresource": "proxy"}});
                if asked["spec"] == expected { answer(false) } else { status(400, "BadRequest") }
            })
            .on(Method::POST, PATH, |_| answer(true))
            .on(Method::POST, PATH, |_| status(403, "Forbidden"))
            .start();
        let (directory, cx) = test_context(&script.dialer, Discovery::Recorded);
        fixture::put_shared(directory.path());
        certs::write(&fixture::configuration(), &fixture::local(), &mut Keys::default(), &cx).await.unwrap();
        let ours = certificate(Path::new("/etc/kubernetes/pki/apiserver-kubelet-client.crt"), &cx).unwrap();
        let cluster = authority.cluster("https://api.example:6443");
        let access = Access::new(cx.dialer.clone(), cluster, None).unwrap();
        let user = "kube-apiserver-kubelet-client".to_owned();
        assert_eq!(ask(access.client(), &ours).await.unwrap(), Allowed::No { user });
        assert_eq!(ask(access.client(), &ours).await.unwrap(), Allowed::Yes);
        assert_eq!(ask(access.client(), &ours).await.unwrap_err().status(), Some(403));
        script.finish();
    }

    #[test]
    fn the_command_in_the_warning_makes_kubeadms_binding() {
        let text = refused("kube-apiserver-kubelet-client");
        let command = "kubectl create clusterrolebinding kubeadm:apiserver-kubelet-client \
                       --clusterrole=system:kubelet-api-admin --user=kube-apiserver-kubelet-client`";
        assert!(text.ends_with(command), "{text}");
    }
}
