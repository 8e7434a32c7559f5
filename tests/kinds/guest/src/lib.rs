//! A discovery source and an approval hook that end in every way there is, as the setting `do` says. The host's test
//! target `kinds` builds and runs it.
//!
//! It has no manifest of its own: each test embeds the one it needs.

#[expect(unsafe_code, reason = "generated code")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit/runner", world: "every-kind", generate_all });
    use super::Guest;
    export!(Guest);
}

use std::hint::black_box;

use bindings::exports::mortise::approval::hook::{Guest as Hook, Judgement, Verdict};
use bindings::exports::mortise::discovery::source::{Cluster, Credential, Guest as Source, Secret, Trust};
use bindings::exports::mortise::preflight::check::{CheckInfo, Guest as Check, Report};
use bindings::mortise::host::types::Error;
use bindings::mortise::host::{facts, log, settings};

struct Guest;

impl Check for Guest {
    fn list_checks() -> Vec<CheckInfo> {
        Vec::new()
    }

    fn run_check(_: String) -> Result<Report, Error> {
        Err(Error { code: "not-found".into(), message: "there are no checks".into(), retryable: false })
    }
}

impl Source for Guest {
    fn discover() -> Result<Cluster, Error> {
        misbehave()?;
        let mut cluster = Cluster {
            endpoints: vec!["10.0.0.1:6443".into()],
            trust: Trust::Pins(vec![format!("sha256:{}", "0a".repeat(32))]),
            credential: Some(Credential { secret: Secret::BearerToken("hunter2".into()), expires_at: None }),
            evidence: vec![("zone".into(), "\u{1b}[2Jeu".into())],
            extra: vec![("cluster-name".into(), "blue".into())],
        };
        match wanted().as_str() {
            "too-many" => cluster.endpoints = vec!["10.0.0.1:6443".into(); 17],
            "nonsense" => cluster.endpoints = vec!["https://10.0.0.1".into()],
            "expired" => {
                let secret = Secret::BearerToken("hunter2".into());
                cluster.credential = Some(Credential { secret, expires_at: Some(1) });
            }
            _ => {}
        }
        Ok(cluster)
    }
}

impl Hook for Guest {
    fn review() -> Result<Judgement, Error> {
        misbehave()?;
        let (verdict, seconds) = match wanted().as_str() {
            "deny" => (Verdict::Deny, Some(60)),
            "denied-deny" => {
                let _ = facts::kernel();
                (Verdict::Deny, None)
            }
            "abstain" => (Verdict::Abstain, None),
            "defer" => (Verdict::Defer, Some(60)),
            "defer-forever" => (Verdict::Defer, Some(86_400)),
            _ => (Verdict::Approve, None),
        };
        let reason = if wanted() == "nonsense" { "No Reason" } else { "as-set" };
        Ok(Judgement {
            verdict,
            reason: reason.into(),
            message: "the settings\u{1b} say so".into(),
            retry_after_seconds: seconds,
            evidence: vec![("do".into(), wanted())],
            extra: Vec::new(),
        })
    }
}

/// What both kinds do alike; returns where the guest is to answer.
fn misbehave() -> Result<(), Error> {
    match wanted().as_str() {
        "error" => Err(Error { code: "not-here".into(), message: "no cluster\nfor me".into(), retryable: true }),
        "trap" => std::process::abort(),
        "panic" => panic!("the guest's own words"),
        "loop" => loop {
            black_box(());
        },
        "grow" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; 1 << 20]);
                black_box(&kept);
            }
        }
        "denied" => {
            let _ = facts::kernel();
            Ok(())
        }
        "log" => {
            log::write(log::Level::Info, "asked\u{1b}[2J");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `do` of the settings.
fn wanted() -> String {
    let settings = settings::get();
    let (_, rest) = settings.split_once("\"do\":\"").unwrap_or_default();
    rest.split('"').next().unwrap_or_default().to_owned()
}
