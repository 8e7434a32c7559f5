//! Discovery against a scripted API server: every good and every bad answer.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::api::scripted::{Authority, Reply, Script, TOKEN, status, test_context, token_discovery};
use crate::api::{TlsProblem, UNVERIFIED_ANSWER_LIMIT_BYTES};
use crate::error::Diagnose as _;
use crate::pki::Pin;
use crate::token::BootstrapToken;

const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const CP: &str = "cp.example:6443";
const CP_URL: &str = "https://cp.example:6443";

fn token() -> BootstrapToken {
    TOKEN.parse().unwrap()
}

fn cluster_info(kubeconfig: &str, signature: Option<String>) -> Reply {
    let mut data = json!({ "kubeconfig": kubeconfig });
    if let Some(signature) = signature {
        data["jws-kubeconfig-abcdef"] = json!(signature);
    }
    Reply::Json(
        200,
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "cluster-info"}, "data": data}),
    )
}

/// What an honest server answers.
fn signed(authority: &Authority, server: &str) -> Reply {
    let kubeconfig = authority.cluster_info_kubeconfig(server);
    let signature = jws::sign(&kubeconfig, &token());
    cluster_info(&kubeconfig, Some(signature))
}

/// A script whose only server gives one answer to the anonymous request.
async fn first_answer(authority: &Arc<Authority>, reply: Reply) -> DiscoveryError {
    let running = Script::new().listen(CP, authority, &["cp.example"]).get(PATH, reply).start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![authority.pin()]));
    let error = discover(&cx).await.unwrap_err();
    running.finish();
    assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("canary"), "{error:?}");
    error
}

#[tokio::test]
async fn a_signed_cluster_info_with_a_pinned_ca_is_trusted_after_two_handshakes() {
    let authority = Authority::new();
    let running = Script::new().listen(CP, &authority, &["cp.example"]).get(PATH, signed(&authority, CP_URL)).start();
    let pins = vec![Pin::of_spki(b"another"), authority.pin()];
    let (_directory, cx) = test_context(&running.dialer, token_discovery(CP, pins));
    let access = discover(&cx).await.unwrap();
    assert_eq!(access.cluster.server, CP_URL);
    assert_eq!(access.cluster.ca_pem, authority.pem);
    assert_eq!(access.cluster.established_by, format!("token abcdef, pin {}", authority.pin()));
    assert_eq!(running.handshakes(), 2);
    assert!(running.seen().iter().all(|seen| seen.authorization.is_none()), "a credential was sent in discovery");
    assert!(!format!("{access:?}").contains("canary"));
    running.finish();
}

#[tokio::test]
async fn without_pins_one_read_is_enough_and_it_says_so() {
    let authority = Authority::new();
    let running = Script::new().listen(CP, &authority, &["cp.example"]).get(PATH, signed(&authority, CP_URL)).start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![]));
    let access = discover(&cx).await.unwrap();
    assert_eq!(access.cluster.established_by, "token abcdef, unpinned");
    running.finish();
}

#[tokio::test]
async fn later_requests_go_to_the_server_that_cluster_info_names() {
    let authority = Authority::new();
    let running = Script::new()
        .listen("10.0.0.1:6443", &authority, &["10.0.0.1"])
        .listen(CP, &authority, &["cp.example"])
        .get(PATH, signed(&authority, CP_URL))
        .get("/api/v1/nodes/n1", status(404, "NotFound"))
        .start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery("10.0.0.1:6443", vec![authority.pin()]));
    let access = discover(&cx).await.unwrap();
    let error = crate::api::get::<k8s_openapi::api::core::v1::Node>(access.client(), None, "n1").await.unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert_eq!(running.handshakes(), 3);
    assert_eq!(running.seen()[1].authorization.as_deref(), Some(&*format!("Bearer {TOKEN}")));
    running.finish();
}

