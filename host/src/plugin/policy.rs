//! The site's policy: what no plugin gets on this machine, whatever a join asks for.
//!
//! It lives in `/etc/mortise/policy.yaml`, below `--root`; [`crate::config`] reads it. No flag and no other file loosens it.
//! The plugin that is part of this program is the host's own: ceilings and signatures do not concern it, walls do.

use std::path::PathBuf;

use super::error::PluginError;
use super::grants::{AddressClass, Ceiling, Effective, Grants};
use super::leaks::{LeakKind, leaks};
use super::walls::WallName;

/// A site's policy. The default forbids nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where it was read; empty without one.
    pub path: PathBuf,
    /// No runner starts without them.
    pub require_walls: Vec<WallName>,
    /// Where unsigned plugins are refused.
    pub signed_only: Option<String>,
    /// Fingerprints of the keys whose plugins may run, and where they stand; none: any.
    pub signers: Option<(Vec<String>, String)>,
    /// Grants that no plugin gets, each with its place.
    pub forbidden: Vec<(String, Grants)>,
    /// Addresses that no plugin reaches, each with its place.
    pub addresses: Vec<(String, AddressClass)>,
    /// Leaks that no plugin may have, each with its place.
    pub leaks: Vec<(String, LeakKind)>,
    /// Of these the first that is for a plugin counts.
    pub ceilings: Vec<CeilingRule>,
}

/// The most that certain plugins get. Every selector that is there must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CeilingRule {
    /// File and line, quoted.
    pub place: String,
    /// `id` of the manifest.
    pub id: Option<String>,
    /// Of the component.
    pub digest: Option<String>,
    /// Fingerprint of the key that signed it.
    pub signer: Option<String>,
    /// All it can get.
    pub grants: Grants,
}

/// Whom a policy judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicySubject<'a> {
    /// `id` of the manifest. The plugin itself says so: only with a digest or a signer it means something.
    pub id: Option<&'a str>,
    /// `sha256:` and 64 hex digits.
    pub digest: &'a str,
    /// Fingerprint of the key whose signature was verified.
    pub signer: Option<&'a str>,
}

impl CeilingRule {
    fn is_for(&self, subject: PolicySubject<'_>) -> bool {
        let fits = |own: &Option<String>, other: Option<&str>| own.is_none() || own.as_deref() == other;
        fits(&self.id, subject.id) && fits(&self.digest, Some(subject.digest)) && fits(&self.signer, subject.signer)
    }
}

impl Policy {
    /// What the policy leaves of a plugin's grants.
    pub fn ceiling(&self, subject: PolicySubject<'_>) -> Ceiling {
        let rule = self.ceilings.iter().find(|rule| rule.is_for(subject));
        Ceiling {
            list: rule.map(|rule| (rule.place.clone(), rule.grants.clone())),
            forbidden: self.forbidden.clone(),
            addresses: self.addresses.clone(),
        }
    }

    /// Why a plugin may not run at all for want of a signature: the place, and what is missing.
    ///
    /// # Errors
    ///
    /// Both, for the caller's own error.
    pub fn verify_signer(&self, signer: Option<&str>) -> Result<(), (String, String)> {
        match (signer, &self.signed_only, &self.signers) {
            (None, Some(place), _) => Err((place.clone(), "it is not signed".into())),
            (None, None, Some((_, place))) => Err((place.clone(), "it is not signed".into())),
            (Some(signer), _, Some((signers, place))) if !signers.iter().any(|it| it == signer) => {
                Err((place.clone(), format!("its signer is `{signer}`")))
            }
            _ => Ok(()),
        }
    }

