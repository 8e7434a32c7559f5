//! `/etc/mortise/policy.yaml`: reads the site's ceiling. What it means is in [`crate::plugin::policy`].
//!
//! ```yaml
//! apiVersion: mortise.dev/v1alpha1
//! kind: Policy
//! requireWalls: [seccomp, uid]      # no runner starts without them
//! allowUnsigned: false              # true when it is not said
//! signers: ["sha256:…"]             # fingerprints of keys; any when none is named
//! forbid:                           # by name: whichever way, and for every plugin
//!   grants:
//!     files: [{path: /etc/ssl/private/*}]
//!     trust-root: true
//!   addresses: [metadata]           # metadata, link-local, private, loopback
//!   leaks: [files-to-network]       # as `mortise plugin inspect` names them
//! ceilings:                         # the first that is for a plugin counts; none: no ceiling
//!   - id: com.example.gpu
//!     signer: "sha256:…"
//!     grants: {facts: [modules], files: [{path: /proc/driver/nvidia/version}]}
//!   - grants: {facts: [kernel, os]} # for all others
//! ```
//!
//! The file is strict whatever a command says: a policy that is misread is none.

use std::path::{Path, PathBuf};

use super::error::{At, ConfigError, DocumentProblem, Fault, shown};
use super::file::{group_version_kind, read_text};
use super::grants;
use super::reader::{Fields, Notes, UnknownFields};
use super::yaml::{self, Node, Place, Value};
use crate::plugin::grants::{AddressClass, AddressScope, Grant};
use crate::plugin::leaks::LeakKind;
use crate::plugin::policy::{CeilingRule, Policy};
use crate::plugin::walls::WallName;

/// Below `--root`.
const POLICY: &str = "etc/mortise/policy.yaml";

/// The policy of a machine; the default where it has none.
///
/// # Errors
///
/// Unreadable, or anything in it that is not understood.
pub fn load(root: &Path) -> Result<Policy, ConfigError> {
    let path = root.join(POLICY);
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Policy::default()),
        _ => {}
    }
    let text = read_text(&path, "the policy")?;
    let at = |place| At::File { path: path.clone(), place };
    let documents = yaml::parse_documents(&text)
        .map_err(|error| ConfigError::Syntax { at: at(error.place), reason: error.reason })?;
    let refuse = |place, problem| Err(ConfigError::Document { at: at(place), problem });
    let [document] = documents.as_slice() else {
        return match documents.get(1) {
            Some(second) => refuse(second.place, DocumentProblem::Twice("Policy".into())),
            None => refuse(Place::default(), DocumentProblem::None("Policy")),
        };
    };
    match group_version_kind(document) {
        None => return refuse(document.place, DocumentProblem::Untyped),
        Some((group, version, kind)) if (&*group, &*version, &*kind) != ("mortise.dev", "v1alpha1", "Policy") => {
            let version = format!("{group}/{version}");
            return refuse(document.place, DocumentProblem::Unknown { version, kind });
        }
        Some(_) => {}
    }
    let mut notes = Notes::new(&path, UnknownFields::Refuse);
    let policy = Reader { path: path.clone() }.read(document, &mut notes);
    match ConfigError::of(notes.errors) {
        Some(error) => Err(error),
        None => Ok(policy),
    }
}

struct Reader {
    path: PathBuf,
}

impl Reader {
    fn read(&self, document: &Node, notes: &mut Notes) -> Policy {
        let mut all = Fields::of(document, "", notes);
        all.text("apiVersion", notes);
        all.text("kind", notes);
        let mut policy = Policy { path: self.path.clone(), ..Policy::default() };
        for (field, node) in all.list("requireWalls", notes).unwrap_or_default() {
            let name = one_of(node, &field, &WallName::ALL.map(WallName::as_str), notes);
            policy.require_walls.extend(name.and_then(|name| name.parse::<WallName>().ok()));
        }
        if all.flag("allowUnsigned", notes) == Some(false) {
            let place = notes.places.get("allowUnsigned").copied().unwrap_or_default();
            policy.signed_only = Some(self.place(place));
        }
        if let Some(signers) = all.list("signers", notes) {
            let place = notes.places.get("signers").copied().unwrap_or_default();
            let texts = signers.into_iter().filter_map(|(field, node)| fingerprint(node, &field, notes));
            policy.signers = Some((texts.collect(), self.place(place)));
        }
        if let Some(forbid) = all.fields("forbid", notes) {
            self.forbid(forbid, &mut policy, notes);
        }
        for (path, item) in all.list("ceilings", notes).unwrap_or_default() {
            policy.ceilings.extend(self.ceiling(Fields::of(item, &path, notes), notes));
        }
        all.finish(notes);
        policy
    }

