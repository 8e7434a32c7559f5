//! Parse, start logging, run, print one error, return the exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use mortise::cli::{
    self, Cli, CliError, Command, ConfigCommand, JoinArgs, PrintCommand, SandboxCommand, Scope, VersionFormat,
};
use mortise::commands::{self, Extent};
use mortise::config::{self, Environment, Warning};
use mortise::error::Failure;
use mortise::output::{self, Event, Format, Reporter};
use mortise::plugin::Launcher;

/// Exit status of a wrong command line or configuration.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before anything is opened or started: this process may be a helper of another mortise.
    if let Some(code) = mortise::plugin::run_as_helper() {
        return code;
    }
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error),
    };
    start_logging(cli.common.verbosity);
    let format = format_of(&cli.command);
    let reporter = Reporter::new(format, cli.common.verbosity > 0);
    match run(cli, &reporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell_failure(&failure, &reporter);
            ExitCode::from(failure.exit_code().status())
        }
    }
}

fn run(cli: Cli, reporter: &Reporter) -> Result<(), Failure> {
    let root = cli.common.root().map_err(|source| config::ConfigError::Read {
        what: "the directory",
        path: cli.common.root.clone().unwrap_or_default(),
        source,
    })?;
    let environment = Environment::of_process();
    match cli.command {
        Command::Join(join) => {
            let extent = match join.0.scope {
                Scope::Phase(phase) => Extent::Phase(phase),
                Scope::Join | Scope::Preflight => Extent::Everything,
            };
            let settings = join_settings(&join.0, &environment, root, reporter)?;
            block_on(commands::join(settings, extent, environment, reporter))
        }
        Command::Preflight(preflight) => {
            let settings = join_settings(&preflight.0, &environment, root, reporter)?;
            block_on(commands::join(settings, Extent::Checks, environment, reporter))
        }
        Command::Reset(reset) => {
            let (settings, warnings) = config::reset_settings(&reset, root)?;
            warn(warnings, reporter);
            block_on(commands::reset(settings, reporter))
        }
        Command::Verify(_) => block_on(commands::verify(&root, reporter)),
        Command::Plugin(plugin) => block_on(commands::plugin(plugin, &root, environment, reporter)),
        Command::Sandbox(SandboxCommand::Join(join)) => {
            block_on(commands::sandbox_join(join, cli.common.root.is_some().then_some(root), environment, reporter))
        }
        Command::Config(ConfigCommand::Print(PrintCommand::JoinDefaults)) => {
            print(&config::join_defaults(&hostname()));
            Ok(())
        }
        Command::Version(version) => {
            print(&version_text(version.output));
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "mortise", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// One thread for the command and one for what it waits for meanwhile: every further thread costs memory.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime().block_on(command)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime needs only an epoll descriptor and a pipe")
}

/// The settings, their warnings told.
fn join_settings(
    args: &JoinArgs,
    environment: &Environment,
    root: std::path::PathBuf,
    reporter: &Reporter,
) -> Result<config::JoinSettings, Failure> {
    let (settings, warnings) = config::join_settings(args, environment, &hostname(), root)?;
    warn(warnings, reporter);
    Ok(settings)
}

fn warn(warnings: Vec<Warning>, reporter: &Reporter) {
    for Warning(text) in warnings {
        reporter.warn(None, text);
    }
}

/// The kernel's host name; empty where it is no UTF-8, which no node name may be.
fn hostname() -> String {
    rustix::system::uname().nodename().to_str().unwrap_or_default().to_owned()
}

fn format_of(command: &Command) -> Format {
    match command {
        Command::Join(join) => join.0.output.into(),
        Command::Preflight(preflight) => preflight.0.output.into(),
        Command::Reset(reset) => reset.output.into(),
        Command::Verify(verify) => verify.output.into(),
        Command::Plugin(plugin) => plugin.output().into(),
        Command::Sandbox(cli::SandboxCommand::Join(join)) => join.output.into(),
        Command::Config(_) | Command::Version(_) | Command::Completion { .. } => Format::Text,
    }
}

/// Our own lines at the level asked for; other crates' warnings only, since they know nothing of our secrets.
fn start_logging(verbosity: u8) {
    let level = match verbosity {
        0 => "warn",
        1..=3 => "info",
        4..=7 => "debug",
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(format!("warn,mortise={level}"))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn wrong_command_line(error: &CliError) -> ExitCode {
    // A reader that went away changes nothing.
    let _ = if error.is_help() {
        write!(std::io::stdout(), "{}", error.text(std::io::stdout().is_terminal()))
    } else {
        write!(std::io::stderr(), "{}", error.text(std::io::stderr().is_terminal()))
    };
    if error.is_help() {
        return ExitCode::SUCCESS;
    }
    if error.wants_json() {
        let event = Event::Error { phase: None, code: "usage", message: error.message(), hint: None };
        Reporter::new(Format::Json, false).tell(&event);
    }
    ExitCode::from(USAGE)
}

fn tell_failure(failure: &Failure, reporter: &Reporter) {
    // A path or name that an error repeats may be a token in the wrong place.
    let message = config::hide_tokens(&failure.message());
    if reporter.format() == Format::Text {
        let phase = failure.phase().map(|phase| format!("phase `{phase}`: ")).unwrap_or_default();
        let hint = failure.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "error: {phase}{message}{hint}");
    }
    let (phase, code, hint) = (failure.phase(), failure.code(), failure.hint());
    reporter.tell(&Event::Error { phase, code, message, hint });
}

fn print(text: &str) {
    let _ = write!(std::io::stdout(), "{text}");
}

/// The release of Kubernetes whose `kubeadm join` this is.
const KUBEADM: &str = "v1.37.2";

fn version_text(format: VersionFormat) -> String {
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    match format {
        VersionFormat::Text => format!("mortise {version}, joins as kubeadm {KUBEADM} does\n"),
        VersionFormat::Short => format!("{version}\n"),
        VersionFormat::Json => format!("{:#}\n", version_document(version)),
        VersionFormat::Yaml => {
            serde_saphyr::to_string(&version_document(version)).expect("strings and objects of them serialize")
        }
    }
}

/// The versions, and which walls this machine allows around plugins; no helper at all is no reason to fail.
fn version_document(version: &str) -> serde_json::Value {
    let mut all = serde_json::json!({
        "version": version,
        "kubeadm": KUBEADM,
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    match runtime().block_on(Launcher::default().walls()) {
        Ok(walls) => all["walls"] = serde_json::to_value(walls).expect("names and strings serialize"),
        Err(error) => all["wallsError"] = output::printable(&error.to_string()).into(),
    }
    all
}
