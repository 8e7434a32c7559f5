//! Plugins that misbehave, run through the real runner and broker.

mod machine;
mod plugin;

use mortise::plugin::{Answer, CheckStatus, Severity, Stage};
use plugin::{Setup, guest};

#[tokio::test]
async fn a_check_that_passes_says_so() {
    let result = Setup::new(guest()).only("passes").run(Stage::Node).await;
    let [result] = result.as_slice() else { panic!("{result:#?}") };
    assert_eq!((result.id.as_str(), result.status), ("passes", CheckStatus::Passed));
    assert_eq!((&result.answer, result.plugin.as_str()), (&Answer::Report, "guest@1.2.3"));
}

#[tokio::test]
async fn a_finding_fails_the_check_unless_it_is_ignored_by_name() {
    let setup = Setup::new(guest()).only("finds");
    let found = setup.run(Stage::Node).await;
    assert_eq!((found[0].status, found[0].findings[0].severity), (CheckStatus::Failed, Severity::Error));
    let ignored = setup.ignoring("FINDS").run(Stage::Node).await;
    assert_eq!((ignored[0].status, ignored[0].ignored), (CheckStatus::Warned, true));
}
