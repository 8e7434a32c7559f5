//! Identity tokens. Knows nothing of the host, so unit tests run anywhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// When a JSON Web Token expires, in seconds since 1970; none for anything else. The API server checks its signature.
pub(crate) fn expires_at(token: &str) -> Option<u64> {
    let payload = URL_SAFE_NO_PAD.decode(token.trim().split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get("exp")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_read_from_its_claims() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expires_at(&token(r#"{"sub": "x", "exp": 4102444800}"#)), Some(4_102_444_800));
        for bad in [token(r#"{"sub": "x"}"#), token(r#"{"exp": "soon"}"#), token("x"), "opaque".into(), "a.!.c".into()]
        {
            assert_eq!(expires_at(&bad), None, "{bad}");
        }
    }
}
