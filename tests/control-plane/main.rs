//! Control planes: what holds while a cluster grows from one to three, and what a control plane is afterwards.

mod elsewhere;
mod faults;
mod growth;
#[cfg(feature = "faults")]
mod killed;
mod lab;
mod leaves;
mod likeness;
#[path = "../etcd/proxy.rs"]
mod proxy;
#[path = "../join/tree.rs"]
mod tree;
mod ways;
mod writer;
