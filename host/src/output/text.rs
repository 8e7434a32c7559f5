//! People's lines.

use std::time::Duration;

use super::{Ending, Event, printable};
use crate::plugin::CheckStatus;

/// The line for one event, or none where a person who did not ask for more need not see it.
pub(super) fn line(event: &Event, since_start: Duration, verbose: bool) -> Option<String> {
    let at = format!("{:>7.3}s", since_start.as_secs_f64());
    Some(match event {
        Event::Step { phase, step, ending, took_ms } => match ending {
            Ending::Done(what) => format!("{at}  [{phase}] {step}: {what} ({took_ms} ms)"),
            Ending::Unchanged(why) => format!("{at}  [{phase}] {step}: unchanged, {why}"),
            Ending::Skipped(why) => format!("{at}  [{phase}] {step}: skipped, {why}"),
        },
        Event::Waiting { phase, what, left_seconds } => {
            format!("{at}  [{phase}] waiting: {what} (gives up in {left_seconds} s)")
        }
        Event::Warning { phase, message } => {
            let phase = phase.map(|phase| format!("[{phase}] ")).unwrap_or_default();
            format!("{at}  {phase}warning: {}", printable(message))
        }
        Event::Walls { walls } => {
            let missing = if verbose { walls.all_missing() } else { walls.unexpected() };
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            if missing.is_empty() && !verbose {
                return None;
            }
            let standing = walls.standing().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            match missing.is_empty() {
                true => format!("{at}  walls around plugins: {standing}"),
                false if verbose => {
                    format!("{at}  warning: walls around plugins: {standing}; missing: {missing}")
                }
                false => format!("{at}  warning: walls missing around plugins: {missing}"),
            }
        }
        Event::Check(check) => {
            if !verbose && matches!(check.status, CheckStatus::Passed | CheckStatus::Skipped) {
                return None;
            }
            check.lines().join("\n")
        }
        Event::PluginLog { plugin, level, message } => {
            if !verbose && *level == "debug" {
                return None;
            }
            format!("{at}  [{plugin}] {level}: {message}")
        }
        // Printed by `main`, once.
        Event::Error { .. } | Event::Sandbox { .. } | Event::PluginAnswer { .. } => return None,
        Event::Finished { message, .. } => format!("{at}  {message}"),
    })
}
