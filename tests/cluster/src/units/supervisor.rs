//! The part of a node's first process that stands in for systemd: starts services, watches them, starts them again.
//!
//! Every state a caller can see has systemd's name for it. What is left out: dependencies, timers, start limits, and
//! whatever a service started beside its main process (the kubelet's Pods must outlive it anyway).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, wait, waitid};

use super::journal::Journal;
use super::service::{Ending, Phase, Service, title};
use super::{Restart, UNIT_DIRECTORY, Unit};
use crate::enter::node_environment;

/// systemd's default time for a service to become ready, and to stop before it is killed.
const JOB_LIMIT: Duration = Duration::from_secs(90);

/// All services of a node.
pub(crate) struct Supervisor {
    services: Mutex<BTreeMap<String, Service>>,
    changed: Condvar,
}

impl Supervisor {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { services: Mutex::default(), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service of a unit as it is now; `None` if there is no such unit.
    pub(crate) fn service(&self, name: &str) -> Result<Option<Service>> {
        Ok(Self::loaded(&mut self.lock(), name)?.cloned())
    }

    fn loaded<'a>(services: &'a mut BTreeMap<String, Service>, name: &str) -> Result<Option<&'a mut Service>> {
        if !services.contains_key(name) {
            let Some(unit) = Unit::load(Path::new(UNIT_DIRECTORY), name)? else {
                return Ok(None);
            };
            let service = Service { unit, phase: Phase::Inactive, main: None, last: None, restarts: 0, generation: 0 };
            services.insert(name.to_owned(), service);
        }
        Ok(services.get_mut(name))
    }

    /// Reads all unit files again; running processes are left alone.
    pub(crate) fn reload(&self) -> Result<()> {
        let mut services = self.lock();
        for (name, service) in services.iter_mut() {
            if let Some(unit) = Unit::load(Path::new(UNIT_DIRECTORY), name)? {
                service.unit = unit;
            }
        }
        Ok(())
    }

    /// Starts a service and waits until it is ready, or for `Type=simple` until its process exists.
    pub(crate) fn start(self: &Arc<Self>, name: &str) -> Result<()> {
        let mut services = self.lock();
        let service = Self::loaded(&mut services, name)?.with_context(|| format!("no unit `{name}`"))?;
        if !matches!(service.phase, Phase::Active | Phase::Starting) {
            service.restarts = 0;
            self.spawn(service);
        }
        let notifies = service.unit.notifies;
        drop(services);
        self.wait_while(name, JOB_LIMIT, |phase| phase == Phase::Starting)?;
        match self.service(name)?.map(|service| service.phase) {
            Some(Phase::Active) | None => Ok(()),
            Some(_) if notifies => Err(anyhow!("the service ended before it was ready")),
            Some(Phase::Failed) => Err(anyhow!("the main process could not be started")),
            Some(_) => Ok(()),
        }
    }

    /// Stops a service: SIGTERM, and SIGKILL if that does not end it in time.
    pub(crate) fn stop(&self, name: &str) -> Result<()> {
        let mut services = self.lock();
        let Some(service) = Self::loaded(&mut services, name)? else {
            return Ok(());
        };
        service.generation += 1;
        let Some(main) = service.main else {
            service.phase = Phase::Inactive;
            self.changed.notify_all();
            return Ok(());
        };
        service.phase = Phase::Stopping;
        Journal::of(&service.unit.name).manager(&format!("Stopping {}...", title(&service.unit)));
        signal(main, Signal::TERM);
        drop(services);
        if self.wait_while(name, JOB_LIMIT, |phase| phase == Phase::Stopping).is_err() {
            signal(main, Signal::KILL);
            self.wait_while(name, JOB_LIMIT, |phase| phase == Phase::Stopping)?;
        }
        Ok(())
    }

    fn wait_while(&self, name: &str, limit: Duration, condition: impl Fn(Phase) -> bool) -> Result<()> {
        let waits =
            |services: &mut BTreeMap<String, Service>| services.get(name).is_some_and(|found| condition(found.phase));
        let (_services, timeout) = self
            .changed
            .wait_timeout_while(self.lock(), limit, waits)
            .map_err(|_| anyhow!("another thread of the supervisor failed"))?;
        if timeout.timed_out() {
            return Err(anyhow!("unit `{name}` did not get on within {} s", limit.as_secs()));
        }
        Ok(())
    }

    /// Starts the main process; a failure to do so is an ending like any other (systemd's status 203).
    fn spawn(self: &Arc<Self>, service: &mut Service) {
        service.generation += 1;
        let journal = Journal::of(&service.unit.name);
        journal.manager(&format!("Starting {}...", title(&service.unit)));
        match self.spawn_main(service) {
            Ok(pid) => {
                service.main = Some(pid);
                service.last = Some((pid, None));
                service.phase = if service.unit.notifies { Phase::Starting } else { Phase::Active };
                if service.phase == Phase::Active {
                    journal.manager(&format!("Started {}.", title(&service.unit)));
                }
            }
            Err(error) => {
                journal.manager(&format!("{}.service: Failed to execute: {error:#}", service.unit.name));
                service.last = Some((0, None));
                self.ended(service, Ending::Exited(203));
            }
        }
        self.changed.notify_all();
    }

    fn spawn_main(self: &Arc<Self>, service: &Service) -> Result<i32> {
        let unit = &service.unit;
        let environment = unit.resolved_environment();
        let words = unit.command_line(&environment);
        let (program, arguments) = words.split_first().context("ExecStart is empty")?;
        let (reader, writer) = std::io::pipe().context("making a pipe for the log")?;
        let mut command = Command::new(program);
        // Nothing of whoever added the node.
        command.env_clear();
        node_environment(&mut command);
        command.args(arguments).envs(environment).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        if unit.notifies {
            command.env("NOTIFY_SOCKET", self.listen_for_ready(&unit.name)?);
        }
        let child = command.spawn().with_context(|| format!("starting `{program}`"))?;
        let pid = i32::try_from(child.id())?;
        let (journal, name) = (Journal::of(&unit.name), program.rsplit('/').next().unwrap_or(program).to_owned());
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                journal.line(&name, pid, &String::from_utf8_lossy(&line));
            }
        });
        Ok(pid)
    }

    /// Opens the socket on which a service says that it is ready.
    fn listen_for_ready(self: &Arc<Self>, name: &str) -> Result<String> {
        let path = format!("/run/systemd/notify-{name}");
        // Left from the service's last start; binding needs the name free.
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("binding `{path}`"))?;
        let (supervisor, name) = (Arc::clone(self), name.to_owned());
        std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                if !String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1") {
                    continue;
                }
                if let Some(service) = supervisor.lock().get_mut(&name).filter(|found| found.phase == Phase::Starting) {
                    service.phase = Phase::Active;
                    Journal::of(&name).manager(&format!("Started {}.", title(&service.unit)));
                }
                supervisor.changed.notify_all();
                return;
            }
        });
        Ok(path)
    }

    /// Decides what follows the end of a main process.
    fn ended(self: &Arc<Self>, service: &mut Service, ending: Ending) {
        let journal = Journal::of(&service.unit.name);
        let name = format!("{}.service", service.unit.name);
        service.main = None;
        service.last = service.last.map(|(pid, _)| (pid, Some(ending)));
        if service.phase == Phase::Stopping {
            journal.manager(&match ending.is_clean() {
                true => format!("{name}: Deactivated successfully."),
                false => format!("{name}: Failed with result '{}'.", ending.result()),
            });
            journal.manager(&format!("Stopped {}.", title(&service.unit)));
            service.phase = if ending.is_clean() { Phase::Inactive } else { Phase::Failed };
            self.changed.notify_all();
            return;
        }
        journal.manager(&match ending {
            Ending::Exited(0) => format!("{name}: Deactivated successfully."),
            Ending::Exited(code) => {
                format!("{name}: Main process exited, code=exited, status={code}/FAILURE")
            }
            Ending::Killed(signal) => {
                format!("{name}: Main process exited, code=killed, status={signal}")
            }
        });
        if !ending.is_clean() {
            journal.manager(&format!("{name}: Failed with result '{}'.", ending.result()));
        }
        let again = match service.unit.restart {
            Restart::Always => true,
            Restart::OnFailure => !ending.is_clean(),
            Restart::No => false,
        };
        service.phase = match (again, ending.is_clean()) {
            (true, _) => Phase::WaitingToRestart,
            (false, true) => Phase::Inactive,
            (false, false) => Phase::Failed,
        };
        self.changed.notify_all();
        if again {
            self.restart_later(service);
        }
    }

    fn restart_later(self: &Arc<Self>, service: &Service) {
        let (supervisor, name, generation) = (Arc::clone(self), service.unit.name.clone(), service.generation);
        let due = Instant::now() + service.unit.restart_delay;
        std::thread::spawn(move || {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut services = supervisor.lock();
            let Some(service) = services.get_mut(&name) else {
                return;
            };
            if service.phase == Phase::WaitingToRestart && service.generation == generation {
                service.restarts += 1;
                let scheduled =
                    format!("{name}.service: Scheduled restart job, restart counter is at {}.", service.restarts);
                Journal::of(&name).manager(&scheduled);
                supervisor.spawn(service);
            }
        });
    }

    /// Reaps every process that ends in the node, forever.
    pub(crate) fn reap(self: &Arc<Self>) -> ! {
        loop {
            // Looks without reaping first: a process is reaped under the lock, so never before it is written down,
            // and never one that a failing `spawn` waits for itself.
            if waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).is_err() {
                // No child at all; a start wakes this, the time-out catches an orphan that was handed over.
                let _ = self.changed.wait_timeout(self.lock(), Duration::from_millis(200));
                continue;
            }
            let mut services = self.lock();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let pid = pid.as_raw_nonzero().get();
                if let Some(service) = services.values_mut().find(|service| service.main == Some(pid)) {
                    self.ended(service, Ending::from_status(status));
                }
            }
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Not reaped yet, so the number is still this process's; that it ended meanwhile is fine.
        let _ = kill_process(pid, signal);
    }
}
