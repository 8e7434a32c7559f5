//! What a control plane's join does beside a worker's.

use std::net::IpAddr;

pub mod admin;
pub mod certs;
pub mod checks;
pub mod components;
pub mod configuration;
pub mod download_certs;
pub mod endpoint;
#[cfg(test)]
mod fixture;
pub mod handover;
pub mod host_files;
pub mod image_pull;
pub mod images;
pub mod keys_ahead;
pub mod kubeconfig;
pub mod kubelet_access;
pub mod manifests;
pub mod mark;
pub mod readiness;
pub mod skew;

/// Where the new API server will be reached: `localAPIEndpoint`, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Name of the Node.
    pub name: String,
    /// `advertiseAddress`: the machine's own global unicast address.
    pub advertise_address: IpAddr,
    /// `bindPort`, default 6443.
    pub bind_port: u16,
}

impl LocalNode {
    /// The advertise address as it stands in a URL: IPv6 in brackets.
    pub fn url_host(&self) -> String {
        match self.advertise_address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }

    /// `https://ADDRESS:PORT` of the local API server.
    pub fn api_server(&self) -> String {
        format!("https://{}:{}", self.url_host(), self.bind_port)
    }

    /// `https://ADDRESS:2380`: how other members of a stacked etcd reach this one.
    pub fn etcd_peer_url(&self) -> String {
        format!("https://{}:2380", self.url_host())
    }

    /// `https://ADDRESS:2379`: how clients reach this member.
    pub fn etcd_client_url(&self) -> String {
        format!("https://{}:2379", self.url_host())
    }
}
