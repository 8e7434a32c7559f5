//! Connections on a plugin's behalf: one answer of the resolver, each address looked at, and only what was looked at is
//! dialled. Between the look and the dialling no name is resolved again.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::broker::Refusal;
use super::grants::{Denial, NetHost};
use crate::facts::HostError;
use crate::network::Network;

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

/// Connects to the first address that is allowed and takes the connection. Bounded in time by the caller.
///
/// # Errors
///
/// `not-found`: no address. [`Refusal::Denied`]: none of them is allowed. `unavailable`: none of the others answers.
pub(super) async fn dial(
    network: &dyn Network,
    host: &NetHost,
    port: u16,
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
        last = Some(match tokio::time::timeout(ONE_ADDRESS, network.connect(target)).await {
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
