//! The host functions that reach beyond the machine, and its secrets: each one request to the broker.

use super::super::bindings::mortise::host::{http, probe, secrets, types};
use super::super::guest::Guest;
use super::super::http::{HeaderText, HttpRequest};
use super::super::probe::{Connected, ProbeRequest, Probed};
use super::super::wire::{Ask, Bytes, HostAnswer};
use super::mismatched;

impl http::Host for Guest {
    async fn fetch(&mut self, request: http::Request) -> Result<http::Response, types::Error> {
        let header = |(name, value)| match value {
            http::HeaderValue::Text(text) => (name, HeaderText::Text(text)),
            http::HeaderValue::Secret(it) => (name, HeaderText::Secret { name: it.name, prefix: it.prefix }),
        };
        let request = HttpRequest {
            method: request.method,
            url: request.url,
            headers: request.headers.into_iter().map(header).collect(),
            body: Bytes(request.body),
            timeout_ms: request.timeout_ms,
        };
        let HostAnswer::Fetched(answer) = self.ask(Ask::Fetch(Box::new(request))).await? else {
            return Err(mismatched());
        };
        Ok(http::Response {
            status: answer.status,
            headers: answer.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
            body: answer.body.0,
        })
    }
}

impl From<Connected> for probe::Connected {
    fn from(it: Connected) -> Self {
        Self { address: it.address, connect_us: it.connect_us }
    }
}

impl Guest {
    async fn probe(&mut self, request: ProbeRequest) -> Result<Probed, types::Error> {
        match self.ask(Ask::Probe(request)).await? {
            HostAnswer::Probed(probed) => Ok(probed),
            _ => Err(mismatched()),
        }
    }
}

impl probe::Host for Guest {
    async fn tcp(&mut self, host: String, port: u16) -> Result<probe::Connected, types::Error> {
        match self.probe(ProbeRequest::Tcp { host, port }).await? {
            Probed::Tcp(connected) => Ok(connected.into()),
            _ => Err(mismatched()),
        }
    }

    async fn tls(&mut self, host: String, port: u16) -> Result<probe::Handshake, types::Error> {
        let Probed::Tls(it) = self.probe(ProbeRequest::Tls { host, port }).await? else { return Err(mismatched()) };
        Ok(probe::Handshake {
            connection: it.connection.into(),
            handshake_us: it.handshake_us,
            protocol: it.protocol,
            certificates: it.certificates.into_iter().map(|certificate| certificate.0).collect(),
            distrust: it.distrust,
        })
    }

    async fn dns(&mut self, name: String) -> Result<probe::Resolved, types::Error> {
        match self.probe(ProbeRequest::Dns { name }).await? {
            Probed::Dns { addresses, lookup_us } => Ok(probe::Resolved { addresses, lookup_us }),
            _ => Err(mismatched()),
        }
    }
}

impl secrets::Host for Guest {
    async fn reveal(&mut self, name: String) -> Result<Vec<u8>, types::Error> {
        match self.ask(Ask::Reveal(name)).await? {
            HostAnswer::Revealed(secret) => Ok(secret.expose().to_vec()),
            _ => Err(mismatched()),
        }
    }
}
