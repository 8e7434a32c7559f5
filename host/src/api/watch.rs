//! Watching one object by name until it is as wanted.
//!
//! A watch is resumed where it ended; when the server has forgotten that place (410) the object is read again; where
//! watching is not allowed it is read once a second. Each watch is short, so that a connection that died silently is
//! noticed.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use kube::ResourceExt as _;
use kube::api::{WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{ApiError, get};

/// Length of one watch.
const WATCH_SECONDS: u32 = 30;
/// A watch that has not ended by then is dead.
const WATCH_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 5);
/// Pause between reads, and after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// What is seen of the object.
#[derive(Debug)]
pub enum Sight<K> {
    /// It exists.
    Object(Box<K>),
    /// It does not, or no longer.
    Gone,
    /// The server could not be asked; the last sight stands.
    Trouble(ApiError),
}

/// How a wait ended without what was wanted.
#[derive(Debug)]
pub struct TimedOut;

/// The events of one watch.
pub type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// An object as it was read last, with a watch that was opened before.
pub struct Known<K> {
    /// As read or created.
    pub object: K,
    /// Why there is no watch is told when it matters.
    pub watch: Result<Events<K>, ApiError>,
}

/// Opens a watch of what is, or comes to be, under a name. `from` is a resource version; `0`: whatever the server has.
///
/// # Errors
///
/// Any [`ApiError`].
pub async fn open<K>(client: &kube::Client, name: &str, from: &str) -> Result<Events<K>, ApiError>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Send + 'static,
{
    let params =
        WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH_SECONDS).disable_bookmarks();
    let request = kube::core::Request::new(K::url_path(&(), None))
        .watch(&params, from)
        .map_err(|error| ApiError::malformed(&error.to_string()))?;
    Ok(client.request_events::<K>(request).await?.boxed())
}

/// Looks at an object until `judge` breaks or the deadline passes. Without a known one it is read first.
///
/// # Errors
///
/// [`TimedOut`].
pub async fn until<K, T>(
    client: &kube::Client,
    name: &str,
    known: Option<Known<K>>,
    deadline: Instant,
    mut judge: impl FnMut(Sight<K>) -> ControlFlow<T>,
) -> Result<T, TimedOut>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Send + 'static,
{
    let looking = async {
        let mut may_watch = true;
        let mut version = None;
        let mut opened = None;
        if let Some(Known { object, watch }) = known {
            opened = Some(watch);
            version = object.resource_version();
            if let ControlFlow::Break(end) = judge(Sight::Object(Box::new(object))) {
                return end;
            }
        }
        loop {
            let Some(from) = version.clone() else {
                match get::<K>(client, None, name).await {
                    Ok(object) => {
                        version = object.resource_version().filter(|_| may_watch);
                        if let ControlFlow::Break(end) = judge(Sight::Object(Box::new(object))) {
                            return end;
                        }
                        if version.is_some() {
                            continue;
                        }
                    }
                    Err(error) if error.status() == Some(404) => {
                        // Watched from the beginning of what the server still knows.
                        version = may_watch.then(|| "0".to_owned());
                        if let ControlFlow::Break(end) = judge(Sight::Gone) {
                            return end;
                        }
                        if version.is_some() {
                            continue;
                        }
                    }
                    Err(error) => {
                        if let ControlFlow::Break(end) = judge(Sight::Trouble(error)) {
                            return end;
                        }
                    }
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let watching = async {
                let events = match opened.take() {
                    Some(events) => events?,
                    None => open(client, name, &from).await?,
                };
                follow(events, &mut version, &mut judge).await
            };
            match tokio::time::timeout(WATCH_TIMEOUT, watching).await {
                Ok(Ok(ControlFlow::Break(end))) => return end,
                // Ended by the server after its time, or silent: go on where it was.
                Ok(Ok(ControlFlow::Continue(()))) | Err(_) => {}
                Ok(Err(error)) => {
                    match error.status() {
                        Some(403..=405) => {
                            may_watch = false;
                            version = None;
                            continue;
                        }
                        Some(410) => {
                            version = None;
                            continue;
                        }
                        _ => version = None,
                    }
                    if let ControlFlow::Break(end) = judge(Sight::Trouble(error)) {
                        return end;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::time::timeout_at(deadline, looking).await.map_err(|_| TimedOut)
}

async fn follow<K, T>(
    mut events: Events<K>,
    version: &mut Option<String>,
    judge: &mut impl FnMut(Sight<K>) -> ControlFlow<T>,
) -> Result<ControlFlow<T>, ApiError>
where
    K: kube::Resource<DynamicType = ()>,
{
    while let Some(event) = events.next().await {
        let sight = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                version.clone_from(&object.resource_version());
                Sight::Object(Box::new(object))
            }
            WatchEvent::Deleted(object) => {
                version.clone_from(&object.resource_version());
                Sight::Gone
            }
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
        };
        if let ControlFlow::Break(end) = judge(sight) {
            return Ok(ControlFlow::Break(end));
        }
    }
    Ok(ControlFlow::Continue(()))
}
