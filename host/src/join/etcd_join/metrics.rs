//! What our own etcd says of itself before it answers clients: its metrics, over plain HTTP on this machine.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::etcd::MemberId;

/// It is on this machine.
const TIMEOUT: Duration = Duration::from_secs(1);
/// etcd 3.7 says some 60 KiB.
const LIMIT_BYTES: usize = 1 << 20;

/// Our etcd, as it sees itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnState {
    /// `etcd_server_id`: which member it is.
    pub(super) id: MemberId,
    /// `etcd_server_proposals_applied_total`, which is a gauge: the latest entry in its database.
    pub(super) applied_index: u64,
    /// `etcd_server_has_leader`.
    pub(super) has_leader: bool,
}

/// Asks `http://HOST:PORT` for `/metrics`.
///
/// # Errors
///
/// Where nobody answers within a second, or the answer does not say all of [`OwnState`].
pub(super) async fn read(url: &str) -> io::Result<OwnState> {
    let text =
        tokio::time::timeout(TIMEOUT, get(url)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "these are not etcd's metrics"))
}

async fn get(url: &str) -> io::Result<String> {
    let authority = url.strip_prefix("http://").ok_or(io::ErrorKind::Unsupported)?;
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let exchange = async {
        let request = http::Request::get("/metrics").header(http::header::HOST, authority);
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        let answer = sender.send_request(request).await.map_err(io::Error::other)?;
        let body = Limited::new(answer.into_body(), LIMIT_BYTES).collect().await.map_err(io::Error::other)?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    let mut connection = std::pin::pin!(connection);
    tokio::pin!(exchange);
    // The connection is done when it has nothing more to carry; what it carried may still have to be read.
    tokio::select! {
        told = &mut exchange => told,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// The text format of Prometheus: `name{label="value"} number`.
fn parse(text: &str) -> Option<OwnState> {
    let gauge = |name: &str| {
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit_once(' ')?.1.parse::<f64>().ok().filter(|number| *number >= 0.0)
    };
    let id = text.lines().find_map(|line| line.strip_prefix("etcd_server_id{server_id=\"")?.strip_suffix("\"} 1"))?;
    Some(OwnState {
        id: id.parse().ok()?,
        // Exact up to 2^53, as a count of entries that no etcd reaches.
        applied_index: gauge("etcd_server_proposals_applied_total")? as u64,
        has_leader: gauge("etcd_server_has_leader")? > 0.0,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// From etcd 3.7.3.
    const METRICS: &str = "# TYPE etcd_server_has_leader gauge\n\
        etcd_server_has_leader 1\n\
        etcd_server_id{server_id=\"a8d9ea966effc1f7\"} 1\n\
        etcd_server_is_learner 0\n\
        etcd_server_proposals_applied_total 2334\n\
        etcd_server_proposals_committed_total 2335\n";

    #[test]
    fn tells_which_member_it_is_and_how_far_it_is() {
        let id = "a8d9ea966effc1f7".parse().unwrap();
        assert_eq!(parse(METRICS), Some(OwnState { id, applied_index: 2334, has_leader: true }));
        let later = METRICS.replace("2334", "1.234567e+06").replace("has_leader 1", "has_leader 0");
        assert_eq!(parse(&later), Some(OwnState { id, applied_index: 1_234_567, has_leader: false }));
        for missing in ["etcd_server_id", "etcd_server_proposals_applied_total", "etcd_server_has_leader"] {
            assert_eq!(parse(&METRICS.replace(missing, "another")), None, "{missing}");
        }
        assert_eq!(parse(&METRICS.replace("a8d9ea966effc1f7", "nobody")), None);
    }

    #[tokio::test]
    async fn asks_over_plain_http_and_says_where_nobody_answers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            for body in [METRICS, "no metrics"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(read(&url).await.unwrap().applied_index, 2334);
        assert_eq!(read(&url).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        server.await.unwrap();
        assert_eq!(read(&url).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(read("https://127.0.0.1:1").await.unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
