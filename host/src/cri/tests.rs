//! The client against a scripted runtime on a unix socket.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::runtime_v1 as v1;
use super::*;

/// Calls by name, with their arguments.
type Calls = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

type Script = BTreeMap<&'static str, Result<Vec<u8>, (i32, &'static str)>>;

/// A runtime that answers each call by name, and records the calls with their arguments.
pub(crate) struct FakeRuntime {
    directory: tempfile::TempDir,
    calls: Calls,
}

impl FakeRuntime {
    /// Listens with these answers; a call without one is `Unimplemented`.
    pub(crate) fn start(script: Script) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(directory.path().join("cri.sock")).unwrap();
        let calls = Calls::default();
        let (script, seen) = (Arc::new(script), calls.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, seen) = (script.clone(), seen.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (script, seen) = (script.clone(), seen.clone());
                    async move { Ok::<_, Infallible>(answer(request, &script, &seen).await) }
                });
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { directory, calls }
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}/cri.sock", self.directory.path().display())
    }

    /// Names of the images that were asked for, in order.
    pub(crate) fn pulled_images(&self) -> Vec<String> {
        let pulls = self.calls().into_iter().filter(|(call, _)| call == "PullImage");
        pulls.map(|(_, request)| v1::PullImageRequest::decode(&*request).unwrap().image.unwrap().image).collect()
    }

    pub(crate) fn calls(&self) -> Vec<(String, Vec<u8>)> {
        self.calls.lock().unwrap().clone()
    }
}

async fn answer(
    request: Request<Incoming>,
    script: &Script,
    seen: &Calls,
) -> http::Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
    let path = request.uri().path().to_owned();
    let services = ["/runtime.v1.RuntimeService/", "/runtime.v1.ImageService/"];
    let call = services.iter().find_map(|service| path.strip_prefix(service)).unwrap_or("?").to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    seen.lock().unwrap().push((call.clone(), body[5..].to_vec()));
    let (code, text, message) = match script.get(call.as_str()) {
        Some(Ok(message)) => (0, "", message.clone()),
        Some(Err((code, text))) => (*code, *text, Vec::new()),
        None => (12, "unknown method", Vec::new()),
    };
    let mut framed = BytesMut::new();
    if code == 0 {
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    trailers.insert("grpc-message", HeaderValue::from_static(text));
    let body = Full::new(framed.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

pub(crate) fn version() -> (&'static str, Result<Vec<u8>, (i32, &'static str)>) {
    let answer = v1::VersionResponse {
        version: "0.1.0".into(),
        runtime_name: "containerd".into(),
        runtime_version: "v2.4.2".into(),
        runtime_api_version: "v1".into(),
    };
    ("Version", Ok(answer.encode_to_vec()))
}

pub(crate) fn status(ready: bool) -> (&'static str, Result<Vec<u8>, (i32, &'static str)>) {
    let condition = |kind: &str, status, reason: &str, message: &str| v1::RuntimeCondition {
        r#type: kind.into(),
        status,
        reason: reason.into(),
        message: message.into(),
    };
    let conditions = vec![
        condition("RuntimeReady", ready, "Starting", "shim is missing"),
        condition("NetworkReady", false, "NetworkPluginNotReady", "cni plugin not initialized"),
    ];
    let info = [("config".to_owned(), "{\"sandboxImage\":\"pause\"}".to_owned())].into();
    let answer = v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), info };
    ("Status", Ok(answer.encode_to_vec()))
}

pub(crate) fn image_status(there: bool) -> (&'static str, Result<Vec<u8>, (i32, &'static str)>) {
    let image = there.then(|| v1::Image { id: "sha256:1".into(), size: 1 });
    ("ImageStatus", Ok(v1::ImageStatusResponse { image }.encode_to_vec()))
}

pub(crate) fn config(driver: v1::CgroupDriver) -> (&'static str, Result<Vec<u8>, (i32, &'static str)>) {
    let linux = Some(v1::LinuxRuntimeConfiguration { cgroup_driver: driver.into() });
    ("RuntimeConfig", Ok(v1::RuntimeConfigResponse { linux }.encode_to_vec()))
}

/// A runtime with nothing to complain about.
pub(crate) fn healthy() -> Script {
    [version(), status(true), config(v1::CgroupDriver::Cgroupfs)].into()
}

#[tokio::test]
async fn connection_tells_the_version() {
    let runtime = FakeRuntime::start(healthy());
    let client = Client::connect(&runtime.url()).await.unwrap();
    let expected = RuntimeVersion { name: "containerd".into(), version: "v2.4.2".into(), api_version: "v1".into() };
    assert_eq!(client.version(), &expected);
    assert_eq!(runtime.calls(), [("Version".to_owned(), v1::VersionRequest { version: "v1".into() }.encode_to_vec())]);
}

#[tokio::test]
async fn status_has_conditions_and_configuration() {
    let runtime = FakeRuntime::start(healthy());
    let status = Client::connect(&runtime.url()).await.unwrap().status(true).await.unwrap();
    assert_eq!(status.conditions[0].kind, "RuntimeReady");
    assert!(status.conditions[0].holds && !status.conditions[1].holds);
    assert_eq!(status.config.as_deref(), Some("{\"sandboxImage\":\"pause\"}"));
    assert_eq!(runtime.calls()[1].1, v1::StatusRequest { verbose: true }.encode_to_vec());
}

