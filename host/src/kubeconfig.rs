//! kubeconfig files: read leniently, as Go reads them; written exactly as Go writes them.
//!
//! Only what a join needs. `kube`'s own type resolves files and runs programs; here nothing happens while reading, and
//! secrets are hidden as soon as they are parsed.

use std::fmt::Write as _;

use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::join::{Access, BootstrapCredential, FileSecret, TrustedCluster};

/// User name that kubeadm gives a bootstrap token.
const TOKEN_USER: &str = "tls-bootstrap-token-user";
/// Context name that goes with it; the cluster's real name does not matter here.
const TOKEN_CONTEXT: &str = "tls-bootstrap-token-user@kubernetes";

/// Why a text is no usable kubeconfig. Never repeats its content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KubeconfigError {
    /// Not YAML, or of another shape.
    #[error("it is no kubeconfig (line {line}, column {column})")]
    Malformed {
        /// From 1; 0: unknown.
        line: u64,
        /// From 1; 0: unknown.
        column: u64,
    },
    /// `clusters` is empty.
    #[error("it has no cluster")]
    NoCluster,
    /// `current-context` names nothing, and no cluster is unnamed.
    #[error("its current context `{0}` does not exist")]
    NoContext(String),
    /// The current context's cluster does not exist.
    #[error("its current context `{context}` names a cluster `{cluster}` that does not exist")]
    NoClusterOfContext {
        /// Context name.
        context: String,
        /// Cluster name.
        cluster: String,
    },
    /// A `-data` field.
    #[error("its `{0}` is no base64 of text")]
    Base64(&'static str),
}

/// A kubeconfig as far as a join reads it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(default, deserialize_with = "or_default")]
    clusters: Vec<NamedCluster>,
    #[serde(default, deserialize_with = "or_default")]
    contexts: Vec<NamedContext>,
    #[serde(default, deserialize_with = "or_default")]
    users: Vec<NamedUser>,
    #[serde(default, deserialize_with = "or_default")]
    current_context: String,
}

#[derive(Debug, Clone, Deserialize)]
struct NamedCluster {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    cluster: Cluster,
}

#[derive(Debug, Clone, Deserialize)]
struct NamedContext {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    context: Context,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Context {
    #[serde(default, deserialize_with = "or_default")]
    cluster: String,
    #[serde(default, deserialize_with = "or_default")]
    user: String,
}

#[derive(Debug, Clone, Deserialize)]
struct NamedUser {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    user: User,
}

/// `cluster` of a kubeconfig. Empty strings are absent fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Cluster {
    /// URL.
    #[serde(deserialize_with = "or_default")]
    pub server: String,
    /// Path of a PEM file.
    #[serde(deserialize_with = "or_default")]
    pub certificate_authority: String,
    /// Base64 of PEM.
    #[serde(deserialize_with = "or_default")]
    certificate_authority_data: String,
    /// Checked instead of the URL's host.
    #[serde(deserialize_with = "or_default")]
    pub tls_server_name: String,
    /// Whether the server's certificate is not to be checked.
    #[serde(deserialize_with = "or_default")]
    pub insecure_skip_tls_verify: bool,
    /// A proxy for this cluster.
    #[serde(deserialize_with = "or_default")]
    pub proxy_url: String,
}

/// `user` of a kubeconfig. Empty strings are absent fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct User {
    /// Bearer token.
    #[serde(deserialize_with = "secret")]
    pub token: SecretString,
    /// Path of a file with a bearer token.
    #[serde(rename = "tokenFile", deserialize_with = "or_default")]
    pub token_file: String,
    /// Path of a PEM file.
    #[serde(deserialize_with = "or_default")]
    pub client_certificate: String,
    #[serde(deserialize_with = "or_default")]
    client_certificate_data: String,
    /// Path of a PEM file.
    #[serde(deserialize_with = "or_default")]
    pub client_key: String,
    #[serde(deserialize_with = "secret")]
    client_key_data: SecretString,
    /// For basic authentication.
    #[serde(deserialize_with = "or_default")]
    pub username: String,
    /// For basic authentication.
    #[serde(deserialize_with = "secret")]
    pub password: SecretString,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

/// Go reads `null` as the zero value.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default().into())
}

