//! Compares what two programs wrote for the same purpose: everything but keys, serials, signatures and the moment.

use base64::Engine as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What a file is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// PEM blocks.
    Pem,
    /// A kubeconfig whose certificate begins when the CA does, seconds since 1970.
    Kubeconfig { ca_start: i64 },
}

/// When the two programs ran, seconds since 1970: not at the same time, and a machine may stop in between.
pub(crate) struct Runs {
    pub(crate) theirs: (i64, i64),
    pub(crate) ours: (i64, i64),
    /// Of certificates that are not a CA's.
    pub(crate) validity_seconds: i64,
}

/// By how much kubeadm backdates certificates in files.
const BACKDATE_SECONDS: i64 = 300;

/// What differs, a line each.
pub(crate) fn compare(theirs: &[u8], ours: &[u8], expected: Expected, runs: &Runs) -> Vec<String> {
    if theirs == ours {
        return Vec::new();
    }
    let (theirs, ours) = (std::str::from_utf8(theirs).unwrap(), std::str::from_utf8(ours).unwrap());
    match expected {
        Expected::Pem => compare_pem(theirs, ours, None, runs),
        Expected::Kubeconfig { ca_start } => compare_kubeconfig(theirs, ours, ca_start, runs),
    }
}

fn compare_kubeconfig(theirs: &str, ours: &str, ca_start: i64, runs: &Runs) -> Vec<String> {
    let mut all = Vec::new();
    let (theirs, ours) = (Parts::of(theirs), Parts::of(ours));
    differ(&mut all, "text without certificate and key", theirs.text, ours.text);
    all.extend(compare_pem(&theirs.certificate, &ours.certificate, Some(ca_start), runs));
    all.extend(compare_pem(&theirs.key, &ours.key, None, runs));
    all
}

struct Parts {
    text: String,
    certificate: String,
    key: String,
}

impl Parts {
    fn of(kubeconfig: &str) -> Self {
        let mut parts = Self { text: String::new(), certificate: String::new(), key: String::new() };
        for line in kubeconfig.split_inclusive('\n') {
            let decoded = |data: &str| {
                let bytes = base64::engine::general_purpose::STANDARD.decode(data.trim_end_matches('\n')).unwrap();
                String::from_utf8(bytes).unwrap()
            };
            if let Some(data) = line.strip_prefix("    client-certificate-data: ") {
                parts.certificate = decoded(data);
                parts.text.push_str("CERTIFICATE\n");
            } else if let Some(data) = line.strip_prefix("    client-key-data: ") {
                parts.key = decoded(data);
                parts.text.push_str("KEY\n");
            } else {
                parts.text.push_str(line);
            }
        }
        parts
    }
}

fn compare_pem(theirs: &str, ours: &str, starts_at: Option<i64>, runs: &Runs) -> Vec<String> {
    let mut all = Vec::new();
    let labels =
        |text: &str| text.lines().filter(|line| line.starts_with("-----")).map(str::to_owned).collect::<Vec<_>>();
    differ(&mut all, "labels", labels(theirs), labels(ours));
    if !theirs.contains("BEGIN CERTIFICATE") {
        differ(&mut all, "size of the key", key_bits(theirs), key_bits(ours));
        // Not shown where they differ: it is a key.
        if ours.contains("PRIVATE KEY") && (rewritten(ours) != ours || rewritten(theirs) != theirs) {
            all.push("form of the key: openssl writes it otherwise".to_owned());
        }
        return all;
    }
    let (theirs, ours) = (der(theirs), der(ours));
    let (theirs, ours) = (X509Certificate::from_der(&theirs).unwrap().1, X509Certificate::from_der(&ours).unwrap().1);
    differ(&mut all, "version", theirs.version(), ours.version());
    differ(&mut all, "subject", theirs.subject().as_raw(), ours.subject().as_raw());
    differ(&mut all, "issuer", theirs.issuer().as_raw(), ours.issuer().as_raw());
    differ(&mut all, "signature algorithm", &theirs.signature_algorithm, &ours.signature_algorithm);
    differ(&mut all, "inner signature algorithm", &theirs.tbs_certificate.signature, &ours.tbs_certificate.signature);
    differ(&mut all, "key algorithm", &theirs.public_key().algorithm, &ours.public_key().algorithm);
    differ(&mut all, "key size", key_size(&theirs), key_size(&ours));
    // Identifiers, criticality and content, in their order: key usage, extended key usage, constraints, names.
    let extensions = |certificate: &X509Certificate<'_>| {
        let all = certificate.extensions().iter();
        all.map(|one| (one.oid.to_id_string(), one.critical, one.value.to_vec())).collect::<Vec<_>>()
    };
    differ(&mut all, "extensions", extensions(&theirs), extensions(&ours));
    let serial = ours.raw_serial();
    if serial.len() > 8 || serial[0] & 0x80 != 0 {
        all.push(format!("serial of another form: {serial:?}"));
    }
    for (whose, certificate, (began, ended)) in [("theirs", &theirs, runs.theirs), ("ours", &ours, runs.ours)] {
        let (start, end) =
            (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
        let moment = end - runs.validity_seconds;
        let wanted_start = starts_at.unwrap_or(moment - BACKDATE_SECONDS);
        if !(began..=ended).contains(&moment) || start != wanted_start {
            all.push(format!("{whose} are valid from {start} to {end}, made between {began} and {ended}"));
        }
    }
    all
}

fn differ<T: PartialEq + std::fmt::Debug>(all: &mut Vec<String>, what: &str, theirs: T, ours: T) {
    if theirs != ours {
        all.push(format!("{what}: {ours:?}, not {theirs:?}"));
    }
}

fn der(pem: &str) -> Vec<u8> {
    mortise::pki::Certificate::parse_pem(pem.as_bytes()).unwrap().swap_remove(0).der
}

fn key_size(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed().unwrap() {
        PublicKey::RSA(key) => format!("RSA {} {:?}", key.key_size(), key.exponent),
        PublicKey::EC(point) => format!("EC {} {:?}", point.key_size(), point.data()[0]),
        other => format!("{other:?}"),
    }
}

/// As openssl names the size of a private or public key: `Private-Key: (2048 bit, 2 primes)`.
fn key_bits(pem: &str) -> String {
    let public: &[&str] = if pem.contains("PUBLIC KEY") { &["-pubin"] } else { &[] };
    let text = openssl(&[&["pkey", "-noout", "-text"], public].concat(), pem);
    let lines = text.lines().filter(|line| line.contains(" bit") || line.starts_with("ASN1 OID"));
    lines.collect::<Vec<_>>().join("; ")
}

/// A private key as openssl writes it in the form that kubeadm writes, too.
fn rewritten(pem: &str) -> String {
    openssl(&["pkey", "-traditional"], pem)
}

fn openssl(arguments: &[&str], input: &str) -> String {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child =
        Command::new("openssl").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl cannot read a key");
    String::from_utf8(output.stdout).unwrap()
}
