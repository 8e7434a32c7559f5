//! Ports, interfaces and the resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{HostError, NetworkInterface, PortState};

/// The C library gives a dead resolver 10 s. A join does not wait that long for what ends as a warning, and one that
/// needs more than this keeps the kubelet waiting as well.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Listens on the port for a moment, as kubeadm does: on one address, or on all of both families, else of IPv4.
pub(super) fn tcp_port(address: Option<IpAddr>, port: u16) -> Result<PortState, HostError> {
    if port == 0 {
        return Err(HostError::invalid("a port is 1 to 65535"));
    }
    // Go takes the unspecified address of IPv4 for all addresses, too.
    let listened = match address.filter(|address| *address != IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        Some(address) => listen(SocketAddr::new(address, port)),
        None => match listen(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into()) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                listen(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())
            }
            listened => listened,
        },
    };
    match listened {
        Ok(_) => Ok(PortState::Free),
        Err(Errno::ADDRINUSE) => Ok(PortState::InUse),
        Err(error) => Err(HostError::unavailable(io::Error::from(error))),
    }
}

fn listen(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Connections that wait out their end do not keep a port.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// Interfaces that are up and have an address, each with all its addresses, by the kernel's order.
pub(super) fn interfaces() -> Result<Vec<NetworkInterface>, HostError> {
    let found = if_addrs::get_if_addrs()
        .map_err(|error| HostError::unavailable(format_args!("cannot list network interfaces: {error}")))?;
    let mut interfaces: Vec<NetworkInterface> = Vec::new();
    for interface in found.into_iter().filter(if_addrs::Interface::is_oper_up) {
        let address = interface.ip().to_string();
        match interfaces.iter_mut().find(|known| known.name == interface.name) {
            Some(known) => known.addresses.push(address),
            None => interfaces.push(NetworkInterface { name: interface.name, addresses: vec![address] }),
        }
    }
    Ok(interfaces)
}

/// What the C library's resolver says: hosts file, DNS and whatever else is configured.
///
/// Runs on a thread of its own, which nobody waits for once the time is over: the library cannot be interrupted, and
/// a runtime would wait for it at its end.
pub(super) async fn resolve(name: &str) -> Result<Vec<String>, HostError> {
    let owned = name.to_owned();
    let lookup = move || {
        let found = (owned.as_str(), 0).to_socket_addrs()?;
        let mut addresses: Vec<_> = found.map(|address| address.ip().to_string()).collect();
        addresses.dedup();
        Ok(addresses)
    };
    within(RESOLVER_TIMEOUT, name, lookup).await
}

async fn within(
    timeout: Duration,
    name: &str,
    lookup: impl FnOnce() -> io::Result<Vec<String>> + Send + 'static,
) -> Result<Vec<String>, HostError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let lookup = move || {
        // Nobody listens any more after the timeout.
        let _ = tell.send(lookup());
    };
    std::thread::Builder::new()
        .name("resolver".into())
        .spawn(lookup)
        .map_err(|error| HostError::unavailable(format_args!("cannot start a thread: {error}")))?;
    match tokio::time::timeout(timeout, told).await {
        Err(_) => Err(HostError::timeout(format_args!(
            "the resolver gave no answer for `{name}` within {} s",
            timeout.as_secs()
        ))),
        Ok(Err(_)) => Err(HostError::unavailable("the resolver's thread ended without an answer")),
        Ok(Ok(Ok(addresses))) => Ok(addresses),
        Ok(Ok(Err(error))) => {
            let error = error.to_string();
            Err(HostError::not_found(error.strip_prefix("failed to lookup address information: ").unwrap_or(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn port_with_a_listener_on_any_address_is_in_use() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            // A machine without IPv6 has nothing to test there.
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert_eq!(tcp_port(None, port), Ok(PortState::InUse), "{address}");
            drop(listener);
            assert_eq!(tcp_port(None, port), Ok(PortState::Free), "{address}");
        }
        assert_eq!(tcp_port(None, 0).unwrap_err().code, "invalid");
    }

    #[test]
    fn port_on_one_address_is_free_beside_a_listener_on_another() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let on = |address: &str| tcp_port(Some(address.parse().unwrap()), port);
        assert_eq!(on("127.0.0.1"), Ok(PortState::InUse));
        assert_eq!(on("127.0.0.2"), Ok(PortState::Free));
        assert_eq!(on("0.0.0.0"), Ok(PortState::InUse));
        assert_eq!(on("192.0.2.1").unwrap_err().code, "unavailable", "no address of this machine");
    }

    #[test]
    fn interfaces_are_listed_once_with_all_addresses() {
        let interfaces = interfaces().unwrap();
        let mut names: Vec<_> = interfaces.iter().map(|interface| &interface.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), interfaces.len());
        assert!(interfaces.iter().all(|interface| !interface.addresses.is_empty()));
    }

    #[tokio::test]
    async fn resolver_answers_and_its_text_is_kept() {
        assert_eq!(resolve("127.0.0.1").await, Ok(vec!["127.0.0.1".to_owned()]));
        let error = resolve("no-such-host.invalid").await.unwrap_err();
        assert!(["not-found", "timeout"].contains(&error.code.as_str()), "{error:?}");
        assert!(!error.message.contains("failed to lookup"), "{error:?}");
    }

    #[tokio::test]
    async fn resolver_is_not_waited_for_beyond_the_deadline() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let lookup = move || {
            let _ = held.recv();
            Ok(Vec::new())
        };
        let error = within(Duration::from_millis(20), "n1", lookup).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("timeout", true));
        drop(release);
    }
}