#[tokio::test]
async fn the_next_endpoint_is_asked_when_one_does_not_answer() {
    let authority = Authority::new();
    let running = Script::new()
        .refuses("a.example:1")
        .listen(CP, &authority, &["cp.example"])
        .get(PATH, signed(&authority, CP_URL))
        .start();
    let discovery = token_discovery(&format!("a.example:1,b.example:2,{CP}"), vec![authority.pin()]);
    let (_directory, cx) = test_context(&running.dialer, discovery);
    discover(&cx).await.unwrap();
    running.finish();
}

#[tokio::test]
async fn a_proof_of_forgery_ends_it_though_another_endpoint_is_left() {
    let (authority, other) = (Authority::new(), Authority::new());
    let running = Script::new()
        .listen("a.example:1", &other, &["a.example"])
        .listen(CP, &authority, &["cp.example"])
        .get(PATH, signed(&other, "https://a.example:1"))
        .start();
    let discovery = token_discovery(&format!("a.example:1,{CP}"), vec![authority.pin()]);
    let (_directory, cx) = test_context(&running.dialer, discovery);
    let error = discover(&cx).await.unwrap_err();
    assert!(matches!(&error, DiscoveryError::PinMismatch { found } if *found == [other.pin()]), "{error:?}");
    assert!(error.to_string().contains(&other.pin().to_string()));
    running.finish();
}

#[tokio::test]
async fn bad_answers_are_told_apart() {
    let authority = Authority::new();
    let kubeconfig = authority.cluster_info_kubeconfig(CP_URL);
    let good = jws::sign(&kubeconfig, &token());
    let other_secret = jws::sign(&kubeconfig, &"abcdef.0000000000000000".parse().unwrap());
    let mac = good.rsplit('.').next().unwrap();
    // {"alg":"none","kid":"abcdef"}
    let other_alg = format!("eyJhbGciOiJub25lIiwia2lkIjoiYWJjZGVmIn0..{mac}");
    let changed = kubeconfig.replace(CP_URL, "https://cp.example:6444");
    let foreign = Authority::new().cluster_info_kubeconfig(CP_URL);
    let resigned = |text: &str| cluster_info(text, Some(jws::sign(text, &token())));
    for (code, reply) in [
        ("discovery-no-signature", cluster_info(&kubeconfig, None)),
        ("discovery-no-signature", cluster_info(&kubeconfig, Some(String::new()))),
        ("discovery-bad-signature", cluster_info(&kubeconfig, Some(other_secret.clone()))),
        ("discovery-bad-signature", cluster_info(&changed, Some(good.clone()))),
        ("discovery-bad-signature", cluster_info(&foreign, Some(good.clone()))),
        ("discovery-pin-mismatch", resigned(&foreign)),
        ("discovery-signature-algorithm", cluster_info(&kubeconfig, Some(other_alg))),
        ("discovery-signature-malformed", cluster_info(&kubeconfig, Some("garbage".into()))),
        ("discovery-kubeconfig", resigned("clusters: [")),
        ("discovery-kubeconfig", resigned("clusters: []")),
        ("discovery-ca", resigned("clusters: [{name: '', cluster: {server: 'https://x'}}]")),
        ("discovery-server", resigned(&kubeconfig.replace("https://", "http://"))),
        ("discovery-not-cluster-info", cluster_info("", Some(good.clone()))),
        ("discovery-not-cluster-info", Reply::Raw(200, "<html>login</html>".into())),
        ("discovery-not-cluster-info", Reply::Raw(200, "\u{1b}[2J".into())),
        (
            "discovery-not-cluster-info",
            Reply::Json(200, json!({"kind": "Secret", "metadata": {"name": "cluster-info"}})),
        ),
        ("discovery-too-large", Reply::Flood(10 << 20)),
        ("discovery-public-access-closed", status(401, "Unauthorized")),
        ("discovery-public-access-closed", status(403, "Forbidden")),
        ("discovery-no-cluster-info", status(404, "NotFound")),
        ("api-server-error", status(503, "ServiceUnavailable")),
        ("api-server-error", Reply::Raw(502, "<html>bad gateway\u{1b}</html>".into())),
        ("api-too-many-requests", status(429, "TooManyRequests")),
        ("api-broken", Reply::Cut),
    ] {
        let error = first_answer(&authority, reply).await;
        assert_eq!(error.code(), code, "{error}: {:?}", std::error::Error::source(&error));
        let failure = crate::error::Failure::from(error);
        assert!(!failure.message().contains('\u{1b}'), "{failure}");
        assert!(failure.hint().is_some() || code.starts_with("api-"), "{code} has no hint");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_blamed_alone_only_when_the_ca_is_pinned() {
    let authority = Authority::new();
    let kubeconfig = authority.cluster_info_kubeconfig(CP_URL);
    let signature = jws::sign(&kubeconfig, &"abcdef.0000000000000000".parse().unwrap());
    let error = first_answer(&authority, cluster_info(&kubeconfig, Some(signature.clone()))).await;
    assert!(error.to_string().ends_with("so the token's secret is wrong"), "{error}");
    let running = Script::new()
        .listen(CP, &authority, &["cp.example"])
        .get(PATH, cluster_info(&kubeconfig, Some(signature)))
        .start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![]));
    let error = discover(&cx).await.unwrap_err();
    assert!(error.to_string().ends_with("or the data was changed"), "{error}");
}

