//! `--patches`.
