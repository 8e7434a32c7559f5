//! Logins from docker's configuration, and registries with an authority of their own.

use crate::lab::{Desk, Registry};

/// `user:s3cret-word`, its password hashed by bcrypt: perl -e 'print crypt("s3cret-word", "\$2y\$05\$abcdefghijklmnopqrstuu")'
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuEpHRRKIlpAGo.iP7Bpa.htQEJMAAnRe\n";
const SECRET: &str = "s3cret-word";
/// `user:s3cret-word` in base64.
const AUTH: &str = "dXNlcjpzM2NyZXQtd29yZA==";

fn with_login() -> (Registry, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), HTPASSWD).unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.path().display());
    (Registry::start_with("", &auth), file)
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_login_comes_from_dockers_configuration_and_is_never_shown() {
    let ((registry, _file), desk) = (with_login(), Desk::with_keys());
    let reference = registry.reference("gpu-driver", "1.0.0");
    let refused = desk.plugin(&["push", "gpu-driver.wasm", &reference]).refused(1, "no login for it");
    assert!(refused.contains(&format!("docker login {}", registry.address)), "{refused}");
    std::fs::create_dir(desk.path("docker")).unwrap();
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"{AUTH}"}}}}}}"#, registry.address);
    desk.write("docker/config.json", config.as_bytes());
    desk.push_signed(&registry, "1.0.0");
    let ran = desk.mortise(&["-v", "9", "plugin", "pull", &reference, "--key", "cosign.pub"]);
    let shown = format!("{}{}", ran.stdout, ran.stderr);
    ran.good();
    assert!(!shown.contains(SECRET) && !shown.contains(AUTH), "{shown}");
    let wrong = config.replace(AUTH, "dXNlcjp3cm9uZw==");
    desk.write("docker/config.json", wrong.as_bytes());
    let refused = desk.plugin(&["pull", &reference]).refused(1, "refuses");
    assert!(!refused.contains("wrong") && !refused.contains("dXNlcjp3cm9uZw"), "{refused}");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_credential_helper_is_asked_for_its_registry() {
    let ((registry, _file), desk) = (with_login(), Desk::new());
    std::fs::create_dir(desk.path("docker")).unwrap();
    let config = format!(r#"{{"credHelpers":{{"{}":"test"}}}}"#, registry.address);
    desk.write("docker/config.json", config.as_bytes());
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = {} ] && echo '{{\"Username\":\"user\",\"Secret\":\"{SECRET}\"}}'\n",
        registry.address
    );
    desk.write_program("bin/docker-credential-test", &script);
    desk.push(&registry, "1.0.0");
    desk.write_program("bin/docker-credential-test", "#!/bin/sh\nexit 1\n");
    let reference = registry.reference("gpu-driver", "1.0.0");
    desk.plugin(&["pull", &reference]).refused(1, "`docker-credential-test`: it ended with");
}

#[test]
#[ignore = "needs docker-registry, oras and cosign: run `make test-cluster`"]
fn a_registry_of_a_private_authority_is_trusted_only_when_it_is_named() {
    let desk = Desk::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    desk.write("ca.pem", certificate.pem().as_bytes());
    desk.write("tls.key", key.serialize_pem().as_bytes());
    let tls =
        format!("  tls: {{certificate: {}, key: {}}}\n", desk.path("ca.pem").display(), desk.path("tls.key").display());
    let registry = Registry::start_with(&tls, "");
    let reference = registry.reference("gpu-driver", "1.0.0");
    desk.plugin(&["push", "--ca-file", "ca.pem", "gpu-driver.wasm", &reference]).good();
    desk.plugin(&["pull", "--ca-file", "ca.pem", &reference]).good();
    desk.plugin(&["pull", "--ca-file", "gpu-driver.wasm", &reference]).refused(2, "no certificate in it");
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    desk.write("other.pem", other.cert.pem().as_bytes());
    let refused = desk.plugin(&["pull", "--ca-file", "other.pem", &reference]).refused(1, "no secure connection");
    assert!(refused.contains("--ca-file FILE"), "{refused}");
}
