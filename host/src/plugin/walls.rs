//! The walls around a helper process: their names, and which of them stand on this machine.
//!
//! A helper puts them up before it looks at anything from outside, says which the kernel or a container refused, and why.
//! The host shows that in `mortise version -o json`, in the report of the checks, in a dry run and in the join's result;
//! a site can demand walls by name, and then no helper starts without them ([`Launcher::requiring`]).
//!
//! [`Launcher::requiring`]: super::Launcher::requiring

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A wall, by the name that policy, reports and errors use.
///
/// `process`, `no-new-privs`, `seccomp` and `resource-limits` stand wherever mortise runs plugins at all: a helper that
/// cannot put one up ends instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WallName {
    /// A process of its own: no environment, one socket as its only descriptor, no core dump, not traceable by others of
    /// its user, ended with the host.
    Process,
    /// A user and group of its own, without supplementary groups. Needs a host that is root.
    Uid,
    /// `no_new_privs`, and no capability in any set: nothing it could execute would give it more.
    NoNewPrivs,
    /// A network namespace with nothing in it.
    NetworkNamespace,
    /// A mount namespace whose only mount is an empty, read-only directory.
    MountNamespace,
    /// A PID namespace in which it is alone.
    PidNamespace,
    /// Landlock, denying every file, every TCP port, and signals and abstract sockets of other processes, as far as the
    /// kernel's version of it goes.
    Landlock,
    /// A list of system calls: at most 40 are there for a guest, the rest is refused, and what nobody honest tries ends
    /// the process.
    Seccomp,
    /// No file, no new process, no locked memory, 16 descriptors, and an end of data and CPU time. Address space has no
    /// limit: the engine reserves it by the gigabyte.
    ResourceLimits,
}

impl WallName {
    /// Every wall, in the order of reports.
    pub const ALL: [Self; 9] = [
        Self::Process,
        Self::Uid,
        Self::NoNewPrivs,
        Self::NetworkNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::Landlock,
        Self::Seccomp,
        Self::ResourceLimits,
    ];

    /// As policy and reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Uid => "uid",
            Self::NoNewPrivs => "no-new-privs",
            Self::NetworkNamespace => "network-namespace",
            Self::MountNamespace => "mount-namespace",
            Self::PidNamespace => "pid-namespace",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::ResourceLimits => "resource-limits",
        }
    }
}

impl fmt::Display for WallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that no wall has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no wall `{name}`; there are {}", WallName::ALL.map(WallName::as_str).join(", "))]
pub struct UnknownWall {
    name: String,
}

impl FromStr for WallName {
    type Err = UnknownWall;

    fn from_str(name: &str) -> Result<Self, UnknownWall> {
        Self::ALL.into_iter().find(|wall| wall.as_str() == name).ok_or_else(|| UnknownWall { name: name.to_owned() })
    }
}

/// A wall as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case", deny_unknown_fields)]
enum Wall {
    /// It stands. With braces, so that a field that nobody knows is an error here, too.
    Up {},
    /// It does not.
    Missing {
        /// What the kernel said, or what it would take; one line.
        reason: String,
    },
}

/// A wall that does not stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingWall {
    /// Which.
    pub name: WallName,
    /// What the kernel said, or what it would take; one printable line.
    pub reason: String,
}

impl fmt::Display for MissingWall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", self.name, self.reason)
    }
}

/// What stands and what does not; in JSON an object by name, each `{"state": "up"}` or
/// `{"state": "missing", "reason": …}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Walls(BTreeMap<WallName, Wall>);

impl Walls {
    /// Records how putting up a wall ended.
    pub(super) fn record(&mut self, name: WallName, standing: Result<(), String>) {
        let wall = match standing {
            Ok(()) => Wall::Up {},
            Err(reason) => Wall::Missing { reason },
        };
        self.0.insert(name, wall);
    }

    /// Those of `required` that do not stand, in that order. A wall nothing is known of does not stand.
    pub fn missing(&self, required: &[WallName]) -> Vec<MissingWall> {
        let missing = required.iter().filter_map(|name| {
            let reason = match self.0.get(name) {
                Some(Wall::Up {}) => return None,
                Some(Wall::Missing { reason }) => crate::output::printable(reason),
                None => "nothing is known of it".into(),
            };
            Some(MissingWall { name: *name, reason })
        });
        missing.collect()
    }

