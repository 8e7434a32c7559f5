use std::path::Path;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::api::scripted::planning_node;
use crate::error::Diagnose as _;
use crate::join::control_plane::fixture::{
    PKI, ca_params, configuration, ec, local, machine, mode, put, put_ca, put_shared, read, remove, with_node,
};
use crate::node::stub::tree;
use crate::pki::Certificate;
use crate::plan::Plan;

const LEAVES: [&str; 7] = [
    "apiserver",
    "apiserver-kubelet-client",
    "front-proxy-client",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
    "apiserver-etcd-client",
];

fn der(root: &Path, name: &str) -> Vec<u8> {
    Certificate::parse_pem(read(root, name).as_bytes()).unwrap().swap_remove(0).der
}

#[tokio::test]
async fn makes_the_whole_list_once() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    for leaf in LEAVES {
        assert_eq!(mode(root, &format!("{PKI}/{leaf}.crt")), 0o644, "{leaf}");
        assert_eq!(mode(root, &format!("{PKI}/{leaf}.key")), 0o600, "{leaf}");
        let key = PrivateKey::parse_pem(read(root, &format!("{leaf}.key")).as_bytes()).unwrap();
        let certificate = Certificate::parse_pem(read(root, &format!("{leaf}.crt")).as_bytes()).unwrap();
        assert_eq!(certificate[0].spki, key.spki().unwrap(), "{leaf}");
    }
    // The second run verifies each against its CA, its key and its names.
    let before = tree(root);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(tree(root), before);
}

#[tokio::test]
async fn fields_are_kubeadms() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let before = now_seconds();
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    let der = der(root, "etcd/peer.crt");
    let (_, peer) = X509Certificate::from_der(&der).unwrap();
    assert_eq!((peer.subject().to_string(), peer.issuer().to_string()), ("CN=n2".into(), "CN=etcd-ca".into()));
    let validity = peer.validity();
    let start = validity.not_before.timestamp() + 300;
    assert!((before..=now_seconds()).contains(&start));
    assert_eq!(validity.not_after.timestamp(), start + 365 * 24 * 3600);
    let oids: Vec<_> =
        peer.extensions().iter().map(|extension| (extension.oid.to_id_string(), extension.critical)).collect();
    let wanted =
        [("2.5.29.15", true), ("2.5.29.37", false), ("2.5.29.19", true), ("2.5.29.35", false), ("2.5.29.17", false)];
    assert_eq!(oids, wanted.map(|(oid, critical)| (oid.to_owned(), critical)));
    assert!(!peer.is_ca());
    let usage = peer.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && usage.flags == 5);
    let usage = peer.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
}

#[tokio::test]
async fn signs_as_each_kind_of_ca_does_with_each_kind_of_key() {
    let kinds = [
        (&rcgen::PKCS_RSA_SHA256, "1.2.840.113549.1.1.11", "ECDSA-P384"),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "1.2.840.10045.4.3.2", "RSA-2048"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "1.2.840.10045.4.3.3", "ECDSA-P256"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "1.2.840.10045.4.3.4", "ECDSA-P256"),
    ];
    for (algorithm, oid, leaf) in kinds {
        let (directory, cx) = machine();
        let root = directory.path();
        put_shared(root);
        put_ca(root, "ca", ca_params("kubernetes"), KeyPair::generate_for(algorithm).unwrap());
        let mut configuration = configuration();
        configuration.encryption_algorithm = serde_json::from_value(leaf.into()).unwrap();
        write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap();
        let der = der(root, "apiserver.crt");
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(parsed.signature_algorithm.algorithm.to_id_string(), oid);
        write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap();
    }
}

