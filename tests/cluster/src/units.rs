//! Unit files: the few directives a node's services use, read as systemd reads them.
//!
//! Files lie in `/etc/systemd/system`, drop-ins in `NAME.service.d/*.conf` in order of name; a later assignment
//! replaces, an empty `ExecStart=` clears. So a test changes `RestartSec` the way an administrator would.

pub(crate) mod journal;
mod report;
mod service;
pub(crate) mod supervisor;
pub(crate) mod systemctl;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Where a node's units lie.
pub(crate) const UNIT_DIRECTORY: &str = "/etc/systemd/system";
/// systemd's own default.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// When a service that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    No,
    OnFailure,
    Always,
}

/// A service as its files describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    pub(crate) description: String,
    /// The unit file, then its drop-ins.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) exec_start: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) environment_files: Vec<String>,
    pub(crate) restart: Restart,
    pub(crate) restart_delay: Duration,
    /// Whether a start waits for `READY=1`.
    pub(crate) notifies: bool,
}

impl Unit {
    /// Reads a unit; `None` if there is no such file.
    pub(crate) fn load(directory: &Path, name: &str) -> Result<Option<Self>> {
        let main = directory.join(format!("{name}.service"));
        if !main.is_file() {
            return Ok(None);
        }
        let drop_ins = directory.join(format!("{name}.service.d"));
        let mut names: Vec<String> =
            crate::state::entries(&drop_ins)?.into_iter().filter(|file| file.ends_with(".conf")).collect();
        names.sort();
        let mut unit = Self {
            name: name.to_owned(),
            description: name.to_owned(),
            files: vec![main],
            exec_start: String::new(),
            environment: Vec::new(),
            environment_files: Vec::new(),
            restart: Restart::No,
            restart_delay: RESTART_DELAY,
            notifies: false,
        };
        unit.files.extend(names.iter().map(|file| drop_ins.join(file)));
        for file in unit.files.clone() {
            let text = fs::read_to_string(&file).with_context(|| format!("reading unit file `{}`", file.display()))?;
            unit.read(&text).with_context(|| format!("in unit file `{}`", file.display()))?;
        }
        ensure!(!unit.exec_start.is_empty(), "unit `{name}.service` has no ExecStart");
        Ok(Some(unit))
    }

    fn read(&mut self, text: &str) -> Result<()> {
        let joined = text.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';', '[']));
        for (key, value) in lines.filter_map(|line| line.split_once('=')) {
            let (key, value) = (key.trim(), value.trim());
            match key {
                "Description" => value.clone_into(&mut self.description),
                "ExecStart" => value.clone_into(&mut self.exec_start),
                "Environment" => self.environment.push(parse_assignment(value.trim_matches('"'))?),
                "EnvironmentFile" => self.environment_files.push(value.trim_start_matches('-').to_owned()),
                "Type" => self.notifies = value == "notify",
                "RestartSec" => self.restart_delay = parse_duration(value)?,
                "Restart" => {
                    self.restart = match value {
                        "always" => Restart::Always,
                        "no" => Restart::No,
                        _ => Restart::OnFailure,
                    };
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The environment that the unit's assignments and files give, the later one winning.
    pub(crate) fn resolved_environment(&self) -> BTreeMap<String, String> {
        let mut found: BTreeMap<String, String> = self.environment.iter().cloned().collect();
        for file in &self.environment_files {
            // Optional, like every `EnvironmentFile=-` of the packages.
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
            for (name, value) in lines.filter_map(|line| line.split_once('=')) {
                found.insert(name.trim().to_owned(), unquote(value.trim()).to_owned());
            }
        }
        found
    }

    /// The command line: `$NAME` alone becomes its words, `${NAME}` its value in place.
    pub(crate) fn command_line(&self, environment: &BTreeMap<String, String>) -> Vec<String> {
        let mut words = Vec::new();
        for word in split_words(&self.exec_start) {
            if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                words.extend(environment.get(name).map(|value| split_words(value)).unwrap_or_default());
                continue;
            }
            let mut word = word;
            for (name, value) in environment {
                word = word.replace(&format!("${{{name}}}"), value);
            }
            words.push(word);
        }
        words
    }
}

fn parse_assignment(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Seconds without a unit, or `ms`, `s`, `min`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().with_context(|| format!("`{text}` does not start with a number"))?;
    let unit = match text[digits..].trim() {
        "" | "s" | "sec" => 1.0,
        "ms" => 0.001,
        "min" | "m" => 60.0,
        other => anyhow::bail!("`{other}` in `{text}` is no unit of time: use ms, s or min"),
    };
    Ok(Duration::from_secs_f64(number * unit))
}

fn unquote(text: &str) -> &str {
    let quoted = |mark| text.strip_prefix(mark).and_then(|rest| rest.strip_suffix(mark));
    quoted('"').or_else(|| quoted('\'')).unwrap_or(text)
}

/// Words as a shell would split them, with both kinds of quotes and nothing else.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut open, mut started) = (Vec::new(), String::new(), None, false);
    for c in text.chars() {
        match (open, c) {
            (Some(mark), c) if c == mark => open = None,
            (None, '"' | '\'') => (open, started) = (Some(c), true),
            (None, c) if c.is_whitespace() => {
                if started || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
            }
            (_, c) => word.push(c),
        }
    }
    if started || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        let directory = std::env::temp_dir().join(format!("mortise-units-{}-{}", std::process::id(), text.len()));
        fs::create_dir_all(directory.join("kubelet.service.d")).unwrap();
        fs::write(
            directory.join("kubelet.service"),
            "[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\nRestartSec=10\n",
        )
        .unwrap();
        fs::write(directory.join("kubelet.service.d/10.conf"), text).unwrap();
        let unit = Unit::load(&directory, "kubelet").unwrap().unwrap();
        fs::remove_dir_all(directory).unwrap();
        unit
    }

    #[test]
    fn a_drop_in_replaces_the_command_and_the_restart_delay() {
        let unit = unit("[Service]\nExecStart=\nExecStart=/bin/x $A ${B}c $NONE\nRestartSec=200ms\n");
        assert_eq!(unit.restart, Restart::Always);
        assert_eq!(unit.restart_delay, Duration::from_millis(200));
        let environment = BTreeMap::from([("A".into(), "--one --two='a b'".into()), ("B".into(), "b".into())]);
        assert_eq!(unit.command_line(&environment), ["/bin/x", "--one", "--two=a b", "bc"]);
    }

    #[test]
    fn reads_times_as_systemd_writes_them() {
        for (text, milliseconds) in [("10", 10_000), ("1s", 1000), ("200ms", 200), ("0.5", 500), ("1min", 60_000)] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert!(parse_duration("soon").is_err() && parse_duration("1 day").is_err());
    }
}
