//! What a join leaves on a node: paths with kind, mode, owner, link target and content.

use std::collections::BTreeMap;

use mortise_cluster::Cluster;

/// Where a join and the kubelet it starts write. Pods and plugins sockets below are the kubelet's own business.
const PLACES: &str = "/etc/kubernetes /var/lib/kubelet /var/lib/mortise /etc/default/kubelet";

/// Files by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    entries: BTreeMap<String, String>,
}

impl Tree {
    /// As it is now. The kubelet's run-time state is left out.
    pub(crate) fn of(cluster: &Cluster, node: &str) -> Self {
        let script = format!(
            "find {PLACES} \\( -path /var/lib/kubelet/pods -o -path '/var/lib/kubelet/plugins*' -o -path \
             /var/lib/kubelet/device-plugins -o -path /var/lib/kubelet/pod-resources -o -path \
             /var/lib/kubelet/checkpoints -o -path /var/lib/kubelet/allocated_pods_state -o -path \
             /var/lib/kubelet/actuated_pods_state -o -name '*_state' -o -path /var/lib/mortise \\) -prune -o \
             -printf '%p\\t%y %m %U:%G %l\\n' 2>/dev/null | sort | while IFS=$'\\t' read -r path what; do \
             case $what in f*) hash=$(base64 -w0 < \"$path\");; *) hash=-;; esac; printf '%s\\t%s\\t%s\\n' \"$path\" \
             \"$what\" \"$hash\"; done"
        );
        let listing = cluster.run(node, &["bash", "-c", &script]).unwrap();
        let entries = listing
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(path, what)| (path.to_owned(), what.to_owned()))
            .collect();
        Self { entries }
    }

    /// With names, keys, certificates and times replaced, so that two nodes can be compared.
    pub(crate) fn normalized(self, node: &str) -> Self {
        let undated_names = self.rewritten(|path, content| {
            if path.starts_with("/var/lib/kubelet/pki/") {
                content.lines().filter(|line| line.starts_with("-----")).collect::<Vec<_>>().join("\n")
            } else {
                content.replace(node, "NODE")
            }
        });
        let entries = undated_names.entries.into_iter().map(|(path, what)| {
            let (facts, content) = what.split_once('\t').unwrap_or((&what, "-"));
            (undated(&path), format!("{}\t{}", undated(facts), decode(content)))
        });
        Self { entries: entries.collect() }
    }

    /// With the content of every file replaced: path and content to content.
    pub(crate) fn rewritten(self, rewrite: impl Fn(&str, &str) -> String) -> Self {
        use base64::Engine;
        let encoding = base64::engine::general_purpose::STANDARD;
        let entries = self.entries.into_iter().map(|(path, what)| {
            let (facts, content) = what.split_once('\t').unwrap_or((&what, "-"));
            let content =
                if content == "-" { content.into() } else { encoding.encode(rewrite(&path, &decode(content))) };
            let what = format!("{facts}\t{content}");
            (path, what)
        });
        Self { entries: entries.collect() }
    }

    /// Whether there is something at `path`.
    pub(crate) fn holds(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// One line a difference.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, what) in &self.entries {
            match other.entries.get(path) {
                None => lines.push(format!("missing: {path} {what}")),
                Some(now) if now != what => lines.push(format!("differs: {path}\n  was {what}\n  now {now}")),
                Some(_) => {}
            }
        }
        lines
            .extend(other.entries.keys().filter(|path| !self.entries.contains_key(*path)).map(|p| format!("new: {p}")));
        lines
    }
}

fn decode(content: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(content).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `kubelet-client-2026-11-24-22-16-20.pem` with `DATE` for the date.
fn undated(text: &str) -> String {
    let prefix = "kubelet-client-";
    match text.find(prefix) {
        Some(at) if text[at + prefix.len()..].starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{}{prefix}DATE.pem", &text[..at])
        }
        _ => text.to_owned(),
    }
}
