//! Words of a guest that try to be something else on their way: paths, arguments, names. Each is refused before the
//! machine is asked, and the call after it is answered.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mortise::facts::FileRequest;
use mortise::plugin::files;

use crate::files::directory;
use crate::network::{answers, calling, passing};

#[tokio::test]
async fn malformed_paths_are_invalid_and_reach_nobody() {
    let long = format!("/{}", "x".repeat(4096));
    let paths = [
        "",
        "etc/hostname",
        "./etc/hostname",
        "/etc/../etc/hostname",
        "/etc/..",
        "/etc/./hostname",
        "/etc//hostname",
        "//etc/hostname",
        "/etc/hostname/",
        "/etc/hostname/.",
        "/etc/hostname\0",
        "/etc/host\nname",
        "/etc/hostname\u{7f}",
        &long,
    ];
    let mut calls: Vec<Vec<&str>> = Vec::new();
    for path in paths {
        calls.extend([vec!["stat", path], vec!["read", path], vec!["exec", path], vec!["run", "x", path, "{secret}"]]);
    }
    let calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
    let setup =
        calling(&calls).granted("{facts: [swap], files: [{path: /etc/hostname}], commands: [{program: /bin/true}]}");
    let machine = setup.machine.clone();
    let result = passing(setup).await;
    let seen = answers(&result);
    assert_eq!(seen.len(), calls.len());
    for (answer, call) in seen.iter().zip(&calls) {
        assert!(answer.starts_with("invalid: "), "{call:?}: {answer}");
    }
    assert_eq!(machine.asked.load(Ordering::Relaxed), 1, "only the fact after them");
}

#[tokio::test]
async fn arguments_that_turn_into_options_lines_or_ends_are_not_run() {
    let (many, large) = ("a".repeat(70_000), vec!["a"; 257]);
    let mut calls: Vec<Vec<&str>> = vec![
        vec!["exec", "/bin/echo", "-n"],
        vec!["exec", "/bin/echo", "--help"],
        vec!["exec", "/bin/echo", "a\nb"],
        vec!["exec", "/bin/echo", "a\n"],
        vec!["exec", "/bin/echo", ""],
        vec!["exec", "/bin/echo", "a", "b"],
        vec!["exec", "/bin/echo"],
        vec!["exec", "/bin/echo", "a;reboot"],
        vec!["exec", "/bin/sh", "a"],
    ];
    let denied = calls.len();
    calls.push(vec!["exec", "/bin/echo", "a\0-n"]);
    calls.push(vec!["exec", "/bin/echo", &many]);
    calls.push([&["exec", "/bin/echo"][..], &large].concat());
    let calls: Vec<&[&str]> = calls.iter().map(Vec::as_slice).collect();
    // `-` is what the pattern would take, and what no matched argument may begin with.
    let grants = "{facts: [swap], commands: [{program: /bin/echo, args: [{match: '[-a-z]+'}]}]}";
    let setup = calling(&calls).granted(grants);
    let machine = setup.machine.clone();
    let result = crate::network::denied(setup, u32::try_from(denied).unwrap()).await;
    let seen = answers(&result);
    assert_eq!(seen.len(), calls.len());
    for (answer, call) in seen.iter().zip(&calls[..denied]) {
        assert!(answer.starts_with("denied: "), "{call:?}: {answer}");
    }
    for (answer, call) in seen[denied..].iter().zip(&calls[denied..]) {
        assert!(answer.starts_with("invalid: "), "{:?}: {answer}", &call[..2]);
    }
    assert_eq!(machine.asked.load(Ordering::Relaxed), 1, "only the fact after them");
}

#[tokio::test]
async fn malformed_names_of_facts_are_invalid_and_reach_nobody() {
    let names = ["", "net/../../etc", "net..ipv4", "/net", ".net", "net.", "net ipv4", "net.ipv4\n", "net\0"];
    let calls = names.map(|name| ["sysctl", name]);
    let calls: Vec<&[&str]> = calls.iter().map(<[&str; 2]>::as_slice).collect();
    let setup = calling(&calls).granted("{facts: [swap, 'sysctl:net.*']}");
    let machine = setup.machine.clone();
    let result = passing(setup).await;
    for (answer, name) in answers(&result).iter().zip(names) {
        assert!(answer.starts_with("invalid: "), "{name:?}: {answer}");
    }
    assert_eq!(machine.asked.load(Ordering::Relaxed), 1, "only the fact after them");
}

/// One thread points a link now here, now there, while another reads what it leads to: what is read is what was granted.
#[test]
fn a_link_swapped_while_it_is_opened_never_leads_to_what_is_not_granted() {
    let root = directory("swapped");
    let (granted, other, link) = (root.join("granted"), root.join("other"), root.join("link"));
    std::fs::write(&granted, "granted").unwrap();
    std::fs::write(&other, "forbidden").unwrap();
    symlink(&granted, &link).unwrap();
    let done = AtomicBool::new(false);
    let (mut good, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for target in [&other, &granted] {
                    let new = root.join("new");
                    symlink(target, &new).unwrap();
                    std::fs::rename(&new, &link).unwrap();
                }
            }
        });
        let permits = |path: &Path| path == granted || path == link;
        while good < 200 || refused < 200 {
            match files::read(FileRequest { path: &link, permits: &permits, max_bytes: 100 }) {
                Ok(content) => {
                    assert_eq!(content, b"granted");
                    good += 1;
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Another name of a file is the file; what makes a secret of it is its content then, not its name.
#[test]
fn a_hard_link_hides_no_secret() {
    let root = directory("hard");
    std::fs::write(root.join("server.key"), "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n").unwrap();
    std::fs::hard_link(root.join("server.key"), root.join("notes.txt")).unwrap();
    assert_eq!(std::fs::metadata(root.join("notes.txt")).unwrap().nlink(), 2);
    let request = FileRequest { path: &root.join("notes.txt"), permits: &|_| true, max_bytes: 1000 };
    assert_eq!(files::read(request).unwrap_err().code, "denied");
}
