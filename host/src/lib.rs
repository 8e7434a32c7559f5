//! mortise: `kubeadm join` with every site-specific part a sandboxed plugin.
//!
//! The life of a join: [`cli`] and [`config`] turn what the user wrote into [`config::JoinSettings`]; every rule is
//! checked there, before anything is touched. [`join`] walks its list of phases: checks that need only the machine,
//! discovery (which alone makes a [`join::TrustedCluster`]), checks that need the cluster, TLS bootstrap (which alone
//! makes a [`join::NodeIdentity`]), the kubelet's files and its start, and the wait for its health. Each effect on the
//! machine goes through [`node`], which writes the intent and the completion of each into the [`journal`], so that a
//! second run goes on and [`reset`] undoes. Checks are answered by plugins: [`plugin`] starts an unprivileged runner
//! process and brokers what a plugin asks for. What is seen on the way is told by [`output`], and every failure leaves
//! through [`error`].
//!
//! Module by module:
//!
//! - [`cli`]: flags, help, names of environment variables; no behaviour
//! - [`commands`]: what each command does: it gathers the parts and hands them on
//! - [`config`]: from what the user wrote to what the host will do
//! - [`join`]: the ordered list of phases, what passes between them, and the loop that runs it
//! - [`reset`], [`verify`]: undoes a join; compares a machine with its record
//! - [`sandbox`]: a whole join as an ordinary user, against a simulated cluster and machine
//! - [`plugin`]: what the host asks a plugin, in the host's own types
//! - [`registry`]: where plugins come from: OCI registries, signatures, bundles; a join asks it for nothing
//! - [`facts`]: what is known of a machine, for the checks
//! - [`api`]: API clients, one an identity
//! - [`etcd`]: etcd's members: list, add as learner, promote, remove
//! - [`cri`]: the container runtime, asked on its socket
//! - [`proxy`]: which proxy the environment wants for a URL
//! - [`token`]: bootstrap tokens: the id is public, the secret is hidden
//! - [`pki`]: keys, certificate requests, public-key pins
//! - [`kubeconfig`]: kubeconfig files, read as Go reads them and written as Go writes them
//! - [`patches`], [`yaml`]: `--patches`; YAML byte for byte as kubeadm writes it
//! - [`node`]: the only door to the machine: files, units, processes
//! - [`journal`]: the record of a join, `/var/lib/mortise/join.jsonl`
//! - [`plan`]: what a dry run would do
//! - [`output`]: what a command tells while it runs
//! - [`result`]: how the last join ended, in a file and on the console
//! - [`error`]: exit codes, stable error codes, hints

pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod cri;
pub mod error;
pub mod etcd;
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
