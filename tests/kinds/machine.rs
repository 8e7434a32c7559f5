//! A machine in a cloud, with the modules, files and metadata that a test gives it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use futures::future::{BoxFuture, ready};
use mortise::facts::{CommandOutput, CommandRequest, Fact, FactRequest, FactSource, FileInfo, FileRequest, HostError};
use mortise::network::Network;

use crate::cloud::Cloud;

/// Empty to begin with.
#[derive(Default)]
pub(crate) struct Machine {
    modules: Mutex<Vec<String>>,
    files: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    cloud: Cloud,
}

impl Machine {
    pub(crate) fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    pub(crate) fn load_module(&self, name: &str) {
        self.modules.lock().unwrap().push(name.into());
    }

    pub(crate) fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.lock().unwrap().insert(path.into(), content.into());
    }
}

fn error(code: &str) -> HostError {
    HostError { code: code.into(), message: format!("the test's machine: {code}"), retryable: false }
}

impl FactSource for Machine {
    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>> {
        Box::pin(ready(match request {
            FactRequest::Modules => Ok(Fact::Names(self.modules.lock().unwrap().clone())),
            _ => Err(error("unavailable")),
        }))
    }

    fn stat<'a>(&'a self, _: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        Box::pin(ready(Err(error("unavailable"))))
    }

    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        let content = self.files.lock().unwrap().get(request.path).cloned();
        Box::pin(ready(content.ok_or_else(|| error("not-found"))))
    }

    fn network(&self) -> &dyn Network {
        &self.cloud
    }

    fn entries<'a>(&'a self, _: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>> {
        Box::pin(ready(Err(error("unavailable"))))
    }

    fn run<'a>(&'a self, _: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        Box::pin(ready(Err(error("unavailable"))))
    }
}
