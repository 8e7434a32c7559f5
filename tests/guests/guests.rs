//! Plugins that misbehave, commands that will not end, and a native stand-in for a runner that was taken over: each
//! through the real runner, compiler and broker. Which file shows what of each host function:
//!
//! | | denied | oversize | slow | cancelled |
//! |---|---|---|---|---|
//! | `facts` | `grants` | `tricks`, lists bounded in the broker | `cancelled` | `cancelled` |
//! | `files` | `grants` | `files`, `limits` | `files` (FIFO), `cancelled` | `cancelled` |
//! | `commands.run` | `grants`, `tricks` | `commands`, `cancelled` | `commands`, `cancelled` | `cancelled` |
//! | `commands.run-with-secret` | `secrets` | `cancelled` | `cancelled` | `cancelled` |
//! | `http.fetch` | `http`, `https` | `http`, `limits` | `http`, `https`, `limits` | `cancelled` |
//! | `probe` | `probe` | `probe`, `limits` | `probe` | `cancelled` |
//! | `secrets.reveal` | `secrets` | `secrets` | `cancelled` (FIFO) | one read, nothing to stop |
//! | `log`, WASI's stdout and stderr | – | `limits`, `endings` | – | in the runner, which is killed |
//! | WASI's random, clocks, handles | – | `limits` | `endings` (a sleep) | in the runner, which is killed |
//! | `context`, `settings`, `csr` | – | `limits` | – | in the runner, which is killed |

mod behind;
#[path = "../built.rs"]
mod built;
mod cancelled;
mod commands;
mod endings;
mod example;
mod files;
mod grants;
mod http;
mod https;
mod limits;
mod machine;
mod native;
mod network;
mod plugin;
mod probe;
mod secrets;
mod speed;
mod standin;
mod terminal;
mod tricks;
mod unfit;
mod walls;
