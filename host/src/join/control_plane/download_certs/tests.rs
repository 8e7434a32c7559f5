use serde_json::{Value, json};

use super::*;
use crate::api::scripted::{Authority, Reply, Script, TOKEN, planning_node, status, test_context, token_discovery};
use crate::join::BootstrapCredential;
use crate::join::control_plane::fixture::{PKI, configuration, mode, put, put_shared, read, with_node};
use crate::node::stub::tree;
use crate::plan::Plan;

const PATH: &str = "/api/v1/namespaces/kube-system/secrets/kubeadm-certs";
const KEY: &str = "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff";
const ENTRIES: [(&str, &str); 8] = [
    ("ca.crt", "ca.crt"),
    ("ca.key", "ca.key"),
    ("front-proxy-ca.crt", "front-proxy-ca.crt"),
    ("front-proxy-ca.key", "front-proxy-ca.key"),
    ("sa.pub", "sa.pub"),
    ("sa.key", "sa.key"),
    ("etcd-ca.crt", "etcd/ca.crt"),
    ("etcd-ca.key", "etcd/ca.key"),
];

fn key() -> CertificateKey {
    KEY.parse().unwrap()
}

/// What another control plane uploads: its shared files, then what the test changes.
fn uploaded(alter: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> (tempfile::TempDir, Value) {
    let other = tempfile::tempdir().unwrap();
    put_shared(other.path());
    let mut data = BTreeMap::new();
    for (entry, file) in ENTRIES {
        data.insert(entry.to_owned(), key().seal(read(other.path(), file).as_bytes()));
    }
    alter(&mut data);
    let data: BTreeMap<_, _> = data.into_iter().map(|(name, sealed)| (name, ByteString(sealed))).collect();
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "kubeadm-certs"}, "data": data});
    (other, secret)
}

/// Runs the phase against a server with this one answer.
async fn download(
    reply: Reply,
    configuration: &ControlPlaneConfiguration,
    prepare: impl FnOnce(&Path, JoinContext) -> JoinContext,
) -> (tempfile::TempDir, Result<(), DownloadCertsError>) {
    let authority = Authority::new();
    let running = Script::new().listen("cp.example:6443", &authority, &["cp.example"]).get(PATH, reply).start();
    let (directory, cx) = test_context(&running.dialer, token_discovery("cp.example:6443", vec![authority.pin()]));
    let cluster = authority.cluster("https://cp.example:6443");
    let credential = BootstrapCredential::Token(TOKEN.parse().unwrap());
    let access = Access::new(running.dialer.clone(), cluster, Some(credential)).unwrap();
    let cx = prepare(directory.path(), cx);
    let result = run(&access, configuration, &key(), &cx).await;
    assert_eq!(running.seen()[0].authorization.as_deref(), Some(&*format!("Bearer {TOKEN}")));
    running.finish();
    (directory, result)
}

#[tokio::test]
async fn writes_every_shared_file_with_the_mode_of_its_content() {
    let (other, secret) = uploaded(|_| {});
    let (directory, result) = download(Reply::Json(200, secret), &configuration(), |_, cx| cx).await;
    result.unwrap();
    for (_, file) in ENTRIES {
        assert_eq!(read(directory.path(), file), read(other.path(), file), "{file}");
        let secret = file.ends_with(".key");
        assert_eq!(mode(directory.path(), &format!("{PKI}/{file}")), if secret { 0o600 } else { 0o644 }, "{file}");
    }
}

#[tokio::test]
async fn files_that_were_missing_at_the_upload_are_not_written() {
    let (_other, secret) = uploaded(|data| {
        data.insert("ca.key".into(), Vec::new());
        data.insert("etcd-ca.key".into(), key().seal(b""));
        data.insert("unexpected".into(), key().seal(b"anything"));
    });
    let (directory, result) = download(Reply::Json(200, secret), &configuration(), |_, cx| cx).await;
    result.unwrap();
    let pki = directory.path().join(PKI);
    assert!(pki.join("ca.crt").exists() && !pki.join("ca.key").exists() && !pki.join("etcd/ca.key").exists());
    assert!(!pki.join("unexpected").exists());
}

#[tokio::test]
async fn the_files_of_an_external_etcd_go_where_the_configuration_has_them() {
    let external = |ca: &str| {
        let mut configuration = configuration();
        let etcd = json!({"external": {"caFile": ca, "certFile": "/etc/etcd/pki/client.crt", "keyFile": "/etc/etcd/pki/client.key"}});
        configuration.etcd = serde_json::from_value(etcd).unwrap();
        configuration
    };
    let upload = || {
        let (_other, secret) = uploaded(|data| {
            let (certificate, key) = (data.remove("etcd-ca.crt").unwrap(), data.remove("etcd-ca.key").unwrap());
            data.insert("external-etcd-ca.crt".into(), certificate.clone());
            data.insert("external-etcd.crt".into(), certificate);
            data.insert("external-etcd.key".into(), key);
        });
        Reply::Json(200, secret)
    };
    let (directory, result) = download(upload(), &external("/etc/kubernetes/pki/etcd.crt"), |_, cx| cx).await;
    result.unwrap();
    assert_eq!(mode(directory.path(), "etc/kubernetes/pki/etcd.crt"), 0o644);
    assert_eq!(mode(directory.path(), "etc/etcd/pki/client.key"), 0o600);

    for refused in ["/etc/ssl/certs/ca.crt", "/etc/cron.d/ca.crt", "", "ca.crt"] {
        let (directory, result) = download(upload(), &external(refused), |_, cx| cx).await;
        assert_eq!(result.unwrap_err().code(), "cluster-path-refused", "{refused}");
        assert_eq!(tree(directory.path()), []);
    }
}

