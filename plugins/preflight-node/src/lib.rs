//! kubeadm's checks of a node that joins, under kubeadm's names, severities and order (Kubernetes 1.37).
//!
//! [`list`] says which checks apply to a join. Each check is a pure `judge_` function over what was seen, in the
//! module of its subject; only `guest` asks the host. Texts keep kubeadm's wording where scripts may look for it, and add
//! the values judged and what to run. No regular expressions and no serde: the component is compiled on every cold start.

pub mod control_plane;
pub mod files;
mod guest;
pub mod kernel;
pub mod kubelet;
pub mod list;
pub mod network;
pub mod report;
pub mod runtime;
pub mod system;
pub mod version;

/// What the plugin asks for, read by the host from the custom section without running anything.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "a link section is how data enters a custom section")]
#[unsafe(link_section = "mortise:manifest")]
#[used]
pub static MANIFEST: [u8; include_bytes!("../plugin.yaml").len()] = *include_bytes!("../plugin.yaml");

/// Generated from `wit/`, nothing else.
#[expect(missing_docs, reason = "generated code; the WIT documents it")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit/preflight",
        world: "plugin",
        additional_derives: [PartialEq, Eq],
        generate_all,
    });
}