    /// All that are known and do not stand, in the order of reports.
    pub fn all_missing(&self) -> Vec<MissingWall> {
        let known: Vec<_> = self.0.keys().copied().collect();
        self.missing(&known)
    }

    /// Those missing that an operator hears of without asking. Who runs mortise as an ordinary user has no other user to
    /// give away, knows it, and is told it at every look otherwise; so `uid` counts where root runs it. Documents and
    /// events for programs have it either way, and a policy that demands it is obeyed either way.
    pub fn unexpected(&self) -> Vec<MissingWall> {
        self.unexpected_for(rustix::process::geteuid().is_root())
    }

    fn unexpected_for(&self, root: bool) -> Vec<MissingWall> {
        self.all_missing().into_iter().filter(|missing| root || missing.name != WallName::Uid).collect()
    }

    /// Those that stand, in the order of reports.
    pub fn standing(&self) -> Vec<WallName> {
        self.0.iter().filter(|(_, wall)| **wall == Wall::Up {}).map(|(name, _)| *name).collect()
    }

    /// Adds what another helper found: a wall stands only if it stands around both.
    pub(super) fn merge(&mut self, other: &Self) {
        for (name, wall) in &other.0 {
            if *wall != (Wall::Up {}) || !self.0.contains_key(name) {
                self.0.insert(*name, wall.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walls(standing: &[(WallName, Result<(), &str>)]) -> Walls {
        let mut walls = Walls::default();
        for (name, standing) in standing {
            walls.record(*name, standing.map_err(str::to_owned));
        }
        walls
    }

    #[test]
    fn every_name_is_read_as_it_is_written_everywhere() {
        for name in WallName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
        for name in ["", "Landlock", "apparmor", "user-namespace"] {
            let error = name.parse::<WallName>().unwrap_err().to_string();
            assert!(error.contains(&format!("no wall `{name}`")) && error.contains("landlock, seccomp"), "{error}");
        }
    }

    #[test]
    fn what_was_not_reported_does_not_stand() {
        let walls = walls(&[(WallName::Seccomp, Ok(())), (WallName::Landlock, Err("not built in\u{1b}[2J"))]);
        let all: Vec<_> = walls.missing(&WallName::ALL).into_iter().map(|wall| wall.name).collect();
        assert!(!all.contains(&WallName::Seccomp));
        assert_eq!(all.len(), 8);
        assert_eq!(walls.missing(&[WallName::Seccomp]), []);
        let shown = walls.missing(&[WallName::Landlock])[0].to_string();
        assert_eq!(shown, "`landlock` (not built in\\u{1b}[2J)");
    }

    #[test]
    fn a_wall_stands_only_where_it_stands_around_all() {
        let mut all = Walls::default();
        all.merge(&walls(&[(WallName::Uid, Ok(())), (WallName::Landlock, Err("no"))]));
        all.merge(&walls(&[(WallName::Uid, Err("quota")), (WallName::Landlock, Ok(()))]));
        let missing: Vec<_> = all.missing(&[WallName::Uid, WallName::Landlock]);
        assert_eq!(missing.iter().map(|wall| wall.reason.as_str()).collect::<Vec<_>>(), ["quota", "no"]);
    }

    #[test]
    fn nobody_is_warned_of_not_being_root() {
        let walls = walls(&[(WallName::Uid, Err("mortise is not run by root")), (WallName::Landlock, Err("no"))]);
        let names = |root| walls.unexpected_for(root).into_iter().map(|it| it.name).collect::<Vec<_>>();
        assert_eq!(names(false), [WallName::Landlock]);
        assert_eq!(names(true), [WallName::Uid, WallName::Landlock]);
    }

    #[test]
    fn json_is_an_object_by_name() {
        let walls = walls(&[(WallName::Seccomp, Ok(())), (WallName::PidNamespace, Err("EPERM"))]);
        let json = serde_json::json!({
            "pid-namespace": {"state": "missing", "reason": "EPERM"},
            "seccomp": {"state": "up"},
        });
        assert_eq!(serde_json::to_value(&walls).unwrap(), json);
        assert_eq!(serde_json::from_value::<Walls>(json).unwrap(), walls);
    }
}
