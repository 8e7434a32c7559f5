//! How long all checks take cold: runner started, code loaded, every check run, runner gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mortise::config::IgnoredChecks;
use mortise::output::{Format, Reporter};
use mortise::plugin::policy::Policy;
use mortise::plugin::{CheckContext, Launcher, Plugins, Stage};

use crate::machine::Machine;

/// What issue 5 allows for the checks of a worker.
const MOST: Duration = Duration::from_millis(85);
/// Cold starts measured; the median counts.
const RUNS: usize = 21;

#[tokio::test]
#[ignore = "needs a release build with native code: `make build` sets MORTISE_PREFLIGHT_NODE_CWASM"]
async fn all_built_in_checks_take_at_most_85_ms_cold() {
    let reporter = Reporter::new(Format::Json, false);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let parameters = [("ca-cert-path".to_owned(), "/etc/kubernetes/pki/ca.crt".to_owned())].into();
        let context = CheckContext { control_plane: false, node_name: "n1".into(), parameters };
        let launcher = Launcher::at(env!("CARGO_BIN_EXE_mortise"));
        let machine = Arc::new(Machine::default());
        let began = Instant::now();
        let plugins = Plugins::prepare_with(launcher, true, &[], &Policy::default(), machine, context).unwrap();
        let results = plugins.run_stage(Stage::Node, &IgnoredChecks::default(), &reporter).await;
        times.push(began.elapsed());
        assert!(results.len() > 5, "{results:#?}");
    }
    times.sort();
    let (fastest, median, slowest) = (times[0], times[RUNS / 2], times[RUNS - 1]);
    eprintln!("all checks cold: {median:?} in the median of {RUNS}, {fastest:?} to {slowest:?}");
    assert!(median <= MOST, "{median:?}");
}
