//! What of WASI the library never asks for so much of. The texts are whole: they are merged with the library's own.

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package mortise:test-wasi;
            world greedy {
                import wasi:random/random@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
            }
            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
            }
            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable {
                        ready: func() -> bool;
                        block: func();
                    }
                    poll: func(in: list<borrow<pollable>>) -> list<u32>;
                }
            }
            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type instant = u64;
                    type duration = u64;
                    now: func() -> instant;
                    resolution: func() -> duration;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        ",
        generate_all,
    });
}

use bindings::wasi::{clocks::monotonic_clock, random::random};

/// Asks for so many bytes, which are given, then for more.
pub(crate) fn random(given: u64, more: u64) -> String {
    let first = random::get_random_bytes(given).len();
    let second = random::get_random_bytes(more).len();
    format!("{first} and {second} bytes")
}

/// Holds so many handles at once.
pub(crate) fn handles(count: usize) -> String {
    let held: Vec<_> = (0..count).map(|_| monotonic_clock::subscribe_duration(1_000_000_000)).collect();
    format!("{} handles", held.len())
}
