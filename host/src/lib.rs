//! mortise: `kubeadm join` with every site-specific part a sandboxed plugin.
//!
//! The life of a join: [`cli`] and [`config`] turn what the user wrote into [`config::JoinSettings`]; every rule is
//! checked there, before anything is touched. [`join`] walks its list of phases: checks that need only the machine,
//! discovery (which alone makes a [`join::TrustedCluster`]), checks that need the cluster, TLS bootstrap (which alone
//! makes a [`join::NodeIdentity`]), the kubelet's files and its start, and the wait for its health. Each effect on the
//! machine goes through [`node`], which writes the intent and the completion of each into the [`journal`], so that a
//! second run goes on and [`reset`] undoes. Checks are answered by plugins: [`plugin`] starts an unprivileged runner
//! process and brokers what a plugin asks for. What is seen on the way is told by [`output`], and every failure leaves
//! through [`error`]. Where plugins come from is [`registry`]; a join asks it for nothing.

pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod cri;
pub mod error;
pub mod facts;
pub mod join;
pub mod journal;
pub mod kubeconfig;
pub mod network;
pub mod node;
pub mod output;
pub mod patches;
pub mod pki;
pub mod plan;
pub mod plugin;
pub mod proxy;
pub mod registry;
pub mod reset;
pub mod result;
pub mod sandbox;
pub mod token;
pub mod verify;
pub mod yaml;

/// The Kubernetes minor whose `kubeadm join` this is: the rules, defaults and version skews are those of 1.37.
pub const KUBERNETES_MINOR: u32 = 37;
