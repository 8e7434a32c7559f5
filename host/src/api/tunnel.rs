//! A tunnel through a proxy: `CONNECT`, as RFC 9110, section 9.3.6, has it.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::proxy::{Proxy, ProxySettings};

/// Longest answer to CONNECT.
const CONNECT_ANSWER_LIMIT_BYTES: usize = 8 << 10;

/// The proxy that this process's environment, read once, wants for an https server.
pub(crate) fn proxy_for(host: &str, port: u16) -> Option<&'static Proxy> {
    static SETTINGS: OnceLock<ProxySettings> = OnceLock::new();
    let settings = SETTINGS.get_or_init(|| {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        ProxySettings::from_env(&variables)
    });
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    settings.for_url(&format!("https://{host}:{port}"))
}

/// Where to connect to for a tunnel.
///
/// # Errors
///
/// What is wrong, for a proxy that is not spoken to in plain HTTP.
pub(crate) fn address(proxy: &Proxy) -> Result<(&str, u16), &'static str> {
    match proxy.scheme.as_str() {
        "http" => Ok((&proxy.host, proxy.port)),
        _ => Err("only proxies of scheme `http` are supported"),
    }
}

/// Asks a proxy to connect the stream to `endpoint` (`host:port`).
pub(crate) async fn open_tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    endpoint: &str,
) -> io::Result<()> {
    let mut request = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n");
    if let Some(user_info) = &proxy.user_info {
        let credential: Vec<u8> = percent_decode_str(user_info.expose_secret()).collect();
        let encoded = base64::engine::general_purpose::STANDARD.encode(credential);
        request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= CONNECT_ANSWER_LIMIT_BYTES {
            return Err(io::Error::other("its answer is too long"));
        }
        // Byte by byte: what follows the answer belongs to TLS.
        answer.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&answer);
    let status_line = head.lines().next().unwrap_or_default();
    match status_line.split(' ').nth(1) {
        Some(code) if code.len() == 3 && code.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("it answered `{status_line}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named_with_its_answer() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nX: y\r\n\r\n").await.unwrap();
        let variables = BTreeMap::from([("HTTPS_PROXY".to_owned(), "http://user:p%77@p:1".to_owned())]);
        let settings = ProxySettings::from_env(&variables);
        let proxy = settings.for_url("https://api:6443").unwrap();
        assert_eq!(address(proxy), Ok(("p", 1)));
        let error = open_tunnel(&mut near, proxy, "api:6443").await.unwrap_err();
        assert!(error.to_string().contains("407"), "{error}");
        let mut sent = vec![0; 200];
        let length = far.read(&mut sent).await.unwrap();
        let sent = String::from_utf8_lossy(&sent[..length]);
        assert!(sent.starts_with("CONNECT api:6443 HTTP/1.1\r\n"), "{sent}");
        assert!(sent.contains("Proxy-Authorization: Basic dXNlcjpwdw==\r\n"), "{sent}");
    }
}
