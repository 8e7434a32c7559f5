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

#[test]
fn what_is_granted_withheld_and_possible_is_told_line_by_line() {
    let wanted = grants(
        "facts: [kernel, swap, os]\nfiles: [{path: /a/*}, {path: /b}]\ncommands: [{program: /bin/x, args: [{match: '[a-z]'}]}]\n\
         http: [{url: https://a/v1}]\nprobe: [{dns: a}, {dns: b}]\nsecrets: [{name: s, reveal: true}]\ntrust-root: true",
    );
    let allowed = grants(
        "facts: [kernel, os]\nfiles: [{path: /a/x}]\ncommands: [{program: /bin/x, args: [a]}]\nhttp: [{url: https://a}]\n\
         probe: [{dns: a}]\nsecrets: [{name: s, reveal: true}]",
    );
    let ceiling = Ceiling {
        forbidden: vec![("`policy.yaml:9`".into(), grants("facts: [os]\nsecrets: [{name: s, reveal: true}]"))],
        ..Ceiling::default()
    };
    let effective = Grants::intersect(wanted, allowed).below(ceiling);
    assert_eq!(
        effective.lines(),
        ["facts: [kernel]", "http: [{url: https://a/v1, methods: [GET]}]", "probe: [{dns: a}]"]
    );
    assert_eq!(
        effective.possible().lines(),
        [
            "facts: [kernel]",
            "files: [{path: /a/*, access: read}]",
            "commands: [{program: /bin/x, args: [{match: \"[a-z]\"}]}]",
            "http: [{url: https://a/v1, methods: [GET]}]",
            "probe: [{dns: a}]"
        ]
    );
    let refused: Vec<_> = effective.refused().into_iter().map(|(grant, by)| (grant.line(), by)).collect();
    let policy = || DeniedBy::Policy("`policy.yaml:9`".into());
    let expected = [
        ("facts: [swap]", DeniedBy::Operator),
        ("facts: [os]", policy()),
        ("files: [{path: /b, access: read}]", DeniedBy::Operator),
        ("probe: [{dns: b}]", DeniedBy::Operator),
        ("secrets: [{name: s, reveal: true}]", policy()),
        ("trust-root: true", DeniedBy::Operator),
    ];
    assert_eq!(refused, expected.map(|(line, by)| (line.to_owned(), by)));
}

#[test]
fn a_denial_knows_whether_the_plugin_can_do_without() {
    let wanted = "facts: [{name: kernel, optional: true}, swap]\nfiles: [{path: /a/*, optional: true}, {path: /b}]\n\
                  secrets: [{name: s, reveal: true, optional: true}, {name: t, reveal: true}]";
    let effective = Grants::intersect(grants(wanted), Grants::default());
    let fact = |request| effective.fact(&request).unwrap_err().optional;
    assert!(fact(FactRequest::Kernel) && !fact(FactRequest::Swap) && !fact(FactRequest::Os));
    let file = |path: &str| effective.file(Path::new(path), Access::Read).unwrap_err().optional;
    assert!(file("/a/x") && !file("/b") && !file("/c"));
    let secret = |name: &str| effective.secret(name, SecretUse::Reveal).unwrap_err().optional;
    assert!(secret("s") && !secret("t") && !secret("u"));
}

#[test]
fn a_denial_says_what_was_tried_and_whose_word_is_missing_first() {
    let effective = Grants::intersect(grants("commands: [{program: /bin/x}]"), Grants::default())
        .below(Ceiling { list: Some(("`policy.yaml:3`".into(), Grants::default())), ..Ceiling::default() });
    assert_eq!(effective.command("/bin/x", &[]).unwrap_err().by, DeniedBy::Operator);
    assert_eq!(effective.command("/bin/y", &[]).unwrap_err().by, DeniedBy::Manifest);
    let what = |access| effective.file(Path::new("/a"), access).unwrap_err().what;
    assert_eq!((what(Access::Stat).as_str(), what(Access::Read).as_str()), ("looking at `/a`", "reading `/a`"));
}

#[test]
fn two_denials_differ_by_their_line_or_without_one_by_what_was_tried() {
    let denial = |what: &str, line: Option<&str>| Denial {
        what: what.into(),
        line: line.map(Into::into),
        flag: None,
        by: DeniedBy::Always,
        optional: false,
    };
    for (own, other, expected) in [
        (denial("a", Some("x")), denial("b", Some("x")), false),
        (denial("a", Some("x")), denial("a", Some("y")), true),
        (denial("a", Some("x")), denial("a", None), true),
        (denial("a", None), denial("a", None), false),
        (denial("a", None), denial("b", None), true),
    ] {
        assert_eq!(own.differs(&other), expected, "{own:?} {other:?}");
    }
}

#[test]
fn a_denied_address_needs_the_flag_of_its_class_beside_those_that_are_there() {
    let line = |wanted: &str, address: &str| {
        let effective = Effective::own(grants(wanted));
        http(&effective, "GET", "https://a/").unwrap().allows_address(ip(address)).unwrap_err().line.unwrap()
    };
    let (plain, private) = ("http: [{url: https://a}]", "http: [{url: https://a, private: true}]");
    let link_local = "http: [{url: https://a, link-local: true}]";
    for (wanted, address, words) in [
        (plain, "10.0.0.1", "private: true"),
        (plain, "169.254.1.1", "link-local: true"),
        (plain, "169.254.169.254", "link-local: true"),
        (private, "169.254.1.1", "link-local: true, private: true"),
        (link_local, "10.0.0.1", "link-local: true, private: true"),
    ] {
        assert_eq!(line(wanted, address), format!("http: [{{url: https://a/, methods: [GET], {words}}}]"), "{address}");
    }
}

#[test]
fn of_several_grants_the_one_that_reaches_farthest_counts() {
    let effective = Effective::own(grants(
        "http: [{url: https://a, private: true, max-response: 2Mi}, {url: https://a, link-local: true, max-response: 1}]",
    ));
    let allowance = http(&effective, "GET", "https://a/").unwrap();
    assert!(allowance.allows_address(ip("169.254.1.1")).is_ok() && allowance.allows_address(ip("10.0.0.1")).is_err());
    assert_eq!(allowance.max_response_bytes, 1);
}
