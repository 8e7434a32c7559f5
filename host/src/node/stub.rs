//! A machine for tests: its units and its kubelet do what the test says.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use futures::future::{BoxFuture, ready};

use super::{Machine, NodeError, UnitAction, UnitState};

/// What the machine answers, and what was asked of it.
pub(crate) struct StubMachine {
    /// None: no init system.
    pub(crate) kubelet: Mutex<Option<UnitState>>,
    /// One after another; the last one again and again. None: nothing listens.
    pub(crate) healths: Mutex<Vec<Option<u16>>>,
    /// Restarts that each look at the unit adds.
    pub(crate) dies: u32,
    /// Whether `systemctl restart` fails.
    pub(crate) start_fails: bool,
    pub(crate) resolved: bool,
    pub(crate) log: Vec<String>,
    pub(crate) actions: Mutex<Vec<&'static str>>,
}

impl Default for StubMachine {
    fn default() -> Self {
        Self {
            kubelet: Mutex::new(Some(UnitState { exists: true, active: true, restarts: Some(0) })),
            healths: Mutex::new(vec![Some(200)]),
            dies: 0,
            start_fails: false,
            resolved: false,
            log: Vec::new(),
            actions: Mutex::default(),
        }
    }
}

impl StubMachine {
    pub(crate) fn actions(&self) -> Vec<&'static str> {
        self.actions.lock().unwrap().clone()
    }
}

impl Machine for StubMachine {
    fn hostname(&self) -> Result<String, NodeError> {
        Ok("n1".into())
    }

    fn unit<'a>(&'a self, action: UnitAction, unit: &'a str) -> BoxFuture<'a, Result<(), NodeError>> {
        self.actions.lock().unwrap().push(action.as_str());
        if self.start_fails && action == UnitAction::Restart {
            let (unit, message) = (unit.to_owned(), "job failed".to_owned());
            return Box::pin(ready(Err(NodeError::Unit { action: action.as_str(), unit, message })));
        }
        if let Some(state) = self.kubelet.lock().unwrap().as_mut()
            && action != UnitAction::DaemonReload
        {
            state.active = action == UnitAction::Restart;
        }
        Box::pin(ready(Ok(())))
    }

    fn unit_state<'a>(&'a self, unit: &'a str) -> BoxFuture<'a, Result<UnitState, NodeError>> {
        if unit != "kubelet" {
            let active = self.resolved;
            return Box::pin(ready(Ok(UnitState { exists: active, active, restarts: None })));
        }
        let mut state = self.kubelet.lock().unwrap();
        let answer = state.clone().ok_or(NodeError::NoInit);
        if let Some(restarts) = state.as_mut().and_then(|state| state.restarts.as_mut()) {
            *restarts += self.dies;
        }
        Box::pin(ready(answer))
    }

    fn unit_log<'a>(&'a self, _: &'a str, lines: usize) -> BoxFuture<'a, Vec<String>> {
        let skipped = self.log.len().saturating_sub(lines);
        Box::pin(ready(self.log[skipped..].to_vec()))
    }

    fn healthz<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<u16, io::Error>> {
        let mut healths = self.healths.lock().unwrap();
        let next = if healths.len() > 1 { healths.remove(0) } else { healths[0] };
        Box::pin(ready(next.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())))
    }
}

/// Every path below a directory with type, mode and content.
pub(crate) fn tree(directory: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                open.push(path.clone());
            }
            let content = if metadata.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            all.push((path, metadata.mode(), content));
        }
    }
    all.sort();
    all
}
