//! A proxy between a joining node and the first member: iptables sends the node's requests there, the proxy shows that
//! member's own certificate, and mortise notices nothing of it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread::JoinHandle;

use mortise_cluster::Cluster;

use super::site::Site;
use crate::proxy::{Ends, Proxy};

/// Where the balancer is, too: in the network that all nodes hang on.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PKI: &str = "/etc/kubernetes/pki/etcd";

/// Ends with this value.
pub(super) struct Between {
    pub(super) proxy: Proxy,
    member: String,
    port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Between {
    /// In front of a node's member, for nodes that [`Between::redirect`] names.
    pub(super) fn start(site: &Site, node: &str) -> Self {
        let member = site.address(node);
        let read = |name: &str| site.cluster.read(node, &format!("{PKI}/{name}")).unwrap();
        let ca = read("ca.crt");
        let server = ["server.crt", "server.key"].map(read);
        let client = ["healthcheck-client.crt", "healthcheck-client.key"].map(read);
        let target = SocketAddr::new(member.parse().unwrap(), 2379);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (sender, receiver) = std::sync::mpsc::channel();
        let name = site.cluster.name().as_str().to_owned();
        let thread = std::thread::spawn(move || {
            // Sockets belong to the network that their thread is in; the test's own thread stays where it is.
            Cluster::open(&name).unwrap().enter_network().unwrap();
            let listener = TcpListener::bind((ADDRESS, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let proxy = Proxy::start(Ends { listener, target, ca, server, client });
                sender.send((proxy, port)).unwrap();
                // The other end is dropped: that is as good.
                let _ = stopped.await;
            });
        });
        let (proxy, port) = receiver.recv().unwrap();
        Self { proxy, member, port, stop: Some(stop), thread: Some(thread) }
    }

    /// From now on this node asks the proxy.
    pub(super) fn redirect(&self, site: &Site, node: &str) {
        let Self { member, port, .. } = self;
        let rule = format!("iptables -t nat -A OUTPUT -p tcp -d {member} --dport 2379 -j DNAT --to {ADDRESS}:{port}");
        site.shell(node, &rule);
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked where it could not begin, and the test with it.
            let _ = thread.join();
        }
    }
}
