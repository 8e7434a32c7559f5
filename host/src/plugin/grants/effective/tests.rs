use super::super::{AddressClass, PLACEHOLDER, Probe};
use super::*;

fn grants(text: &str) -> Grants {
    Grants::parse(text).unwrap()
}

#[test]
fn both_sides_must_name_a_fact() {
    let effective =
        Grants::intersect(grants("facts: [swap, 'sysctl:net.*']"), grants("facts: [kernel, 'sysctl:net.ipv4.*']"));
    let sysctl = |name: &str| effective.fact(&FactRequest::Sysctl { name: name.into() });
    assert!(sysctl("net.ipv4.ip_forward").is_ok());
    assert!(sysctl("net.ipv6.x").unwrap_err().by == DeniedBy::Operator);
    let denial = effective.fact(&FactRequest::Swap).unwrap_err();
    assert_eq!(denial.by, DeniedBy::Operator);
    assert_eq!(denial.message(), "the fact `swap` is not granted; the operator would have to allow facts: [swap]");
    let denial = effective.fact(&FactRequest::Kernel).unwrap_err();
    assert_eq!(
        denial.message(),
        "the fact `kernel` is not granted; the plugin's manifest would have to ask for facts: [kernel]"
    );
}

#[test]
fn the_smaller_bound_of_a_file_counts_and_stat_does_not_read() {
    let effective = Grants::intersect(
        grants("files: [{path: /etc/*, max-bytes: 100}, {path: /run/x, access: stat}]"),
        grants("files: [{path: /etc/os-release, max-bytes: 50}, {path: /run/x}]"),
    );
    let read = effective.file(Path::new("/etc/os-release"), Access::Read).unwrap();
    assert_eq!(read.max_bytes, 50);
    assert!(effective.file(Path::new("/etc/hosts"), Access::Read).is_err());
    assert!(effective.file(Path::new("/run/x"), Access::Stat).is_ok());
    assert!(effective.file(Path::new("/run/x"), Access::Read).is_err());
}

#[test]
fn missing_lines_are_those_a_plugin_cannot_do_without() {
    let wanted = grants(
        "facts: [swap, {name: os, optional: true}]\nfiles: [{path: /a/*}]\n\
         commands: [{program: /bin/x, args: [{match: '[0-9]'}]}]",
    );
    let effective = Grants::intersect(wanted.clone(), Grants::default());
    let flags: Vec<_> = effective.missing().into_iter().filter_map(Grant::flag).collect();
    assert_eq!(flags, ["--grant facts=swap", "--grant 'files=/a/*:read'", "--grant 'commands=/bin/x {match:[0-9]}'"]);
    let mut allowed = grants("facts: [swap]\nfiles: [{path: /a/*}]");
    allowed.merge(Grants::parse_flag("commands=/bin/x {match:[0-9]}").unwrap());
    assert_eq!(Grants::intersect(wanted, allowed).missing(), []);
}

#[test]
fn a_command_runs_with_the_operators_user_and_the_common_environment() {
    let effective = Grants::intersect(
        grants("commands: [{program: /bin/x, args: [a], env: [LANG, HOME], timeout: 20s}]"),
        grants("commands: [{program: /bin/x, args: [a], env: [LANG], timeout: 5s, user: daemon}]"),
    );
    let request = effective.command("/bin/x", &["a".into()]).unwrap();
    assert_eq!((request.environment.as_slice(), request.user.as_str()), (&["LANG".to_owned()][..], "daemon"));
    assert_eq!(request.timeout, Duration::from_secs(5));
    assert!(effective.command("/bin/x", &["b".into()]).is_err());
    assert!(effective.command("/bin/x", &["a".into(), "b".into()]).is_err());
}

