use super::*;
use crate::join::control_plane::configuration::Etcd;
use crate::join::control_plane::fixture::{PKI, configuration, ec, machine, put, put_shared, remove};
use crate::node::stub::tree;
use crate::pki::pem_block;

fn unmet(error: &ReadinessError) -> Vec<String> {
    let ReadinessError::Unmet { unmet } = error else { panic!("{error}") };
    unmet.iter().map(ToString::to_string).collect()
}

#[test]
fn a_machine_with_the_shared_files_or_with_a_key_for_them_is_ready() {
    let (directory, cx) = machine();
    let key: CertificateKey = "0f".repeat(32).parse().unwrap();
    check(&configuration(), Some(&key), &cx).unwrap();
    check(&configuration(), None, &cx).unwrap_err();
    put_shared(directory.path());
    let before = tree(directory.path());
    check(&configuration(), None, &cx).unwrap();
    // Keys of CAs may be elsewhere.
    for ca in ["ca.key", "front-proxy-ca.key", "etcd/ca.key"] {
        remove(directory.path(), ca);
    }
    check(&configuration(), None, &cx).unwrap();
    assert_eq!(tree(directory.path()).len(), before.len() - 3);
}

#[test]
fn everything_that_is_missing_is_told_at_once() {
    let (_directory, cx) = machine();
    let mut configuration = configuration();
    configuration.control_plane_endpoint = String::new();
    let error = check(&configuration, None, &cx).unwrap_err();
    let all = unmet(&error);
    assert_eq!(all.len(), 6, "{all:#?}");
    assert!(all[0].contains("controlPlaneEndpoint"));
    for (line, file) in all[1..].iter().zip(["ca.crt", "front-proxy-ca.crt", "etcd/ca.crt", "sa.key", "sa.pub"]) {
        assert_eq!(*line, format!("`/{PKI}/{file}` is missing"));
    }
    assert_eq!(error.code(), "control-plane-endpoint-missing");
    assert_eq!(error.exit_code(), ExitCode::Preflight);
    let hint = error.hint().unwrap();
    assert!(hint.contains("edit configmap kubeadm-config") && hint.contains("--certificate-key"), "{hint}");
}

#[test]
fn with_an_external_etcd_its_ca_is_not_asked_for() {
    let (directory, cx) = machine();
    put_shared(directory.path());
    remove(directory.path(), "etcd/ca.crt");
    let mut configuration = configuration();
    assert_eq!(check(&configuration, None, &cx).unwrap_err().code(), "control-plane-files-missing");
    configuration.etcd = Etcd::External(Default::default());
    check(&configuration, None, &cx).unwrap();
}

#[test]
fn files_that_hold_something_else_are_told_apart() {
    use rcgen::PublicKeyData as _;
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let rsa = pem_block("PUBLIC KEY", &rsa.subject_public_key_info());
    let own = rcgen::CertificateParams::default().self_signed(&ec()).unwrap().pem();
    for (name, content, problem) in [
        ("ca.crt", &*own, "not that of a CA"),
        ("front-proxy-ca.crt", "no PEM", "no PEM certificate"),
        ("sa.key", "no PEM", "no RSA or ECDSA key"),
        ("sa.pub", "no PEM", "no public key"),
        ("sa.pub", &rsa, "of another kind"),
    ] {
        let (directory, cx) = machine();
        put_shared(directory.path());
        put(directory.path(), name, content, 0o600);
        let error = check(&configuration(), None, &cx).unwrap_err();
        let all = unmet(&error);
        assert!(all.len() == 1 && all[0].contains(problem) && all[0].contains(name), "{all:?}");
    }
}
