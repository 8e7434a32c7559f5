//! Fetches the images of a control plane before it joins: kubeadm's check `ImagePull`.
//!
//! kubeadm's rules: nothing with policy `Never`; with `IfNotPresent` only what the runtime does not have; five tries an
//! image, one image after the other unless `imagePullSerial` is off; every image is tried, and each failure is an error of
//! the check. Other than there an image has a deadline, since a runtime may wait for a registry for ever.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use thiserror::Error;

use super::configuration::ControlPlaneConfiguration;
use super::images;
use crate::config::ImagePullPolicy;
use crate::cri::{Client, CriError, DEFAULT_SOCKET};
use crate::error::{Diagnose, ExitCode};
use crate::join::JoinContext;
use crate::output::{Event, printable};
use crate::plugin::{CheckResult, Finding, Severity};

/// As `--ignore-preflight-errors` takes it.
const ID: &str = "ImagePull";
/// Phase id of what is told.
const PHASE: &str = "preflight";
/// kubeadm's, without a pause between them.
const TRIES: usize = 5;
/// For all tries of one image. containerd gives up after 5 min without progress; a slow line may take longer than that.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Of the live line.
const TICK: Duration = Duration::from_secs(1);

/// Images are missing.
#[derive(Debug, Error)]
pub enum ImagePullError {
    /// The check failed, and is not ignored.
    #[error("preflight checks failed: {ID}")]
    Failed,
}

impl Diagnose for ImagePullError {
    fn code(&self) -> &'static str {
        "preflight-failed"
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "mend what the check names, or make its errors warnings with `--ignore-preflight-errors={ID}`: the kubelet tries \
             again by itself"
        ))
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Preflight
    }
}

/// Fetches what is missing, and tells the check. A dry run fetches nothing.
///
/// # Errors
///
/// [`ImagePullError::Failed`].
pub async fn run(configuration: &ControlPlaneConfiguration, cx: &JoinContext) -> Result<(), ImagePullError> {
    let started = Instant::now();
    let mut check = CheckResult::of_host(ID, "the images of a control plane are on this machine");
    let wanted = images::required(configuration);
    if cx.node.plan().is_some() {
        check.skipped = Some(format!("a dry run fetches no images; it would look for {}", wanted.join(", ")));
    } else if cx.settings.node.image_pull.policy == ImagePullPolicy::Never {
        check.skipped = Some("`imagePullPolicy` is `Never`".into());
    } else {
        fetch(&wanted, &images::pause(configuration), &mut check, cx).await;
    }
    check.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let check = check.weighed(&cx.settings.ignore);
    let failed = check.failed();
    cx.reporter.tell(&Event::Check(check));
    if failed { Err(ImagePullError::Failed) } else { Ok(()) }
}

async fn fetch(wanted: &[String], pause: &str, check: &mut CheckResult, cx: &JoinContext) {
    let url = cx.settings.node.cri_socket.as_deref().unwrap_or(DEFAULT_SOCKET);
    let mut runtime = match Client::connect(url).await {
        Ok(runtime) => runtime,
        Err(error) => {
            let remedy = error.hint();
            let message = format!("could not connect to the container runtime: {error}");
            check.findings.push(finding(Severity::Error, message, remedy));
            return;
        }
    };
    if let Some(used) = sandbox_image(&mut runtime).await.filter(|used| used != pause) {
        let message = format!(
            "the sandbox image \"{used}\" of the container runtime is inconsistent with that used by kubeadm; it is \
             recommended to use \"{pause}\" as the CRI sandbox image"
        );
        let remedy = "set it in the runtime's configuration, in containerd's as `sandbox`, and restart the runtime";
        check.findings.push(finding(Severity::Warning, message, Some(remedy.into())));
    }
    let pull = Pull { cx, total: wanted.len(), under_way: Mutex::default() };
    let numbered = wanted.iter().zip(1..);
    let working = async {
        if cx.settings.node.image_pull.serial {
            let mut fetched = Vec::new();
            for (image, number) in numbered {
                fetched.push(pull.one(image, number, runtime.clone()).await);
            }
            fetched
        } else {
            join_all(numbered.map(|(image, number)| pull.one(image, number, runtime.clone()))).await
        }
    };
    for (image, fetched) in wanted.iter().zip(pull.beside(working).await) {
        match fetched {
            Ok(how) => check.evidence.push((image.clone(), how.into())),
            Err(error) => {
                let remedy = format!(
                    "`crictl --runtime-endpoint {url} pull {image}` tries the same; for another registry, set \
                     `imageRepository` in ConfigMap `kube-system/kubeadm-config`"
                );
                let message = format!("failed to pull image {image}: {error}");
                check.findings.push(finding(Severity::Error, message, Some(remedy)));
            }
        }
    }
    check.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

fn finding(severity: Severity, message: String, remedy: Option<String>) -> Finding {
    Finding { severity, message: printable(&message), evidence: Vec::new(), remedy: remedy.as_deref().map(printable) }
}

/// The runtime's own word for it; none: it does not say.
async fn sandbox_image(runtime: &mut Client) -> Option<String> {
    let config = runtime.status(true).await.ok()?.config?;
    let config: serde_json::Value = serde_json::from_str(&config).ok()?;
    config.get("sandboxImage")?.as_str().filter(|image| !image.is_empty()).map(str::to_owned)
}

/// All images of a join, and which are under way.
struct Pull<'a> {
    cx: &'a JoinContext,
    total: usize,
    under_way: Mutex<Vec<UnderWay>>,
}

struct UnderWay {
    image: String,
    number: usize,
    since: Instant,
}

impl Pull<'_> {
    /// What was done about one image.
    async fn one(&self, image: &str, number: usize, mut runtime: Client) -> Result<&'static str, CriError> {
        if self.cx.settings.node.image_pull.policy == ImagePullPolicy::IfNotPresent {
            match runtime.has_image(image).await {
                Ok(true) => return Ok("was there"),
                Ok(false) => {}
                Err(error) => {
                    self.cx.reporter.warn(Some(PHASE), format!("cannot see whether image {image} is there: {error}"));
                }
            }
        }
        let step = self.cx.reporter.step(PHASE, format!("pull image {number} of {}: {image}", self.total));
        self.lock().push(UnderWay { image: image.to_owned(), number, since: Instant::now() });
        self.tell();
        let fetched = fetch_one(image, &mut runtime).await;
        self.lock().retain(|other| other.number != number);
        fetched.map(|()| {
            step.done("it is there");
            "fetched"
        })
    }

    /// Keeps a live line up to date while images come.
    async fn beside<T>(&self, working: impl Future<Output = T>) -> T {
        let mut working = std::pin::pin!(working);
        loop {
            match tokio::time::timeout(TICK, &mut working).await {
                Ok(done) => return done,
                Err(_) if self.cx.reporter.has_live_line() => self.tell(),
                Err(_) => {}
            }
        }
    }

    fn tell(&self) {
        let (what, left) = {
            let under_way = self.lock();
            let Some(first) = under_way.first() else { return };
            let took = first.since.elapsed();
            let others = match under_way.len() - 1 {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            let (number, total) = (first.number, self.total);
            let what = format!("image {number} of {total}, `{}`{others}, for {} s", first.image, took.as_secs());
            (what, DEADLINE.saturating_sub(took))
        };
        self.cx.reporter.waiting(PHASE, what, left);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<UnderWay>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fetch_one(image: &str, runtime: &mut Client) -> Result<(), CriError> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut tries = 0;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        tries += 1;
        match runtime.pull_image(image, left).await {
            Err(CriError::Call { .. }) if tries < TRIES => {}
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests;
