//! The kinds of plugins, by the interface that each exports.

use std::fmt;

use serde::Serialize;

/// What a plugin can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Checks of a machine.
    Preflight,
    /// Where the cluster is.
    Discovery,
    /// Whether a certificate request is to be approved.
    Approval,
}

impl Kind {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Preflight, Self::Discovery, Self::Approval];

    /// As a manifest names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Discovery => "discovery",
            Self::Approval => "approval",
        }
    }

    /// The interface, in the version this host asks.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Preflight => "mortise:preflight/check@0.1.0",
            Self::Discovery => "mortise:discovery/source@0.1.0",
            Self::Approval => "mortise:approval/hook@0.1.0",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
