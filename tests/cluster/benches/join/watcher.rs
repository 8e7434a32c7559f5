//! When the kubelet is healthy, seen from inside the node by this very program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use mortise_cluster::Cluster;

/// First word of the command line of the part that runs in the node.
pub(crate) const WORD: &str = "--watch-kubelet";

const INTERVAL: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(60);

/// The part that runs in the node.
pub(crate) struct Watcher {
    child: Child,
}

impl Watcher {
    /// Starts it; it asks until the kubelet answers that it is healthy.
    pub(crate) fn start(cluster: &Cluster, node: &str) -> Result<Self> {
        let program = std::env::current_exe()?.display().to_string();
        let child = cluster.command(node, &[&program, WORD]).stdout(Stdio::piped()).spawn()?;
        Ok(Self { child })
    }

    /// Seconds since 1970.
    pub(crate) fn healthy_at(self) -> Result<f64> {
        let output = self.child.wait_with_output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().context("the kubelet was never healthy")
    }
}

/// In the node: prints the time of the first healthy answer.
pub(crate) fn main() -> Result<()> {
    let started = SystemTime::now();
    while started.elapsed().unwrap_or_default() < LIMIT {
        if is_healthy().unwrap_or(false) {
            println!("{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64());
            return Ok(());
        }
        std::thread::sleep(INTERVAL);
    }
    anyhow::bail!("not healthy within {LIMIT:?}")
}

fn is_healthy() -> std::io::Result<bool> {
    let mut stream = TcpStream::connect("127.0.0.1:10248")?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.0 200"))
}