impl Kubeconfig {
    /// Reads YAML or JSON; unknown fields are passed over.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, KubeconfigError> {
        // The parser's own message shows a part of the text, which may hold a secret.
        serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            let (line, column) = place.map_or((0, 0), |place| (place.line(), place.column()));
            KubeconfigError::Malformed { line, column }
        })
    }

    /// The cluster without a name, else that of the current context: kubeadm's rule.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::NoCluster`], [`KubeconfigError::NoContext`], [`KubeconfigError::NoClusterOfContext`].
    pub fn cluster(&self) -> Result<&Cluster, KubeconfigError> {
        if self.clusters.is_empty() {
            return Err(KubeconfigError::NoCluster);
        }
        let named = |name: &str| self.clusters.iter().find(|cluster| cluster.name == name).map(|named| &named.cluster);
        match named("") {
            Some(unnamed) => Ok(unnamed),
            None => self.current_cluster(),
        }
    }

    /// The cluster of the current context.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::NoContext`], [`KubeconfigError::NoClusterOfContext`].
    pub fn current_cluster(&self) -> Result<&Cluster, KubeconfigError> {
        let named = |name: &str| self.clusters.iter().find(|cluster| cluster.name == name).map(|named| &named.cluster);
        let context = &self.current_context;
        let cluster = &self.context().ok_or_else(|| KubeconfigError::NoContext(context.clone()))?.cluster;
        named(cluster)
            .ok_or_else(|| KubeconfigError::NoClusterOfContext { context: context.clone(), cluster: cluster.clone() })
    }

    /// Name of the current context, name of its user, and the user, if they exist.
    pub fn user(&self) -> Option<(&str, &str, &User)> {
        let name = &self.context()?.user;
        let named = self.users.iter().find(|user| user.name == *name)?;
        Some((&self.current_context, name, &named.user))
    }

    fn context(&self) -> Option<&Context> {
        self.contexts.iter().find(|context| context.name == self.current_context).map(|named| &named.context)
    }
}

impl Cluster {
    /// The embedded CA certificates, PEM; none: the field is absent.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Base64`].
    pub fn ca_pem(&self) -> Result<Option<String>, KubeconfigError> {
        decoded(&self.certificate_authority_data, "certificate-authority-data")
    }
}

impl User {
    /// The embedded certificate, PEM.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Base64`].
    pub fn certificate_pem(&self) -> Result<Option<String>, KubeconfigError> {
        decoded(&self.client_certificate_data, "client-certificate-data")
    }

    /// The embedded key, PEM.
    ///
    /// # Errors
    ///
    /// [`KubeconfigError::Base64`].
    pub fn key_pem(&self) -> Result<Option<SecretString>, KubeconfigError> {
        Ok(decoded(self.client_key_data.expose_secret(), "client-key-data")?.map(Into::into))
    }

    /// The way it asks for a program or a vendor's library, if it does.
    pub fn needs_program(&self) -> Option<&'static str> {
        match (&self.exec, &self.auth_provider) {
            (Some(_), _) => Some("exec"),
            (_, Some(_)) => Some("auth-provider"),
            _ => None,
        }
    }
}

fn decoded(data: &str, field: &'static str) -> Result<Option<String>, KubeconfigError> {
    if data.is_empty() {
        return Ok(None);
    }
    // Go's decoder passes over line breaks.
    let compact: String = data.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| KubeconfigError::Base64(field))?;
    String::from_utf8(bytes).map(Some).map_err(|_| KubeconfigError::Base64(field))
}

/// `/etc/kubernetes/bootstrap-kubelet.conf` as kubeadm writes it, for a kubelet that makes its own request.
///
/// None: there is no credential that a kubelet could use.
pub fn bootstrap_kubelet_conf(access: &Access, cluster_name: &str) -> Option<SecretString> {
    Some(bootstrap_conf(&access.cluster, access.credential.as_ref()?, cluster_name))
}

fn bootstrap_conf(cluster: &TrustedCluster, credential: &BootstrapCredential, cluster_name: &str) -> SecretString {
    let (context, user, secret) = match credential {
        BootstrapCredential::Token(token) => {
            (TOKEN_CONTEXT, TOKEN_USER, FileSecret::Bearer(token.expose_bearer().into()))
        }
        BootstrapCredential::File(file) => (file.context_name.as_str(), file.user_name.as_str(), file.secret.clone()),
    };
    let fields = match &secret {
        FileSecret::Bearer(token) => format!("    token: {}\n", scalar(token.expose_secret())),
        FileSecret::Certificate { certificate_pem, key_pem } => format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            base64_of(certificate_pem),
            base64_of(key_pem.expose_secret())
        ),
        FileSecret::Basic { username, password } => {
            format!("    password: {}\n    username: {}\n", scalar(password.expose_secret()), scalar(username))
        }
    };
    written(cluster, cluster_name, context, "", user, &fields).into()
}