fn http(effective: &Effective, method: &str, url: &str) -> Result<HttpAllowance, Box<Denial>> {
    effective.http(method, &url.parse().unwrap())
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_request_needs_both_sides_and_the_smaller_bounds_count() {
    let effective = Grants::intersect(
        grants("http: [{url: https://a/v1/, methods: [GET, POST], max-body: 10, max-response: 100}]"),
        grants("http: [{url: https://a, methods: [GET], max-response: 1000}, {url: https://b, methods: [GET]}]"),
    );
    let allowance = http(&effective, "GET", "https://a/v1/x?q=1").unwrap();
    assert_eq!((allowance.max_body_bytes, allowance.max_response_bytes), (10, 100));
    let denial = http(&effective, "POST", "https://a/v1/x?secret").unwrap_err();
    assert_eq!(
        denial.message(),
        "`POST` of `https://a/v1/x` is not granted; the operator would have to allow http: [{url: https://a/v1/, \
         methods: [GET, POST], max-body: 10, max-response: 100}]"
    );
    assert_eq!(http(&effective, "GET", "https://b/").unwrap_err().by, DeniedBy::Manifest);
    assert_eq!(http(&effective, "GET", "https://a/v2").unwrap_err().by, DeniedBy::Manifest);
    assert_eq!(http(&effective, "CONNECT", "https://a/v1/").unwrap_err().by, DeniedBy::Always);
}

#[test]
fn an_address_is_allowed_by_the_flags_of_both_or_by_its_own_name() {
    let wanted = "http: [{url: https://a, private: true, link-local: true}, {url: 'http://169.254.169.254/x'}, \
                  {url: 'http://localhost:8080'}]";
    let effective = Grants::intersect(
        grants(wanted),
        grants(
            "http: [{url: https://a, private: true}, {url: 'http://169.254.169.254'}, {url: 'http://localhost:8080'}]",
        ),
    );
    let a = http(&effective, "GET", "https://a/").unwrap();
    assert_eq!(a.allows_address(ip("1.1.1.1")), Ok(()));
    assert_eq!(a.allows_address(ip("10.1.1.1")), Ok(()));
    let denial = a.allows_address(ip("169.254.169.254")).unwrap_err();
    assert_eq!(
        denial.message(),
        "dialling `169.254.169.254` (a cloud's metadata service), where `a` leads, is not granted; the operator would have to \
         allow http: [{url: https://a/, methods: [GET], link-local: true, private: true}]"
    );
    for (address, by, line) in [
        ("127.0.0.1", DeniedBy::Manifest, Some("https://127.0.0.1/")),
        ("::1", DeniedBy::Manifest, Some("https://[::1]/")),
        ("::ffff:10.0.0.1", DeniedBy::Manifest, Some("https://10.0.0.1/")),
        ("64:ff9b::a00:1", DeniedBy::Manifest, Some("https://[64:ff9b::a00:1]/")),
        ("0.0.0.0", DeniedBy::Always, None),
        ("::", DeniedBy::Always, None),
        ("ff02::1", DeniedBy::Always, None),
    ] {
        let denial = a.allows_address(ip(address)).unwrap_err();
        assert_eq!(denial.by, by, "{address}");
        match (&denial.line, line) {
            (Some(found), Some(line)) => {
                assert!(found.contains(line), "{address}: {found}");
                assert_eq!(Grants::parse(found).unwrap().lines(), [found.as_str()]);
            }
            (found, line) => assert_eq!(found.as_deref(), line, "{address}"),
        }
    }
    let named = http(&effective, "GET", "http://169.254.169.254/x").unwrap();
    assert_eq!(named.allows_address(ip("169.254.169.254")), Ok(()));
    assert!(named.allows_address(ip("169.254.169.253")).is_err());
    let own = http(&effective, "GET", "http://localhost:8080/").unwrap();
    assert!(own.allows_address(ip("127.0.0.1")).is_ok() && own.allows_address(ip("::1")).is_ok());
    assert!(own.allows_address(ip("10.0.0.1")).is_err());
}

#[test]
fn a_request_is_allowed_by_one_grant_of_a_side_never_by_parts_of_two() {
    let effective = Grants::intersect(
        grants("http: [{url: https://a, private: true}, {url: https://a/v1, max-response: 1Mi, methods: [GET, PUT]}]"),
        grants("http: [{url: https://a, private: true, max-response: 2Mi, methods: [GET, PUT]}]"),
    );
    let get = http(&effective, "GET", "https://a/v1").unwrap();
    assert!(get.allows_address(ip("10.0.0.1")).is_ok());
    assert_eq!(get.max_response_bytes, 256 << 10);
    let put = http(&effective, "PUT", "https://a/v1").unwrap();
    assert!(put.allows_address(ip("10.0.0.1")).is_err());
    assert_eq!(put.max_response_bytes, 1 << 20);
}

#[test]
fn a_handshake_shows_that_a_port_is_open_and_not_the_other_way_round() {
    let effective = Effective::own(grants("probe: [{tls: 'a:443', private: true}, {tcp: 'b:80'}, {dns: c}]"));
    let target = |text: &str| (text.parse().unwrap(), 443);
    let (host, port) = target("a");
    let tcp = effective.probe(&Probe::Tcp { host, port }).unwrap();
    assert!(tcp.allows_address(ip("10.0.0.1")).is_ok() && tcp.allows_address(ip("127.0.0.1")).is_err());
    let tls = Probe::Tls { host: "b".parse().unwrap(), port: 80 };
    let denial = effective.probe(&tls).unwrap_err();
    assert_eq!(
        denial.message(),
        "probing tls `b:80` is not granted; the plugin's manifest would have to ask for probe: [{tls: b:80}]"
    );
    assert!(effective.probe(&Probe::Tcp { host: "b".parse().unwrap(), port: 81 }).is_err());
    assert!(effective.probe(&Probe::Dns { name: "c".into() }).is_ok());
    assert!(effective.probe(&Probe::Dns { name: "a".into() }).is_err());
}

#[test]
fn a_secret_is_used_at_its_place_only() {
    let all = "secrets: [{name: t, url: https://a/v1, header: Authorization}, \
               {name: k, argv: [/bin/x, --key, '{secret}']}, {name: s, reveal: true}]";
    let effective = Effective::own(grants(all));
    let header = |name: &str, url: &str, header: &str| {
        effective.secret(name, SecretUse::Header { url: &url.parse().unwrap(), header }).map_err(|it| it.by)
    };
    assert_eq!(header("t", "https://a/v1/x?y", "authorization"), Ok(()));
    assert_eq!(header("t", "https://a/v1", "AUTHORIZATION"), Ok(()));
    for (name, url, field) in [
        ("t", "https://a/v2", "authorization"),
        ("t", "https://b/v1", "authorization"),
        ("t", "https://a/v1", "cookie"),
        ("k", "https://a/v1", "authorization"),
        ("s", "https://a/v1", "authorization"),
    ] {
        assert_eq!(header(name, url, field), Err(DeniedBy::Manifest), "{name} {url} {field}");
    }
    assert_eq!(header("t", "http://a/v1", "authorization"), Err(DeniedBy::Always), "clear text");
    assert_eq!(header("t", "https://a/v1", "host"), Err(DeniedBy::Always));
    let argv = |name: &str, program: &str, words: &[&str]| {
        let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        effective.secret(name, SecretUse::Argv { program, arguments: &arguments }).is_ok()
    };
    assert!(argv("k", "/bin/x", &["--key", PLACEHOLDER]));
    assert!(!argv("k", "/bin/y", &["--key", PLACEHOLDER]));
    assert!(!argv("k", "/bin/x", &["--kex", PLACEHOLDER]));
    assert!(!argv("k", "/bin/x", &[PLACEHOLDER]) && !argv("t", "/bin/x", &["--key", PLACEHOLDER]));
    assert!(effective.secret("s", SecretUse::Reveal).is_ok());
    assert!(effective.secret("t", SecretUse::Reveal).is_err());
}

#[test]
fn only_one_who_was_granted_it_vouches_for_a_cluster() {
    assert!(Effective::own(grants("trust-root: true")).trust_root().is_ok());
    assert!(Effective::own(grants("trust-root: false")).trust_root().is_err());
    let denial = Grants::intersect(grants("trust-root: {reason: x}"), Grants::default()).trust_root().unwrap_err();
    assert_eq!((denial.by, denial.flag.as_deref()), (DeniedBy::Operator, Some("--grant trust-root")));
}

#[test]
fn a_ceiling_takes_from_both_sides_and_names_its_place() {
    let all = "facts: [kernel, swap]\nfiles: [{path: /etc/*, max-bytes: 100}]\nhttp: [{url: https://a, private: true}]\n\
               commands: [{program: /bin/x, args: [{match: '[a-z]+'}], env: [LANG], timeout: 9s}]";
    let list = "facts: [kernel]\nfiles: [{path: /etc/*, max-bytes: 50}]\nhttp: [{url: https://a, max-response: 10}]\n\
                commands: [{program: /bin/x, args: [{one-of: [a, b]}], timeout: 1s}]";
    let ceiling = Ceiling {
        list: Some(("`policy.yaml:3`".into(), grants(list))),
        forbidden: vec![("`policy.yaml:9`".into(), grants("files: [{path: /etc/shadow}]"))],
        addresses: vec![("`policy.yaml:12`".into(), AddressClass::Metadata)],
    };
    let effective = Effective::own(grants(all)).below(ceiling);
    assert!(effective.fact(&FactRequest::Kernel).is_ok());
    let denial = effective.fact(&FactRequest::Swap).unwrap_err();
    assert_eq!(
        denial.message(),
        "the fact `swap` is forbidden by `policy.yaml:3`; it would have to allow facts: [swap]"
    );
    assert_eq!(effective.file(Path::new("/etc/x"), Access::Read).unwrap().max_bytes, 50);
    for access in [Access::Stat, Access::Read] {
        let denial = effective.file(Path::new("/etc/shadow"), access).unwrap_err();
        assert_eq!(denial.by, DeniedBy::Policy("`policy.yaml:9`".into()));
    }
    let request = effective.command("/bin/x", &["a".into()]).unwrap();
    assert_eq!((request.environment.as_slice(), request.timeout), (&[][..], Duration::from_secs(1)));
    assert_eq!(effective.command("/bin/x", &["c".into()]).unwrap_err().by, DeniedBy::Policy("`policy.yaml:3`".into()));
    let a = http(&effective, "GET", "https://a/").unwrap();
    assert_eq!(a.max_response_bytes, 10);
    assert_eq!(a.allows_address(ip("10.0.0.1")).unwrap_err().by, DeniedBy::Policy("`policy.yaml:3`".into()));
    assert_eq!(a.allows_address(ip("169.254.169.254")).unwrap_err().by, DeniedBy::Policy("`policy.yaml:12`".into()));
    assert_eq!(effective.missing(), []);
    let forbidden: Vec<_> = effective.forbidden().into_iter().map(|(line, _)| line).collect();
    assert_eq!(forbidden.len(), 3, "{forbidden:?}");
    assert_eq!(forbidden[0], "facts: [swap]");
}
