//! The whole database of a member into a file, as `etcdctl snapshot save` makes it.
//!
//! etcd sends the database in parts and last its SHA-256, which stays at the end of the file: `etcdutl snapshot restore`
//! looks for it there. The file appears under its name only when it is whole, checked and on the disk.

use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use super::error::{self, Kind};
use super::rpc::maintenance_client::MaintenanceClient;
use super::{Client, EtcdError, rpc};
use crate::api::quoted;
use crate::error::Diagnose;
use crate::node::file_hint;

/// The next part comes within this time. A part has 32 KiB; etcd may wait for its own disk before the first one.
const PART_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest part that is taken.
const MAX_PART_BYTES: usize = 16 << 20;
/// SHA-256 at the end.
const DIGEST_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// A snapshot that is whole and on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Where it is.
    pub path: PathBuf,
    /// Its size, with the checksum at the end.
    pub bytes: u64,
    /// Revision of the keys that it has at least.
    pub revision: i64,
}

/// Why there is no snapshot. Nothing is left of it.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// etcd does not send it.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// It cannot be written.
    #[error("cannot write the snapshot `{path}`")]
    File {
        /// Its name to be.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What came is not what etcd sent.
    #[error("the snapshot from `{endpoint}` is damaged: {what}")]
    Damaged {
        /// Who sent it.
        endpoint: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl Diagnose for SnapshotError {
    fn code(&self) -> &'static str {
        match self {
            Self::Etcd(error) => error.code(),
            Self::File { .. } => "etcd-snapshot-file",
            Self::Damaged { .. } => "etcd-snapshot-damaged",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Etcd(error) => error.hint(),
            Self::File { path, source } => file_hint(source, path),
            Self::Damaged { endpoint, .. } => Some(format!(
                "`etcdctl --endpoints={endpoint} endpoint hashkv` compares the member with itself; then run the same \
                 command again"
            )),
        }
    }
}

/// Saves the database of a member as `<cluster id>-<revision>.db`, mode 0600, in a directory that exists.
///
/// `progress` is told the bytes written and those still to come.
///
/// # Errors
///
/// [`SnapshotError`].
pub async fn save(
    client: &Client,
    endpoint: &str,
    directory: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Saved, SnapshotError> {
    let status = client.status(endpoint).await?;
    let name = format!("{:x}-{}.db", status.cluster_id, status.revision);
    let path = directory.join(&name);
    let temporary = directory.join(format!(".mortise-{name}"));
    let fail = |source| SnapshotError::File { path: path.clone(), source };
    let written = async {
        if let Err(error) = tokio::fs::remove_file(&temporary).await
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(fail(error));
        }
        // It holds every Secret of the cluster.
        let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&temporary).map_err(fail)?;
        let mut file = File::from_std(file);
        let bytes = receive(client, endpoint, &mut file, &path, &mut progress).await?;
        file.sync_all().await.map_err(fail)?;
        tokio::fs::rename(&temporary, &path).await.map_err(fail)?;
        File::open(directory).await.map_err(fail)?.sync_all().await.map_err(fail)?;
        Ok(bytes)
    }
    .await;
    match written {
        Ok(bytes) => Ok(Saved { path, bytes, revision: status.revision }),
        Err(error) => {
            // The first error is the one to tell.
            let _ = tokio::fs::remove_file(&temporary).await;
            Err(error)
        }
    }
}

async fn receive(
    client: &Client,
    endpoint: &str,
    file: &mut File,
    path: &Path,
    progress: &mut impl FnMut(u64, u64),
) -> Result<u64, SnapshotError> {
    const CALL: &str = "Snapshot";
    let silent =
        || error::unanswered(CALL, Kind::Question, quoted(endpoint), format!("nothing came within {PART_TIMEOUT:?}"));
    let broken = |status: &tonic::Status| error::meaning(CALL, Kind::Question, endpoint, status);
    let (channel, _) = client.channel(endpoint).await.map_err(super::unreachable)?;
    let mut maintenance = MaintenanceClient::new(channel).max_decoding_message_size(MAX_PART_BYTES);
    let asked = tokio::time::timeout(PART_TIMEOUT, maintenance.snapshot(rpc::SnapshotRequest {})).await;
    let mut parts = asked.map_err(|_| silent())?.map_err(|status| broken(&status))?.into_inner();
    let mut sum = Sum::default();
    loop {
        let next = tokio::time::timeout(PART_TIMEOUT, parts.message()).await.map_err(|_| silent())?;
        let Some(part) = next.map_err(|status| broken(&status))? else { break };
        file.write_all(&part.blob).await.map_err(|source| SnapshotError::File { path: path.to_owned(), source })?;
        sum.take(&part.blob);
        progress(sum.bytes, part.remaining_bytes);
    }
    // tokio's file writes behind the caller's back.
    file.flush().await.map_err(|source| SnapshotError::File { path: path.to_owned(), source })?;
    let bytes = sum.bytes;
    sum.check().map_err(|what| SnapshotError::Damaged { endpoint: quoted(endpoint), what })?;
    Ok(bytes)
}

/// The checksum of all but the last bytes, which are the checksum.
struct Sum {
    bytes: u64,
    context: digest::Context,
    /// The last bytes that came.
    tail: Vec<u8>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { bytes: 0, context: digest::Context::new(&digest::SHA256), tail: Vec::new() }
    }
}

impl Sum {
    fn take(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        self.tail.extend_from_slice(part);
        let whole = self.tail.len().saturating_sub(DIGEST_BYTES);
        self.context.update(&self.tail[..whole]);
        self.tail.drain(..whole);
    }

    fn check(self) -> Result<(), &'static str> {
        if self.bytes <= DIGEST_BYTES as u64 {
            return Err("there is nothing in it");
        }
        if self.context.finish().as_ref() == self.tail {
            Ok(())
        } else {
            Err("the checksum at its end is that of other content")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(parts: &[&[u8]]) -> Result<(), &'static str> {
        let mut sum = Sum::default();
        for part in parts {
            sum.take(part);
        }
        sum.check()
    }

    #[test]
    fn takes_the_checksum_however_the_parts_are_cut() {
        let data = [7_u8; 5000];
        let checksum = digest::digest(&digest::SHA256, &data);
        let whole = [&data[..], checksum.as_ref()].concat();
        assert_eq!(sent(&[&data, checksum.as_ref()]), Ok(()));
        assert_eq!(sent(&[&whole]), Ok(()));
        assert_eq!(sent(&[&whole[..4990], &whole[4990..5010], &[], &whole[5010..]]), Ok(()));
    }

    #[test]
    fn refuses_content_that_was_cut_or_changed() {
        let data = [7_u8; 5000];
        let checksum = digest::digest(&digest::SHA256, &data);
        assert_eq!(sent(&[]), Err("there is nothing in it"));
        assert_eq!(sent(&[checksum.as_ref()]), Err("there is nothing in it"));
        let other = Err("the checksum at its end is that of other content");
        assert_eq!(sent(&[&data]), other);
        assert_eq!(sent(&[&data[1..], checksum.as_ref()]), other);
        assert_eq!(sent(&[&data, &checksum.as_ref()[..31]]), other);
    }
}
