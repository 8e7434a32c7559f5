//! What services print, one file a unit, and the stand-in for `journalctl` that reads it.
//!
//! A line is `MICROSECONDS IDENTIFIER PID TEXT`. The stand-in knows `-u`, `-n`, `-o`, `--since`, `-r`; options that
//! only concern a terminal are accepted, all else is refused rather than ignored.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// A node's logs.
pub(crate) const LOG_DIRECTORY: &str = "/var/log/node";

/// One unit's log.
pub(crate) struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(crate) fn of(unit: &str) -> Self {
        Self { path: PathBuf::from(LOG_DIRECTORY).join(format!("{unit}.journal")) }
    }

    /// A line of the service manager itself.
    pub(crate) fn manager(&self, text: &str) {
        self.line("systemd", 1, text);
    }

    pub(crate) fn line(&self, identifier: &str, pid: i32, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let line = format!("{now} {identifier} {pid} {text}\n");
        // A full disk must not end the process that reaps: the line is lost, as journald would lose it.
        let _ = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

struct Query {
    units: Vec<String>,
    lines: Option<usize>,
    since: u128,
    format: String,
    newest_first: bool,
}

/// `journalctl`.
pub(crate) fn journalctl(arguments: &[String]) -> Result<ExitCode> {
    let query = parse_query(arguments)?;
    let mut found: Vec<(u128, String)> = Vec::new();
    let units = match query.units.is_empty() {
        true => crate::state::entries(LOG_DIRECTORY.as_ref())?
            .iter()
            .filter_map(|file| file.strip_suffix(".journal").map(str::to_owned))
            .collect(),
        false => query.units.clone(),
    };
    for unit in units {
        let text = fs::read(Journal::of(&unit).path).unwrap_or_default();
        for line in String::from_utf8_lossy(&text).lines() {
            let mut fields = line.splitn(4, ' ');
            let (Some(at), Some(identifier), Some(pid)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let at: u128 = at.parse().unwrap_or(0);
            if at >= query.since {
                found.push((at, render(&query.format, at, identifier, pid, fields.next().unwrap_or_default())?));
            }
        }
    }
    found.sort_by_key(|(at, _)| *at);
    let skipped = query.lines.map_or(0, |lines| found.len().saturating_sub(lines));
    let mut shown: Vec<String> = found.into_iter().skip(skipped).map(|(_, line)| line).collect();
    if query.newest_first {
        shown.reverse();
    }
    if shown.is_empty() && query.format != "cat" {
        shown.push("-- No entries --".to_owned());
    }
    let mut out = std::io::stdout().lock();
    for line in shown {
        // A reader that has seen enough closes the pipe; that is no failure of ours.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse_query(arguments: &[String]) -> Result<Query> {
    let mut query = Query { units: Vec::new(), lines: None, since: 0, format: "short".into(), newest_first: false };
    let mut rest = arguments.iter().flat_map(|argument| split_option(argument));
    while let Some(option) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("option `{option}` needs a value"));
        match option.as_str() {
            "-u" | "--unit" => query.units.push(value()?.trim_end_matches(".service").to_owned()),
            "-n" | "--lines" => query.lines = Some(value()?.parse().context("-n takes a number")?),
            "-o" | "--output" => query.format = value()?,
            "-S" | "--since" => query.since = parse_since(&value()?, SystemTime::now())?,
            "-r" | "--reverse" => query.newest_first = true,
            "--no-pager" | "-q" | "--quiet" | "-x" | "-e" | "-xe" | "-xeu" | "-b" | "--no-hostname" | "-a"
            | "--all" => {
                if option.ends_with('u') {
                    query.units.push(value()?.trim_end_matches(".service").to_owned());
                }
            }
            other => bail!("this stand-in for journalctl does not know `{other}`"),
        }
    }
    Ok(query)
}

/// `--unit=kubelet`, `-ukubelet` and `-n50` become two words.
fn split_option(argument: &str) -> Vec<String> {
    if let Some((option, value)) = argument.split_once('=').filter(|(option, _)| option.starts_with("--")) {
        return vec![option.to_owned(), value.to_owned()];
    }
    for short in ["-u", "-n", "-o", "-S"] {
        if let Some(value) = argument.strip_prefix(short).filter(|value| !value.is_empty()) {
            return vec![short.to_owned(), value.to_owned()];
        }
    }
    vec![argument.to_owned()]
}

/// `@SECONDS`, `YYYY-MM-DD[ HH:MM:SS]` in UTC, `-5min` or `5 min ago`; microseconds since 1970.
fn parse_since(text: &str, now: SystemTime) -> Result<u128> {
    if let Some(seconds) = text.strip_prefix('@') {
        return Ok(Duration::from_secs_f64(seconds.parse().context("--since @ takes seconds")?).as_micros());
    }
    if let Some(back) = text.strip_prefix('-').or_else(|| text.strip_suffix(" ago")) {
        let back = super::parse_duration(&back.replace("minutes", "min").replace("seconds", "s"))?;
        return Ok((now.duration_since(UNIX_EPOCH)?.saturating_sub(back)).as_micros());
    }
    let numbers: Vec<i64> = text.split(['-', ' ', ':', 'T']).map_while(|part| part.parse().ok()).collect();
    let (day, clock) =
        numbers.split_at_checked(3).with_context(|| format!("--since `{text}` is no time known here"))?;
    let clock = |index| clock.get(index).copied().unwrap_or(0);
    let seconds = days_since_1970(day[0], day[1], day[2]) * 86_400 + clock(0) * 3600 + clock(1) * 60 + clock(2);
    Ok(u128::try_from(seconds).context("--since is before 1970")? * 1_000_000)
}

fn render(format: &str, at: u128, identifier: &str, pid: &str, text: &str) -> Result<String> {
    let (year, month, day, clock) = civil(u64::try_from(at / 1_000_000)?);
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month as usize - 1];
    let micros = at % 1_000_000;
    let time = match format {
        "cat" => return Ok(text.to_owned()),
        "short" => format!("{name} {day:02} {clock}"),
        "short-precise" => format!("{name} {day:02} {clock}.{micros:06}"),
        "short-iso" => format!("{year}-{month:02}-{day:02}T{clock}+0000"),
        "short-iso-precise" => format!("{year}-{month:02}-{day:02}T{clock}.{micros:06}+0000"),
        "short-unix" => format!("{}.{micros:06}", at / 1_000_000),
        "json" => {
            let unit = serde_json::json!({"__REALTIME_TIMESTAMP": at.to_string(), "SYSLOG_IDENTIFIER": identifier,
                "_PID": pid, "MESSAGE": text});
            return Ok(unit.to_string());
        }
        other => bail!("this stand-in for journalctl does not know the output format `{other}`"),
    };
    Ok(format!("{time} {host} {identifier}[{pid}]: {text}"))
}

