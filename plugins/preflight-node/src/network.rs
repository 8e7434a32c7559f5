//! The node's name, the way to the API server, and forwarding.

use crate::bindings::exports::mortise::preflight::check::{Finding, Report};
use crate::bindings::mortise::host::types::Error;
use crate::report::words;

/// `Hostname`: the node name is one that Kubernetes accepts everywhere, and it resolves.
pub fn judge_hostname(name: &str, addresses: &Result<Vec<String>, Error>) -> Report {
    let mut report = Report::passed().seen("node name", name);
    for fault in name_faults(name) {
        report.findings.push(
            Finding::warning(format_args!("invalid node name format \"{name}\": name part {fault}"))
                .seen("length", format_args!("{} bytes", name.len()))
                .remedy("choose another name with `--node-name`"),
        );
    }
    let why = match addresses {
        Ok(addresses) if !addresses.is_empty() => return report.seen("addresses", words(addresses)),
        Ok(_) => "the resolver gave no address",
        Err(error) => &error.message,
    };
    report.with(Finding::warning(format_args!("hostname \"{name}\" could not be reached: {why}")).remedy(format_args!(
        "add `{name}` with the node's address to `/etc/hosts` or to DNS; the kubelet looks it up for each Pod"
    )))
}

/// As `IsQualifiedName` of apimachinery, for a name without prefix.
fn name_faults(name: &str) -> Vec<&'static str> {
    let mut faults = Vec::new();
    if name.is_empty() {
        faults.push("must be non-empty");
    } else if name.len() > 63 {
        faults.push("must be no more than 63 bytes");
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = |name: &[u8]| {
        name.first().zip(name.last()).is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
    };
    if !ends(name.as_bytes()) || !name.bytes().all(inner) {
        faults.push(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        );
    }
    faults
}

/// The URL whose proxy `HTTPProxy` asks for; as kubeadm, with a port only where the host is an IPv6 address.
pub fn probe_url(endpoint_host: &str) -> String {
    if endpoint_host.contains(':') {
        format!("https://[{endpoint_host}]:1234")
    } else {
        format!("https://{endpoint_host}")
    }
}

/// `HTTPProxy`: an API server is usually meant to be reached directly.
pub fn judge_proxy(report: Report, endpoint_host: &str, proxy: Option<&str>) -> Report {
    let url = probe_url(endpoint_host);
    let Some(proxy) = proxy else { return report.seen(&url, "no proxy") };
    report.with(
        Finding::warning(format_args!(
            "connection to \"{url}\" uses proxy \"{proxy}\"; if that is not intended, adjust your proxy settings"
        ))
        .seen("proxy", proxy)
        .remedy(format_args!("add `{endpoint_host}` to NO_PROXY, unless the proxy is wanted")),
    )
}

/// URL of a subnet's first address after that of the network, for which `HTTPProxyCIDR` asks; none: it is no subnet, or
/// has no such address.
pub fn first_address_url(cidr: &str) -> Option<String> {
    let (address, length) = cidr.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    let is_v6 = address.contains(':');
    let (width, parsed): (u32, _) =
        if is_v6 { (128, parse_v6(address)?) } else { (32, parse_parts(address, '.', 10, 4)?) };
    let bits = width.checked_sub(length).filter(|bits| *bits > 0)?;
    let first = parsed & !1_u128.checked_shl(bits).map_or(u128::MAX, |end| end - 1) | 1;
    Some(if is_v6 {
        let groups = (0..8).rev().map(|at| format!("{:x}", first >> (16 * at) & 0xffff));
        format!("https://[{}]:1234/", groups.reduce(|address, group| address + ":" + &group)?)
    } else {
        let octet = |shift: u32| first >> shift & 0xff;
        format!("https://{}.{}.{}.{}:1234/", octet(24), octet(16), octet(8), octet(0))
    })
}

/// The standard library's parser and printer are 7 KB of code. Without an IPv4 address at its end, which nobody writes in
/// a subnet.
fn parse_v6(text: &str) -> Option<u128> {
    let Some((head, tail)) = text.split_once("::") else { return parse_parts(text, ':', 16, 8) };
    let part = |text: &str| match text {
        "" => Some((0, 0)),
        text => {
            let count = text.split(':').count();
            Some((count, parse_parts(text, ':', 16, count)?))
        }
    };
    let ((head_count, head), (tail_count, tail)) = (part(head)?, part(tail)?);
    let gap = 8_usize.checked_sub(head_count + tail_count).filter(|gap| *gap > 0)?;
    // A head of no groups would be shifted by the whole width.
    Some(head.checked_shl(16 * u32::try_from(gap + tail_count).ok()?).unwrap_or(0) | tail)
}

