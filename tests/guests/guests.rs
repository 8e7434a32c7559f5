//! Plugins that misbehave, commands that will not end, and a native stand-in for a runner that was taken over: each
//! through the real runner, compiler and broker.

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
