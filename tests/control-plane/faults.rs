//! What goes wrong while control planes join, on whole clusters: after each fault the node is Ready, or the join has said in
//! one message what to run next and that works. Under a writer: one cluster id, no member twice, no acknowledged write lost.
//!
//! - `site`: the cluster, and joins on it; `between`: a proxy on the way to etcd
//! - `cuts`: requests to etcd and answers that are lost, and a promotion that is answered by an error
//! - `disks`: no room on the new node
//! - `learners`: etcd's one place for learners is taken
//! - `members`: members whose data or machine is gone
//! - `peers`: members that do not reach each other
//! - `long`: what takes too long for every run of the tests

mod between;
mod cuts;
mod disks;
mod learners;
mod long;
mod members;
mod peers;
mod site;
