//! Requests of plugins: what is refused before a connection, what is bounded after it, and that the next call is answered.

use std::sync::atomic::Ordering;

use crate::network::{ScriptedNetwork, Server, answers, calling, denied, on, passing};

/// Grants of a server on loopback, and of a fact for the call after.
fn granted(server: &Server, more: &str) -> String {
    format!("{{facts: [swap], http: [{{url: '{}'{more}}}]}}", server.url("/"))
}

#[tokio::test]
async fn a_granted_request_is_sent_as_it_was_written_and_its_answer_comes_back_whole() {
    let server = Server::start().await;
    let (url, absent) = (server.url("/v1?a=%20b"), server.url("/absent"));
    let calls: [&[&str]; 2] = [&["fetch", "POST", &url, "b3", "hX-Site:blue one"], &["fetch", "GET", &absent]];
    let result = passing(calling(&calls).granted(&granted(&server, ", methods: [GET, POST]"))).await;
    let answers = answers(&result);
    assert!(answers[0].starts_with("200 ") && answers[0].contains("POST /v1?a=%20b HTTP/1.1|"), "{answers:?}");
    for line in
        [&format!("host: {}|", server.address), "x-site: blue one|", "content-length: 3|", "user-agent: mortise/"]
    {
        assert!(answers[0].contains(line), "`{line}` is not in {answers:?}");
    }
    assert!(answers[1].starts_with("404 4 ") && answers[1].ends_with(": gone"), "{answers:?}");
}

