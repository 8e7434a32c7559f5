//! How the kubelet sees that a component lives.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{PROBE_PORT, without_empty};

/// Of each request.
const TIMEOUT_SECONDS: u32 = 15;
/// Between requests, and before the first.
const PERIOD_SECONDS: u32 = 10;

/// Where a component is asked, and for what.
pub(super) struct Probes {
    /// Empty: the Pod's own address.
    pub(super) host: String,
    pub(super) port: u16,
    /// `HTTP` or `HTTPS`.
    pub(super) scheme: &'static str,
    pub(super) liveness: &'static str,
    pub(super) readiness: Option<&'static str>,
    pub(super) startup: &'static str,
    /// How long a start may take.
    pub(super) start_within: Duration,
}

impl Probes {
    pub(super) fn write(&self, container: &mut Map<String, Value>) {
        container.insert("livenessProbe".into(), self.probe(self.liveness, PERIOD_SECONDS, PERIOD_SECONDS, 8));
        if let Some(path) = self.readiness {
            container.insert("readinessProbe".into(), self.probe(path, 0, 1, 3));
        }
        let tries = (self.start_within.as_secs_f64() / f64::from(PERIOD_SECONDS)).ceil();
        // Not negative; beyond 32 bits it stays at their end.
        let tries = tries as u32;
        container.insert("startupProbe".into(), self.probe(self.startup, PERIOD_SECONDS, PERIOD_SECONDS, tries));
    }

    fn probe(&self, path: &str, delay: u32, period: u32, failures: u32) -> Value {
        let get = json!({"host": self.host, "path": path, "port": PROBE_PORT, "scheme": self.scheme});
        let mut probe =
            json!({"httpGet": without_empty(get), "periodSeconds": period, "timeoutSeconds": TIMEOUT_SECONDS});
        for (name, value) in [("initialDelaySeconds", delay), ("failureThreshold", failures)] {
            if value != 0 {
                probe[name] = value.into();
            }
        }
        probe
    }
}

/// The address to ask for one that is listened on; every address is asked by the Pod's own.
pub(super) fn host(listening: &str) -> String {
    if matches!(listening, "0.0.0.0" | "::") { String::new() } else { listening.to_owned() }
}
