//! What each command of the command line does: it gathers the parts and hands them on.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use crate::api::Dialer;
use crate::config::{Discovery, Environment, JoinSettings, PhaseName};
use crate::cri;
use crate::error::Failure;
use crate::facts::{FactSource, HostFacts, HostSettings, Ownership};
use crate::join::JoinContext;
use crate::join::run::Run;
use crate::journal::{Header, Journal, JournalError, Record};
use crate::node::{HostMachine, Machine, Node};
use crate::output::{Event, Format, Reporter};
use crate::plan::Plan;
use crate::plugin::lock::Lock;
use crate::plugin::store::Store;
use crate::plugin::{CheckContext, Launcher, Plugins};
use crate::registry::Layout;
use crate::result::{CONSOLE_PATH, JoinResult, tell_console};

mod machine;
mod plugin;
mod plugin_run;
mod readahead;
mod sandbox;

pub use machine::{reset, verify};
pub use plugin::plugin;
pub use plugin_run::PluginRunError;
pub use sandbox::sandbox_join;

/// What of a join is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All phases that are not skipped.
    Everything,
    /// One phase.
    Phase(&'static PhaseName),
    /// The checks, and nothing that changes the machine.
    Checks,
}

/// `mortise join`, `mortise join phase …` and `mortise preflight` on this machine.
///
/// # Errors
///
/// Whatever failed first.
pub async fn join(
    settings: JoinSettings,
    extent: Extent,
    environment: Environment,
    reporter: &Reporter,
) -> Result<(), Failure> {
    readahead::read_program_ahead();
    let asked = Asked::of(&settings, extent);
    let mut run = match prepare(settings, extent, environment, reporter) {
        Ok(run) => run,
        Err(failure) => {
            // The join under way leaves its own.
            if failure.code() != JournalError::IN_PROGRESS {
                asked.leave_result(None, &Err(&failure), reporter);
            }
            return Err(failure);
        }
    };
    finish(&mut run, asked, reporter).await
}

/// Gathers the parts of a join. What is missing or unfit is said before anything is asked of the cluster.
fn prepare(
    mut settings: JoinSettings,
    extent: Extent,
    environment: Environment,
    reporter: &Reporter,
) -> Result<Run, Failure> {
    let root = settings.root.clone();
    if settings.node.cri_socket.is_none() {
        settings.node.cri_socket = Some(cri::detect_socket()?);
    }
    let machine: Arc<dyn Machine> = Arc::new(HostMachine::detect(&root));
    let earlier = Record::load(&root)?.unwrap_or_default();
    let plan = (settings.dry_run || extent == Extent::Checks || !may_write(&root)).then(|| Arc::new(Plan::default()));
    let facts: Arc<dyn FactSource> = {
        let facts = Arc::new(HostFacts::new(host_settings(&settings, earlier, environment)));
        facts.warm_up();
        facts
    };
    if extent == Extent::Everything && plan.is_none() {
        readahead::read_kubelet_ahead(facts.clone());
    }
    let store = Store::of(&root);
    let lock = Lock::load(&Lock::path(&root))?;
    if let Some(bundle) = &settings.bundle {
        lock.fetch(&settings.plugins, &store, &Layout::open(bundle)?)?;
    }
    lock.resolve(&mut settings.plugins, &store)?;
    let launcher = Launcher::default().keeping_code_in(store);
    let context = check_context(&settings);
    let plugins = Plugins::prepare_with(launcher, true, &settings.plugins, &settings.policy, facts, context)?;
    lock.verify_all(&plugins.digests())?;
    let node = match &plan {
        Some(plan) => Node::planning(root.clone(), machine, plan.clone()),
        None => Node::new(root.clone(), machine, Arc::new(Journal::open(&root, Header::of(&settings))?)),
    };
    let cx = JoinContext { settings: Arc::new(settings), node, reporter: reporter.clone(), dialer: Dialer::Tcp };
    Ok(Run::new(cx, plugins))
}