#[tokio::test]
async fn the_issuers_name_is_the_cas_byte_for_byte() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let mut params = ca_params("Zertifizierungsstelle");
    // Two units, one of them in a rare encoding.
    let unit = rcgen::string::BmpString::try_from("Prüfung").unwrap();
    params.distinguished_name.push(DnType::OrganizationalUnitName, rcgen::DnValue::BmpString(unit));
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 11]), "Haus 2");
    put_ca(root, "ca", params, ec());
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    let (ca, leaf) = (der(root, "ca.crt"), der(root, "apiserver.crt"));
    let (ca, leaf) = (X509Certificate::from_der(&ca).unwrap().1, X509Certificate::from_der(&leaf).unwrap().1);
    assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
}

#[tokio::test]
async fn a_ca_or_service_account_key_that_is_not_here_is_never_made() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    for name in ["ca", "etcd/ca"] {
        remove(root, &format!("{name}.crt"));
        remove(root, &format!("{name}.key"));
    }
    let before = tree(root);
    let error = write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "certs-ca-missing");
    let message = error.to_string();
    assert!(message.contains("pki/ca.crt") && message.contains("etcd/ca.crt"), "{message}");
    assert!(error.hint().unwrap().contains("upload-certs"));
    assert_eq!(tree(root), before);

    put_shared(root);
    remove(root, "sa.key");
    let before = tree(root);
    let error = write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "certs-service-account-missing");
    assert_eq!(tree(root), before);
}

#[tokio::test]
async fn a_missing_public_half_of_the_service_account_key_is_written_again() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let public = read(root, "sa.pub");
    remove(root, "sa.pub");
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(read(root, "sa.pub"), public);
    assert_eq!(mode(root, &format!("{PKI}/sa.pub")), 0o600);
}

/// What is spoilt, and the code of its error.
type Spoil = (&'static str, fn(&Path));

#[tokio::test]
async fn what_is_there_and_wrong_is_told_and_left_as_it_is() {
    fn replace(root: &Path, alter: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::from_pem(&read(root, "etcd/ca.key")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read(root, "etcd/ca.crt"), key).unwrap();
        let names = ["n2", "localhost", "10.0.0.2", "127.0.0.1", "::1"].map(String::from).to_vec();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2100, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        alter(&mut params);
        let key = ec();
        put(root, "etcd/peer.crt", &params.signed_by(&key, &issuer).unwrap().pem(), 0o644);
        put(root, "etcd/peer.key", &key.serialize_pem(), 0o600);
    }
    let cases: [Spoil; 11] = [
        ("", |root| replace(root, |_| {})),
        ("certs-expired", |root| replace(root, |params| params.not_after = rcgen::date_time_ymd(2025, 1, 1))),
        ("certs-expired", |root| replace(root, |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1))),
        ("certs-other-names", |root| replace(root, |params| drop(params.subject_alt_names.remove(2)))),
        ("certs-other-names", |root| replace(root, |params| drop(params.subject_alt_names.remove(0)))),
        ("certs-foreign", |root| drop(put_ca(root, "etcd/ca", ca_params("etcd-ca"), ec()))),
        ("certs-unusable", |root| put(root, "etcd/peer.key", &ec().serialize_pem(), 0o600)),
        ("certs-unusable", |root| put(root, "etcd/peer.crt", "no PEM", 0o644)),
        ("certs-key-unusable", |root| put(root, "etcd/peer.key", "no PEM", 0o600)),
        ("certs-half", |root| remove(root, "etcd/peer.key")),
        ("certs-ca-other-key", |root| put(root, "etcd/ca.key", &ec().serialize_pem(), 0o600)),
    ];
    for (number, (code, spoil)) in cases.into_iter().enumerate() {
        let (directory, cx) = machine();
        let root = directory.path();
        put_shared(root);
        write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
        spoil(root);
        remove(root, "apiserver.crt");
        remove(root, "apiserver.key");
        let before = tree(root);
        let result = write(&configuration(), &local(), &mut Keys::default(), &cx).await;
        if code.is_empty() {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        assert_eq!(error.code(), code, "case {number}: {error}");
        assert!(error.hint().is_some(), "{error}");
        assert_eq!(tree(root), before, "case {number}");
    }
}

#[tokio::test]
async fn a_run_goes_on_with_a_key_that_an_earlier_one_made_and_with_no_other() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    use secrecy::ExposeSecret as _;
    let key = PrivateKey::generate(configuration().encryption_algorithm).unwrap().to_pem().unwrap();
    let key = key.expose_secret();
    put(root, "apiserver.key", key, 0o600);
    let error = write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "certs-half");
    remove(root, "apiserver.key");
    cx.node.ensure_file(&Path::new("/").join(PKI).join("apiserver.key"), key.as_bytes(), 0o600).unwrap();
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(read(root, "apiserver.key"), key);
    // That it belongs to the certificate is a second run's finding.
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
}