/// `count` numbers, each of 8 bits in decimal or of 16 in hexadecimal.
fn parse_parts(text: &str, separator: char, radix: u32, count: usize) -> Option<u128> {
    let (bits, digits) = if radix == 10 { (8, 3) } else { (16, 4) };
    let mut parts = text.split(separator);
    let mut all = 0;
    for _ in 0..count {
        let part = parts.next()?;
        let plain = (1..=digits).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = u32::from_str_radix(part, radix).ok().filter(|part| plain && part >> bits == 0)?;
        all = all << bits | u128::from(part);
    }
    (count <= 8 && parts.next().is_none()).then_some(all)
}

/// `HTTPProxyCIDR`: Services and Pods are not behind a proxy. `proxy`: none where [`first_address_url`] is.
pub fn judge_subnet(report: Report, cidr: &str, proxy: Option<&Option<String>>) -> Report {
    match proxy {
        None => report.with(Finding::error(format_args!("error parsing CIDR \"{cidr}\"")).remedy(
            "`kubectl -n kube-system get configmap kubeadm-config -o yaml` shows `networking`; mend it there",
        )),
        Some(None) => report.seen(cidr, "no proxy"),
        Some(Some(proxy)) => report.with(
            Finding::warning(format_args!(
                "connection to \"{cidr}\" uses proxy \"{proxy}\". This may lead to malfunctional cluster setup. Make sure \
                 that Pod and Services IP ranges specified correctly as exceptions in proxy configuration"
            ))
            .seen("proxy", proxy)
            .remedy(format_args!("add `{cidr}` to NO_PROXY")),
        ),
    }
}

/// Which kernel parameter a node whose API server has this address needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarding {
    /// `net.ipv4.ip_forward`.
    V4,
    /// `net.ipv6.conf.default.forwarding`.
    V6,
}

impl Forwarding {
    /// By the family of a literal address; none for a name. An IPv4-mapped address is IPv4.
    pub fn of_host(endpoint_host: &str) -> Option<Self> {
        // The host has checked the endpoint: what has a colon is an IPv6 address. The standard parser is 4 KB of code.
        if endpoint_host.contains(':') {
            return Some(if endpoint_host.starts_with("::ffff:") && endpoint_host.contains('.') {
                Self::V4
            } else {
                Self::V6
            });
        }
        let octets = || endpoint_host.split('.');
        (octets().count() == 4 && octets().all(|octet| octet.parse::<u8>().is_ok())).then_some(Self::V4)
    }

    /// Dotted name.
    pub fn sysctl(self) -> &'static str {
        match self {
            Self::V4 => "net.ipv4.ip_forward",
            Self::V6 => "net.ipv6.conf.default.forwarding",
        }
    }

    /// Where the kernel shows it.
    pub fn path(self) -> &'static str {
        match self {
            Self::V4 => "/proc/sys/net/ipv4/ip_forward",
            Self::V6 => "/proc/sys/net/ipv6/conf/default/forwarding",
        }
    }
}

