//! Against a scripted runtime.

use std::sync::Arc;

use super::*;
use crate::api::Dialer;
use crate::api::scripted::{planning_node, test_context, token_discovery};
use crate::config::{IgnoredChecks, ImagePull};
use crate::cri::tests::{FakeRuntime, image_status, status, version};

type Script = Vec<(&'static str, Result<Vec<u8>, (i32, &'static str)>)>;

const PULLED: (&str, Result<Vec<u8>, (i32, &str)>) = ("PullImage", Ok(Vec::new()));
const NO_SUCH_IMAGE: (&str, Result<Vec<u8>, (i32, &str)>) = ("PullImage", Err((5, "not found")));

fn cluster() -> ControlPlaneConfiguration {
    ControlPlaneConfiguration { kubernetes_version: "v1.37.2".into(), ..Default::default() }
}

/// The runtime, and a join that uses it.
fn machine(script: Script, image_pull: ImagePull) -> (FakeRuntime, tempfile::TempDir, JoinContext) {
    let runtime = FakeRuntime::start(script.into_iter().chain([version(), status(true)]).collect());
    let (directory, cx) = test_context(&Dialer::Tcp, token_discovery("api.test:6443", Vec::new()));
    let url = runtime.url();
    let cx = cx.with(|settings| {
        settings.node.cri_socket = Some(url);
        settings.node.image_pull = image_pull;
    });
    (runtime, directory, cx)
}

fn count(runtime: &FakeRuntime, call: &str) -> usize {
    runtime.calls().iter().filter(|(name, _)| name == call).count()
}

const fn policy(policy: ImagePullPolicy) -> ImagePull {
    ImagePull { policy, serial: true }
}

#[tokio::test]
async fn what_the_runtime_has_is_not_fetched_again_unless_the_policy_says_so() {
    for (policy, looked, pulled) in
        [(ImagePullPolicy::IfNotPresent, 7, 0), (ImagePullPolicy::Always, 0, 7), (ImagePullPolicy::Never, 0, 0)]
    {
        for serial in [true, false] {
            let (runtime, _directory, cx) = machine(vec![image_status(true), PULLED], ImagePull { policy, serial });
            run(&cluster(), &cx).await.unwrap();
            let calls = (count(&runtime, "ImageStatus"), count(&runtime, "PullImage"));
            assert_eq!(calls, (looked, pulled), "{policy:?}, serial {serial}");
        }
    }
}

#[tokio::test]
async fn missing_images_are_fetched_each_once() {
    let (runtime, _directory, cx) = machine(vec![image_status(false), PULLED], ImagePull::default());
    run(&cluster(), &cx).await.unwrap();
    let pulled: Vec<String> = runtime.pulled_images();
    assert_eq!(pulled, images::required(&cluster()));
}

#[tokio::test]
async fn every_image_is_tried_five_times_and_each_failure_is_an_error_of_the_check() {
    let (runtime, _directory, cx) = machine(vec![image_status(false), NO_SUCH_IMAGE], ImagePull::default());
    let error = run(&cluster(), &cx).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("preflight-failed", ExitCode::Preflight));
    assert!(error.hint().unwrap().contains("--ignore-preflight-errors=ImagePull"));
    assert_eq!(count(&runtime, "PullImage"), TRIES * 7);

    let mut check = CheckResult::of_host(ID, "");
    fetch(&images::required(&cluster()), "pause", &mut check, &cx).await;
    assert_eq!(check.findings.len(), 7, "{check:?}");
    let first = &check.findings[0];
    let image = "registry.k8s.io/kube-apiserver:v1.37.2";
    assert!(first.message.starts_with(&format!("failed to pull image {image}: CRI call `PullImage`")), "{first:?}");
    assert!(first.remedy.as_ref().unwrap().contains(&format!("pull {image}")));
}

#[tokio::test]
async fn ignored_check_lets_the_join_go_on() {
    let (_runtime, _directory, cx) = machine(vec![image_status(false), NO_SUCH_IMAGE], ImagePull::default());
    let cx = cx.with(|settings| settings.ignore = IgnoredChecks { names: vec!["imagepull".into()] });
    run(&cluster(), &cx).await.unwrap();
}

#[tokio::test]
async fn another_sandbox_image_only_warns() {
    let (_runtime, _directory, cx) = machine(vec![image_status(true)], ImagePull::default());
    for (pause, warned) in [("pause", 0), ("registry.k8s.io/pause:3.10.2", 1)] {
        let mut check = CheckResult::of_host(ID, "");
        fetch(&[], pause, &mut check, &cx).await;
        assert_eq!(check.findings.len(), warned, "{pause}");
        assert!(
            check
                .findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning && finding.message.contains(pause))
        );
    }
}

#[tokio::test]
async fn image_that_cannot_be_looked_for_is_fetched() {
    let (runtime, _directory, cx) = machine(vec![("ImageStatus", Err((2, "busy"))), PULLED], ImagePull::default());
    run(&cluster(), &cx).await.unwrap();
    assert_eq!(count(&runtime, "PullImage"), 7);
}

#[tokio::test]
async fn runtime_that_is_not_there_is_one_error_and_a_dry_run_asks_none() {
    let (_runtime, directory, cx) = machine(Vec::new(), policy(ImagePullPolicy::Always));
    let cx = cx.with(|settings| settings.node.cri_socket = Some("unix:///nowhere/cri.sock".into()));
    run(&cluster(), &cx).await.unwrap_err();
    let plan = Arc::new(crate::plan::Plan::default());
    let dry = JoinContext { node: planning_node(directory.path(), &plan), ..cx };
    run(&cluster(), &dry).await.unwrap();
}
