//! What a plugin may ask for: one syntax for what its manifest wants and what an operator allows.

/// Grants by kind. Filled in by the plugin platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {}

/// Why a text holds no grants.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct GrantError(String);

impl Grants {
    /// Parses a YAML or JSON mapping from kinds to what is allowed of each.
    ///
    /// # Errors
    ///
    /// [`GrantError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
            Ok(_) => Ok(Self {}),
            Err(error) => Err(GrantError(error.to_string())),
        }
    }
}