/// `FileContent-…`: the kernel forwards packets.
pub fn judge_forwarding(forwarding: Forwarding, value: &Result<String, Error>) -> Report {
    let (path, sysctl) = (forwarding.path(), forwarding.sysctl());
    match value {
        Ok(value) if value.starts_with('1') => Report::passed().seen(sysctl, value),
        Ok(value) => Report::of(
            Finding::error(format_args!("{path} contents are not set to 1")).seen(sysctl, value).remedy(format_args!(
                "`sysctl -w {sysctl}=1`, and `echo {sysctl}=1 > /etc/sysctl.d/90-kubernetes.conf` to keep it"
            )),
        ),
        Err(error) => Report::of(Finding::error(format_args!("{path} does not exist: {}", error.message)).remedy(
            "load the kernel module of this address family, or give the API endpoint as an address of the other family",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::mortise::preflight::check::Severity::{Error as Fatal, Warning};

    fn error(message: &str) -> Error {
        Error { code: "not-found".into(), message: message.into(), retryable: false }
    }

    #[test]
    fn node_name_that_resolves_passes() {
        for name in ["n1", "node-1.example.com", "1a"] {
            assert_eq!(judge_hostname(name, &Ok(vec!["192.0.2.1".into()])).told(), [], "{name}");
        }
    }

    #[test]
    fn bad_node_names_warn() {
        let long = "a".repeat(64);
        for (name, faults) in [("", 2), ("-a", 1), ("a-", 1), ("a b", 1), ("a/b", 1), ("ä", 1), (long.as_str(), 1)] {
            let report = judge_hostname(name, &Ok(vec!["192.0.2.1".into()]));
            assert_eq!(report.findings.len(), faults, "{name}");
            assert!(report.findings.iter().all(|finding| finding.severity == Warning), "{name}");
        }
    }

    #[test]
    fn node_name_that_does_not_resolve_warns_once_with_the_cause() {
        let told = |addresses| {
            judge_hostname("n1", &addresses).told().iter().map(|(_, m)| (*m).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(told(Err(error("no such host"))), ["hostname \"n1\" could not be reached: no such host"]);
        assert_eq!(told(Ok(Vec::new())), ["hostname \"n1\" could not be reached: the resolver gave no address"]);
    }

    #[test]
    fn proxy_on_the_way_warns() {
        assert_eq!(judge_proxy(Report::passed(), "api.example.com", None).told(), []);
        let report = judge_proxy(Report::passed(), "2001:db8::1", Some("http://proxy:3128"));
        assert_eq!(report.findings[0].severity, Warning);
        assert_eq!(
            report.findings[0].message,
            "connection to \"https://[2001:db8::1]:1234\" uses proxy \"http://proxy:3128\"; if that is not intended, adjust your proxy settings"
        );
        assert!(report.findings[0].remedy.as_ref().unwrap().starts_with("add `2001:db8::1` to NO_PROXY"));
        assert_eq!(probe_url("192.0.2.1"), "https://192.0.2.1");
    }

    #[test]
    fn subnets_are_tried_at_the_address_after_that_of_the_network() {
        for (cidr, url) in [
            ("10.96.0.0/12", "https://10.96.0.1:1234/"),
            ("10.111.5.9/12", "https://10.96.0.1:1234/"),
            ("0.0.0.0/0", "https://0.0.0.1:1234/"),
            ("192.0.2.6/31", "https://192.0.2.7:1234/"),
            ("fd00:1::5/108", "https://[fd00:1:0:0:0:0:0:1]:1234/"),
            ("fd00:1:2:3:4:5:6:7/64", "https://[fd00:1:2:3:0:0:0:1]:1234/"),
            ("2001:db8:a::/48", "https://[2001:db8:a:0:0:0:0:1]:1234/"),
            ("::/0", "https://[0:0:0:0:0:0:0:1]:1234/"),
        ] {
            assert_eq!(first_address_url(cidr).as_deref(), Some(url), "{cidr}");
        }
        for cidr in ["", "10.96.0.0", "10.96.0/12", "10.96.0.0.0/12", "10.96.0.256/12", "10.0.0.0/33", "10.0.0.0/32"] {
            assert_eq!(first_address_url(cidr), None, "{cidr}");
        }
        for cidr in [
            "fd00::/129",
            "fd00::/128",
            "fd00:/64",
            "::1",
            "1::2::3/64",
            ":::/64",
            "1:2:3:4:5:6:7:8::/64",
            "g::/64",
            "12345::/64",
        ] {
            assert_eq!(first_address_url(cidr), None, "{cidr}");
        }
    }

    #[test]
    fn proxy_for_a_subnet_warns_and_a_bad_subnet_is_an_error() {
        let judged = |proxy: Option<&Option<String>>| judge_subnet(Report::passed(), "10.96.0.0/12", proxy);
        assert_eq!(judged(Some(&None)).told(), []);
        assert_eq!(judged(None).told(), [(Fatal, "error parsing CIDR \"10.96.0.0/12\"")]);
        let warned = judged(Some(&Some("http://proxy:3128".to_owned())));
        assert_eq!(warned.findings[0].severity, Warning);
        assert!(
            warned.findings[0].message.starts_with("connection to \"10.96.0.0/12\" uses proxy \"http://proxy:3128\".")
        );
    }

    #[test]
    fn forwarding_is_chosen_by_the_family_of_a_literal_address() {
        for (host, expected) in [
            ("192.0.2.1", Some(Forwarding::V4)),
            ("::ffff:192.0.2.1", Some(Forwarding::V4)),
            ("2001:db8::1", Some(Forwarding::V6)),
            ("api.example.com", None),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("a.b.c.d", None),
            ("", None),
        ] {
            assert_eq!(Forwarding::of_host(host), expected, "{host}");
        }
    }

    #[test]
    fn forwarding_off_or_absent_is_an_error() {
        assert_eq!(judge_forwarding(Forwarding::V4, &Ok("1".into())).told(), []);
        assert_eq!(
            judge_forwarding(Forwarding::V4, &Ok("0".into())).told(),
            [(Fatal, "/proc/sys/net/ipv4/ip_forward contents are not set to 1")]
        );
        assert_eq!(
            judge_forwarding(Forwarding::V6, &Err(error("no such file"))).told(),
            [(Fatal, "/proc/sys/net/ipv6/conf/default/forwarding does not exist: no such file")]
        );
    }
}
