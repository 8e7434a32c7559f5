//! A site's rule: only machines of its inventory become nodes, under the names and addresses that it lists.
//!
//! How to build and run it is in ../../README.md; the inventory is a file like ../inventory.

mod judge;

#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "generated code"))]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit/approval", world: "plugin", generate_all });
    // A native linker, which unit tests need, does not take the names of exports.
    #[cfg(target_family = "wasm")]
    export!(Plugin with_types_in self);
    #[cfg(target_family = "wasm")]
    use super::Plugin;
}

use bindings::exports::mortise::approval::hook::{Error, Guest, Judgement, Verdict};
use bindings::mortise::host::{csr, files, settings};
use judge::{Request, Requester, judge};

/// What the host reads before it runs anything.
#[cfg_attr(target_family = "wasm", expect(unsafe_code, reason = "a link section becomes a custom section"))]
#[cfg_attr(target_family = "wasm", unsafe(link_section = "mortise:manifest"))]
#[used]
static MANIFEST: [u8; include_bytes!("../plugin.yaml").len()] = *include_bytes!("../plugin.yaml");

/// Where the API server puts the instance's id, unless the settings say otherwise.
const INSTANCE_KEY: &str = "mortise.dev/instance-id";

struct Plugin;

impl Guest for Plugin {
    fn review() -> Result<Judgement, Error> {
        let signer = csr::signer_name()?;
        if !["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"].contains(&signer.as_str())
        {
            return Ok(judgement(Verdict::Abstain, "not-a-kubelet", format!("{signer} does not sign for kubelets")));
        }
        // Without the list there is no judgement: the request waits.
        let inventory = files::read("/etc/mortise/inventory")?;
        let request = request()?;
        let judged = match judge(&String::from_utf8_lossy(&inventory), &request) {
            Ok(line) => {
                let mut it =
                    judgement(Verdict::Approve, "in-inventory", format!("{} is in the inventory", request.node));
                it.evidence.push(("inventory".into(), line));
                it
            }
            Err((reason, message)) => judgement(Verdict::Deny, reason, message),
        };
        Ok(judged)
    }
}

fn request() -> Result<Request, Error> {
    let node = csr::node_name()?;
    let names = csr::alternative_names()?;
    let requester = if csr::username()? == format!("system:node:{node}") {
        Requester::Node
    } else {
        let key = settings::text("instance-key").unwrap_or_else(|| INSTANCE_KEY.into());
        let values = csr::extra()?.into_iter().find_map(|(name, values)| (name == key).then_some(values));
        Requester::Newcomer(values.and_then(|values| values.into_iter().next()))
    };
    Ok(Request { node, names: [names.dns, names.ip, names.email, names.uri].concat(), requester })
}

fn judgement(verdict: Verdict, reason: &str, message: String) -> Judgement {
    let (evidence, extra) = (Vec::new(), Vec::new());
    Judgement { verdict, reason: reason.into(), message, retry_after_seconds: None, evidence, extra }
}