/// Year, month, day and `HH:MM:SS` in UTC.
fn civil(seconds: u64) -> (i64, u32, u32, String) {
    let (days, rest) = (i64::try_from(seconds / 86_400).unwrap_or(0), seconds % 86_400);
    let mut year = 1970 + days / 366;
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12).rev().find(|month| days_since_1970(year, *month, 1) <= days).unwrap_or(1);
    let day = days - days_since_1970(year, month, 1) + 1;
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1), clock)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, 1970 or later.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leaps = |year: i64| year / 4 - year / 100 + year / 400;
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month = usize::try_from(month.clamp(1, 12)).unwrap_or(1);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + before[month - 1] + i64::from(leap && month > 2) + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_dates_as_date_does() {
        // date -u -d @SECONDS
        for (seconds, expected) in [
            (0, (1970, 1, 1, "00:00:00")),
            (951_782_400, (2000, 2, 29, "00:00:00")),
            (1_735_689_599, (2024, 12, 31, "23:59:59")),
            (1_795_558_843, (2026, 11, 24, "22:20:43")),
        ] {
            let (year, month, day, clock) = civil(seconds);
            assert_eq!((year, month, day, clock.as_str()), expected);
        }
    }

    #[test]
    fn reads_every_way_to_say_since() {
        let now = UNIX_EPOCH + Duration::from_secs(1_795_558_843);
        for (text, seconds) in [
            ("@1795558843", 1_795_558_843),
            ("2026-11-24 22:20:43", 1_795_558_843),
            ("2026-11-24", 1_795_478_400),
            ("-5min", 1_795_558_543),
            ("10 seconds ago", 1_795_558_833),
        ] {
            assert_eq!(parse_since(text, now).unwrap(), seconds * 1_000_000, "{text}");
        }
        assert!(parse_since("yesterday", now).is_err());
    }

    #[test]
    fn refuses_an_option_it_does_not_know() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(parse_query(&words("-u kubelet -n50 --no-pager -o cat --since=@1")).is_ok());
        assert!(parse_query(&words("-xeu kubelet")).unwrap().units == ["kubelet"]);
        assert!(parse_query(&words("-f")).is_err());
    }
}