#[tokio::test]
async fn runtime_config_tells_the_cgroup_driver_and_its_absence() {
    for (driver, expected) in
        [(v1::CgroupDriver::Systemd, CgroupDriver::Systemd), (v1::CgroupDriver::Cgroupfs, CgroupDriver::Cgroupfs)]
    {
        let runtime = FakeRuntime::start([version(), config(driver)].into());
        let mut client = Client::connect(&runtime.url()).await.unwrap();
        assert_eq!(client.runtime_config().await.unwrap(), RuntimeConfig::CgroupDriver(expected));
    }
    let old = FakeRuntime::start([version()].into());
    let mut client = Client::connect(&old.url()).await.unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), RuntimeConfig::Unsupported);
    let empty = FakeRuntime::start([version(), ("RuntimeConfig", Ok(Vec::new()))].into());
    let mut client = Client::connect(&empty.url()).await.unwrap();
    assert_eq!(client.runtime_config().await.unwrap(), RuntimeConfig::Empty);
}

#[tokio::test]
async fn sandboxes_are_listed_stopped_and_removed() {
    let metadata = |name: &str| {
        Some(v1::PodSandboxMetadata { name: name.into(), namespace: "kube-system".into(), ..Default::default() })
    };
    let items = vec![
        v1::PodSandbox { id: "a1".into(), metadata: metadata("proxy"), state: 0 },
        v1::PodSandbox { id: "b2".into(), metadata: None, state: 1 },
    ];
    let list = v1::ListPodSandboxResponse { items }.encode_to_vec();
    let script = [
        version(),
        ("ListPodSandbox", Ok(list)),
        ("StopPodSandbox", Ok(Vec::new())),
        ("RemovePodSandbox", Err((2, "busy"))),
    ];
    let runtime = FakeRuntime::start(script.into());
    let mut client = Client::connect(&runtime.url()).await.unwrap();
    let sandboxes = client.pod_sandboxes().await.unwrap();
    let expected = [
        Sandbox { id: "a1".into(), pod: "kube-system/proxy".into(), ready: true },
        Sandbox { id: "b2".into(), pod: String::new(), ready: false },
    ];
    assert_eq!(sandboxes, expected);
    client.stop_pod_sandbox("a1").await.unwrap();
    assert_eq!(runtime.calls()[2].1, v1::StopPodSandboxRequest { pod_sandbox_id: "a1".into() }.encode_to_vec());
    let error = client.remove_pod_sandbox("a1").await.unwrap_err();
    assert!(
        error.to_string().starts_with("CRI call `RemovePodSandbox`") && error.to_string().contains("busy"),
        "{error}"
    );
}

#[tokio::test]
async fn failed_connections_tell_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let url = format!("unix://{}", path.display());
    let error = Client::connect(&url).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot connect to the container runtime at `{url}`: no such socket"));
    drop(UnixListener::bind(&path).unwrap());
    let error = Client::connect(&url).await.unwrap_err();
    assert!(matches!(&error, CriError::Connect { message, .. } if message.contains("refused")), "{error}");
    for url in ["", "tcp://127.0.0.1:1", "unix://relative", "containerd.sock"] {
        assert!(matches!(Client::connect(url).await, Err(CriError::Url { .. })), "{url}");
    }
}

#[tokio::test]
async fn runtime_without_cri_v1_is_a_failed_call() {
    let runtime = FakeRuntime::start([("Version", Err((12, "unknown service runtime.v1.RuntimeService")))].into());
    let error = Client::connect(&runtime.url()).await.unwrap_err();
    assert!(
        matches!(&error, CriError::Call { call: "Version", message, .. } if message.contains("unknown service")),
        "{error}"
    );
}

#[tokio::test]
async fn listener_that_never_answers_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cri.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let error = Client::connect(&format!("unix://{}", path.display())).await.unwrap_err();
    assert!(matches!(error, CriError::Timeout { call: "Version", .. }), "{error}");
}

#[test]
fn detection_takes_the_one_that_listens_and_refuses_to_choose() {
    let directory = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("unix://{}/{name}", directory.path().display());
    let (a, b, dead) = (url("a"), url("b"), url("dead"));
    assert_eq!(detect_among(&[&a, &b]).unwrap(), DEFAULT_SOCKET);
    drop(UnixListener::bind(directory.path().join("dead")).unwrap());
    let _b = UnixListener::bind(directory.path().join("b")).unwrap();
    assert_eq!(detect_among(&[&a, &b, &dead]).unwrap(), b);
    let _a = UnixListener::bind(directory.path().join("a")).unwrap();
    let error = detect_among(&[&a, &b, &dead]).unwrap_err();
    assert!(matches!(&error, CriError::SeveralSockets { sockets } if *sockets == [a.clone(), b]), "{error}");
    assert_eq!(error.exit_code(), ExitCode::Usage);
    assert!(error.hint().unwrap().contains(&a));
}

/// In a node of `tests/cluster`: `mortise-cluster exec n2 -- <this test binary> --ignored real_runtime`.
#[tokio::test]
#[ignore = "needs a cluster: a real container runtime at the default socket, and root"]
async fn real_runtime_answers_every_question() {
    assert_eq!(detect_socket().unwrap(), DEFAULT_SOCKET);
    let mut client = Client::connect(DEFAULT_SOCKET).await.unwrap();
    assert_eq!((client.version().name.as_str(), client.version().api_version.as_str()), ("containerd", "v1"));
    let status = client.status(true).await.unwrap();
    assert!(status.conditions.iter().any(|condition| condition.kind == "RuntimeReady" && condition.holds));
    let config: serde_json::Value = serde_json::from_str(&status.config.unwrap()).unwrap();
    assert!(config.is_object());
    assert!(matches!(client.runtime_config().await.unwrap(), RuntimeConfig::CgroupDriver(_)));
    for sandbox in client.pod_sandboxes().await.unwrap() {
        assert!(!sandbox.id.is_empty());
    }
    client.stop_pod_sandbox("no-such-sandbox").await.unwrap();
    client.remove_pod_sandbox("no-such-sandbox").await.unwrap();
}