    fn forbid(&self, mut forbid: Fields<'_>, policy: &mut Policy, notes: &mut Notes) {
        let field = forbid.path_of("grants");
        if let Some(node) = forbid.node("grants", notes) {
            for (place, grants) in grants::each(node, &field, notes) {
                let more = grants.iter().find_map(more_than_a_name);
                match more {
                    Some(reason) => notes.fault(place, &field, Fault::Grant(reason.into())),
                    None => policy.forbidden.push((self.place(place), grants)),
                }
            }
        }
        let classes = [
            ("metadata", AddressClass::Metadata),
            ("link-local", AddressClass::LinkLocal),
            ("private", AddressClass::Private),
            ("loopback", AddressClass::Loopback),
        ];
        for (field, node) in forbid.list("addresses", notes).unwrap_or_default() {
            let name = one_of(node, &field, &classes.map(|(name, _)| name), notes);
            let class = classes.iter().find(|(own, _)| Some(*own) == name);
            policy.addresses.extend(class.map(|(_, class)| (self.place(node.place), *class)));
        }
        for (field, node) in forbid.list("leaks", notes).unwrap_or_default() {
            let name = one_of(node, &field, &LeakKind::ALL.map(LeakKind::name), notes);
            policy.leaks.extend(name.and_then(|name| Some((self.place(node.place), name.parse().ok()?))));
        }
        forbid.finish(notes);
    }

    fn ceiling(&self, mut ceiling: Fields<'_>, notes: &mut Notes) -> Option<CeilingRule> {
        let place = ceiling.place();
        let id = ceiling.filled("id", notes);
        let [digest, signer] = ["digest", "signer"].map(|key| {
            let field = ceiling.path_of(key);
            ceiling.node(key, notes).and_then(|node| fingerprint(node, &field, notes))
        });
        let field = ceiling.path_of("grants");
        let grants = match ceiling.node("grants", notes) {
            Some(node) => Some(grants::read(node, &field, notes)),
            // An empty mapping allows nothing, and is said.
            None => {
                notes.fault(place, &field, Fault::Missing);
                None
            }
        };
        ceiling.finish(notes);
        Some(CeilingRule { place: self.place(place), id, digest, signer, grants: grants? })
    }

    fn place(&self, place: Place) -> String {
        format!("`{}:{}`", self.path.display(), place.line)
    }
}

/// What is forbidden is forbidden whichever way. A condition beside the name would promise less, or more, than is done.
fn more_than_a_name(grant: Grant<'_>) -> Option<&'static str> {
    let bare = match grant {
        Grant::Fact(_) | Grant::TrustRoot(_) => true,
        Grant::File(it) => it.max_bytes.is_none(),
        Grant::Command(it) => {
            it.args.is_empty()
                && it.env.is_empty()
                && it.user.is_none()
                && it.timeout.is_none()
                && it.max_output.is_none()
        }
        Grant::Http(it) => {
            it.methods == ["GET"]
                && it.max_body.is_none()
                && it.max_response.is_none()
                && it.scope == AddressScope::default()
        }
        Grant::Probe(it) => it.scope == AddressScope::default(),
        Grant::Secret(it) => it.sink.is_none(),
    };
    (!bare).then_some("what is forbidden is named only: by fact, path, program, URL, target or `{name, reveal: true}`")
}

/// A text that is one of these.
fn one_of<'a>(node: &Node, field: &str, known: &[&'a str], notes: &mut Notes) -> Option<&'a str> {
    let Value::Text(text) = &node.value else {
        let fault = Fault::WrongType { expected: "a string", found: node.value.kind() };
        notes.fault(node.place, field, fault);
        return None;
    };
    let found = known.iter().find(|name| *name == text);
    if found.is_none() {
        let reason = format!("is none of {}", known.join(", "));
        notes.fault(node.place, field, Fault::Value { value: shown(text), reason });
    }
    found.copied()
}

