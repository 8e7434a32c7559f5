//! The two servers, and the identities that ask them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use kube::config::Kubeconfig;
use mortise::api::Dialer;
use mortise::sandbox::client::{Answer, Client, Identity};
use mortise::sandbox::control_plane::{ControlPlane, ControlPlaneOptions, random_token};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

pub(crate) const JSON: &str = "application/json";
pub(crate) const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// An API server and its administrator.
pub(crate) struct Server {
    dialer: Dialer,
    url: String,
    ca_pem: String,
    pub(crate) admin: Client,
}

impl Server {
    pub(crate) fn sandbox() -> Self {
        let plane = ControlPlane::start(&ControlPlaneOptions::new(random_token()));
        let admin = plane.administrator();
        let identity = Identity::Certificate { certificate_pem: admin.certificate_pem, key_pem: admin.key_pem };
        Self::new(plane.dialer(), format!("https://{}", plane.endpoint()), plane.ca_pem(), &identity)
    }

    pub(crate) fn real(path: &str) -> Self {
        let config = Kubeconfig::read_from(path).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        let text = |data: &str| String::from_utf8(STANDARD.decode(data).unwrap()).unwrap();
        let identity = Identity::Certificate {
            certificate_pem: text(user.client_certificate_data.as_ref().unwrap()),
            key_pem: text(user.client_key_data.as_ref().unwrap().expose_secret()).into(),
        };
        let ca_pem = text(cluster.certificate_authority_data.as_ref().unwrap());
        Self::new(Dialer::Tcp, cluster.server.clone().unwrap(), ca_pem, &identity)
    }

    fn new(dialer: Dialer, url: String, ca_pem: String, admin: &Identity) -> Self {
        let admin = Client::new(dialer.clone(), &url, None, &ca_pem, admin).unwrap();
        Self { dialer, url, ca_pem, admin }
    }

    pub(crate) fn client(&self, identity: &Identity) -> Client {
        Client::new(self.dialer.clone(), &self.url, None, &self.ca_pem, identity).unwrap()
    }

    pub(crate) fn bearer(&self, token: &str) -> Client {
        self.client(&Identity::Bearer(token.into()))
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// A bootstrap token of the suite.
pub(crate) struct Token {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Token {
    pub(crate) fn new() -> Self {
        let token = random_token();
        Self { id: token.id().to_owned(), secret: token.expose_secret().to_owned() }
    }

    pub(crate) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{}", self.id)
    }

    /// Its Secret, with data over kubeadm's defaults; null leaves a key out.
    pub(crate) fn secret(&self, changes: &Value) -> Value {
        let mut data = json!({
            "token-id": self.id, "token-secret": self.secret,
            "expiration": "2099-01-01T00:00:00Z",
            "usage-bootstrap-signing": "true", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        });
        for (key, value) in changes.as_object().unwrap() {
            data[key] = value.clone();
        }
        data.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        json!({
            "kind": "Secret", "apiVersion": "v1",
            "metadata": {"name": format!("bootstrap-token-{}", self.id), "namespace": "kube-system"},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": data,
        })
    }
}

/// What a certificate request asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) organization: &'a str,
    pub(crate) common_name: &'a str,
    pub(crate) names: &'a [&'a str],
    pub(crate) signer: &'a str,
    pub(crate) usages: &'a [&'a str],
}

impl<'a> Wanted<'a> {
    /// A kubelet's client certificate.
    pub(crate) fn of_node(common_name: &'a str) -> Self {
        Self {
            organization: "system:nodes",
            common_name,
            names: &[],
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            usages: &["digital signature", "client auth"],
        }
    }

    pub(crate) fn object(&self) -> (Value, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = self.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, self.organization);
        params.distinguished_name.push(DnType::CommonName, self.common_name);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let object = json!({
            "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1",
            "metadata": {"generateName": "csr-"},
            "spec": {"request": STANDARD.encode(pem), "signerName": self.signer, "usages": self.usages},
        });
        (object, key)
    }
}

/// Sends a request that must have an answer.
pub(crate) async fn send(client: &Client, method: Method, path: &str, body: Option<(&str, &Value)>) -> Answer {
    client.send(method, path, body).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
}

pub(crate) async fn get(client: &Client, path: &str) -> Answer {
    send(client, Method::GET, path, None).await
}

pub(crate) async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    send(client, Method::POST, path, Some((JSON, body))).await
}
