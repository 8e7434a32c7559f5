//! Bootstrap tokens: the id is public, the secret is hidden.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Length of the id, in characters of `[a-z0-9]`.
const ID_LENGTH: usize = 6;
/// Length of the secret, in characters of `[a-z0-9]`.
const SECRET_LENGTH: usize = 16;

/// A bootstrap token, written `<id>.<secret>`: 6 and 16 characters of `[a-z0-9]`.
///
/// `Debug` and `Display` show the id only. Source: Kubernetes, "Authenticating with Bootstrap Tokens".
#[derive(Clone)]
pub struct BootstrapToken {
    id: String,
    secret: SecretString,
}

/// Why a text is no bootstrap token. Never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a bootstrap token has the form `[a-z0-9]{{6}}.[a-z0-9]{{16}}`; {reason}")]
pub struct TokenError {
    reason: &'static str,
}

impl BootstrapToken {
    /// The public id, also the `kid` of the JWS.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half: key of the JWS. Must not reach any output.
    pub fn expose_secret(&self) -> &str {
        self.secret.expose_secret()
    }

    /// The whole token as a bearer credential. Must not reach any output.
    pub fn expose_bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret.expose_secret())
    }
}

impl FromStr for BootstrapToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let Some((id, secret)) = text.split_once('.') else {
            return Err(TokenError { reason: "this one has no dot" });
        };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if id.len() != ID_LENGTH {
            return Err(TokenError { reason: "the part before the dot is not 6 characters long" });
        }
        if secret.len() != SECRET_LENGTH {
            return Err(TokenError { reason: "the part after the dot is not 16 characters long" });
        }
        if !plain(id) || !plain(secret) {
            return Err(TokenError { reason: "this one has a character outside `[a-z0-9]`" });
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned().into() })
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({self})")
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.<hidden>", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_documented_form_and_nothing_else() {
        assert_eq!("abcdef.0123456789abcdef".parse::<BootstrapToken>().unwrap().id(), "abcdef");
        for bad in [
            "",
            "abcdef",
            "abcdef.",
            "abcdeF.0123456789abcdef",
            "abcde.0123456789abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef0",
            "abcdef.0123456789abcdef\n",
            "abcdef.0123456789abcde.",
            "äbcde.0123456789abcdef",
        ] {
            assert!(bad.parse::<BootstrapToken>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn shows_its_secret_nowhere() {
        let token: BootstrapToken = "abcdef.0123456789canary".replace("canary", "canar0").parse().unwrap();
        for shown in [format!("{token}"), format!("{token:?}")] {
            assert!(!shown.contains("0123456789"), "{shown}");
        }
        let error = "abcdef.0123456789CANARY".parse::<BootstrapToken>().unwrap_err();
        assert!(!error.to_string().contains("CANARY"));
    }
}