    /// Puts a plugin's grants below the ceiling, after everything that would keep it from running was looked for.
    ///
    /// # Errors
    ///
    /// [`PluginError::Policy`] for a missing signature, [`PluginError::PolicyLeak`], and
    /// [`PluginError::PolicyGrants`] for required grants that the policy forbids. `plugin` is its name in them.
    pub(super) fn bound(
        &self,
        plugin: &str,
        subject: PolicySubject<'_>,
        granted: Effective,
    ) -> Result<Effective, PluginError> {
        let named = || plugin.to_owned();
        if let Err((place, reason)) = self.verify_signer(subject.signer) {
            return Err(PluginError::Policy { plugin: named(), place, reason });
        }
        let granted = granted.below(self.ceiling(subject));
        let forbidden = granted.forbidden();
        if !forbidden.is_empty() {
            return Err(PluginError::PolicyGrants { plugin: named(), forbidden });
        }
        for leak in leaks(&granted.possible()) {
            if let Some((place, _)) = self.leaks.iter().find(|(_, kind)| *kind == leak.kind) {
                let (place, kind) = (place.clone(), leak.kind);
                return Err(PluginError::PolicyLeak { plugin: named(), place, kind, leak: leak.text });
            }
        }
        Ok(granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(text: &str) -> Grants {
        Grants::parse(text).unwrap()
    }

    fn rule(id: Option<&str>, digest: Option<&str>, signer: Option<&str>, list: &str) -> CeilingRule {
        let own = |text: Option<&str>| text.map(str::to_owned);
        CeilingRule { place: list.into(), id: own(id), digest: own(digest), signer: own(signer), grants: grants(list) }
    }

    fn subject<'a>(id: &'a str, digest: &'a str, signer: Option<&'a str>) -> PolicySubject<'a> {
        PolicySubject { id: Some(id), digest, signer }
    }

    #[test]
    fn the_first_ceiling_that_is_for_a_plugin_counts() {
        let ceilings = vec![
            rule(Some("a"), Some("d1"), None, "facts: [kernel]"),
            rule(Some("a"), None, Some("k"), "facts: [swap]"),
            rule(None, None, None, "facts: [os]"),
        ];
        let policy = Policy { ceilings, ..Policy::default() };
        for (subject, place) in [
            (subject("a", "d1", Some("k")), "facts: [kernel]"),
            (subject("a", "d2", Some("k")), "facts: [swap]"),
            (subject("a", "d2", Some("l")), "facts: [os]"),
            (subject("a", "d2", None), "facts: [os]"),
            (subject("b", "d1", Some("k")), "facts: [os]"),
        ] {
            assert_eq!(policy.ceiling(subject).list.unwrap().0, place, "{subject:?}");
        }
        assert_eq!(Policy::default().ceiling(subject("a", "d", None)), Ceiling::default());
    }

    #[test]
    fn signatures_are_demanded_by_either_word() {
        let signed = Policy { signed_only: Some("p:1".into()), ..Policy::default() };
        let listed = Policy { signers: Some((vec!["k".into()], "p:2".into())), ..Policy::default() };
        assert!(Policy::default().verify_signer(None).is_ok());
        assert!(signed.verify_signer(Some("x")).is_ok() && listed.verify_signer(Some("k")).is_ok());
        assert_eq!(signed.verify_signer(None).unwrap_err().0, "p:1");
        assert_eq!(listed.verify_signer(None).unwrap_err().0, "p:2");
        assert_eq!(listed.verify_signer(Some("x")).unwrap_err().1, "its signer is `x`");
    }

    #[test]
    fn a_leak_is_judged_by_what_could_be_granted_together() {
        let leaks = vec![("p:7".into(), LeakKind::FilesToNetwork)];
        let policy = Policy { leaks, forbidden: vec![("p:9".into(), grants("facts: [users]"))], ..Policy::default() };
        let all = "files: [{path: /etc/*, optional: true}]\nhttp: [{url: https://a, optional: true}]";
        let judge = |wanted: &str, allowed: &str| {
            policy.bound("x", subject("a", "d", None), Grants::intersect(grants(wanted), grants(allowed)))
        };
        let leaking = judge(all, "files: [{path: /etc/os-release}]\nhttp: [{url: https://a/v1}]").unwrap_err();
        assert!(matches!(leaking, PluginError::PolicyLeak { ref place, .. } if place == "p:7"), "{leaking}");
        assert!(judge(all, "files: [{path: /etc/os-release}]").is_ok());
        assert!(judge(all, "files: [{path: /etc/x/y}]\nhttp: [{url: https://a}]").is_ok());
    }

    #[test]
    fn a_required_grant_that_is_forbidden_stops_the_plugin_and_an_optional_one_does_not() {
        let policy = Policy { forbidden: vec![("p:9".into(), grants("facts: [users]"))], ..Policy::default() };
        let judge = |wanted: &str| policy.bound("x", subject("a", "d", None), Effective::own(grants(wanted)));
        let error = judge("facts: [kernel, users]").unwrap_err();
        assert_eq!(error.to_string(), "plugin `x` needs what the site's policy forbids: facts: [users] (p:9)");
        assert!(judge("facts: [kernel, {name: users, optional: true}]").is_ok());
    }
}
