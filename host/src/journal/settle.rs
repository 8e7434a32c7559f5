//! What an earlier run intended and did not complete is compared with the disk.

use std::fs;
use std::path::Path;

use super::record::{Line, Made, State, What};
use super::{Durability, Effect, Inner, JournalError};

/// Writes for each open intent on a file whether its effect was made. Units, API objects and etcd's members stay open: the phase that
/// made them asks the init system or the cluster.
pub(super) fn settle(inner: &mut Inner, root: &Path) -> Result<(), JournalError> {
    let open: Vec<(u64, Effect)> = inner
        .record
        .effects
        .iter()
        .filter(|recorded| recorded.state == State::Intended)
        .map(|recorded| (recorded.seq, recorded.effect.clone()))
        .collect();
    for (seq, effect) in open {
        let what = match made(root, &effect) {
            Some(true) => What::Done(Made::default()),
            Some(false) => What::Void,
            None => continue,
        };
        inner.append(Line::now(seq, what), Durability::Buffered)?;
    }
    Ok(())
}

/// Whether an effect is visible on the disk; none: that cannot be told from it.
fn made(root: &Path, effect: &Effect) -> Option<bool> {
    let at = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    match effect {
        Effect::File { path, sha256, .. } => {
            Some(fs::read(at(path)).is_ok_and(|content| crate::node::sha256_hex(&content) == *sha256))
        }
        Effect::Symlink { path, target } => Some(fs::read_link(at(path)).is_ok_and(|found| found == *target)),
        Effect::Directory { path, .. } => Some(at(path).is_dir()),
        Effect::Removal { path } => Some(fs::symlink_metadata(at(path)).is_err()),
        // The line is all there is to them.
        Effect::WasEmpty { .. } | Effect::Delegated { .. } => Some(true),
        Effect::Unit { .. } | Effect::ApiObject { .. } | Effect::EtcdMember { .. } => None,
    }
}