/// `sha256:` and 64 hex digits.
fn fingerprint(node: &Node, field: &str, notes: &mut Notes) -> Option<String> {
    let Value::Text(text) = &node.value else {
        let fault = Fault::WrongType { expected: "a string", found: node.value.kind() };
        notes.fault(node.place, field, fault);
        return None;
    };
    match super::join_plugins::check_digest(text) {
        Ok(()) => Some(text.clone()),
        Err(reason) => {
            notes.fault(node.place, field, Fault::Value { value: shown(text), reason: reason.into() });
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: mortise.dev/v1alpha1\nkind: Policy\n";

    fn read(text: &str) -> Result<Policy, String> {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(POLICY);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let shown = |text: String| text.replace(&format!("{}/", root.path().display()), "");
        let policy = load(root.path()).map_err(|error| shown(error.to_string()))?;
        let mut policy = Policy { path: PathBuf::new(), ..policy };
        policy.forbidden.iter_mut().for_each(|(place, _)| *place = shown(place.clone()));
        policy.ceilings.iter_mut().for_each(|rule| rule.place = shown(rule.place.clone()));
        policy.signed_only = policy.signed_only.map(&shown);
        Ok(policy)
    }

    #[test]
    fn a_machine_without_a_policy_has_the_default() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(load(root.path()).unwrap(), Policy::default());
        std::fs::create_dir_all(root.path().join(POLICY)).unwrap();
        assert!(load(root.path()).is_err(), "a directory was taken for no policy");
    }

    #[test]
    fn reads_the_documented_form() {
        let key = format!("sha256:{}", "0a".repeat(32));
        let policy = read(&format!(
            "{HEAD}requireWalls: [seccomp, uid]\nallowUnsigned: false\nsigners: ['{key}']\nforbid:\n  grants:\n    files:\n\
             \x20     - {{path: /etc/ssl/private/*}}\n      - path: /a\n    trust-root: true\n  addresses: [metadata]\n\
             \x20 leaks: [files-to-network]\nceilings:\n  - id: com.example.gpu\n    signer: '{key}'\n    grants: {{facts: [modules]}}\n\
             \x20 - grants: {{}}\n"
        ))
        .unwrap();
        assert_eq!(policy.require_walls, [WallName::Seccomp, WallName::Uid]);
        assert_eq!(policy.signed_only.as_deref(), Some("`etc/mortise/policy.yaml:4`"));
        assert_eq!(policy.signers.as_ref().unwrap().0, [key.as_str()]);
        let places: Vec<_> = policy.forbidden.iter().map(|(place, it)| (place.as_str(), it.lines().join(""))).collect();
        assert_eq!(
            places,
            [
                ("`etc/mortise/policy.yaml:9`", "files: [{path: /etc/ssl/private/*, access: read}]".to_owned()),
                ("`etc/mortise/policy.yaml:10`", "files: [{path: /a, access: read}]".to_owned()),
                ("`etc/mortise/policy.yaml:11`", "trust-root: true".to_owned()),
            ]
        );
        assert_eq!(policy.addresses[0].1, AddressClass::Metadata);
        assert_eq!(policy.leaks[0].1, LeakKind::FilesToNetwork);
        let rules: Vec<_> = policy.ceilings.iter().map(|rule| (rule.place.as_str(), rule.id.as_deref())).collect();
        assert_eq!(
            rules,
            [("`etc/mortise/policy.yaml:15`", Some("com.example.gpu")), ("`etc/mortise/policy.yaml:18`", None)]
        );
        assert!(policy.ceilings[1].grants.is_empty());
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_place() {
        for (text, expected) in [
            ("", "no `Policy` in the file"),
            ("a: 1\n", "needs `apiVersion`"),
            ("apiVersion: mortise.dev/v1alpha1\nkind: JoinPlugins\n", "unknown API"),
            ("apiVersion: mortise.dev/v1\nkind: Policy\n", "unknown API"),
            (&*format!("{HEAD}---\n{HEAD}"), "`Policy` is specified twice"),
            (&*format!("{HEAD}requireWall: []\n"), "policy.yaml:3:1`: `requireWall`: unknown field"),
            (&*format!("{HEAD}allowUnsigned: false\nallowUnsigned: true\n"), ":4:1`: `allowUnsigned`: duplicate"),
            (&*format!("{HEAD}allowUnsigned: maybe\n"), "must be a boolean"),
            (&*format!("{HEAD}requireWalls: [secomp]\n"), "`requireWalls[0]`: `secomp` is none of process, uid"),
            (&*format!("{HEAD}signers: [acme]\n"), "`signers[0]`: `acme` is not `sha256:`"),
            (&*format!("{HEAD}forbid: {{leaks: [x]}}\n"), "is none of secrets-to-network"),
            (&*format!("{HEAD}forbid: {{addresses: [public]}}\n"), "is none of metadata"),
            (&*format!("{HEAD}forbid: {{grants: {{file: []}}}}\n"), "not a grant: unknown field `file`"),
            (
                &*format!("{HEAD}forbid:\n  grants:\n    facts: [kernle]\n"),
                ":5:13`: `forbid.grants`: not a grant: unknown fact",
            ),
            (
                &*format!("{HEAD}forbid: {{grants: {{http: [{{url: 'https://a', methods: [POST]}}]}}}}\n"),
                "is named only",
            ),
            (&*format!("{HEAD}forbid: {{grants: {{commands: [{{program: /a, args: [x]}}]}}}}\n"), "is named only"),
            (&*format!("{HEAD}ceilings:\n  - {{id: a}}\n"), "`ceilings[0].grants`: must be set"),
            (&*format!("{HEAD}ceilings:\n  - {{digest: x, grants: {{}}}}\n"), "`ceilings[0].digest`"),
            (&*format!("{HEAD}ceilings:\n  - {{ids: x, grants: {{}}}}\n"), "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}");
        }
    }
}
