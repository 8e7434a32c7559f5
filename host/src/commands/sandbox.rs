//! `mortise sandbox join`: the real loop against a control plane and a machine inside this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Asked, Extent, check_context, finish, host_settings};
use crate::cli::{Facts as FactsFrom, SandboxJoinArgs};
use crate::config::{self, Environment, IgnoredChecks, sandbox_plugins};
use crate::cri;
use crate::error::Failure;
use crate::facts::{HostFacts, HostSettings, Ownership};
use crate::join::JoinContext;
use crate::join::run::Run;
use crate::journal::{Header, Journal, Record};
use crate::node::Node;
use crate::output::{Event, Format, Reporter};
use crate::plugin::lock::Lock;
use crate::plugin::store::Store;
use crate::plugin::{Launcher, Plugins};
use crate::sandbox::{Facts, Sandbox, SandboxError, SandboxSettings, describe_node};

/// Runs the join and shows what it wrote and the Node it made.
///
/// # Errors
///
/// Whatever failed first; the directory stays, so that what was written can be looked at.
pub async fn sandbox_join(
    args: SandboxJoinArgs,
    directory: Option<PathBuf>,
    environment: Environment,
    reporter: &Reporter,
) -> Result<(), Failure> {
    let described_by = match args.facts {
        FactsFrom::Recorded => Facts::Healthy,
        FactsFrom::Host => Facts::Source(Arc::new(HostFacts::new(machine_settings(&args.node_name, &environment)))),
    };
    let sandbox = Sandbox::start(SandboxSettings {
        directory,
        node_name: Some(args.node_name),
        plugins: sandbox_plugins(&args.plugins.0)?,
        tls_bootstrap_by: args.tls_bootstrap_by,
        ignore: IgnoredChecks { names: args.ignore_preflight_errors },
        facts: described_by,
        ..SandboxSettings::default()
    })
    .await?;
    let settings = sandbox.settings().clone();
    let facts = match args.facts {
        FactsFrom::Recorded => sandbox.facts(),
        FactsFrom::Host => Arc::new(HostFacts::new(host_settings(&settings, Record::default(), environment))),
    };
    if reporter.format() == Format::Text {
        eprintln!("{}", sandbox.join_line());
        eprintln!("(the machine's files go to {})\n", sandbox.root().display());
    }
    // The sandbox has a machine of its own; its plugins run on this one, and what was agreed to is this one's.
    let machine = Path::new("/");
    let lock = Lock::load(&Lock::path(machine))?;
    let mut settings = settings;
    lock.resolve(&mut settings.plugins, &Store::of(machine))?;
    let policy = config::policy(machine)?;
    let plugins = Plugins::prepare(true, &settings.plugins, &policy, facts, check_context(&settings))?;
    lock.verify_all(&plugins.digests())?;
    let journal = Arc::new(Journal::open(sandbox.root(), Header::of(&settings))?);
    let node = Node::new(sandbox.root().to_owned(), sandbox.machine(), journal);
    let cx = JoinContext { settings: Arc::new(settings), node, reporter: reporter.clone(), dialer: sandbox.dialer() };
    let asked = Asked::of(&cx.settings, Extent::Everything);
    finish(&mut Run::new(cx, plugins), asked, reporter).await?;
    show(&sandbox, reporter).await
}

/// Settings under which this host tells what machine it is, before the sandbox has any of its own.
fn machine_settings(node_name: &str, environment: &Environment) -> HostSettings {
    HostSettings {
        node_name: node_name.to_owned(),
        // Among several runtimes nobody is asked to choose: the simulated kubelet uses none of them.
        cri_socket: cri::detect_socket().unwrap_or_default(),
        environment: environment.clone(),
        owned: Ownership { files: Box::new(|_| false), ports: Vec::new() },
        secrets: Vec::new(),
        root: PathBuf::from("/"),
        launcher: Launcher::default(),
    }
}

async fn show(sandbox: &Sandbox, reporter: &Reporter) -> Result<(), Failure> {
    let written = sandbox.written()?;
    let node = sandbox.node().await.map_err(SandboxError::Api)?;
    let node = node.as_ref().map(describe_node).unwrap_or_default();
    match reporter.format() {
        Format::Json => reporter.tell(&Event::Sandbox {
            root: sandbox.root().to_owned(),
            files: written.iter().map(ToString::to_string).collect(),
            node,
        }),
        Format::Text => {
            println!("\nFiles written below {}:", sandbox.root().display());
            written.iter().for_each(|file| println!("  {file}"));
            println!("\nAs the API server shows it:");
            node.iter().for_each(|line| println!("  {line}"));
        }
    }
    Ok(())
}