#[tokio::test]
async fn anything_wrong_with_the_secret_leaves_the_machine_as_it_is() {
    type Alter = fn(&mut BTreeMap<String, Vec<u8>>);
    let other_key = |data: &mut BTreeMap<String, Vec<u8>>| {
        data.insert("unexpected".into(), KEY.replace('c', "d").parse::<CertificateKey>().unwrap().seal(b"x"));
    };
    let cases: [(Alter, &str, &str); 6] = [
        (other_key, "download-certs-wrong-key", "`unexpected`"),
        (|data| data.get_mut("sa.key").unwrap()[20] ^= 1, "download-certs-wrong-key", "`sa.key`"),
        (|data| data.get_mut("sa.key").unwrap().truncate(5), "download-certs-wrong-key", "`sa.key`"),
        (
            |data| {
                data.remove("etcd-ca.crt");
                data.remove("sa.pub");
            },
            "download-certs-absent",
            "`sa.pub`, `etcd-ca.crt`",
        ),
        (
            |data| drop(data.insert("sa.pub".into(), key().seal(b"no PEM"))),
            "download-certs-unknown-content",
            "`sa.pub`",
        ),
        (
            |data| {
                let torn = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
                data.insert("sa.key".into(), key().seal(torn.as_bytes()));
            },
            "download-certs-unknown-content",
            "`sa.key`",
        ),
    ];
    for (alter, code, entry) in cases {
        let (_other, secret) = uploaded(alter);
        let (directory, result) = download(Reply::Json(200, secret), &configuration(), |_, cx| cx).await;
        let error = result.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains(entry), "{error}");
        assert!(error.hint().unwrap().contains("kubeadm init phase upload-certs --upload-certs"));
        assert_eq!(tree(directory.path()), []);
    }
}

#[tokio::test]
async fn each_refusal_of_the_server_has_its_hint() {
    for (code, reason, wanted, hint) in [
        (404, "NotFound", "download-certs-expired", "two hours"),
        (403, "Forbidden", "download-certs-forbidden", "kubeadm token create"),
        (401, "Unauthorized", "download-certs-unauthorized", "kubeadm token list"),
    ] {
        let (directory, result) = download(status(code, reason), &configuration(), |_, cx| cx).await;
        let error = result.unwrap_err();
        assert_eq!(error.code(), wanted);
        assert!(error.hint().unwrap().contains(hint), "{error}");
        assert_eq!(tree(directory.path()), []);
    }
}

#[tokio::test]
async fn a_second_download_changes_nothing_and_another_clusters_files_are_replaced() {
    let (other, secret) = uploaded(|_| {});
    let (directory, result) = download(Reply::Json(200, secret.clone()), &configuration(), |root, cx| {
        put_shared(root);
        put(root, "ca.key", "theirs", 0o644);
        cx
    })
    .await;
    result.unwrap();
    assert_eq!(read(directory.path(), "ca.key"), read(other.path(), "ca.key"));
    // A key is never left as open as the file that it replaces.
    assert_eq!(mode(directory.path(), &format!("{PKI}/ca.key")), 0o600);
    let (again, result) = download(Reply::Json(200, secret), &configuration(), |root, cx| {
        for (_, file) in ENTRIES {
            put(root, file, &read(other.path(), file), if file.ends_with(".key") { 0o600 } else { 0o644 });
        }
        cx
    })
    .await;
    result.unwrap();
    let content = |root: &Path| tree(root).into_iter().map(|(_, mode, content)| (mode, content)).collect::<Vec<_>>();
    assert_eq!(content(again.path()), content(directory.path()));
}

#[tokio::test]
async fn a_dry_run_fetches_and_writes_nothing() {
    let (_other, secret) = uploaded(|_| {});
    let plan = std::sync::Arc::new(Plan::default());
    let noted = std::sync::Arc::clone(&plan);
    let (directory, result) = download(Reply::Json(200, secret), &configuration(), move |root, cx| {
        with_node(&cx, planning_node(root, &noted))
    })
    .await;
    result.unwrap();
    assert_eq!(tree(directory.path()), []);
    let text = plan.text();
    assert!(text.contains("would write /etc/kubernetes/pki/etcd/ca.key (mode 0600"), "{text}");
    assert!(!text.contains("PRIVATE KEY"), "{text}");
}
