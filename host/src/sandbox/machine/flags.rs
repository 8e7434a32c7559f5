//! The kubelet's command line, as systemd makes it of the environment files.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::files;

/// Where kubeadm's drop-in reads variables from, in this order.
const FILES: [&str; 2] = ["/var/lib/kubelet/kubeadm-flags.env", "/etc/default/kubelet"];
/// The variables the drop-in puts on the command line, in this order.
const VARIABLES: [&str; 2] = ["KUBELET_KUBEADM_ARGS", "KUBELET_EXTRA_ARGS"];

/// Flags of kubelet v1.37.2. Made with: kubelet --help | grep -oE '^ +(-[a-z], )?--[a-z0-9-]+' | sed 's/.*--//' | sort -u
const KNOWN: &str = include_str!("kubelet-flags.txt");

/// What the flags that a join sets say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) hostname_override: Option<String>,
    pub(super) node_ip: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    /// `core/v1` Taints.
    pub(super) taints: Vec<Value>,
}

impl Flags {
    /// Reads the environment files and parses the flags. The error is what the kubelet would say.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut variables = BTreeMap::new();
        for path in FILES {
            // Both files are optional in the drop-in.
            if let Ok(text) = files::read(root, path) {
                variables.extend(text.lines().filter_map(assignment));
            }
        }
        let mut flags = Self::default();
        for name in VARIABLES {
            for word in variables.get(name).map(String::as_str).unwrap_or_default().split_whitespace() {
                flags.set(word)?;
            }
        }
        Ok(flags)
    }

    fn set(&mut self, word: &str) -> Result<(), String> {
        let bad = |why: String| format!("failed to parse kubelet flag: {why}");
        let Some(flag) = word.strip_prefix("--") else { return Err(format!("unknown command {word}")) };
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        if !KNOWN.lines().any(|known| known == name) {
            return Err(bad(format!("unknown flag: --{name}")));
        }
        let invalid = |why: &str| bad(format!("invalid argument {value:?} for \"--{name}\" flag: {why}"));
        match name {
            "hostname-override" => self.hostname_override = Some(value.to_owned()),
            "node-ip" => {
                let first = value.split(',').next().unwrap_or_default();
                first.parse::<std::net::IpAddr>().map_err(|_| invalid("not an IP address"))?;
                self.node_ip = Some(first.to_owned());
            }
            "node-labels" => {
                for label in value.split(',').filter(|label| !label.is_empty()) {
                    let (key, value) = label.split_once('=').ok_or_else(|| invalid("must be of the form key=value"))?;
                    self.labels.insert(key.to_owned(), value.to_owned());
                }
            }
            "register-with-taints" => {
                for taint in value.split(',').filter(|taint| !taint.is_empty()) {
                    self.taints.push(parse_taint(taint).ok_or_else(|| invalid("invalid taint spec"))?);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// `key=value:Effect` or `key:Effect`.
fn parse_taint(text: &str) -> Option<Value> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    (known && !key.is_empty()).then_some(taint)
}

/// `NAME=value` or `NAME="value"` of an environment file, unquoted as systemd does.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let Some(quoted) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return Some((name.to_owned(), value.trim_matches('\'').to_owned()));
    };
    let mut text = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next()? } else { character });
    }
    Some((name.to_owned(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Result<Flags, String> {
        let root = tempfile::tempdir().unwrap();
        files::write(root.path(), FILES[0], line, 0o644).unwrap();
        Flags::read(root.path())
    }

    #[test]
    fn reads_what_kubeadm_writes() {
        let read = flags(
            "KUBELET_KUBEADM_ARGS=\"--hostname-override=n9 --register-with-taints=a=b:NoSchedule,c:NoExecute --v=2\"\n",
        );
        let read = read.unwrap();
        assert_eq!(read.hostname_override.as_deref(), Some("n9"));
        assert_eq!(
            read.taints,
            [json!({"key": "a", "effect": "NoSchedule", "value": "b"}), json!({"key": "c", "effect": "NoExecute"})]
        );
        assert_eq!(flags("KUBELET_KUBEADM_ARGS=\"\"\n"), Ok(Flags::default()));
    }

    #[test]
    fn refuses_what_the_kubelet_refuses() {
        for (line, why) in [
            ("--pod-infra-container-image=x", "unknown flag: --pod-infra-container-image"),
            ("--register-with-taints=a=b:Sometimes", "invalid taint spec"),
            ("plain", "unknown command plain"),
        ] {
            let error = flags(&format!("KUBELET_KUBEADM_ARGS=\"{line}\"")).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
