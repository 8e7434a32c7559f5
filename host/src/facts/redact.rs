//! Cuts the host's live secrets out of what a plugin gets to see, by value.

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const CUT: &[u8] = b"[secret]";

/// Shorter ones are not looked for: they would match by chance.
const SHORTEST_SECRET_BYTES: usize = 16;

/// Replaces each occurrence of a secret.
pub(super) fn cut(mut bytes: Vec<u8>, secrets: &[SecretString]) -> Vec<u8> {
    for secret in secrets
        .iter()
        .map(|secret| secret.expose_secret().as_bytes())
        .filter(|secret| secret.len() >= SHORTEST_SECRET_BYTES)
    {
        let mut rest = bytes.as_slice();
        let mut kept = Vec::new();
        while let Some(at) = rest.windows(secret.len()).position(|window| window == secret) {
            kept.extend_from_slice(&rest[..at]);
            kept.extend_from_slice(CUT);
            rest = &rest[at + secret.len()..];
        }
        if !kept.is_empty() {
            kept.extend_from_slice(rest);
            bytes = kept;
        }
    }
    bytes
}

/// The same for every text in a fact.
pub(super) fn cut_texts<T: Serialize + DeserializeOwned>(fact: T, secrets: &[SecretString]) -> T {
    if secrets.is_empty() {
        return fact;
    }
    let mut value = serde_json::to_value(fact).expect("facts hold only strings, numbers and enums");
    cut_in(&mut value, secrets);
    serde_json::from_value(value).expect("only texts changed, and no enum's name is as long as a secret")
}

fn cut_in(value: &mut Value, secrets: &[SecretString]) {
    match value {
        Value::String(text) => {
            let bytes = cut(std::mem::take(text).into_bytes(), secrets);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Array(values) => values.iter_mut().for_each(|value| cut_in(value, secrets)),
        Value::Object(values) => values.values_mut().for_each(|value| cut_in(value, secrets)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fact;

    #[test]
    fn every_occurrence_is_cut() {
        let secrets = [SecretString::from("abcdef.0123456789abcdef"), SecretString::from("short")];
        let cut = |text: &str| String::from_utf8(cut(text.into(), &secrets)).unwrap();
        assert_eq!(cut("a abcdef.0123456789abcdef b abcdef.0123456789abcdef"), "a [secret] b [secret]");
        assert_eq!(cut("short abcdef.0123456789abcde"), "short abcdef.0123456789abcde");
        assert_eq!(cut(""), "");
    }

    #[test]
    fn facts_lose_secrets_and_nothing_else() {
        let secrets = [SecretString::from("abcdef.0123456789abcdef")];
        let fact = Fact::Names(vec!["/swap-abcdef.0123456789abcdef".into(), "\"/x\"".into()]);
        assert_eq!(cut_texts(fact, &secrets), Fact::Names(vec!["/swap-[secret]".into(), "\"/x\"".into()]));
        let clean = Fact::Text("1".into());
        assert_eq!(cut_texts(clean.clone(), &secrets), clean);
    }
}
