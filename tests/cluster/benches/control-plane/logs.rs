//! Times out of what a node's services wrote. All are seconds since 1970.

use std::collections::BTreeMap;

/// The first `systemctl start` or `restart` of the kubelet in the stand-in's journal (microseconds, then words).
pub(crate) fn first_restart(journal: &str) -> Option<f64> {
    journal.lines().find(|line| line.ends_with("start kubelet")).and_then(time)
}

/// When containers were started, by the name of the container, from containerd's journal.
pub(crate) fn container_starts(journal: &str) -> BTreeMap<String, Vec<f64>> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut starts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in journal.lines() {
        if let Some((before, id)) = line.split_once("returns container id ") {
            let name = before.rsplit_once("name:").map(|(_, name)| name);
            names.extend(quoted(id).zip(name.and_then(quoted)));
        } else if let Some((_, id)) = line.split_once("StartContainer for ")
            // Said twice a start: when it begins, and that it was successful.
            && !line.contains("returns ")
            && let Some(name) = quoted(id).and_then(|id| names.get(id))
            && let Some(time) = time(line)
        {
            starts.entry((*name).to_owned()).or_default().push(time);
        }
    }
    starts
}

/// When a member found itself among the voters, from its log as the container runtime keeps it.
pub(crate) fn voter_since(log: &str) -> Option<f64> {
    let line = log.lines().find(|line| {
        let Some((before, after)) = line.split_once(" switched to configuration voters=(") else { return false };
        let id = before.rsplit('"').next().unwrap_or_default();
        after.split(')').next().unwrap_or_default().split(' ').any(|voter| voter == id)
    })?;
    instant(line.split(' ').next()?)
}

/// What stands first between quotation marks, escaped or not.
fn quoted(text: &str) -> Option<&str> {
    text.split('"').nth(1).map(|word| word.trim_end_matches('\\'))
}

fn time(line: &str) -> Option<f64> {
    Some(line.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}

/// From `2026-11-25T07:51:39.339449327Z`.
fn instant(text: &str) -> Option<f64> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let date: Vec<i64> = date.split('-').map_while(|part| part.parse().ok()).collect();
    let clock: Vec<f64> = clock.split(':').map_while(|part| part.parse().ok()).collect();
    let (&[year, month, day], &[hours, minutes, seconds]) = (&date[..], &clock[..]) else { return None };
    // Days since 1970 by counting years from March, so that a leap day is a year's last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Some(days as f64 * 86_400.0 + hours * 3600.0 + minutes * 60.0 + seconds)
}
