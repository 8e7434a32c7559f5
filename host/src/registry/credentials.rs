//! Who we are to a registry: docker's configuration and its helpers.
//!
//! `docker login`, `oras login` and `podman login --authfile` write the file that is read here; nothing is ever written.
//! A helper gets the registry's name on its standard input and answers there: no secret is in an argument.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use base64::Engine as _;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::Zeroize as _;

use super::error::RegistryError;

/// Largest configuration.
const CONFIG_BYTES: u64 = 1 << 20;
/// Largest answer of a helper.
const HELPER_BYTES: u64 = 64 << 10;
/// How long a helper may take; some ask a cloud.
const HELPER_TIME: Duration = Duration::from_secs(30);
/// What docker calls its own registry.
const DOCKER_HUB: &str = "index.docker.io";

/// What proves who we are. `Debug` shows none of it.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// Nothing.
    Anonymous,
    /// User and password.
    Password { user: String, password: SecretString },
    /// A token that buys tokens.
    Identity(SecretString),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    /// `user:password` in base64.
    #[serde(deserialize_with = "secret")]
    auth: Option<SecretString>,
    username: Option<String>,
    #[serde(deserialize_with = "secret")]
    password: Option<SecretString>,
    #[serde(deserialize_with = "secret")]
    identitytoken: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    #[serde(deserialize_with = "secret")]
    secret: Option<SecretString>,
}

/// A text of JSON that is hidden from then on.
pub(super) fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(SecretString::from))
}

/// The file docker uses: in `$DOCKER_CONFIG`, else in `~/.docker`.
pub(super) fn default_config() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").filter(|it| !it.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    directory.or_else(home).map(|directory| directory.join("config.json"))
}

/// The credential for a registry. No configuration is no error: then we are nobody.
pub(super) fn of_registry(config: Option<&Path>, registry: &str) -> Result<Credential, RegistryError> {
    let bad = |reason: String| RegistryError::Credentials { registry: registry.to_owned(), reason };
    let Some(path) = config else { return Ok(Credential::Anonymous) };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Credential::Anonymous),
        Err(error) => return Err(bad(format!("`{}`: {error}", path.display()))),
    };
    let mut text = Vec::new();
    file.take(CONFIG_BYTES).read_to_end(&mut text).map_err(|error| bad(format!("`{}`: {error}", path.display())))?;
    // The text of serde's error may repeat a secret; its place does not.
    let config = serde_json::from_slice::<Config>(&text)
        .map_err(|error| bad(format!("`{}`:{}:{} is not valid", path.display(), error.line(), error.column())));
    text.zeroize();
    let config = config?;
    let wanted = host_of(registry);
    let helper = config.cred_helpers.iter().find(|(key, _)| host_of(key) == wanted).map(|(_, helper)| helper);
    if let Some(helper) = helper.or(config.creds_store.as_ref())
        && let Some(credential) = ask_helper(helper, registry)?
    {
        return Ok(credential);
    }
    let entry = config.auths.into_iter().find(|(key, _)| host_of(key) == wanted).map(|(_, auth)| auth);
    let Some(entry) = entry else { return Ok(Credential::Anonymous) };
    entry.credential().map_err(|reason| bad(format!("`{}`: {reason}", path.display())))
}

impl Auth {
    fn credential(self) -> Result<Credential, &'static str> {
        use secrecy::ExposeSecret as _;
        if let Some(token) = self.identitytoken.filter(|token| !token.expose_secret().is_empty()) {
            return Ok(Credential::Identity(token));
        }
        if let Some(auth) = self.auth.filter(|auth| !auth.expose_secret().is_empty()) {
            let bad = "its `auth` is not `user:password` in base64";
            let mut decoded =
                base64::engine::general_purpose::STANDARD.decode(auth.expose_secret()).map_err(|_| bad)?;
            let split = std::str::from_utf8(&decoded).ok().and_then(|text| text.split_once(':'));
            // docker pads with zero bytes.
            let credential = split.map(|(user, password)| Credential::Password {
                user: user.to_owned(),
                password: password.trim_end_matches('\0').to_owned().into(),
            });
            decoded.zeroize();
            return credential.ok_or(bad);
        }
        Ok(match (self.username, self.password) {
            (Some(user), Some(password)) => Credential::Password { user, password },
            _ => Credential::Anonymous,
        })
    }
}

