//! The three kinds of plugins: the interfaces that they are written against and may only grow, one real plugin of each kind
//! in each language, and the components of released versions, which every later host links and runs.

#[path = "../built.rs"]
mod built;
mod cloud;
mod command;
mod endings;
mod examples;
mod growth;
mod growth_table;
mod machine;
mod plugin;
mod python;
mod stored;
