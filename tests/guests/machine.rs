//! A machine that answers the same to everybody, and counts what it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::network::{Gauge, ScriptedNetwork};
use futures::future::BoxFuture;
use mortise::facts::{
    CommandOutput, CommandRequest, Fact, FactRequest, FactSource, FileInfo, FileRequest, HostError, KernelInfo,
};
use mortise::network::Network;
use mortise::plugin::Launcher;

/// Every answer is fixed; files are those of this machine.
#[derive(Default)]
pub(crate) struct Machine {
    /// Requests that got past the broker.
    pub(crate) asked: AtomicUsize,
    pub(crate) network: ScriptedNetwork,
    /// Facts and files are never answered.
    pub(crate) slow: bool,
    /// Commands are really run.
    pub(crate) runs: bool,
    /// Requests that wait.
    pub(crate) gauge: Gauge,
}

impl Machine {
    fn count(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

impl FactSource for Machine {
    fn network(&self) -> &dyn Network {
        &self.network
    }

    fn ask<'a>(&'a self, request: &'a FactRequest) -> BoxFuture<'a, Result<Fact, HostError>> {
        self.count();
        if self.slow {
            return Box::pin(self.gauge.wait_forever());
        }
        let fact = match request {
            FactRequest::Swap => Fact::Names(vec!["/dev/sda2".into()]),
            FactRequest::Modules => Fact::Names(vec!["overlay".into()]),
            FactRequest::Sysctl { .. } => Fact::Text("1".into()),
            FactRequest::Kernel => {
                Fact::Kernel(KernelInfo { name: "Linux".into(), release: "6.1.0".into(), machine: "x86_64".into() })
            }
            _ => Fact::Number(0),
        };
        Box::pin(std::future::ready(Ok(fact)))
    }

    fn stat<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Option<FileInfo>, HostError>> {
        self.count();
        if self.slow {
            return Box::pin(self.gauge.wait_forever());
        }
        Box::pin(std::future::ready(mortise::plugin::files::stat(request)))
    }

    fn read<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<u8>, HostError>> {
        self.count();
        if self.slow {
            return Box::pin(self.gauge.wait_forever());
        }
        Box::pin(std::future::ready(mortise::plugin::files::read(request)))
    }

    fn entries<'a>(&'a self, request: FileRequest<'a>) -> BoxFuture<'a, Result<Vec<String>, HostError>> {
        self.count();
        Box::pin(std::future::ready(mortise::plugin::files::entries(request)))
    }

    fn run<'a>(&'a self, request: &'a CommandRequest) -> BoxFuture<'a, Result<CommandOutput, HostError>> {
        self.count();
        if self.runs {
            return Box::pin(async {
                let launcher = Launcher::at(env!("CARGO_BIN_EXE_mortise"));
                mortise::plugin::commands::run_with(&launcher, request).await
            });
        }
        let stdout = format!("ran {} {}", request.program.display(), request.arguments.join(" ")).into_bytes();
        Box::pin(std::future::ready(Ok(CommandOutput { status: Some(0), stdout, stderr: Vec::new() })))
    }
}