/// `host[:port]` of a key: docker writes `https://index.docker.io/v1/`, others the bare host.
fn host_of(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    match rest.split('/').next().unwrap_or_default() {
        "docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

/// Asks `docker-credential-NAME get`. None: it does not know the registry.
fn ask_helper(name: &str, registry: &str) -> Result<Option<Credential>, RegistryError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let program = format!("docker-credential-{name}");
    let bad = |reason: String| RegistryError::Credentials {
        registry: registry.to_owned(),
        reason: format!("`{program}`: {reason}"),
    };
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(bad("this is no name of a helper".into()));
    }
    let key = if host_of(registry) == DOCKER_HUB { "https://index.docker.io/v1/" } else { registry };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| bad(format!("cannot be started: {error}")))?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    let stdout = child.stdout.take().expect("a pipe was asked for");
    // One that does not read what it is asked still answers.
    let _ = stdin.write_all(key.as_bytes());
    drop(stdin);
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = stdout.take(HELPER_BYTES).read_to_end(&mut answer);
        let _ = send.send(read.map(|_| answer));
    });
    let Ok(answer) = receive.recv_timeout(HELPER_TIME) else {
        let _ = child.kill();
        let _ = child.wait();
        return Err(bad(format!("no answer after {} s", HELPER_TIME.as_secs())));
    };
    let status = child.wait().map_err(|error| bad(error.to_string()))?;
    let mut answer = answer.map_err(|error| bad(error.to_string()))?;
    if !status.success() {
        let unknown = String::from_utf8_lossy(&answer).contains("credentials not found");
        answer.zeroize();
        return if unknown { Ok(None) } else { Err(bad(format!("it ended with {status}"))) };
    }
    let helped = serde_json::from_slice::<Helped>(&answer);
    answer.zeroize();
    let Ok(Helped { username, secret: Some(secret) }) = helped else {
        return Err(bad("its answer is not valid".into()));
    };
    Ok(Some(match username.as_str() {
        "<token>" => Credential::Identity(secret),
        _ => Credential::Password { user: username, password: secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn read(text: &str, registry: &str) -> Result<Credential, RegistryError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        of_registry(Some(file.path()), registry)
    }

    #[test]
    fn finds_the_entry_under_any_way_of_writing_its_host() {
        for key in ["r.example:5000", "https://r.example:5000", "http://r.example:5000/v1/", "r.example:5000/v2"] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"am9lOnBhOnNz"}}}},"other":1}}"#);
            let Ok(Credential::Password { user, password }) = read(&text, "r.example:5000") else {
                panic!("{key}");
            };
            assert_eq!((user.as_str(), password.expose_secret()), ("joe", "pa:ss"));
            assert!(matches!(read(&text, "r.example"), Ok(Credential::Anonymous)), "another port is another registry");
        }
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"identitytoken":"t"}}}"#;
        assert!(matches!(read(hub, "docker.io"), Ok(Credential::Identity(_))));
    }

    #[test]
    fn no_error_repeats_what_the_file_holds() {
        for text in [
            r#"{"auths":{"r.example":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"r.example":{"auth":"s3cret!"}}}"#,
            r#"{"auths":{"r.example":{"auth":["s3cret"]}}}"#,
            r#"{"auths":"s3cret"}"#,
        ] {
            let error = read(text, "r.example").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("s3cret") && !shown.contains("c2VjcmV0"), "{shown}");
        }
        let shown = format!("{:?}", read(r#"{"auths":{"r.example":{"auth":"am9lOnBhOnNz"}}}"#, "r.example"));
        assert!(!shown.contains("pa:ss"), "{shown}");
    }

    #[test]
    fn a_helper_with_a_path_in_its_name_is_not_started() {
        let error = read(r#"{"credsStore":"../evil"}"#, "r.example").unwrap_err();
        assert!(error.to_string().contains("no name of a helper"), "{error}");
        let error = read(r#"{"credHelpers":{"r.example":"mortise-none"}}"#, "r.example").unwrap_err();
        assert!(error.to_string().contains("cannot be started"), "{error}");
        assert!(matches!(read(r#"{"credHelpers":{"o.example":"x"}}"#, "r.example"), Ok(Credential::Anonymous)));
    }
}
