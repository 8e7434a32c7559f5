//! Keys of a control plane, made while its images are fetched.
//!
//! Ten RSA keys take tenths of a second of two processors, and need nothing but the algorithm. What is begun is never more
//! than what is missing on the machine; nothing is written before its phase comes, so that record and second runs know
//! nothing of it.

use std::collections::VecDeque;
use std::path::Path;

use tokio::task::{JoinHandle, spawn_blocking};

use super::LocalNode;
use super::certs::found::read;
use super::certs::key::{KeyError, PrivateKey};
use super::certs::{file, list};
use super::configuration::{ControlPlaneConfiguration, EncryptionAlgorithm};
use super::kubeconfig;
use crate::config::ControlPlaneSettings;
use crate::join::JoinContext;
use crate::node::NodeError;

/// Keys under way, in no order: one is as good as another.
#[derive(Default)]
pub struct Keys {
    algorithm: EncryptionAlgorithm,
    making: VecDeque<JoinHandle<Result<PrivateKey, KeyError>>>,
}

/// What keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Phase `control-plane-prepare/certs`.
    Certificates,
    /// Phase `control-plane-prepare/kubeconfig`.
    Kubeconfigs,
}

impl Keys {
    /// Begins with all that these phases will need.
    ///
    /// # Errors
    ///
    /// Files that cannot be read.
    pub fn begin(
        purposes: &[Purpose],
        configuration: &ControlPlaneConfiguration,
        local: &LocalNode,
        settings: &ControlPlaneSettings,
        cx: &JoinContext,
    ) -> Result<Self, NodeError> {
        let mut count = 0;
        for purpose in purposes {
            count += match purpose {
                Purpose::Certificates => certificates(configuration, local, settings, cx)?,
                Purpose::Kubeconfigs => kubeconfigs(configuration, settings, cx)?,
            };
        }
        let mut keys = Self { algorithm: configuration.encryption_algorithm, making: VecDeque::new() };
        keys.make(count);
        Ok(keys)
    }

    /// So many keys, on as many processors as there are: those under way, and the rest made now.
    pub(super) async fn take(
        &mut self,
        algorithm: EncryptionAlgorithm,
        count: usize,
    ) -> Result<Vec<PrivateKey>, KeyError> {
        if algorithm != self.algorithm {
            *self = Self { algorithm, making: VecDeque::new() };
        }
        self.make(count.saturating_sub(self.making.len()));
        let taken = futures::future::join_all(self.making.drain(..count)).await;
        taken.into_iter().map(|made| made.unwrap_or(Err(KeyError))).collect()
    }

    fn make(&mut self, count: usize) {
        let algorithm = self.algorithm;
        self.making.extend((0..count).map(|_| spawn_blocking(move || PrivateKey::generate(algorithm))));
    }
}

/// Certificates of this machine that have no key yet and whose CA signs here. What their names are wrong with, their phase
/// tells.
fn certificates(
    configuration: &ControlPlaneConfiguration,
    local: &LocalNode,
    settings: &ControlPlaneSettings,
    cx: &JoinContext,
) -> Result<usize, NodeError> {
    let Ok(families) = list::families(configuration, local, &mut Vec::new()) else { return Ok(0) };
    let mut count = 0;
    for family in families {
        if signs_here(family.ca, configuration, settings, cx)? {
            for leaf in family.leaves {
                let key = file(configuration, &format!("{}.key", leaf.file));
                count += usize::from(read(&key, &cx.node)?.is_none());
            }
        }
    }
    Ok(count)
}

fn kubeconfigs(
    configuration: &ControlPlaneConfiguration,
    settings: &ControlPlaneSettings,
    cx: &JoinContext,
) -> Result<usize, NodeError> {
    if !signs_here("ca", configuration, settings, cx)? {
        return Ok(0);
    }
    let mut count = 0;
    for path in [kubeconfig::ADMIN_CONF, kubeconfig::CONTROLLER_MANAGER_CONF, kubeconfig::SCHEDULER_CONF] {
        count += usize::from(read(Path::new(path), &cx.node)?.is_none());
    }
    Ok(count)
}

/// Its key is here, or will be downloaded.
fn signs_here(
    ca: &str,
    configuration: &ControlPlaneConfiguration,
    settings: &ControlPlaneSettings,
    cx: &JoinContext,
) -> Result<bool, NodeError> {
    if settings.certificate_key.is_some() {
        return Ok(true);
    }
    Ok(read(&file(configuration, &format!("{ca}.key")), &cx.node)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::control_plane::{certs, fixture};

    fn settings() -> ControlPlaneSettings {
        ControlPlaneSettings {
            advertise_address: "10.0.0.2".parse().unwrap(),
            bind_port: 6443,
            certificate_key: None,
            etcd_snapshot: None,
            replace_member: None,
        }
    }

    const ALL: [Purpose; 2] = [Purpose::Certificates, Purpose::Kubeconfigs];

    fn begun(purposes: &[Purpose], cx: &JoinContext) -> Keys {
        Keys::begin(purposes, &fixture::configuration(), &fixture::local(), &settings(), cx).unwrap()
    }

    #[tokio::test]
    async fn as_many_are_begun_as_are_missing() {
        let (directory, cx) = fixture::machine();
        assert_eq!(begun(&ALL, &cx).making.len(), 0, "no CA signs here");
        let with_key = ControlPlaneSettings { certificate_key: Some("00".repeat(32).parse().unwrap()), ..settings() };
        let keys = Keys::begin(&ALL, &fixture::configuration(), &fixture::local(), &with_key, &cx).unwrap();
        assert_eq!(keys.making.len(), 10, "the CAs will be downloaded");

        fixture::put_shared(directory.path());
        assert_eq!(begun(&[Purpose::Kubeconfigs], &cx).making.len(), 3);
        let mut keys = begun(&ALL, &cx);
        assert_eq!(keys.making.len(), 10);
        certs::write(&fixture::configuration(), &fixture::local(), &mut keys, &cx).await.unwrap();
        assert_eq!(keys.making.len(), 3, "those of the kubeconfigs are left");
        assert_eq!(begun(&ALL, &cx).making.len(), 3);
        fixture::remove(directory.path(), "front-proxy-ca.key");
        fixture::remove(directory.path(), "front-proxy-client.key");
        assert_eq!(begun(&[Purpose::Certificates], &cx).making.len(), 0, "an external CA signs elsewhere");
    }

    #[tokio::test]
    async fn what_was_not_begun_is_made_when_it_is_taken_and_none_is_used_twice() {
        let mut keys = Keys::default();
        let ec = EncryptionAlgorithm::EcdsaP256;
        keys.take(ec, 1).await.unwrap();
        keys.make(2);
        let (mut all, more) = (keys.take(ec, 3).await.unwrap(), keys.take(ec, 1).await.unwrap());
        all.extend(more);
        let mut public: Vec<_> = all.iter().map(|key| key.spki().unwrap()).collect();
        public.sort();
        public.dedup();
        assert_eq!(public.len(), 4);
    }
}
