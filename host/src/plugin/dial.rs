//! Connections on a plugin's behalf: one answer of the resolver, each address looked at, and only what was looked at is
//! dialled. Between the look and the dialling no name is resolved again.
//!
//! Where the environment names a proxy, the same holds: the name is resolved and its addresses are looked at here, and
//! the proxy is asked for an address. Asked for a name, it would look the name up again, from another place in the network,
//! and what stands behind it (its own loopback, its cloud's metadata, the site's servers) would be open to whoever
//! answers for the name. Only where the operator says `proxy: true` does it get the name: then its rules count, which is
//! what sites need whose nodes cannot resolve outside names, or whose proxies filter by name. The proxy itself is the
//! operator's, so its own address is not looked at.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::broker::Refusal;
use super::grants::{Denial, NetHost};
use crate::api::tunnel;
use crate::facts::HostError;
use crate::network::Network;
use crate::output::printable;
use crate::proxy::Proxy;

/// How long one address of several may take.
const ONE_ADDRESS: Duration = Duration::from_secs(3);
/// Addresses that are tried.
const ADDRESSES: usize = 16;

/// A connection.
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    pub(super) address: IpAddr,
    /// Of the attempt that succeeded.
    pub(super) took: Duration,
}

/// Connects to the first address that is allowed and takes the connection, through the proxy where there is one. Bounded in time by the caller.
///
/// # Errors
///
/// `not-found`: no address. [`Refusal::Denied`]: none of them is allowed. `unavailable`: none of the others answers.
pub(super) async fn dial(
    network: &dyn Network,
    host: &NetHost,
    port: u16,
    proxy: Option<&Proxy>,
    allows: impl Fn(IpAddr) -> Result<(), Box<Denial>>,
) -> Result<Dialled, Refusal> {
    let addresses = match host {
        NetHost::Address(address) => vec![*address],
        NetHost::Name(name) => resolve(network, name).await?,
    };
    let mut denied = None;
    let mut last = None;
    for address in addresses.into_iter().take(ADDRESSES) {
        if let Err(denial) = allows(address) {
            denied.get_or_insert(denial);
            continue;
        }
        let began = Instant::now();
        let target = SocketAddr::new(address, port);
        let connect = async {
            match proxy {
                None => network.connect(target).await,
                Some(proxy) => through(network, proxy, &target.to_string()).await,
            }
        };
        last = Some(match tokio::time::timeout(ONE_ADDRESS, connect).await {
            Ok(Ok(stream)) => return Ok(Dialled { stream, address, took: began.elapsed() }),
            Ok(Err(error)) => format!("cannot connect to {target}: {error}"),
            Err(_) => format!("{target} did not take a connection for {} s", ONE_ADDRESS.as_secs()),
        });
    }
    match (last, denied) {
        (Some(message), _) => Err(HostError { retryable: true, ..HostError::unavailable(message) }.into()),
        (None, Some(denial)) => Err(denial.into()),
        (None, None) => Err(HostError::not_found(format!("`{host}` has no address")).into()),
    }
}

/// A tunnel through a proxy to `endpoint`, an address or a name with its port. Bounded in time by the caller.
///
/// # Errors
///
/// The system's, or the proxy's answer, with the proxy's name.
pub(super) async fn through(network: &dyn Network, proxy: &Proxy, endpoint: &str) -> io::Result<TcpStream> {
    let failed = |reason: String| io::Error::other(format!("the proxy `{proxy}`: {}", printable(&reason)));
    let (host, port) = tunnel::address(proxy).map_err(|reason| failed(reason.to_owned()))?;
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => network.resolve(host).await.map_err(|error| failed(error.to_string()))?,
    };
    let mut last = failed("it has no address".into());
    for address in addresses.into_iter().take(ADDRESSES) {
        match network.connect(SocketAddr::new(address, port)).await {
            Ok(mut stream) => {
                let opened = tunnel::open_tunnel(&mut stream, proxy, endpoint).await;
                return opened.map(|()| stream).map_err(|error| failed(error.to_string()));
            }
            Err(error) => last = failed(error.to_string()),
        }
    }
    Err(last)
}

/// Asks the resolver once.
///
/// # Errors
///
/// `not-found` with the resolver's word.
pub(super) async fn resolve(network: &dyn Network, name: &str) -> Result<Vec<IpAddr>, HostError> {
    let addresses = match network.resolve(name).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let error = HostError::not_found(format!("`{name}` has no address: {error}"));
            return Err(HostError { retryable: true, ..error });
        }
    };
    if addresses.is_empty() { Err(HostError::not_found(format!("`{name}` has no address"))) } else { Ok(addresses) }
}
