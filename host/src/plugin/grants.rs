//! What a plugin may ask for: one syntax for what its manifest wants and what an operator allows.

/// Grants by kind. Filled in by the plugin platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {}
