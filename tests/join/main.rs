//! A worker joins a cluster that kubeadm made: `mortise join` beside `kubeadm join`, on the real thing.
//!
//! One cluster serves all tests; each has nodes of its own, under names no other test uses. What changes the cluster for
//! everybody is done alone (`lab::Alone`).

mod approval;
mod discovery;
mod joins;
#[cfg(feature = "faults")]
mod killed;
mod kubelet;
mod lab;
mod secrets;
mod tokens;
mod tree;
