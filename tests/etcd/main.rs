//! etcd's members on real etcd processes: what etcd answers, and what a join, a replacement and a reset make of it.
//!
//! Each test has a cluster of its own on loopback addresses that no other test uses, with mutual TLS and kubeadm's ports.

mod answers;
mod client;
mod joins;
mod lab;
mod leaving;
#[expect(dead_code, reason = "some of it only whole joins are met by: tests/control-plane")]
mod proxy;
mod writer;
