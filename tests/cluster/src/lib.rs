//! A real Kubernetes cluster on one machine, for tests.
//!
//! A cluster is one process that keeps it (`keeper`) and, in namespaces of its own, a tree of processes under one first
//! process: the bridge's balancer and the nodes, each again in namespaces of its own. The control plane is made by the
//! real `kubeadm init`. When the tree's first process dies the kernel takes everything with it; the keeper removes the
//! rest, also when the cluster's owner was killed.
//!
//! - [`Cluster`]: up, add, exec, down
//! - `cluster`: the life of a cluster, from the outside
//! - `build`: binaries and images, once per set of versions
//! - `keeper`, `teardown`: the processes that keep a cluster, and its end
//! - `node`: adding a node, and what its first process does
//! - `units`: the stand-ins for systemd's commands, and the supervisor behind them
//! - `balance`: the TCP balancer behind the control plane's name
//! - `kubeadm`: what is asked of the real kubeadm
//! - `enter`: running a command in a node
//! - `state`, `process`, `cgroup`: records, processes, control groups
//! - [`cli`]: the command line

mod balance;
mod build;
mod cgroup;
pub mod cli;
mod cluster;
mod enter;
mod keeper;
mod kubeadm;
mod node;
mod process;
mod program;
mod state;
mod teardown;
mod units;

pub use build::{Artifacts, KUBERNETES_VERSION, ensure as ensure_built, ensure_registry_tools};
pub use cluster::{Cluster, UpOptions};
pub use kubeadm::{ADMIN_CONFIG, IGNORED_PREFLIGHT_ERRORS};
pub use process::Identity;
pub use state::{API_PORT, ClusterName, ENDPOINT_ADDRESS, NodeRecord, cache_root};
pub use teardown::{down, down_all};
