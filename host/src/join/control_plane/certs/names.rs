//! The names in serving certificates: which, and in what order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use crate::join::control_plane::LocalNode;
use crate::join::control_plane::configuration::ControlPlaneConfiguration;
use crate::join::control_plane::endpoint::{ControlPlaneEndpoint, EndpointError, is_dns_name, parse_ip};
use crate::output::printable;

/// Subject alternative names: DNS names sorted, addresses in the order in which they were added, none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::join::control_plane) struct Names {
    pub(in crate::join::control_plane) dns: Vec<String>,
    pub(in crate::join::control_plane) ips: Vec<IpAddr>,
}

/// The cluster's configuration gives no names for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NamesError {
    /// No address for the API server's Service.
    #[error("`networking.serviceSubnet` of the cluster's configuration is `{0}`, which has no first address")]
    ServiceSubnet(String),
    /// No host for the API server.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Names {
    /// kube-apiserver's.
    pub(super) fn of_api_server(
        configuration: &ControlPlaneConfiguration,
        local: &LocalNode,
        ignored: &mut Vec<String>,
    ) -> Result<Self, NamesError> {
        let networking = &configuration.networking;
        let service = first_service_address(&networking.service_subnet)
            .ok_or_else(|| NamesError::ServiceSubnet(printable(&networking.service_subnet)))?;
        let mut names = Self::default();
        names.add_dns(local.name.clone());
        for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
            names.add_dns(name.to_owned());
        }
        names.add_dns(format!("kubernetes.default.svc.{}", networking.dns_domain));
        names.add_ip(service);
        names.add_ip(local.advertise_address);
        if !configuration.control_plane_endpoint.is_empty() {
            let endpoint = ControlPlaneEndpoint::parse(&configuration.control_plane_endpoint)?;
            match endpoint.ip() {
                Some(address) => names.add_ip(address),
                None => names.add_dns(endpoint.host),
            }
        }
        // Some balancers have capitals in their names; kubeadm lowers these here, and only here.
        let sans = configuration.api_server.cert_sans.iter().map(|san| san.to_lowercase());
        names.add_sans(sans, "apiserver", ignored);
        Ok(names.sorted())
    }

    /// Those of etcd, towards clients or peers; `sans` are of the configuration.
    pub(super) fn of_etcd(
        local: &LocalNode,
        sans: &[String],
        certificate: &'static str,
        ignored: &mut Vec<String>,
    ) -> Self {
        let mut names = Self::default();
        names.add_dns(local.name.clone());
        names.add_dns("localhost".to_owned());
        names.add_ip(local.advertise_address);
        names.add_ip(Ipv4Addr::LOCALHOST.into());
        names.add_ip(Ipv6Addr::LOCALHOST.into());
        names.add_sans(sans.iter().cloned(), certificate, ignored);
        names.sorted()
    }

    /// What cannot be a name is left out, with a line that says so.
    fn add_sans(&mut self, sans: impl Iterator<Item = String>, certificate: &str, ignored: &mut Vec<String>) {
        for san in sans {
            if let Some(address) = parse_ip(&san) {
                self.add_ip(address);
            } else if is_dns_name(&san) || san.strip_prefix("*.").is_some_and(is_dns_name) {
                self.add_dns(san);
            } else {
                ignored.push(format!(
                    "`{}` of the cluster's configuration is neither an IP address nor a DNS name, so certificate \
                     `{certificate}` goes without it",
                    printable(&san)
                ));
            }
        }
    }

    fn add_dns(&mut self, name: String) {
        if !self.dns.contains(&name) {
            self.dns.push(name);
        }
    }

    fn add_ip(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.ips.contains(&address) {
            self.ips.push(address);
        }
    }

    fn sorted(mut self) -> Self {
        self.dns.sort_unstable();
        self
    }

    /// For people: `a, b, 10.0.0.1`.
    pub(super) fn shown(&self) -> String {
        let ips = self.ips.iter().map(ToString::to_string);
        printable(&self.dns.iter().cloned().chain(ips).collect::<Vec<_>>().join(", "))
    }
}

/// The address after the network's own, of the first subnet.
fn first_service_address(subnets: &str) -> Option<IpAddr> {
    let first = subnets.split(',').next()?.trim();
    let (address, length) = first.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match parse_ip(address)? {
        IpAddr::V4(address) => {
            let host_bits = 32u32.checked_sub(length).filter(|&bits| bits > 0)?;
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(Ipv4Addr::from((u32::from(address) & mask) + 1).into())
        }
        IpAddr::V6(address) => {
            let host_bits = 128u32.checked_sub(length).filter(|&bits| bits > 0)?;
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            Some(Ipv6Addr::from((u128::from(address) & mask) + 1).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::control_plane::configuration::Networking;

    fn local() -> LocalNode {
        LocalNode { name: "n2".into(), advertise_address: "10.0.0.2".parse().unwrap(), bind_port: 6443 }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_api_server_has_kubeadms_names_in_its_order() {
        let mut configuration = ControlPlaneConfiguration {
            control_plane_endpoint: "cp.example:6443".into(),
            networking: Networking { service_subnet: "10.97.3.4/16,fd00::/108".into(), ..Networking::default() },
            ..Default::default()
        };
        configuration.api_server.cert_sans =
            ["ELB.Example", "10.0.0.2", "*.wild.example", "192.168.1.1", "a_b", "n2"].map(String::from).to_vec();
        let mut ignored = Vec::new();
        let names = Names::of_api_server(&configuration, &local(), &mut ignored).unwrap();
        let dns = [
            "*.wild.example",
            "cp.example",
            "elb.example",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "n2",
        ];
        assert_eq!(names.dns, dns);
        assert_eq!(names.ips, ips(&["10.97.0.1", "10.0.0.2", "192.168.1.1"]));
        assert!(ignored.len() == 1 && ignored[0].contains("`a_b`"), "{ignored:?}");
    }

    #[test]
    fn capitals_in_etcds_names_are_left_out_as_in_kubeadm() {
        let mut ignored = Vec::new();
        let names = Names::of_etcd(&local(), &["Etcd.example".into(), "::1".into()], "etcd/peer", &mut ignored);
        assert_eq!(names.dns, ["localhost", "n2"]);
        assert_eq!(names.ips, ips(&["10.0.0.2", "127.0.0.1", "::1"]));
        assert!(ignored[0].contains("`etcd/peer`"), "{ignored:?}");
    }

    #[test]
    fn finds_the_first_address_of_a_service_subnet() {
        for (subnets, wanted) in [
            ("10.96.0.0/12", Some("10.96.0.1")),
            ("172.20.5.9/16, fd00::/108", Some("172.20.0.1")),
            ("fd00:1::/108", Some("fd00:1::1")),
            ("0.0.0.0/0", Some("0.0.0.1")),
            ("::/0", Some("::1")),
            ("10.0.0.0/32", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
            ("", None),
        ] {
            assert_eq!(first_service_address(subnets), wanted.map(|text| text.parse().unwrap()), "{subnets}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(text: String) {
            let _ = first_service_address(&text);
            let _ = first_service_address(&format!("10.0.0.0/{text}"));
        }
    }
}
