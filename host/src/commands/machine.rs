//! Commands on a machine that joined: `mortise reset` and `mortise verify`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::api::Dialer;
use crate::config::ResetSettings;
use crate::error::Failure;
use crate::node::HostMachine;
use crate::output::{Format, Reporter};

/// Undoes the join of this machine.
///
/// # Errors
///
/// Whatever failed first.
pub async fn reset(settings: ResetSettings, reporter: &Reporter) -> Result<(), Failure> {
    let machine = Arc::new(HostMachine::detect(&settings.root));
    Ok(crate::reset::run(&settings, machine, &Dialer::Tcp, reporter).await?)
}

/// Compares this machine with the record of its join; the report goes to stdout.
///
/// # Errors
///
/// Drift, or why nothing was compared.
pub async fn verify(root: &Path, reporter: &Reporter) -> Result<(), Failure> {
    let report = crate::verify::run(root, Arc::new(HostMachine::detect(root)), &Dialer::Tcp).await?;
    let text = match reporter.format() {
        Format::Text => report.text(),
        Format::Json => serde_json::to_string(&report).expect("a report holds only strings and numbers") + "\n",
    };
    // A reader that went away does not change the verdict.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(report.verdict()?)
}
