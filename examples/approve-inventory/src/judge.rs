//! What the inventory says of a request. Knows nothing of the host, so unit tests run anywhere.

use std::net::IpAddr;

/// The part of a certificate request that the inventory has a say in.
pub(crate) struct Request {
    /// Name of the Node it is for.
    pub(crate) node: String,
    /// DNS names and addresses that it asks for; none for a client certificate.
    pub(crate) names: Vec<String>,
    /// Who asks: the node itself, with its own certificate, or a machine that is to become it.
    pub(crate) requester: Requester,
}

/// Who asks.
pub(crate) enum Requester {
    /// The node, for a further certificate.
    Node,
    /// A newcomer, and the instance that its credential names.
    Newcomer(Option<String>),
}

/// What is wrong with a request: a code for programs, a line for people.
pub(crate) type Objection = (&'static str, String);

/// The machine's line, or why the request is not to be approved.
pub(crate) fn judge(inventory: &str, request: &Request) -> Result<String, Objection> {
    let lines = inventory.lines().map(|line| line.split('#').next().unwrap_or_default());
    let mut entries = lines.map(str::split_whitespace);
    let Some(entry) = entries.find_map(|mut words| (words.next() == Some(&request.node)).then_some(words)) else {
        return Err(("not-in-inventory", format!("{} is not in the inventory", request.node)));
    };
    let words: Vec<&str> = entry.collect();
    let listed = |name: &String| words.iter().any(|word| same(word, name));
    if let Some(name) = request.names.iter().find(|name| **name != request.node && !listed(name)) {
        return Err(("name-not-listed", format!("the inventory does not list {name} for {}", request.node)));
    }
    let expected = words.iter().find_map(|word| word.strip_prefix("id="));
    match (expected, &request.requester) {
        (Some(expected), Requester::Newcomer(found)) if found.as_deref() != Some(expected) => {
            let found = found.as_deref().unwrap_or("a machine without an identity");
            Err(("wrong-instance", format!("{} is {expected}, but {found} asks", request.node)))
        }
        _ => Ok(words.join(" ")),
    }
}

/// Addresses are compared as addresses, names as DNS does.
fn same(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a == b,
        (Err(_), Err(_)) => a.eq_ignore_ascii_case(b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTORY: &str = include_str!("../inventory");

    fn code(node: &str, names: &[&str], requester: Requester) -> &'static str {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let request = Request { node: node.into(), names, requester };
        judge(INVENTORY, &request).map_or_else(|(code, _)| code, |_| "approve")
    }

    #[test]
    fn only_what_a_machines_line_holds_is_approved() {
        for (node, names, expected) in [
            ("worker-1", &[][..], "approve"),
            ("worker-1", &["10.0.0.11", "WORKER-1.example", "worker-1"], "approve"),
            ("worker-2", &["fd00:0::0012"], "approve"),
            ("worker-1", &["10.0.0.12"], "name-not-listed"),
            ("worker-1", &["10.0.0.1"], "name-not-listed"),
            ("worker-1", &["i-0a1b2c"], "name-not-listed"),
            ("worker", &[], "not-in-inventory"),
            ("10.0.0.11", &[], "not-in-inventory"),
            ("#", &[], "not-in-inventory"),
            ("", &[], "not-in-inventory"),
        ] {
            assert_eq!(code(node, names, Requester::Node), expected, "{node} {names:?}");
        }
    }

    #[test]
    fn a_newcomer_must_be_the_instance_that_is_listed() {
        for (node, instance, expected) in [
            ("worker-1", Some("i-0a1b2c"), "approve"),
            ("worker-1", Some("i-9"), "wrong-instance"),
            ("worker-1", None, "wrong-instance"),
            ("worker-2", None, "approve"),
        ] {
            assert_eq!(code(node, &[], Requester::Newcomer(instance.map(Into::into))), expected, "{node} {instance:?}");
        }
    }
}
