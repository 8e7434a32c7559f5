//! Texts of a plugin on their way to a terminal, to a log and into JSON: none of them clears the screen, begins a line
//! of its own, or reads in another direction than it is written.

use std::process::{Command, Output};

use crate::plugin::{Setup, guest};

/// What every text of the guest has in it.
const EVIL: &str = "\u{1b}[2J\u{9b}1m\u{7}\r\n\0\u{7f}\u{202e}\u{2028}\u{85}";

struct Desk(tempfile::TempDir);

impl Desk {
    fn with(setup: &Setup) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        std::fs::write(desk.0.path().join("guest.wasm"), setup.component()).unwrap();
        std::fs::write(desk.0.path().join("settings.json"), setup.settings()).unwrap();
        desk
    }

    fn mortise(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mortise"));
        command.arg("--root").arg(self.0.path().join("root")).args(words).current_dir(self.0.path());
        command.output().unwrap()
    }

    /// Both outputs, in text and in JSON, without anything that a terminal would obey; the text has these words in it.
    #[track_caller]
    fn shows(&self, words: &[&str], expected: &[&str]) {
        let text = self.mortise(words);
        let text = [text.stdout, text.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
        assert_plain(&text);
        for word in expected {
            assert!(text.contains(word), "`{word}` is not in {text}");
        }
        let json = self.mortise(&[words, &["-o", "json"]].concat());
        let (stdout, stderr) = (String::from_utf8(json.stdout).unwrap(), String::from_utf8(json.stderr).unwrap());
        assert_plain(&stdout);
        assert_plain(&stderr);
        for line in stdout.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            every_text(&value, &mut assert_plain);
        }
    }
}

/// Line feeds and blanks, and nothing else that is not shown as it is written.
#[track_caller]
fn assert_plain(text: &str) {
    let bad = |c: char| {
        (c.is_control() && c != '\n')
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c)
    };
    assert!(!text.contains(bad), "{text:?}");
}

fn every_text(value: &serde_json::Value, look: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => {
            assert!(!text.contains('\n'), "{text:?}");
            look(text);
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| every_text(item, look)),
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                look(name);
                every_text(value, look);
            }
        }
        _ => {}
    }
}

#[test]
fn what_a_check_says_is_shown_as_it_is_written() {
    for (check, expected) in [
        (
            "evil-texts",
            &[
                "message\\u{1b}[2J\\u{9b}1m\\u{7}\\r\\n\\u{0}\\u{7f}\\u{202e}\\u{2028}\\u{85}",
                "remedy\\u{1b}",
                "log\\u{1b}",
            ][..],
        ),
        ("evil-error", &["code\\u{1b}[2J", "message\\u{1b}[2J"]),
        ("evil-panic", &["panic\\u{1b}[2J"]),
    ] {
        let desk = Desk::with(&Setup::new(guest()).only(check));
        desk.shows(&["-v", "5", "plugin", "run", "guest.wasm", "--settings", "settings.json"], expected);
    }
}

#[test]
fn what_a_manifest_says_is_shown_as_it_is_written() {
    let texts = serde_json::json!({"title": format!("title{EVIL}"), "licence": format!("licence{EVIL}"),
        "grants": {"facts": [{"name": "swap", "reason": format!("reason{EVIL}")}],
            "commands": [{"program": "/bin/echo", "args": ["word\u{1b}[2J\u{9b}1m\u{202e}"],
                "reason": "r", "optional": true}]}});
    let ascii = |c: char| if c.is_ascii() && c != '\x7f' { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    let lines: String = texts.as_object().unwrap().iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let lines: String = lines.chars().map(ascii).collect();
    let desk = Desk::with(&Setup::new(guest()).only("passes").manifest(&lines));
    desk.shows(&["plugin", "inspect", "guest.wasm"], &["title\\u{1b}[2J", "licence\\u{1b}[2J", "reason\\u{1b}[2J"]);
    desk.shows(&["plugin", "grants", "explain", "guest.wasm"], &["swap"]);
    // Without the grant: the error and its hint.
    desk.shows(&["plugin", "run", "guest.wasm"], &["swap"]);
}

#[test]
fn names_of_files_and_references_are_shown_as_they_are_written() {
    let desk = Desk::with(&Setup::new(guest()).only("passes"));
    let name = format!("./absent{}.wasm", EVIL.replace('\0', ""));
    for words in [&["plugin", "inspect", &name][..], &["plugin", "run", &name], &["plugin", "grants", "explain", &name]]
    {
        desk.shows(words, &["absent\\u{1b}[2J"]);
    }
    let reference = format!("registry.example/a{}:1", EVIL.replace('\0', ""));
    desk.shows(&["plugin", "inspect", &reference], &["registry.example/a"]);
}
