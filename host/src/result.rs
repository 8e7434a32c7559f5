//! `/run/mortise/result.json`.
