//! Plugins between a vendor and a node, with a real registry and the real oras and cosign.
//!
//! Debian's `docker-registry` runs on loopback, one for each test, on a directory that goes away. It keeps no account of
//! referrers, so signatures are listed by tag here; registries that do are played by `host/src/registry/client.rs`.

#[path = "../built.rs"]
mod built;
mod inspection;
mod lab;
mod logins;
mod node;
mod signatures;
mod tour;
