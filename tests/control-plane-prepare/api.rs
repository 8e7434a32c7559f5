//! An API server that knows a few objects, as far as kubeadm asks.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Serves on a loopback address, in the clear, until the process ends.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Api {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let objects: Arc<Mutex<BTreeMap<String, Value>>> = Arc::default();
        let served = Arc::clone(&objects);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                // A client that goes away fails only its own request.
                std::thread::spawn(move || drop(answer(&stream, &served)));
            }
        });
        Self { address, objects }
    }

    /// What is served, by path.
    pub(crate) fn objects(&self) -> BTreeMap<String, Value> {
        self.objects.lock().unwrap().clone()
    }

    /// Serves these objects, by path, and no others.
    pub(crate) fn serve(&self, objects: BTreeMap<String, Value>) {
        *self.objects.lock().unwrap() = objects;
    }
}

/// `data` as a ConfigMap of a namespace, with its path.
pub(crate) fn config_map(namespace: &str, name: &str, data: &Value) -> (String, Value) {
    (
        format!("/api/v1/namespaces/{namespace}/configmaps/{name}"),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": data,
        }),
    )
}

fn answer(stream: &TcpStream, objects: &Mutex<BTreeMap<String, Value>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    let found = objects.lock().unwrap().get(path).cloned();
    let (status, body) = match found {
        Some(object) => ("200 OK", object),
        None => (
            "404 Not Found",
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": path}),
        ),
    };
    let body = body.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
