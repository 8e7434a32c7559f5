//! `GET` over plain HTTP/1.1 to this machine: the kubelet's health, without a client library.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A healthy kubelet answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Most bytes of the answer that are looked at: the status line.
const MAX_STATUS_BYTES: usize = 64;

/// The status of `http://<IP address>:<port>/<path>`.
pub(super) async fn get(url: &str) -> io::Result<u16> {
    let (address, path) = parse_url(url)?;
    tokio::time::timeout(TIMEOUT, exchange(address, path)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: mortise\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(MAX_STATUS_BYTES);
    while answer.len() < MAX_STATUS_BYTES && !answer.contains(&b'\n') {
        if stream.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    parse_status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse_url(url: &str) -> io::Result<(SocketAddr, &str)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the URL is not http://<IP address>:<port>/<path>");
    let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
    let (authority, path) = rest.split_at(rest.find('/').ok_or_else(invalid)?);
    if path.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err(invalid());
    }
    let (host, port) = authority.rsplit_once(':').ok_or_else(invalid)?;
    let host: IpAddr = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
        .parse()
        .map_err(|_| invalid())?;
    Ok((SocketAddr::new(host, port.parse().map_err(|_| invalid())?), path))
}

fn parse_status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r' || *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    words.next()?.parse().ok().filter(|status| (100..600).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer_with(answer: &'static [u8]) -> io::Result<u16> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let status = get(&format!("http://{address}/healthz")).await;
        let request = server.await.unwrap();
        assert!(request.starts_with(&format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n")), "{request}");
        status
    }

    #[tokio::test]
    async fn tells_the_status_or_why_there_is_none() {
        assert_eq!(answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap(), 200);
        assert_eq!(answer_with(b"HTTP/1.1 500 Internal Server Error\r\n\r\n").await.unwrap(), 500);
        for rubbish in [&b"SSH-2.0-OpenSSH_9.2\r\n"[..], b"", b"HTTP/1.1 99999\r\n", b"HTTP/1.1\r\n"] {
            assert_eq!(answer_with(rubbish).await.unwrap_err().kind(), io::ErrorKind::InvalidData, "{rubbish:?}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(
            get(&format!("http://{closed}/healthz")).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn takes_urls_with_addresses_only() {
        assert_eq!(parse_url("http://[::1]:10248/healthz").unwrap(), ("[::1]:10248".parse().unwrap(), "/healthz"));
        for bad in [
            "https://127.0.0.1:1/",
            "http://localhost:1/",
            "http://127.0.0.1/",
            "http://127.0.0.1:1",
            "http://127.0.0.1:70000/",
            "http://127.0.0.1:1/a b",
            "http://127.0.0.1:1/\r\nX: y",
        ] {
            assert!(parse_url(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