#[tokio::test]
async fn closed_public_access_names_the_other_way() {
    let error = first_answer(&Authority::new(), status(403, "Forbidden")).await;
    assert!(error.hint().unwrap().contains("--discovery-file"));
}

#[tokio::test]
async fn servers_that_cannot_be_reached_are_told_apart() {
    let (authority, other) = (Authority::new(), Authority::new());
    let running = Script::new()
        .refuses("refuses.example:1")
        .silent("silent.example:1")
        .plain_http("http.example:1")
        .listen("never.example:1", &authority, &["never.example"])
        .get(PATH, Reply::Never)
        .start();
    for (endpoint, code) in [
        ("unknown.example:1", "api-dns"),
        ("refuses.example:1", "api-refused"),
        ("silent.example:1", "api-timeout"),
        ("http.example:1", "api-tls-not-tls"),
        ("never.example:1", "api-timeout"),
    ] {
        let (_directory, cx) = test_context(&running.dialer, token_discovery(endpoint, vec![other.pin()]));
        let started = Instant::now();
        let error = discover(&cx).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(started.elapsed() <= Duration::from_secs(10));
    }
    running.finish();
}

/// The read succeeds; then it turns out that the server has another certificate.
async fn verified_late(authority: &Authority, listener: Script) -> ApiError {
    let kubeconfig = authority.cluster_info_kubeconfig("https://10.0.0.1:6443");
    let signature = jws::sign(&kubeconfig, &token());
    let running = listener.get(PATH, cluster_info(&kubeconfig, Some(signature))).start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery("10.0.0.1:6443", vec![authority.pin()]));
    let error = discover(&cx).await.unwrap_err();
    running.finish();
    match error {
        DiscoveryError::Unanswered { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_relay_that_passes_on_the_genuine_cluster_info_is_caught_by_its_certificate() {
    let (authority, relay) = (Authority::new(), Authority::new());
    let error = verified_late(&authority, Script::new().listen("10.0.0.1:6443", &relay, &["10.0.0.1"])).await;
    assert_eq!(error.code(), "api-tls-unknown-issuer");
}

#[tokio::test]
async fn a_certificate_for_other_names_is_told_with_them() {
    let authority = Authority::new();
    let names = ["cp.example", "10.0.0.2"];
    let error = verified_late(&authority, Script::new().listen("10.0.0.1:6443", &authority, &names)).await;
    let ApiError::Tls { problem: TlsProblem::WrongHost { expected, found }, .. } = &error else { panic!("{error:?}") };
    assert_eq!((expected.as_str(), &found[..]), ("10.0.0.1", &["cp.example".to_owned(), "10.0.0.2".to_owned()][..]));
    let error =
        verified_late(&authority, Script::new().listen_expired("10.0.0.1:6443", &authority, &["10.0.0.1"])).await;
    assert_eq!(error.code(), "api-tls-validity");
}

#[tokio::test]
async fn a_signature_that_comes_late_is_waited_for_on_the_same_connections() {
    let authority = Authority::new();
    let kubeconfig = authority.cluster_info_kubeconfig(CP_URL);
    for script in [
        Script::new().listen(CP, &authority, &["cp.example"]),
        Script::new().listen_http1(CP, &authority, &["cp.example"]),
    ] {
        let running = script
            .get(PATH, cluster_info(&kubeconfig, None))
            .get(PATH, cluster_info(&kubeconfig, None))
            .get(PATH, signed(&authority, CP_URL))
            .get("/api/v1/nodes/n1", status(404, "NotFound"))
            .start();
        let (_directory, cx) = test_context(&running.dialer, token_discovery(CP, vec![authority.pin()]));
        let cx = cx.with(|settings| settings.fail_fast = false);
        let started = Instant::now();
        let access = discover(&cx).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
        let _ = crate::api::get::<k8s_openapi::api::core::v1::Node>(access.client(), None, "n1").await;
        assert_eq!(running.handshakes(), 2);
        running.finish();
    }
}

#[tokio::test]
async fn waiting_ends_with_what_was_seen_last() {
    let running = Script::new().refuses("a.example:1").start();
    let (_directory, cx) = test_context(&running.dialer, token_discovery("a.example:1", vec![]));
    let cx = cx.with(|settings| {
        settings.fail_fast = false;
        settings.timeouts.discovery = Duration::from_millis(300);
    });
    let started = Instant::now();
    assert_eq!(discover(&cx).await.unwrap_err().code(), "api-refused");
    assert!(started.elapsed() >= Duration::from_millis(300));
}

mod file {
    use super::*;
    use crate::config::Discovery;

    fn kubeconfig(authority: &Authority, user: &str) -> String {
        authority
            .cluster_info_kubeconfig(CP_URL)
            .replace("name: \"\"", "name: c")
            .replace("contexts: null", "contexts: [{name: x, context: {cluster: c, user: u}}]")
            .replace("current-context: \"\"", "current-context: x")
            .replace("users: null", &format!("users: [{{name: u, user: {user}}}]"))
    }

    /// Runs file discovery on this text; cluster-info is answered so, if it is asked for.
    async fn run(
        authority: &Authority,
        text: &str,
        reply: Option<Reply>,
    ) -> (Result<Access, DiscoveryError>, Option<String>) {
        let mut script = Script::new().listen(CP, authority, &["cp.example"]);
        if let Some(reply) = reply {
            script = script.get(PATH, reply);
        }
        let running = script.start();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("discovery.conf");
        std::fs::write(&path, text.replace("@DIR@", directory.path().to_str().unwrap())).unwrap();
        std::fs::write(directory.path().join("token"), "canary-token\n").unwrap();
        std::fs::write(directory.path().join("ca.crt"), &authority.pem).unwrap();
        let (_directory, cx) = test_context(&running.dialer, Discovery::File { path });
        let result = discover(&cx).await;
        let authorization = running.seen().first().and_then(|seen| seen.authorization.clone());
        running.finish();
        if let Err(error) = &result {
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
        (result, authorization)
    }

    #[tokio::test]
    async fn each_kind_of_credential_is_presented() {
        let authority = Authority::new();
        for (user, header) in [
            ("{token: canary}", "Bearer canary"),
            ("{tokenFile: @DIR@/token}", "Bearer canary-token"),
            ("{username: u, password: canary}", "Basic dTpjYW5hcnk="),
        ] {
            let (result, authorization) =
                run(&authority, &kubeconfig(&authority, user), Some(signed(&authority, CP_URL))).await;
            let access = result.unwrap();
            assert_eq!(authorization.as_deref(), Some(header));
            assert_eq!(access.cluster.server, CP_URL);
            assert!(!format!("{access:?}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn a_ca_file_is_read_and_a_refusal_to_show_cluster_info_passed_over() {
        let authority = Authority::new();
        let text = kubeconfig(&authority, "{token: canary}");
        let line = text.lines().find(|line| line.contains("certificate-authority-data")).unwrap().to_owned();
        let text = text.replace(&line, "    certificate-authority: '@DIR@/ca.crt'");
        let (result, _) = run(&authority, &text, Some(status(403, "Forbidden"))).await;
        assert_eq!(result.unwrap().cluster.ca_pem, authority.pem);
        let without = text.replace("    certificate-authority: '@DIR@/ca.crt'\n", "");
        let (result, _) = run(&authority, &without, None).await;
        assert_eq!(result.unwrap_err().code(), "discovery-file-no-ca");
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_refused_before_anything_is_sent() {
        let authority = Authority::new();
        let user = |user: &str| kubeconfig(&authority, user);
        for (text, code) in [
            (user("{exec: {command: canary}}"), "discovery-file-needs-plugin"),
            (user("{auth-provider: {name: canary}}"), "discovery-file-needs-plugin"),
            (user("{tokenFile: /nonexistent/x}"), "discovery-file-read"),
            (user("{client-certificate-data: '%canary', client-key-data: '%canary'}"), "discovery-file"),
            (user("{token: \"a\\ncanary\"}"), "discovery-credential"),
            (user("{token: [canary]}"), "discovery-file"),
            ("canary: [".to_owned(), "discovery-file"),
            ("{}".to_owned(), "discovery-file"),
            (
                user("{token: t}").replace("server:", "insecure-skip-tls-verify: true\n    server:"),
                "discovery-file-insecure",
            ),
        ] {
            let (result, _) = run(&authority, &text, None).await;
            assert_eq!(result.unwrap_err().code(), code, "{text}");
        }
    }

    #[tokio::test]
    async fn a_credential_that_the_server_refuses_is_not_called_closed_public_access() {
        let authority = Authority::new();
        let text = kubeconfig(&authority, "{token: canary}");
        let (result, _) = run(&authority, &text, Some(status(401, "Unauthorized"))).await;
        assert_eq!(result.unwrap_err().code(), "discovery-credential-refused");
    }

    #[tokio::test]
    async fn a_file_without_credentials_needs_a_tls_bootstrap_token() {
        let authority = Authority::new();
        let (result, authorization) =
            run(&authority, &kubeconfig(&authority, "{}"), Some(signed(&authority, CP_URL))).await;
        assert_eq!(result.unwrap_err().code(), "discovery-no-credential");
        assert_eq!(authorization, None);
    }

    #[tokio::test]
    async fn a_tls_bootstrap_token_replaces_the_files_credentials() {
        let authority = Authority::new();
        let running = Script::new()
            .listen(CP, &authority, &["cp.example"])
            .get(PATH, signed(&authority, CP_URL))
            .on(Method::GET, "/api/v1/nodes/n1", |_| status(404, "NotFound"))
            .start();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("discovery.conf");
        std::fs::write(&path, kubeconfig(&authority, "{token: file-token}")).unwrap();
        let (_directory, cx) = test_context(&running.dialer, Discovery::File { path });
        let cx = cx.with(|settings| settings.tls_bootstrap_token = Some(token()));
        let access = discover(&cx).await.unwrap();
        let _ = crate::api::get::<k8s_openapi::api::core::v1::Node>(access.client(), None, "n1").await;
        let sent: Vec<_> = running.seen().into_iter().map(|seen| seen.authorization.unwrap()).collect();
        assert_eq!(sent, ["Bearer file-token".to_owned(), format!("Bearer {TOKEN}")]);
        assert_eq!(running.handshakes(), 1);
        running.finish();
    }
}

#[test]
fn the_limit_before_trust_is_far_above_an_honest_cluster_info() {
    let authority = Authority::new();
    assert!((authority.cluster_info_kubeconfig(CP_URL).len() as u64) * 50 < UNVERIFIED_ANSWER_LIMIT_BYTES);
}
