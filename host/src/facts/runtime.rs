//! The container runtime's answers as one fact.

use super::{HostError, RuntimeInfo};
use crate::cri::{Client, CriError, RuntimeConfig};

/// Version, Status and RuntimeConfig. The last may fail without taking the others with it.
pub(super) async fn container_runtime(socket: &str) -> Result<RuntimeInfo, HostError> {
    let retryable = |error| HostError { retryable: true, ..unavailable(&error) };
    let mut client = Client::connect(socket).await.map_err(retryable)?;
    let mut for_config = client.clone();
    // Over one connection, at the same time.
    let (status, config) = tokio::join!(client.status(false), for_config.runtime_config());
    let status = status.map_err(retryable)?;
    let condition = status.conditions.into_iter().find(|condition| condition.kind == "RuntimeReady");
    let (ready, ready_message) = match condition {
        None => (None, String::new()),
        Some(condition) => (Some(condition.holds), described(&condition.reason, &condition.message)),
    };
    let (config_supported, cgroup_driver, config_error) = match config {
        Ok(RuntimeConfig::Unsupported) => (false, None, None),
        Ok(RuntimeConfig::Empty) => (true, None, None),
        Ok(RuntimeConfig::CgroupDriver(driver)) => (true, Some(driver.as_str().to_owned()), None),
        Err(error) => (true, None, Some(error.to_string())),
    };
    let version = client.version();
    Ok(RuntimeInfo {
        name: crate::output::printable(&version.name),
        // containerd writes `v2.4.2`, CRI-O `1.34.0`.
        version: crate::output::printable(version.version.trim_start_matches('v')),
        ready,
        ready_message,
        config_supported,
        cgroup_driver,
        config_error,
    })
}

/// Whoever asks says what was to be connected to.
fn unavailable(error: &CriError) -> HostError {
    match error {
        CriError::Connect { message, .. } => HostError::unavailable(message),
        error => HostError::unavailable(error),
    }
}

fn described(reason: &str, message: &str) -> String {
    let text = match (reason, message) {
        ("", text) | (text, "") => text.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    crate::output::printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::tests::{FakeRuntime, healthy, status, version};

    #[tokio::test]
    async fn healthy_runtime_is_described() {
        let runtime = FakeRuntime::start(healthy());
        let expected = RuntimeInfo {
            name: "containerd".into(),
            version: "2.4.2".into(),
            ready: Some(true),
            ready_message: "Starting: shim is missing".into(),
            config_supported: true,
            cgroup_driver: Some("cgroupfs".into()),
            config_error: None,
        };
        assert_eq!(container_runtime(&runtime.url()).await, Ok(expected));
    }

    #[tokio::test]
    async fn runtime_config_may_be_missing_or_fail() {
        let old = FakeRuntime::start([version(), status(false)].into());
        let info = container_runtime(&old.url()).await.unwrap();
        assert_eq!((info.ready, info.config_supported, info.config_error), (Some(false), false, None));
        let broken = FakeRuntime::start([version(), status(true), ("RuntimeConfig", Err((13, "boom")))].into());
        let info = container_runtime(&broken.url()).await.unwrap();
        assert!(info.config_supported && info.config_error.unwrap().contains("boom"));
    }

    #[tokio::test]
    async fn failing_status_makes_the_fact_unavailable() {
        let runtime = FakeRuntime::start([version(), ("Status", Err((14, "starting")))].into());
        let error = container_runtime(&runtime.url()).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("unavailable", true));
        assert!(error.message.contains("`Status`") && error.message.contains("starting"), "{}", error.message);
    }
}
