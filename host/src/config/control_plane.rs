//! `controlPlane` of a join: flags, environment and file put together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

use super::error::{At, Fault, shown};
use crate::etcd::MemberId;
use crate::pki::CertificateKey;

/// The port of an API server that nobody chose.
pub const DEFAULT_BIND_PORT: u16 = 6443;

/// Where the certificate key is written in a file.
pub(super) const CERTIFICATE_KEY: &str = "controlPlane.certificateKey";
pub(super) const ADVERTISE_ADDRESS: &str = "controlPlane.localAPIEndpoint.advertiseAddress";
pub(super) const BIND_PORT: &str = "controlPlane.localAPIEndpoint.bindPort";

/// What only a control plane is told.
#[derive(Debug, Clone)]
pub struct ControlPlaneSettings {
    /// Of the new API server: a global unicast address of this machine.
    pub advertise_address: IpAddr,
    /// Of the new API server.
    pub bind_port: u16,
    /// Opens Secret `kube-system/kubeadm-certs`; none: the shared certificates are on this machine already.
    pub certificate_key: Option<CertificateKey>,
    /// Directory for a snapshot of etcd, taken before the new member votes.
    pub etcd_snapshot: Option<PathBuf>,
    /// Id of an etcd member that this machine takes the place of.
    pub replace_member: Option<MemberId>,
}

/// `controlPlane` as written, in a file or by flags.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) certificate_key: Option<SecretString>,
    pub(super) advertise_address: Option<String>,
    pub(super) bind_port: Option<i64>,
}

/// The address that others are told to use: as written, else that of the default route's interface, as in kubeadm,
/// which also replaces a loopback address by it.
pub(super) fn advertise_address(written: Option<&str>) -> Result<IpAddr, Fault> {
    let fault = |value: &str, reason: &str| Fault::Value { value: shown(value), reason: reason.to_owned() };
    let Some(text) = written else {
        return default_route_address().ok_or_else(|| {
            fault(
                "",
                "is not given, and no default route says which address others reach this machine by: pass \
                       `--apiserver-advertise-address`",
            )
        });
    };
    let address: IpAddr = text.parse().map_err(|_| fault(text, "is no IP address"))?;
    if is_global_unicast(address) {
        return Ok(address);
    }
    Err(fault(text, "is no address that other machines could reach: it must be global unicast"))
}

/// As Go's `IP.IsGlobalUnicast`: private addresses are.
fn is_global_unicast(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}

/// Source address of packets that go far away. Connecting a datagram socket asks the routing table and sends nothing.
pub(crate) fn default_route_address() -> Option<IpAddr> {
    // Addresses of public resolvers: any far address does.
    let far_v4 = SocketAddr::from((Ipv4Addr::new(8, 8, 8, 8), 53));
    let far_v6 = SocketAddr::from((Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888), 53));
    let ours = |any: SocketAddr, far: SocketAddr| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(far).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|address| is_global_unicast(*address))
    };
    ours(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), far_v4)
        .or_else(|| ours(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), far_v6))
}

/// 1 to 65535; 0 counts as unset, as in kubeadm.
pub(super) fn bind_port(written: Option<i64>) -> Result<u16, Fault> {
    match written {
        None | Some(0) => Ok(DEFAULT_BIND_PORT),
        Some(port) => u16::try_from(port)
            .map_err(|_| Fault::Value { value: port.to_string(), reason: "is no port: 1 to 65535".to_owned() }),
    }
}

/// The key; its text is never repeated.
pub(super) fn certificate_key(text: &SecretString) -> Result<CertificateKey, Fault> {
    text.expose_secret().trim().parse().map_err(Fault::CertificateKey)
}

/// An etcd member's id as `etcdctl member list` prints it: up to 16 hex digits.
pub(super) fn member_id(text: &str) -> Result<MemberId, Fault> {
    let reason = "is no member id: up to 16 hex digits, as `etcdctl member list` prints them";
    text.parse().map_err(|_| Fault::Value { value: shown(text), reason: reason.to_owned() })
}

/// Where a certificate key was written.
pub(super) type Given = (SecretString, At);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_cannot_reach_is_refused() {
        for bad in ["0.0.0.0", "::", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "255.255.255.255", "x"]
        {
            assert!(advertise_address(Some(bad)).is_err(), "{bad} was accepted");
        }
        for good in ["10.0.0.1", "192.168.1.1", "203.0.113.7", "fd00::1", "2001:db8::1"] {
            assert_eq!(advertise_address(Some(good)).unwrap().to_string(), good);
        }
    }

    #[test]
    fn ports_and_member_ids_have_bounds() {
        assert_eq!(bind_port(None).unwrap(), 6443);
        assert_eq!(bind_port(Some(0)).unwrap(), 6443);
        assert_eq!(bind_port(Some(65_535)).unwrap(), 65_535);
        assert!(bind_port(Some(65_536)).is_err() && bind_port(Some(-1)).is_err());
        assert_eq!(member_id("8e9e05c52164694d").unwrap(), MemberId(0x8e9e_05c5_2164_694d));
        assert!(member_id("8e9e05c52164694d0").is_err() && member_id("n2").is_err());
    }

    #[test]
    fn a_certificate_key_that_is_none_is_not_repeated() {
        let error = certificate_key(&"CANARY".to_owned().into()).unwrap_err().to_string();
        assert!(!error.contains("CANARY"), "{error}");
        assert!(certificate_key(&format!(" {} \n", "ab".repeat(32)).into()).is_ok());
    }
}
