//! The ConfigMap `kube-public/cluster-info`, as a server answers it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::DiscoveryError;
use crate::api::{ApiError, ask_text};

/// Path of the request; the same in every supported version.
const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

/// Prefix of the keys that hold signatures; the token id follows.
const SIGNATURE_PREFIX: &str = "jws-kubeconfig-";

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// What it holds. Nothing of it is verified.
pub(super) struct ClusterInfo {
    data: BTreeMap<String, String>,
}

impl ClusterInfo {
    /// One `GET`; `endpoint` is for errors.
    pub(super) async fn get(client: &kube::Client, endpoint: &str) -> Result<Self, DiscoveryError> {
        let request = http::Request::get(PATH).body(Vec::new()).expect("the path is valid");
        let answer = ask_text(client, Ok(request)).await;
        let endpoint = endpoint.to_owned();
        match answer {
            Ok(text) => Self::parse(&text).map_err(|reason| DiscoveryError::NotClusterInfo { endpoint, reason }),
            Err(ApiError::TooLarge { limit }) => Err(DiscoveryError::TooLarge { endpoint, limit }),
            Err(ApiError::Malformed(reason)) => Err(DiscoveryError::NotClusterInfo { endpoint, reason }),
            Err(error) => Err(match error.status() {
                Some(code @ (401 | 403)) => DiscoveryError::PublicAccessClosed { endpoint, code },
                Some(404) => DiscoveryError::NoClusterInfo { endpoint },
                _ => DiscoveryError::Unanswered { endpoint, source: error },
            }),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let map: ConfigMap = serde_json::from_str(text).map_err(|_| "it is no JSON object of its kind".to_owned())?;
        if map.kind != "ConfigMap" || map.metadata.name != "cluster-info" {
            return Err("kind and name are others".into());
        }
        Ok(Self { data: map.data.unwrap_or_default() })
    }

    /// The kubeconfig, bytes as they are signed.
    pub(super) fn kubeconfig(&self) -> Option<&str> {
        self.data.get("kubeconfig").map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The detached JWS for a token id.
    pub(super) fn signature(&self, token_id: &str) -> Option<&str> {
        let key = format!("{SIGNATURE_PREFIX}{token_id}");
        self.data.get(&key).map(String::as_str).filter(|text| !text.is_empty())
    }
}
