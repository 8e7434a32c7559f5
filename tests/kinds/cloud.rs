//! A cloud's metadata service on loopback, in the place of the network that the host would use.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use mortise::network::Network;

/// Where the service is for whoever asks.
const ADDRESS: &str = "169.254.169.254:80";

/// Has no values to begin with. Its thread lives as long as the test.
pub(crate) struct Cloud {
    served_at: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    values: BTreeMap<String, String>,
    failure: Option<u16>,
}

impl Default for Cloud {
    fn default() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (served_at, state) = (listener.local_addr().unwrap(), Arc::<Mutex<State>>::default());
        let answers = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that went away is its own business.
                let _ = stream.and_then(|stream| serve(stream, &answers));
            }
        });
        Self { served_at, state }
    }
}

impl Cloud {
    /// The value at a path, query included.
    pub(crate) fn put(&self, path: &str, value: &str) {
        self.state.lock().unwrap().values.insert(path.into(), value.into());
    }

    /// Answers everything with this status from now on.
    pub(crate) fn fail(&self, status: u16) {
        self.state.lock().unwrap().failure = Some(status);
    }
}

/// As Google does: without its header nothing is told.
fn serve(stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut flavored = false;
    for line in lines {
        let line = line?;
        flavored |= line.eq_ignore_ascii_case("metadata-flavor: Google");
        if line.is_empty() {
            break;
        }
    }
    let path = request.strip_prefix("GET ").and_then(|it| it.strip_suffix(" HTTP/1.1")).unwrap_or_default();
    let state = state.lock().unwrap();
    let (status, body) = match (state.failure, state.values.get(path)) {
        (Some(status), _) => (status, ""),
        (None, Some(value)) if flavored => (200, value.as_str()),
        (None, Some(_)) => (403, ""),
        (None, None) => (404, ""),
    };
    write!(&stream, "HTTP/1.1 {status} .\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

impl Network for Cloud {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<tokio::net::TcpStream>> {
        assert_eq!(address, ADDRESS.parse().unwrap());
        Box::pin(tokio::net::TcpStream::connect(self.served_at))
    }
}
