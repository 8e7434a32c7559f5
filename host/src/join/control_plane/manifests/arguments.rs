//! Command lines: kubeadm's arguments, then the operator's.

use crate::config::Arg;

/// Arguments that kubeadm sets, in any order.
pub(super) struct Defaults(Vec<(&'static str, String)>);

impl Defaults {
    pub(super) fn new<const N: usize>(arguments: [(&'static str, String); N]) -> Self {
        Self(arguments.into())
    }

    /// Adds one; none of its name may be there.
    pub(super) fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, value.into()));
    }

    /// `program --name=value…`: the defaults by name, without those the operator sets too; then the operator's as written.
    pub(super) fn command(mut self, program: &str, extra: &[Arg]) -> Vec<String> {
        self.0.sort();
        let kept = self.0.iter().filter(|(name, _)| last(extra, name).is_none());
        let defaults = kept.map(|(name, value)| format!("--{name}={value}"));
        let extra = extra.iter().map(|argument| format!("--{}={}", argument.name, argument.value));
        std::iter::once(program.to_owned()).chain(defaults).chain(extra).collect()
    }
}

/// The value of the last argument of a name.
pub(super) fn last<'a>(arguments: &'a [Arg], name: &str) -> Option<&'a str> {
    arguments.iter().rev().find(|argument| argument.name == name).map(|argument| argument.value.as_str())
}