#[tokio::test]
async fn certificates_of_an_external_ca_are_the_operators_to_bring() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    let mut other = configuration();
    other.api_server.cert_sans.push("further.example".into());
    for (spoil, content) in [("etcd/ca.key", None), ("ca.key", None), ("front-proxy-ca.key", Some("locked"))] {
        match content {
            None => remove(root, spoil),
            Some(content) => put(root, spoil, content, 0o600),
        }
    }
    // Their names are the owner's decision, too.
    write(&other, &local(), &mut Keys::default(), &cx).await.unwrap();
    remove(root, "etcd/peer.crt");
    remove(root, "etcd/peer.key");
    remove(root, "etcd/server.crt");
    remove(root, "etcd/server.key");
    let error = write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "certs-external-missing");
    let message = error.to_string();
    assert!(message.contains("etcd/peer.crt") && message.contains("etcd/server.crt"), "{message}");
}

#[tokio::test]
async fn with_an_external_etcd_nothing_of_etcd_is_made_or_wanted() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    std::fs::remove_dir_all(root.join(PKI).join("etcd")).unwrap();
    let mut configuration = configuration();
    configuration.etcd =
        serde_json::from_value(serde_json::json!({"external": {"endpoints": ["https://e:2379"]}})).unwrap();
    write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap();
    assert!(root.join(PKI).join("apiserver.crt").exists());
    assert!(!root.join(PKI).join("etcd").exists() && !root.join(PKI).join("apiserver-etcd-client.crt").exists());
}

#[tokio::test]
async fn a_dry_run_plans_the_files_shows_no_key_and_writes_nothing() {
    let (directory, cx) = machine();
    let root = directory.path();
    put_shared(root);
    let before = tree(root);
    let plan = std::sync::Arc::new(Plan::default());
    let cx = with_node(&cx, planning_node(root, &plan));
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
    assert_eq!(tree(root), before);
    let text = plan.text();
    assert!(text.contains("would write /etc/kubernetes/pki/etcd/peer.key (mode 0600"), "{text}");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    // A phase that comes later in the same dry run finds them.
    write(&configuration(), &local(), &mut Keys::default(), &cx).await.unwrap();
}

#[tokio::test]
async fn a_validity_beyond_the_year_9999_is_an_error_and_not_a_certificate() {
    let (directory, cx) = machine();
    put_shared(directory.path());
    let mut configuration = configuration();
    configuration.certificate_validity_period = std::time::Duration::from_secs(1 << 40);
    let error = write(&configuration, &local(), &mut Keys::default(), &cx).await.unwrap_err();
    assert_eq!(error.code(), "certs-issue");
    assert!(!directory.path().join(PKI).join("apiserver.key").exists());
}

#[test]
fn a_certificate_name_holds_for_the_hosts_that_go_takes_it_for() {
    for (pattern, host, holds) in [
        ("a.example", "A.example", true),
        ("*.example", "a.example", true),
        ("*.example", "a.b.example", false),
        ("*.example", "example", false),
        ("*.example", "*.example", true),
        ("*.b.example", "*.example", false),
        ("*.*.example", "a.b.example", false),
    ] {
        assert_eq!(found::matches_name(pattern, host), holds, "{pattern} {host}");
    }
}
