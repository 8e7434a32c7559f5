//! What a site's policy leaves of a plugin's grants.

use super::super::{AddressClass, Grant, Grants};

/// The most that a plugin can get. Without a list and without anything forbidden, it is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ceiling {
    /// Where the list stands, and what it allows; none: everything.
    pub list: Option<(String, Grants)>,
    /// What is forbidden by name, each with its place.
    pub forbidden: Vec<(String, Grants)>,
    /// Classes of addresses that are never dialled, each with its place.
    pub addresses: Vec<(String, AddressClass)>,
}

impl Ceiling {
    /// Whether a grant stays below it whole.
    ///
    /// # Errors
    ///
    /// The place in the policy that stands against it.
    pub fn permits(&self, asked: Grant<'_>) -> Result<(), String> {
        if let Some((place, _)) = self.forbidden.iter().find(|(_, it)| it.iter().any(|own| own.names(asked))) {
            return Err(place.clone());
        }
        match &self.list {
            Some((place, list)) if !list.cover(asked) => Err(place.clone()),
            _ => Ok(()),
        }
    }

    /// Whether a grant is forbidden by name.
    pub(super) fn forbids(&self, asked: Grant<'_>) -> bool {
        self.forbidden.iter().any(|(_, it)| it.iter().any(|own| own.names(asked)))
    }

    /// The list, for its bounds.
    pub(super) fn grants(&self) -> Option<&Grants> {
        self.list.as_ref().map(|(_, grants)| grants)
    }
}
