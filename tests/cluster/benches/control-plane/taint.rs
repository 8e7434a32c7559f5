//! How long a Node of a control plane is there without its taint, during which workload may land on it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use mortise_cluster::{ADMIN_CONFIG, Cluster};

const TAINT: &str = "node-role.kubernetes.io/control-plane";

/// A watch on all Nodes.
pub(crate) struct Watch {
    child: Child,
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Watch {
    /// Begins on the first control plane.
    pub(crate) fn start(cluster: &Cluster) -> Result<Self> {
        let line = r#"jsonpath={.metadata.name} {.spec.taints[*].key}{"\n"}"#;
        let argv = ["kubectl", "--kubeconfig", ADMIN_CONFIG, "get", "nodes", "--watch", "-o", line];
        let mut child = cluster.command("n1", &argv).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("its output is piped")?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                keep.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), line));
            }
        });
        Ok(Self { child, seen })
    }

    /// Seconds from the Node's first sight to the first with its taint.
    pub(crate) fn untainted(&self, node: &str) -> Result<f64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ours = seen.iter().filter(|(_, line)| line.split(' ').next() == Some(node));
        let (first, _) = ours.clone().next().with_context(|| format!("Node {node} was not seen"))?;
        let tainted = ours.find(|(_, line)| line.split(' ').any(|key| key == TAINT));
        let (tainted, _) = tainted.with_context(|| format!("Node {node} was never tainted"))?;
        Ok((*tainted - *first).as_secs_f64())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