/// Runs a join whose parts are ready, and leaves its result.
///
/// # Errors
///
/// Whatever failed first.
async fn finish(run: &mut Run, asked: Asked, reporter: &Reporter) -> Result<(), Failure> {
    let ended = match asked.extent {
        Extent::Everything => run.all().await,
        Extent::Phase(phase) => run.phase(phase).await,
        Extent::Checks => run.checks_alone().await,
    };
    let node = run.node().clone();
    let ended = match ended {
        Ok(()) if asked.extent == Extent::Everything => node.journal().finish().map_err(Failure::from),
        ended => ended,
    };
    asked.leave_result(Some(run), &ended.as_ref().map(|&()| ()), reporter);
    ended?;
    let message = match (asked.extent, node.plan()) {
        (Extent::Checks, _) => "the checks passed".to_owned(),
        (_, Some(plan)) => {
            print_plan(plan, reporter.format());
            "nothing was changed: this was a dry run".to_owned()
        }
        (Extent::Phase(phase), None) => format!("phase `{}` is done", phase.id),
        (Extent::Everything, None) => format!("node `{}` has joined the cluster", asked.node_name),
    };
    let took_ms = u64::try_from(reporter.elapsed().as_millis()).unwrap_or(u64::MAX);
    reporter.tell(&Event::Finished { message, took_ms });
    Ok(())
}

/// What was asked for, as far as its end is told.
struct Asked {
    extent: Extent,
    node_name: String,
    root: PathBuf,
    /// Whether the machine changes.
    in_earnest: bool,
}

impl Asked {
    fn of(settings: &JoinSettings, extent: Extent) -> Self {
        let root = settings.root.clone();
        let in_earnest = !settings.dry_run && may_write(&root);
        Self { extent, node_name: settings.node.name.clone(), root, in_earnest }
    }

    /// Leaves `/run/mortise/result.json` of a whole join, and on the console a failure that no terminal shows. What it
    /// cannot tell is no reason to fail a join that succeeded. `run` is missing where it could not begin.
    fn leave_result(&self, run: Option<&Run>, ended: &Result<(), &Failure>, reporter: &Reporter) {
        if self.extent != Extent::Everything || !self.in_earnest {
            return;
        }
        let csr_name = run.and_then(Run::csr_name);
        let result = JoinResult::of(&self.node_name, csr_name, reporter.elapsed(), *ended)
            .without_walls(run.map(Run::missing_walls).unwrap_or_default());
        if let Err((path, error)) = result.write(&self.root) {
            reporter.warn(None, format!("cannot write `{}`: {error}", path.display()));
        }
        if let Err(failure) = ended
            && owns_console(&self.root)
            && !std::io::stderr().is_terminal()
        {
            tell_console(Path::new(CONSOLE_PATH), failure);
        }
    }
}

/// Whether the console is that of the machine that joins.
fn owns_console(root: &Path) -> bool {
    root == Path::new("/") && rustix::process::geteuid().is_root()
}

/// The plan is what a dry run is asked for: stdout, in either form.
fn print_plan(plan: &Plan, format: Format) {
    match format {
        Format::Text => print!("{}", plan.text()),
        Format::Json => println!("{}", plan.json()),
    }
}

/// Whether this process can write the machine's files at all. Where it cannot, the checks still run and say so.
fn may_write(root: &Path) -> bool {
    root != Path::new("/") || rustix::process::geteuid().is_root()
}

fn host_settings(settings: &JoinSettings, earlier: Record, environment: Environment) -> HostSettings {
    let mut secrets: Vec<SecretString> = Vec::new();
    secrets.extend(settings.tls_bootstrap_token.iter().map(|token| token.expose_secret().to_owned().into()));
    if let Discovery::Token(discovery) = &settings.discovery {
        secrets.push(discovery.token.expose_secret().to_owned().into());
    }
    HostSettings {
        node_name: settings.node.name.clone(),
        cri_socket: settings.node.cri_socket.clone().unwrap_or_default(),
        environment,
        owned: Ownership::of(earlier, settings.control_plane.as_ref().map(|it| it.bind_port)),
        secrets,
        root: settings.root.clone(),
        launcher: Launcher::default(),
    }
}

fn check_context(settings: &JoinSettings) -> CheckContext {
    let mut parameters = std::collections::BTreeMap::new();
    let mut set = |name: &str, value: String| parameters.insert(name.to_owned(), value);
    if let Discovery::Token(discovery) = &settings.discovery
        && let Some(endpoint) = discovery.endpoints.first()
    {
        set("endpoint-host", endpoint.host.clone());
    }
    set("cri-socket", settings.node.cri_socket.clone().unwrap_or_default());
    set("ca-cert-path", settings.ca_cert_path.display().to_string());
    set("mortise-version", env!("CARGO_PKG_VERSION").to_owned());
    set("kubernetes-minor", crate::KUBERNETES_MINOR.to_string());
    if let Some(control_plane) = &settings.control_plane {
        set("advertise-address", control_plane.advertise_address.to_string());
        set("bind-port", control_plane.bind_port.to_string());
    }
    let control_plane = settings.control_plane.is_some();
    CheckContext { control_plane, node_name: settings.node.name.clone(), parameters }
}
