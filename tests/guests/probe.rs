//! Probes of plugins: a connection, a handshake, a look-up, and nothing that was not granted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::network::{ScriptedNetwork, Server, answers, calling, denied, on, passing};

/// A TLS server on loopback with a certificate for `localhost`, and that certificate.
async fn tls_server() -> (u16, rustls_pki_types::CertificateDer<'static>) {
    tls_server_with(0).await
}

/// With so many more certificates in its chain.
async fn tls_server_with(more: usize) -> (u16, rustls_pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certificate.clone(); 1 + more], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that trusts nobody goes away.
                let _ = acceptor.accept(stream).await;
            });
        }
    });
    (port, certificate)
}

#[tokio::test]
async fn probes_show_what_answers() {
    let (port, certificate) = tls_server().await;
    let text = port.to_string();
    let calls: [&[&str]; 3] =
        [&["tcp", "127.0.0.1", &text], &["tls", "127.0.0.1", &text], &["dns", "registry.example"]];
    let grants = format!(
        "{{facts: [swap], probe: [{{tcp: '127.0.0.1:{port}'}}, {{tls: '127.0.0.1:{port}'}}, {{dns: registry.example}}]}}"
    );
    let addresses = ["10.0.0.5 1.1.1.1 10.0.0.5 fd00::1"];
    let network = || ScriptedNetwork::default().naming("registry.example", &addresses);
    let result = passing(on(network(), calling(&calls).granted(&grants))).await;
    let seen = answers(&result);
    assert_eq!((seen[0], seen[2]), ("127.0.0.1", "1.1.1.1,10.0.0.5,fd00::1"));
    let shown = format!("127.0.0.1 TLSv1.3 [{}] Some(", certificate.len());
    assert!(seen[1].starts_with(&shown), "{seen:?}");

    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let network = ScriptedNetwork { roots: Some(Arc::new(roots)), ..network() };
    let result = passing(on(network, calling(&calls).granted(&grants))).await;
    assert!(answers(&result)[1].ends_with("] None"), "{result:#?}");
}

#[tokio::test]
async fn a_handshake_shows_sixteen_certificates_and_no_more() {
    let ((most, _), (more, _)) = (tls_server_with(15).await, tls_server_with(16).await);
    let calls = [most, more].map(|port| ["tls".to_owned(), "127.0.0.1".to_owned(), port.to_string()]);
    let calls: Vec<Vec<&str>> = calls.iter().map(|words| words.iter().map(String::as_str).collect()).collect();
    let calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
    let grants = format!("{{facts: [swap], probe: [{{tls: '127.0.0.1:{most}'}}, {{tls: '127.0.0.1:{more}'}}]}}");
    let result = passing(calling(&calls).granted(&grants)).await;
    let seen = answers(&result);
    assert!(seen[0].starts_with("127.0.0.1 TLSv1.3 ["), "{seen:?}");
    assert!(seen[1].starts_with("too-large: 17 certificates"), "{seen:?}");
}

#[tokio::test]
async fn probes_without_a_grant_are_denied_and_never_dialled() {
    let server = Server::start().await;
    let port = server.address.port().to_string();
    let calls: [&[&str]; 4] = [
        &["tcp", "127.0.0.1", &port],
        &["tls", "127.0.0.1", &port],
        &["dns", "other.example"],
        &["tcp", "registry.example", "443"],
    ];
    let grants = "{facts: [swap], probe: [{dns: registry.example}, {tcp: 'registry.example:443'}]}";
    let network = ScriptedNetwork::default().naming("registry.example", &["64:ff9b::7f00:1"]);
    let setup = on(network, calling(&calls).granted(grants));
    let machine = setup.machine.clone();
    let result = denied(setup, 4).await;
    for (answer, words) in
        answers(&result).iter().zip(["{tcp: ", "{tls: ", "{dns: other.example", "an IPv4 address inside IPv6"])
    {
        assert!(answer.starts_with("denied: ") && answer.contains(words), "{answer}");
    }
    assert!(machine.network.dialled.lock().unwrap().is_empty());
    assert_eq!(server.accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn probes_of_what_is_silent_closed_or_malformed_end() {
    // It takes the connection and waits for a request that a handshake is not.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let (silent_text, closed_text) = (silent_port.to_string(), closed_port.to_string());
    let long = "x".repeat(5000);
    let calls: [&[&str]; 8] = [
        &["tls", "127.0.0.1", &silent_text],
        &["tcp", "127.0.0.1", &closed_text],
        &["dns", "silent.example"],
        &["dns", "absent.example"],
        &["dns", "10.0.0.1"],
        &["dns", &long],
        &["tcp", "127.0.0.1", "0"],
        &["tls", "a\r\nb", "443"],
    ];
    let grants = format!(
        "{{facts: [swap], probe: [{{tls: '127.0.0.1:{silent_port}'}}, {{tcp: '127.0.0.1:{closed_port}'}}, \
         {{dns: silent.example}}, {{dns: absent.example}}]}}"
    );
    let network = ScriptedNetwork { silent: vec!["silent.example".into()], ..ScriptedNetwork::default() };
    let result = passing(on(network, calling(&calls).granted(&grants))).await;
    let begins = [
        "timeout (retryable)",
        "unavailable (retryable)",
        "timeout (retryable)",
        "not-found (retryable)",
        "invalid",
        "invalid",
        "invalid",
        "invalid",
    ];
    for (answer, begins) in answers(&result).iter().zip(begins) {
        assert!(answer.starts_with(&format!("{begins}: ")), "{answer}");
    }
}
