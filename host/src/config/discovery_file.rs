//! `discovery.file.kubeConfigPath`: a path, a `file://` URL or an `https://` URL.

use std::path::Path;

use super::Discovery;
use super::error::{Fault, shown};

/// What the user named. A file must exist on this machine.
///
/// # Errors
///
/// [`Fault::Value`] for a file that does not exist, another scheme, and an https URL without a host.
pub(super) fn parse(text: &str) -> Result<Discovery, Fault> {
    let fail = |reason: &str| Fault::Value { value: shown(text), reason: reason.to_owned() };
    let scheme = scheme(text);
    let path = match scheme.as_deref() {
        None => text.to_owned(),
        Some("file") => path_of_file_url(text).ok_or_else(|| fail("is no file URL of an absolute path"))?,
        Some("https") => {
            let host = text["https:".len()..].strip_prefix("//").unwrap_or_default();
            let host = host.split(['/', '?', '#']).next().unwrap_or_default();
            if host.is_empty() || host.contains(char::is_whitespace) {
                return Err(fail("is an https URL without a host"));
            }
            if host.contains('@') {
                return Err(Fault::Value {
                    value: "the https URL".to_owned(),
                    reason: "must not carry a user name or password".to_owned(),
                });
            }
            return Ok(Discovery::Https { url: text.to_owned() });
        }
        Some(_) => return Err(fail("is a URL, and of those only `https` works")),
    };
    if path.is_empty() || !Path::new(&path).exists() {
        return Err(fail("is neither an https URL nor a file on this machine"));
    }
    Ok(Discovery::File { path: path.into() })
}

/// The scheme in front of the first colon, lower-cased. RFC 3986, section 3.1.
fn scheme(text: &str) -> Option<String> {
    let (scheme, _) = text.split_once(':')?;
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(inner);
    good.then(|| scheme.to_ascii_lowercase())
}

/// The path of `file:///a%20b`: its octets decoded, a host name left out as kubeadm does.
fn path_of_file_url(url: &str) -> Option<String> {
    let (_, rest) = url.split_once(':')?;
    let path = match rest.strip_prefix("//") {
        Some(authority) => &authority[authority.find('/')?..],
        None => rest,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    if !path.starts_with('/') {
        return None;
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_existing_files_and_https_urls() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a b.conf");
        std::fs::write(&file, "").unwrap();
        let plain = file.to_str().unwrap().to_owned();
        for text in [plain.clone(), format!("file://{}", plain.replace(' ', "%20")), format!("file://host{plain}")] {
            match parse(&text) {
                Ok(Discovery::File { path }) => assert_eq!(path, file, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for url in ["https://example.com/join.conf", "https://[::1]:8443?x=y"] {
            assert!(matches!(parse(url), Ok(Discovery::Https { url: kept }) if kept == url), "{url}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "/nonexistent/x.conf",
            "file:///nonexistent",
            "file://",
            "file:relative",
            "file:///a%2",
            "file:///a%+1",
            "http://example.com/join.conf",
            "https://",
            "https:///path",
            "https:example.com",
            "ftp://example.com/x",
            "https://user:secret@example.com/",
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