/// `/etc/kubernetes/kubelet.conf` as the kubelet writes it after its TLS bootstrap.
///
/// It holds no secret: certificate and key are named by path. A `tls-server-name` is kept, without which the cluster
/// could not be reached; the kubelet would drop it.
pub fn kubelet_conf(cluster: &TrustedCluster, credential_path: &str) -> String {
    let path = scalar(credential_path);
    let fields = format!("    client-certificate: {path}\n    client-key: {path}\n");
    written(cluster, "default-cluster", "default-context", "    namespace: default\n", "default-auth", &fields)
}

/// A user with a client certificate, at one cluster.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// PEM.
    pub ca_pem: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    /// Of the cluster; the context is `<user_name>@<cluster_name>`.
    pub cluster_name: &'a str,
    /// Of the user.
    pub user_name: &'a str,
    /// PEM.
    pub certificate_pem: &'a str,
    /// PEM.
    pub key_pem: &'a SecretString,
}

/// A kubeconfig with certificate and key in it, byte for byte as kubeadm writes `admin.conf`.
pub fn client_conf(client: &Client<'_>) -> SecretString {
    let context = format!("{}@{}", client.user_name, client.cluster_name);
    let open = serde_json::json!({
        "apiVersion": "v1",
        "clusters": [{
            "cluster": {"certificate-authority-data": base64_of(client.ca_pem), "server": client.server},
            "name": client.cluster_name,
        }],
        "contexts": [{
            "context": {"cluster": client.cluster_name, "user": client.user_name},
            "name": context,
        }],
        "current-context": context,
        "kind": "Config",
        "users": [{
            "name": client.user_name,
            "user": {"client-certificate-data": base64_of(client.certificate_pem)},
        }],
    });
    // The key is the last line, so that it need not pass through a value that is not wiped.
    let key = zeroize::Zeroizing::new(base64_of(client.key_pem.expose_secret()));
    let open = crate::yaml::write(&open);
    let mut text = String::with_capacity(open.len() + key.len() + 32);
    text.push_str(&open);
    text.push_str("    client-key-data: ");
    text.push_str(&key);
    text.push('\n');
    text.into()
}

/// Keys sorted, as Go writes them; no `preferences`.
fn written(
    cluster: &TrustedCluster,
    cluster_name: &str,
    context_name: &str,
    namespace_line: &str,
    user_name: &str,
    user_fields: &str,
) -> String {
    let (cluster_name, context_name, user_name) = (scalar(cluster_name), scalar(context_name), scalar(user_name));
    let mut text = format!(
        "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {}\n",
        base64_of(&cluster.ca_pem),
        scalar(&cluster.server)
    );
    if let Some(name) = &cluster.tls_server_name {
        let _ = writeln!(text, "    tls-server-name: {}", scalar(name));
    }
    let _ = write!(
        text,
        "  name: {cluster_name}\ncontexts:\n- context:\n    cluster: {cluster_name}\n{namespace_line}    user: {user_name}\n  \
         name: {context_name}\ncurrent-context: {context_name}\nkind: Config\nusers:\n- name: {user_name}\n  \
         user:\n{user_fields}"
    );
    text
}