#[tokio::test]
async fn what_is_not_granted_is_denied_with_its_line_and_never_dialled() {
    let server = Server::start().await;
    let (outside, method) = (server.url("/v2"), server.url("/v1"));
    let other = format!("http://127.0.0.1:{}/v1", server.address.port() - 1);
    let calls: [&[&str]; 4] = [
        &["fetch", "GET", &outside],
        &["fetch", "DELETE", &method],
        &["fetch", "GET", &other],
        &["fetch", "GET", "https://inventory.example/"],
    ];
    let grants = format!("{{facts: [swap], http: [{{url: '{}'}}]}}", server.url("/v1"));
    let result = denied(calling(&calls).granted(&grants), 4).await;
    for answer in answers(&result) {
        assert!(
            answer.starts_with("denied: ") && answer.contains("manifest would have to ask for http: ["),
            "{answer}"
        );
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_redirect_to_the_metadata_service_comes_back_and_following_it_is_denied() {
    let server = Server::start().await;
    let url = server.url("/redirect");
    let calls: [&[&str]; 2] = [&["fetch", "GET", &url], &["fetch", "GET", "http://169.254.169.254/latest/"]];
    let setup = on(ScriptedNetwork::default(), calling(&calls).granted(&granted(&server, "")));
    let machine = setup.machine.clone();
    let result = denied(setup, 1).await;
    let answers = answers(&result);
    assert!(answers[0].starts_with("302 0 location=http://169.254.169.254/latest/"), "{answers:?}");
    assert!(answers[1].starts_with("denied: "), "{answers:?}");
    assert_eq!(*machine.network.dialled.lock().unwrap(), [server.address]);
}

#[tokio::test]
async fn a_name_that_leads_inward_is_denied_whatever_form_the_address_has() {
    for (address, words) in [
        ("127.0.0.1", "this machine itself"),
        ("::1", "this machine itself"),
        ("10.0.0.5", "private: true"),
        ("fd00::5", "private: true"),
        ("169.254.1.1", "link-local: true"),
        ("169.254.169.254", "link-local: true"),
        ("fd00:ec2::254", "link-local: true"),
        ("::ffff:10.0.0.5", "an IPv4 address inside IPv6"),
        ("::ffff:127.0.0.1", "an IPv4 address inside IPv6"),
        ("64:ff9b::a9fe:a9fe", "an IPv4 address inside IPv6"),
        ("2002:7f00:1::", "an IPv4 address inside IPv6"),
        ("0.0.0.0", "never granted"),
    ] {
        let network = ScriptedNetwork::default().naming("inventory.example", &[address]);
        let calls: [&[&str]; 1] = [&["fetch", "GET", "http://inventory.example/v1"]];
        let grants = "{facts: [swap], http: [{url: 'http://inventory.example/'}]}";
        let setup = on(network, calling(&calls).granted(grants));
        let machine = setup.machine.clone();
        let result = denied(setup, 1).await;
        let answer = answers(&result)[0];
        assert!(answer.starts_with("denied: ") && answer.contains(words), "{address}: {answer}");
        assert!(machine.network.dialled.lock().unwrap().is_empty(), "{address} was dialled");
    }
}

#[tokio::test]
async fn dns_that_changes_between_the_look_and_the_dialling_changes_nothing() {
    let server = Server::start().await;
    let mut network = ScriptedNetwork::default().naming("inventory.example", &["127.0.0.1 93.184.215.14", "127.0.0.1"]);
    network.instead = Some(server.address);
    let calls: [&[&str]; 2] =
        [&["fetch", "GET", "http://inventory.example/v1"], &["fetch", "GET", "http://inventory.example/v1"]];
    let setup = on(network, calling(&calls).granted("{facts: [swap], http: [{url: 'http://inventory.example/'}]}"));
    let machine = setup.machine.clone();
    let result = denied(setup, 1).await;
    let answers = answers(&result);
    assert!(answers[0].starts_with("200 ") && answers[0].contains("host: inventory.example|"), "{answers:?}");
    assert!(answers[1].starts_with("denied: "), "{answers:?}");
    assert_eq!(*machine.network.dialled.lock().unwrap(), ["93.184.215.14:80".parse().unwrap()]);
    assert_eq!(machine.network.resolved.lock().unwrap().len(), 2, "one question a request");
}

#[tokio::test]
async fn malformed_requests_are_invalid_and_never_dialled() {
    let server = Server::start().await;
    let url = server.url("/");
    let user = url.replace("http://", "http://user@");
    let up = server.url("/a/../b");
    let long = format!("hx:{}", "y".repeat(9000));
    let mut calls: Vec<Vec<&str>> = vec![
        vec!["fetch", "GET", &user],
        vec!["fetch", "GET", &up],
        vec!["fetch", "GET", "ftp://127.0.0.1/"],
        vec!["fetch", "GET", "http://[::ffff:127.0.0.1]/"],
        vec!["fetch", "GET", "http://2130706433/"],
        vec!["fetch", "CONNECT", &url],
        vec!["fetch", "TRACE", &url],
        vec!["fetch", "get", &url],
        vec!["fetch", "GET / HTTP/1.1\r\nx:", &url],
        vec!["fetch", "GET", &url, &long],
    ];
    for header in [
        "hHost:169.254.169.254",
        "hContent-Length:5",
        "hTransfer-Encoding:chunked",
        "hConnection:upgrade",
        "hKeep-Alive:1",
        "hUpgrade:x",
        "hTE:trailers",
        "hTrailer:x",
        "hExpect:100-continue",
        "hProxy-Authorization:x",
        "hproxy-connection:x",
        "hx:a\r\nhost: b",
        "hx:a\nb",
        "hx:a\0b",
        "hx y:a",
        "hx\r\ny:a",
        "h:a",
    ] {
        calls.push(vec!["fetch", "GET", &url, header]);
    }
    let calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
    let result = passing(calling(&calls).granted(&granted(&server, ""))).await;
    let answers = answers(&result);
    assert_eq!(answers.len(), calls.len());
    for (answer, call) in answers.iter().zip(&calls) {
        assert!(answer.starts_with("invalid: ") && !answer.contains(['\r', '\n']), "{call:?}: {answer}");
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn answers_that_are_slow_endless_or_no_http_are_bounded() {
    let server = Server::start().await;
    let paths = [
        ("/silent", "timeout (retryable): "),
        ("/slow", "timeout (retryable): "),
        ("/endless", "too-large: "),
        ("/huge", "too-large: "),
        ("/many", "too-large: "),
        ("/endless-head", "too-large: "),
        ("/long-header", "too-large: "),
        ("/cut", "unavailable (retryable): "),
        ("/upgrade", "unavailable: "),
        ("/garbage", "unavailable: "),
        ("/two-lengths", "unavailable: "),
    ];
    let urls = paths.map(|(path, _)| server.url(path));
    let calls: Vec<Vec<&str>> = urls.iter().map(|url| vec!["fetch", "GET", url, "t700"]).collect();
    let mut calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
    let body = server.url("/body");
    let oversize: &[&str] = &["fetch", "POST", &body, "b4097"];
    calls.push(oversize);
    let more = ", methods: [GET, POST], max-response: 4Ki, max-body: 4Ki";
    let result = passing(calling(&calls).granted(&granted(&server, more))).await;
    let answers = answers(&result);
    for ((path, begins), answer) in paths.iter().zip(&answers) {
        assert!(answer.starts_with(begins), "{path}: {answer}");
    }
    assert!(answers[paths.len()].starts_with("too-large: "), "{answers:?}");
    server.wait_until_closed(paths.len()).await;
    assert_eq!(server.accepted.load(Ordering::SeqCst), paths.len(), "an oversized body was sent");
}

#[tokio::test]
async fn a_server_that_nobody_trusts_gets_no_request() {
    let server = Server::start().await;
    let url = format!("https://127.0.0.1:{}/", server.address.port());
    let calls: [&[&str]; 1] = [&["fetch", "GET", &url, "t2000"]];
    let result = passing(calling(&calls).granted(&format!("{{facts: [swap], http: [{{url: '{url}'}}]}}"))).await;
    let answer = answers(&result)[0];
    assert!(answer.starts_with("timeout") || answer.starts_with("unavailable"), "{answer}");
}
