use base64::Engine as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::api::scripted::planning_node;
use crate::join::control_plane::fixture::{
    ca_params, configuration, ec, local, machine, mode, put, put_ca, put_shared, read as read_pki, remove, with_node,
};
use crate::node::stub::tree;
use crate::plan::Plan;

const CONFS: [&str; 3] = ["admin.conf", "controller-manager.conf", "scheduler.conf"];

fn conf(root: &Path, name: &str) -> String {
    std::fs::read_to_string(root.join("etc/kubernetes").join(name)).unwrap()
}

fn put_conf(root: &Path, text: &str) {
    std::fs::write(root.join("etc/kubernetes/admin.conf"), text).unwrap();
}

/// With everything that differs from run to run replaced.
fn shape(text: &str) -> String {
    let data = regex::Regex::new("(?m)-data: [A-Za-z0-9+/=]+$").unwrap();
    data.replace_all(text, "-data: DATA").into_owned()
}

#[tokio::test]
async fn writes_the_three_files_as_kubeadm_does_and_once() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let mut configuration = configuration();
    configuration.control_plane_endpoint = "cp.example:8443".into();
    write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap();
    for name in CONFS {
        assert_eq!(mode(root, &format!("etc/kubernetes/{name}")), 0o600, "{name}");
    }
    insta::assert_snapshot!(shape(&conf(root, "admin.conf")), @r"
    apiVersion: v1
    clusters:
    - cluster:
        certificate-authority-data: DATA
        server: https://cp.example:8443
      name: kubernetes
    contexts:
    - context:
        cluster: kubernetes
        user: kubernetes-admin
      name: kubernetes-admin@kubernetes
    current-context: kubernetes-admin@kubernetes
    kind: Config
    users:
    - name: kubernetes-admin
      user:
        client-certificate-data: DATA
        client-key-data: DATA
    ");
    let scheduler = conf(root, "scheduler.conf");
    assert!(scheduler.contains("server: https://10.0.0.2:6443\n"), "{}", shape(&scheduler));
    assert!(scheduler.contains("current-context: system:kube-scheduler@kubernetes\n"), "{}", shape(&scheduler));
    let before = tree(root);
    write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(tree(root), before);
}

#[tokio::test]
async fn each_certificate_is_its_users_and_as_old_as_the_ca() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    let ca = CaCertificate::parse_pem(read_pki(root, "ca.crt").as_bytes()).unwrap();
    for (name, subject) in CONFS.into_iter().zip([
        "O=kubeadm:cluster-admins, CN=kubernetes-admin",
        "CN=system:kube-controller-manager",
        "CN=system:kube-scheduler",
    ]) {
        let kubeconfig = Kubeconfig::parse(&conf(root, name)).unwrap();
        let (_, _, user) = kubeconfig.user().unwrap();
        let pem = user.certificate_pem().unwrap().unwrap();
        let certificate = Certificate::parse_pem(pem.as_bytes()).unwrap().swap_remove(0);
        let key = PrivateKey::parse_pem(user.key_pem().unwrap().unwrap().expose_secret().as_bytes()).unwrap();
        assert_eq!(key.spki().unwrap(), certificate.spki, "{name}");
        let (_, parsed) = X509Certificate::from_der(&certificate.der).unwrap();
        assert_eq!(parsed.subject().to_string(), subject);
        assert_eq!(certificate.not_before, ca.certificate.not_before);
        assert!((now_seconds() + 364 * 24 * 3600..).contains(&certificate.not_after));
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert!(parsed.subject_alternative_name().unwrap().is_none());
    }
}

#[tokio::test]
async fn only_the_first_certificate_of_the_ca_file_is_trusted() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let first = read_pki(root, "ca.crt");
    let second = ca_params("old").self_signed(&ec()).unwrap().pem();
    put(root, "ca.crt", &format!("a remark\n{first}{second}"), 0o644);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    let kubeconfig = Kubeconfig::parse(&conf(root, "admin.conf")).unwrap();
    assert_eq!(kubeconfig.cluster().unwrap().ca_pem().unwrap().unwrap(), first.replace("\r\n", "\n"));
}

#[tokio::test]
async fn without_the_cas_key_the_files_are_the_operators_to_bring() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    remove(root, "ca.key");
    let before = tree(root);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(tree(root), before);
}

#[tokio::test]
async fn a_ca_that_cannot_sign_is_an_error_and_nothing_is_written() {
    for (file, content, code) in [
        ("ca.crt", None, "certs-ca-missing"),
        ("ca.crt", Some("no PEM"), "certs-ca-unusable"),
        ("ca.key", Some("no PEM"), "certs-ca-other-key"),
    ] {
        let (directory, cx) = machine();
        let root = directory.path();
        put_shared(root);
        match content {
            None => remove(root, file),
            Some(content) => put(root, file, content, 0o600),
        }
        let before = tree(root);
        let error = write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.hint().is_some());
        assert_eq!(tree(root), before);
    }
}

#[tokio::test]
async fn a_file_that_is_there_is_kept_if_it_trusts_the_ca() {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let text = |ca: &str| {
        format!(
            "clusters: [{{name: c, cluster: {{server: 'https://other:1', {ca}}}}}]\ncontexts: [{{name: x, context: {{cluster: \
             c}}}}]\ncurrent-context: x\n"
        )
    };
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let ca = read_pki(root, "ca.crt");
    let foreign = ca_params("kubernetes").self_signed(&ec()).unwrap().pem();
    let embedded = |pem: &str| text(&format!("certificate-authority-data: {}", base64(pem)));
    for (content, code) in [
        (embedded(&ca), ""),
        (embedded(&format!("\n  {ca}\n{foreign}")), ""),
        (text("certificate-authority: /etc/kubernetes/pki/ca.crt"), ""),
        (embedded(&format!("{foreign}{ca}")), "kubeconfig-other-ca"),
        (embedded("no PEM"), "kubeconfig-other-ca"),
        (text("certificate-authority: /etc/kubernetes/pki/none.crt"), "kubeconfig-other-ca"),
        (text(""), "kubeconfig-other-ca"),
        (embedded(&ca).replace("current-context: x", "current-context: y"), "kubeconfig-unusable"),
        (embedded(&ca).replace("cluster: c}", "cluster: d}"), "kubeconfig-unusable"),
        ("clusters: [".to_owned(), "kubeconfig-unusable"),
    ] {
        put_conf(root, &content);
        let result = write(&configuration(), &local(), &mut Keys::default(), &cx).await;
        assert_eq!(conf(root, "admin.conf"), content);
        if code.is_empty() {
            result.unwrap();
            for name in &CONFS[1..] {
                std::fs::remove_file(root.join("etc/kubernetes").join(name)).unwrap();
            }
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.hint().unwrap().contains("rm /etc/kubernetes/admin.conf"));
            assert!(!root.join("etc/kubernetes/scheduler.conf").exists());
        }
    }
}

#[tokio::test]
async fn a_dry_run_shows_neither_key_nor_certificate_data() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    put_ca(root, "ca", ca_params("kubernetes"), ec());
    let before = tree(root);
    let plan = std::sync::Arc::new(Plan::default());
    let cx = with_node(&cx, planning_node(root, &plan));
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(tree(root), before);
    let text = plan.text();
    assert!(text.contains("would write /etc/kubernetes/admin.conf (mode 0600"), "{text}");
    assert!(!text.contains("-data"), "{text}");
}