fn base64_of(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A YAML scalar that is read as this string: plain where Go writes it plain, else in double quotes.
fn scalar(text: &str) -> String {
    let plain_start = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./:@+=[]-".contains(c)) && !text.ends_with(':');
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null"
    );
    if plain && !word && plain_start {
        return text.to_owned();
    }
    serde_json::to_string(text).expect("a string is valid JSON")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::join::FileCredential;

    fn cluster() -> TrustedCluster {
        TrustedCluster {
            server: "https://cp.example:6443".into(),
            ca_pem: "CA\n".into(),
            tls_server_name: None,
            established_by: String::new(),
        }
    }

    #[test]
    fn writes_kubelet_conf_as_the_kubelet_does() {
        let path = "/var/lib/kubelet/pki/kubelet-client-current.pem";
        insta::assert_snapshot!(kubelet_conf(&cluster(), path), @r"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority-data: Q0EK
            server: https://cp.example:6443
          name: default-cluster
        contexts:
        - context:
            cluster: default-cluster
            namespace: default
            user: default-auth
          name: default-context
        current-context: default-context
        kind: Config
        users:
        - name: default-auth
          user:
            client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
            client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
        ");
    }

    #[test]
    fn writes_bootstrap_kubelet_conf_as_kubeadm_does() {
        let token = BootstrapCredential::Token("abcdef.0123456789abcdef".parse().unwrap());
        let text = bootstrap_conf(&cluster(), &token, "kubernetes");
        insta::assert_snapshot!(text.expose_secret(), @r"
        apiVersion: v1
        clusters:
        - cluster:
            certificate-authority-data: Q0EK
            server: https://cp.example:6443
          name: kubernetes
        contexts:
        - context:
            cluster: kubernetes
            user: tls-bootstrap-token-user
          name: tls-bootstrap-token-user@kubernetes
        current-context: tls-bootstrap-token-user@kubernetes
        kind: Config
        users:
        - name: tls-bootstrap-token-user
          user:
            token: abcdef.0123456789abcdef
        ");
    }

    #[test]
    fn selects_the_unnamed_cluster_before_that_of_the_context() {
        let both = "clusters: [{name: a, cluster: {server: A}}, {name: '', cluster: {server: U}}]\ncontexts: [{name: x, \
                    context: {cluster: a}}]\ncurrent-context: x";
        assert_eq!(Kubeconfig::parse(both).unwrap().cluster().unwrap().server, "U");
        let by_context = both.replace("name: ''", "name: b");
        assert_eq!(Kubeconfig::parse(&by_context).unwrap().cluster().unwrap().server, "A");
        let dangling = by_context.replace("cluster: a}", "cluster: c}");
        assert!(matches!(
            Kubeconfig::parse(&dangling).unwrap().cluster(),
            Err(KubeconfigError::NoClusterOfContext { .. })
        ));
        let no_context = by_context.replace("current-context: x", "current-context: y");
        assert!(matches!(Kubeconfig::parse(&no_context).unwrap().cluster(), Err(KubeconfigError::NoContext(_))));
        assert_eq!(Kubeconfig::parse("clusters: null").unwrap().cluster().unwrap_err(), KubeconfigError::NoCluster);
    }

    #[test]
    fn reads_what_kubeadm_init_puts_into_cluster_info() {
        let text = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0EK\n    server: \
                    https://10.0.0.1:6443\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: \
                    Config\npreferences: {}\nusers: null\n";
        let kubeconfig = Kubeconfig::parse(text).unwrap();
        let cluster = kubeconfig.cluster().unwrap();
        assert_eq!(cluster.server, "https://10.0.0.1:6443");
        assert_eq!(cluster.ca_pem().unwrap().as_deref(), Some("CA\n"));
        assert!(kubeconfig.user().is_none());
    }

    #[test]
    fn what_it_writes_it_reads_back_equal() {
        for secret in ["0123456789", "yes", "1e5", "a: b", "ü\"\\\n", "- x", "abcdef.0123456789abcdef"] {
            let credential = BootstrapCredential::File(FileCredential {
                context_name: "on".into(),
                user_name: "no".into(),
                secret: FileSecret::Basic { username: secret.into(), password: secret.into() },
            });
            let text = bootstrap_conf(&cluster(), &credential, "null");
            let kubeconfig = Kubeconfig::parse(text.expose_secret()).unwrap();
            let (context, name, user) = kubeconfig.user().unwrap();
            assert_eq!((context, name, user.username.as_str()), ("on", "no", secret));
            assert_eq!(user.password.expose_secret(), secret);
        }
    }

    #[test]
    fn shows_secrets_nowhere() {
        let text = "users: [{name: u, user: {token: canary, password: canary, client-key-data: canary}}]\ncontexts: \
                    [{name: c, context: {user: u}}]\ncurrent-context: c\n";
        let kubeconfig = Kubeconfig::parse(text).unwrap();
        assert!(!format!("{kubeconfig:?}").contains("canary"));
        let (_, _, user) = kubeconfig.user().unwrap();
        assert!(!user.key_pem().unwrap_err().to_string().contains("canary"));
        let broken = Kubeconfig::parse("users: [{user: {token: [canary]}}]").unwrap_err();
        assert!(!format!("{broken} {broken:?}").contains("canary"));
    }

    proptest! {
        #[test]
        fn no_input_panics(text: String) {
            if let Ok(kubeconfig) = Kubeconfig::parse(&text) {
                let _ = kubeconfig.cluster();
            }
            let yaml = format!("clusters: [{{name: '', cluster: {{server: {text:?}}}}}]");
            let _ = Kubeconfig::parse(&yaml).map(|kubeconfig| kubeconfig.cluster().is_ok());
        }

        #[test]
        fn a_scalar_is_read_as_the_string_it_was(text: String) {
            let read: Result<Vec<String>, _> = serde_saphyr::from_str(&format!("- {}\n", scalar(&text)));
            prop_assert_eq!(read.unwrap(), vec![text]);
        }
    }
}
