//! A whole worker join as an ordinary user: the control plane, the kubelet and the machine's facts are simulated.

pub mod client;
pub mod control_plane;
pub mod facts;
pub mod machine;
