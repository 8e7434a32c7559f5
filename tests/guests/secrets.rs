//! Secrets of the operator's: used where a grant binds them to, seen by nobody.

use mortise::plugin::CheckResult;

use crate::network::{Server, answers, calling, denied, passing};

const CANARY: &str = "canary-7f3a9";

/// No text that leaves the host shows the secret.
fn assert_hidden(result: &CheckResult) {
    let shown = format!("{result:?} {}", serde_json::to_string(result).unwrap());
    assert!(!shown.contains(CANARY), "{shown}");
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    file
}

#[tokio::test]
async fn a_secret_goes_into_its_header_and_is_cut_out_of_an_answer_that_repeats_it() {
    let server = Server::start().await;
    let (url, other) = (server.url("/v1/x"), server.url("/v2"));
    let calls: [&[&str]; 5] = [
        &["fetch", "GET", &url, "sAuthorization:token:Bearer "],
        &["fetch", "GET", &url, "sx-other:token:"],
        &["fetch", "GET", &other, "sauthorization:token:"],
        &["reveal", "token"],
        &["fetch", "GET", &url, "sx-absent:absent:"],
    ];
    let grants = format!(
        "{{facts: [swap], http: [{{url: '{0}'}}], secrets: [{{name: token, url: '{1}', header: authorization}}, \
         {{name: absent, url: '{1}', header: x-absent}}]}}",
        server.url("/"),
        server.url("/v1/")
    );
    let secret = file(&format!("{CANARY}\n"));
    let result = denied(calling(&calls).granted(&grants).secret("token", secret.path()), 3).await;
    let seen = answers(&result);
    assert!(seen[0].starts_with("200 ") && seen[0].contains("authorization: Bearer [secret]|"), "{seen:?}");
    for answer in &seen[1..4] {
        assert!(answer.starts_with("denied: ") && answer.contains("secrets: ["), "{answer}");
    }
    assert!(seen[4].starts_with("not-found: "), "{seen:?}");
    assert_hidden(&result);
}

#[tokio::test]
async fn a_secret_that_does_not_fit_into_a_header_splits_nothing() {
    let server = Server::start().await;
    let url = server.url("/");
    let calls: [&[&str]; 2] =
        [&["fetch", "GET", &url, "sauthorization:token:"], &["fetch", "GET", &url, "sauthorization:token:a\r\nb: "]];
    let grants = format!(
        "{{facts: [swap], http: [{{url: '{url}'}}], secrets: [{{name: token, url: '{url}', header: authorization}}]}}"
    );
    let secret = file(&format!("{CANARY}\r\nhost: evil\n"));
    let result = passing(calling(&calls).granted(&grants).secret("token", secret.path())).await;
    let seen = answers(&result);
    assert!(seen[0].starts_with("unavailable: ") && seen[1].starts_with("invalid: "), "{seen:?}");
    assert_eq!(server.accepted.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_hidden(&result);
}

#[tokio::test]
async fn a_secret_goes_into_one_argv_and_is_cut_out_of_its_output() {
    let calls: [&[&str]; 6] = [
        &["run", "licence", "/bin/echo", "--key", "{secret}"],
        &["run", "licence", "/bin/echo", "--key"],
        &["run", "licence", "/bin/echo", "{secret}", "{secret}"],
        &["run", "licence", "/bin/echo", "{secret}"],
        &["run", "other", "/bin/echo", "--key", "{secret}"],
        &["run", "../licence", "/bin/echo", "--key", "{secret}"],
    ];
    let grants = "{facts: [swap], commands: [{program: /bin/echo, args: [--key, '{secret}']}, \
                  {program: /bin/echo, args: ['{secret}']}], \
                  secrets: [{name: licence, argv: [/bin/echo, --key, '{secret}']}]}";
    let secret = file(CANARY);
    let result = denied(calling(&calls).granted(grants).secret("licence", secret.path()), 2).await;
    let seen = answers(&result);
    let begins = ["ran /bin/echo --key [secret]", "invalid: ", "invalid: ", "denied: ", "denied: ", "invalid: "];
    for (answer, begins) in seen.iter().zip(begins) {
        assert!(answer.starts_with(begins), "{answer} does not begin with {begins}");
    }
    assert_hidden(&result);
}

#[tokio::test]
async fn a_secret_is_read_only_where_the_grant_says_reveal() {
    let calls: [&[&str]; 5] =
        [&["reveal", "seed"], &["reveal", "large"], &["reveal", "absent"], &["reveal", "other"], &["reveal", "a b"]];
    let grants = "{facts: [swap], secrets: [{name: seed, reveal: true}, {name: large, reveal: true}, \
                  {name: absent, reveal: true}]}";
    let (seed, large) = (file("grown\n"), file(&"x".repeat(16_385)));
    let setup = calling(&calls).granted(grants).secret("seed", seed.path()).secret("large", large.path());
    let result = denied(setup.secret("other", seed.path()), 1).await;
    let seen = answers(&result);
    for (answer, begins) in seen.iter().zip(["grown", "unavailable: ", "not-found: ", "denied: ", "invalid: "]) {
        assert!(answer.starts_with(begins), "{answer} does not begin with {begins}");
    }
}
