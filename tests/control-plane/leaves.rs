//! What a control-plane join leaves on a node, so told that two nodes of one cluster can be compared: names, keys, serial
//! numbers and times aside, everything must be the same.
//!
//! Certificates are told field by field, also those inside kubeconfigs. Keys that all control planes share are told by
//! their digest, a node's own by their kind: no difference that a test prints shows a key.

use base64::Engine as _;
use mortise_cluster::Cluster;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::time::ASN1Time;

use crate::tree::Tree;

const AUTHORITIES: [&str; 3] =
    ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/etcd/ca.crt", "/etc/kubernetes/pki/front-proxy-ca.crt"];
const DAY: i64 = 86_400;
/// Fields of a kubeconfig's user.
const CLIENT_CERTIFICATE: &str = "client-certificate-data: ";
const CLIENT_KEY: &str = "client-key-data: ";

/// As it is now. A name that occurs in other words cannot be told from them: give the nodes long ones.
pub(crate) fn of(cluster: &Cluster, node: &str) -> Tree {
    let address = cluster.nodes().unwrap().into_iter().find(|found| found.name == node).unwrap().address.to_string();
    let authorities: Vec<i64> = AUTHORITIES
        .iter()
        .map(|path| {
            let (_, pem) = parse_x509_pem(&cluster.read(node, path).unwrap()).unwrap();
            pem.parse_x509().unwrap().validity().not_before.timestamp()
        })
        .collect();
    let tree = Tree::of(cluster, node);
    tree.rewritten(|path, content| members_in_order(&told(path, content, &authorities).replace(&address, "ADDRESS")))
        .normalized(node)
}

fn told(path: &str, content: &str, authorities: &[i64]) -> String {
    if !path.starts_with("/etc/kubernetes/") {
        return content.to_owned();
    }
    match path.rsplit('.').next() {
        Some("crt") => certificate(content, authorities),
        Some("key") => key(path, content),
        Some("conf") => content.lines().map(|line| kubeconfig_line(line, authorities)).collect::<Vec<_>>().join("\n"),
        _ => content.to_owned(),
    }
}

fn kubeconfig_line(line: &str, authorities: &[i64]) -> String {
    let field = |name: &str| {
        let (indent, value) = line.split_once(name)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.trim()).unwrap();
        Some((format!("{indent}{name}"), String::from_utf8(bytes).unwrap()))
    };
    if let Some((name, pem)) = field(CLIENT_CERTIFICATE) {
        format!("{name}{}", certificate(&pem, authorities))
    } else if let Some((name, pem)) = field(CLIENT_KEY) {
        format!("{name}{}", key("", &pem))
    } else {
        line.to_owned()
    }
}

fn key(path: &str, pem: &str) -> String {
    let is_shared = ["ca.key", "sa.key"].iter().any(|name| path.ends_with(name));
    let labels = pem.lines().filter(|line| line.starts_with("-----")).collect::<Vec<_>>().join(" ");
    if is_shared { format!("{labels} {}", digest(pem.as_bytes())) } else { labels }
}

/// Everything but serial number, key and signature. `authorities` is when those that sign begin to be valid: kubeadm begins
/// a kubeconfig's certificate there, and all others five minutes ago.
fn certificate(pem: &str, authorities: &[i64]) -> String {
    let mut text = String::new();
    for pem in x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes()) {
        let pem = pem.unwrap();
        let (_, certificate) = X509Certificate::from_der(&pem.contents).unwrap();
        text.push_str(&fields(&certificate, authorities));
    }
    text
}

fn fields(certificate: &X509Certificate<'_>, authorities: &[i64]) -> String {
    let mut lines = vec![
        format!("version {:?}", certificate.version()),
        format!("subject {}", certificate.subject()),
        format!("issuer {}", certificate.issuer()),
        format!("signed with {}", certificate.signature_algorithm.algorithm),
    ];
    if certificate.is_ca() {
        // Shared by all control planes, to the last bit.
        lines.push(format!("digest {}", digest(certificate.as_raw())));
    }
    let [from, to] = [certificate.validity().not_before, certificate.validity().not_after].map(|time| time.timestamp());
    lines.push(if authorities.contains(&from) {
        // Of two made within hours of each other the days are the same.
        let left = to - ASN1Time::now().timestamp();
        format!("valid since its authority is, for {} more days", (left + DAY / 2) / DAY)
    } else {
        format!("valid for {} s", to - from)
    });
    lines.push(match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA key of {} bits, exponent {:?}", key.key_size(), key.try_exponent()),
        Ok(PublicKey::EC(point)) => format!("EC key of {} bits", point.key_size()),
        other => format!("key {other:?}"),
    });
    for extension in certificate.extensions() {
        let content = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().map(general_name).collect::<Vec<_>>().join(", ")
            }
            ParsedExtension::SubjectKeyIdentifier(_) => "that of its key".into(),
            other => format!("{other:?}"),
        };
        lines.push(format!("extension {} critical={} {content}", extension.oid, extension.critical));
    }
    lines.join("\n") + "\n"
}

fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Addresses as people write them, so that a node's can be replaced.
fn general_name(name: &x509_parser::extensions::GeneralName<'_>) -> String {
    match name {
        x509_parser::extensions::GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => format!("IP:{}", std::net::Ipv4Addr::from(bytes)),
            Err(_) => format!("IP:{bytes:?}"),
        },
        other => format!("{other}"),
    }
}

/// etcd lists its members by their ids, which are random; the order of `--initial-cluster` says nothing.
fn members_in_order(content: &str) -> String {
    let line = |line: &str| match line.split_once("--initial-cluster=") {
        Some((before, members)) => {
            let mut members: Vec<&str> = members.split(',').collect();
            members.sort_unstable();
            format!("{before}--initial-cluster={}\n", members.join(","))
        }
        None => format!("{line}\n"),
    };
    content.lines().map(line).collect()
}
