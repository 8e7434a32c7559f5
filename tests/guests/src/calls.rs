//! Calls of host functions as the setting `calls` lists them: calls end with U+001E, their words with U+001F. The answers
//! are evidence, so that a test sees each of them, and that the call after a bad one is answered.

use crate::bindings::mortise::host::{commands, context, facts, files, http, probe, secrets, settings, types::Error};

/// Longest shown text of an answer.
const SHOWN: usize = 1000;

/// One answer a call, in order: what it was, or code and message.
pub(crate) fn all() -> Vec<(String, String)> {
    let calls = settings::text("calls").unwrap_or_default();
    let answers = calls.split_terminator('\u{1e}').map(|call| {
        let words: Vec<&str> = call.split('\u{1f}').collect();
        let answer = one(&words).unwrap_or_else(|error| {
            format!("{}{}: {}", error.code, if error.retryable { " (retryable)" } else { "" }, error.message)
        });
        (words[0].to_owned(), answer.chars().take(SHOWN).collect())
    });
    answers.collect()
}

fn one(words: &[&str]) -> Result<String, Error> {
    match words {
        ["swap"] => facts::swap().map(|areas| areas.join(",")),
        ["context"] => Ok(format!("{:?} {}", context::grants(), context::call_time_ms())),
        ["fetch", method, url, options @ ..] => http::fetch(&request(method, url, options)).map(|answer| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers: Vec<_> =
                answer.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
            format!("{} {} {}: {}", answer.status, answer.body.len(), headers.join(";"), text(&answer.body))
        }),
        ["tcp", host, port] => probe::tcp(host, port.parse().unwrap()).map(|it| it.address),
        ["tls", host, port] => probe::tls(host, port.parse().unwrap()).map(|it| {
            let sizes: Vec<_> = it.certificates.iter().map(Vec::len).collect();
            format!("{} {} {sizes:?} {:?}", it.connection.address, it.protocol, it.distrust)
        }),
        ["dns", name] => probe::dns(name).map(|it| it.addresses.join(",")),
        ["stat", path] => files::stat(path).map(|found| format!("{found:?}")),
        ["read", path] => files::read(path).map(|content| String::from_utf8_lossy(&content).into_owned()),
        ["sysctl", name] => facts::sysctl(name),
        ["grants"] => Ok(context::grants().len().to_string()),
        ["host-time"] => Ok(context::host_time_left_ms().to_string()),
        ["exec", program, arguments @ ..] => {
            let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            commands::run(program, &arguments).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        }
        ["reveal", name] => secrets::reveal(name).map(|it| String::from_utf8_lossy(&it).into_owned()),
        ["run", secret, program, arguments @ ..] => {
            let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
            commands::run_with_secret(program, &arguments, secret)
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        }
        _ => panic!("the test lists an unknown call: {words:?}"),
    }
}

/// Options: `b` a body of so many bytes, `t` milliseconds, `h` a header `name:value`, `s` one `name:secret:prefix`.
fn request(method: &str, url: &str, options: &[&str]) -> http::Request {
    let mut request = http::Request {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout_ms: None,
    };
    for option in options {
        match option.split_at(1) {
            ("b", size) => request.body = vec![b'x'; size.parse().unwrap()],
            ("t", time) => request.timeout_ms = Some(time.parse().unwrap()),
            ("h", header) => {
                let (name, value) = header.split_once(':').unwrap();
                request.headers.push((name.into(), http::HeaderValue::Text(value.into())));
            }
            ("s", header) => {
                let mut parts = header.splitn(3, ':').map(str::to_owned);
                let mut next = || parts.next().unwrap();
                let (name, secret, prefix) = (next(), next(), next());
                let value = http::HeaderValue::Secret(http::SecretValue { name: secret, prefix });
                request.headers.push((name, value));
            }
            _ => panic!("the test has an unknown option: {option}"),
        }
    }
    request
}
