//! Patterns of paths and of arguments.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use regex::Regex;
use thiserror::Error;

/// Longest path or argument.
const LONGEST: usize = 4096;

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Of a path.
    #[error("the path `{path}` {reason}")]
    Path {
        /// As written.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Of an argument.
    #[error("the argument `{argument}` {reason}")]
    Argument {
        /// As written.
        argument: String,
        /// What is wrong.
        reason: String,
    },
}

/// An absolute path, `*` standing for any characters within one segment. A leading dot is matched only by a dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(String);

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let refuse = |reason| Err(PatternError::Path { path: text.escape_debug().to_string(), reason });
        // A placeholder at the beginning stands for an absolute path.
        let Some(rest) = text.strip_prefix('/').or(text.starts_with('{').then_some(text)) else {
            return refuse("is not absolute");
        };
        if text.len() > LONGEST {
            return refuse("is too long");
        }
        if text.chars().any(char::is_control) {
            return refuse("has a control character");
        }
        for segment in rest.split('/') {
            match segment {
                "" => return refuse("has an empty segment"),
                "." | ".." => return refuse("has `.` or `..` as a segment"),
                _ if segment.contains("**") => return refuse("has `**`; `*` stays within one segment"),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl PathPattern {
    /// Whether it stands for one path only.
    pub fn is_literal(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it stands for this path, which has no `.` or `..`.
    pub fn matches(&self, path: &Path) -> bool {
        path.to_str().is_some_and(|path| self.covers_text(path))
    }

    /// Whether it stands for everything that the other one stands for.
    pub fn covers(&self, other: &Self) -> bool {
        self.covers_text(&other.0)
    }

    /// Whether a path could match both. Two segments that both have a `*` are said to overlap.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (own, other): (Vec<&str>, Vec<&str>) = (self.0.split('/').collect(), other.0.split('/').collect());
        let pair = |(own, other): (&&str, &&str)| match (own.contains('*'), other.contains('*')) {
            (true, true) => true,
            (true, false) => segment_matches(own, other),
            (false, true) => segment_matches(other, own),
            (false, false) => own == other,
        };
        own.len() == other.len() && own.iter().zip(&other).all(pair)
    }

    /// A `*` of the text is an ordinary character that only a `*` can stand for.
    fn covers_text(&self, path: &str) -> bool {
        let (mut own, mut other) = (self.0.split('/'), path.split('/'));
        loop {
            match (own.next(), other.next()) {
                (None, None) => return true,
                (Some(own), Some(other)) if segment_matches(own, other) => {}
                _ => return false,
            }
        }
    }

    pub(super) fn filled(&self, values: &BTreeMap<String, String>) -> Option<Self> {
        let Some((before, rest)) = self.0.split_once('{') else { return Some(self.clone()) };
        let (name, after) = rest.split_once('}').unwrap_or((rest, ""));
        let value = values.get(name).filter(|value| !value.contains(['{', '*']))?;
        format!("{before}{value}{after}").parse::<Self>().ok()?.filled(values)
    }

    /// Whether a placeholder is left.
    pub fn has_placeholder(&self) -> bool {
        self.0.contains('{')
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    if text.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// What one argument may be.
#[derive(Debug, Clone)]
pub enum ArgPattern {
    /// Exactly this.
    Literal(String),
    /// One of these.
    OneOf(Vec<String>),
    /// Whatever the anchored pattern matches and does not begin with `-`.
    Match(Regex),
}

impl PartialEq for ArgPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(own), Self::Literal(other)) => own == other,
            (Self::OneOf(own), Self::OneOf(other)) => own == other,
            (Self::Match(own), Self::Match(other)) => own.as_str() == other.as_str(),
            _ => false,
        }
    }
}

impl Eq for ArgPattern {}

impl ArgPattern {
    /// Exactly this text.
    ///
    /// # Errors
    ///
    /// [`PatternError::Argument`] for one with NUL or a newline, or longer than 4 KiB.
    pub fn literal(text: String) -> Result<Self, PatternError> {
        verify_argument(&text)?;
        Ok(Self::Literal(text))
    }

    /// One of these texts.
    ///
    /// # Errors
    ///
    /// As for [`Self::literal`]; also for no choice.
    pub fn one_of(choices: Vec<String>) -> Result<Self, PatternError> {
        choices.iter().try_for_each(|choice| verify_argument(choice))?;
        if choices.is_empty() {
            return Err(PatternError::Argument { argument: "one-of".into(), reason: "has no choice".into() });
        }
        Ok(Self::OneOf(choices))
    }

    /// Texts that the pattern matches from their first to their last character.
    ///
    /// # Errors
    ///
    /// [`PatternError::Argument`] for one that is no regular expression.
    pub fn matching(pattern: &str) -> Result<Self, PatternError> {
        let mut inner = pattern.trim_start_matches('^');
        while let Some(rest) = inner.strip_suffix('$').filter(|rest| !rest.ends_with('\\')) {
            inner = rest;
        }
        let build = |text: &str| regex::RegexBuilder::new(text).size_limit(1 << 20).build();
        // On its own, too: `a)|(?:b` would break out of the group that holds the anchors.
        build(inner).and_then(|_| build(&format!("^(?:{inner})$"))).map(Self::Match).map_err(|error| {
            PatternError::Argument {
                argument: pattern.escape_debug().to_string(),
                reason: format!("is no pattern: {error}"),
            }
        })
    }

    /// Whether this argument is allowed.
    pub fn matches(&self, argument: &str) -> bool {
        match self {
            Self::Literal(text) => text == argument,
            Self::OneOf(choices) => choices.iter().any(|choice| choice == argument),
            Self::Match(pattern) => {
                verify_argument(argument).is_ok() && !argument.starts_with('-') && pattern.is_match(argument)
            }
        }
    }

    /// Whether it stands for everything that the other one stands for, as far as that can be seen.
    pub fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Literal(text) => self.matches(text),
            Self::OneOf(choices) => choices.iter().all(|choice| self.matches(choice)),
            Self::Match(_) => self == other,
        }
    }

    /// The pattern as it was written, without anchors.
    pub(super) fn source(pattern: &Regex) -> &str {
        let text = pattern.as_str();
        text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text)
    }
}

/// An argument that a program gets unchanged.
fn verify_argument(argument: &str) -> Result<(), PatternError> {
    let refuse = |reason: &str| {
        Err(PatternError::Argument { argument: argument.escape_debug().take(60).collect(), reason: reason.into() })
    };
    if argument.len() > LONGEST {
        return refuse("is too long");
    }
    if argument.contains(['\0', '\n', '\r']) {
        return refuse("has a NUL or a newline");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_segment_and_skips_hidden_files() {
        let pattern: PathPattern = "/etc/kubernetes/*.conf".parse().unwrap();
        for (path, expected) in [
            ("/etc/kubernetes/kubelet.conf", true),
            ("/etc/kubernetes/.conf", false),
            ("/etc/kubernetes/.hidden.conf", false),
            ("/etc/kubernetes/a/b.conf", false),
            ("/etc/kubernetes/kubelet.conf.bak", false),
            ("/etc/kubernetes", false),
        ] {
            assert_eq!(pattern.matches(Path::new(path)), expected, "{path}");
        }
        let pattern: PathPattern = "/a/x*y*z".parse().unwrap();
        assert!(pattern.matches(Path::new("/a/xyz")) && pattern.matches(Path::new("/a/x1y2z")));
        assert!(!pattern.matches(Path::new("/a/xz")) && !pattern.matches(Path::new("/a/xy")));
    }

    #[test]
    fn a_pattern_covers_only_what_it_would_match() {
        let covers =
            |own: &str, other: &str| own.parse::<PathPattern>().unwrap().covers(&other.parse::<PathPattern>().unwrap());
        assert!(covers("/a/*", "/a/b*"));
        assert!(covers("/a/b*", "/a/b*c"));
        assert!(!covers("/a/b*", "/a/*"));
        assert!(!covers("/a/b", "/a/*"));
        let overlap = |own: &str, other: &str| {
            let (own, other): (PathPattern, PathPattern) = (own.parse().unwrap(), other.parse().unwrap());
            assert_eq!(own.overlaps(&other), other.overlaps(&own));
            own.overlaps(&other)
        };
        assert!(overlap("/a/*", "/a/b") && overlap("/a/b*", "/a/*c") && overlap("/a/b", "/a/b"));
        assert!(!overlap("/a/*", "/a/.b") && !overlap("/a/*", "/b/*") && !overlap("/a/*", "/a/b/c"));
    }

    #[test]
    fn a_matched_argument_is_whole_and_no_option() {
        let digits = ArgPattern::matching("^[0-9]+$").unwrap();
        for bad in ["-1", "1 ", "", "1\n", "a1", "1\0"] {
            assert!(!digits.matches(bad), "{bad:?}");
        }
        assert!(digits.matches("17"));
        let any = ArgPattern::matching("(?s).*").unwrap();
        assert!(!any.matches("-x") && !any.matches("a\nb") && any.matches("x -y"));
        let alternatives = ArgPattern::matching("a|b").unwrap();
        assert!(!alternatives.matches("ax") && alternatives.matches("b"));
        assert_eq!(digits, ArgPattern::matching("[0-9]+").unwrap());
    }

    #[test]
    fn a_pattern_cannot_leave_the_anchors_around_it() {
        for bad in ["a)|(?:b", "a)(", ")", "(?:a", "a\\", "(?x)a # comment"] {
            assert!(ArgPattern::matching(bad).is_err(), "{bad}");
        }
        let multi_line = ArgPattern::matching("(?m)a$|^b").unwrap();
        assert!(multi_line.matches("b") && !multi_line.matches("bc") && !multi_line.matches("ca"));
    }

    #[test]
    fn a_pattern_is_read_back_from_what_it_is_shown_as() {
        for (written, source) in
            [("^^a$$", "a"), (r"a\$", r"a\$"), (r"a\\$", r"a\\$"), ("^", ""), ("$", ""), ("^$", "")]
        {
            let ArgPattern::Match(pattern) = ArgPattern::matching(written).unwrap() else { panic!("{written}") };
            assert_eq!(ArgPattern::source(&pattern), source, "{written}");
            assert_eq!(ArgPattern::matching(source).unwrap(), ArgPattern::Match(pattern), "{written}");
        }
    }

    #[test]
    fn a_path_is_absolute_plain_and_bounded() {
        let longest = format!("/{}", "x".repeat(LONGEST - 1));
        for good in ["/a", "/a b/é", "{dir}/x", longest.as_str()] {
            assert!(good.parse::<PathPattern>().is_ok(), "{good}");
        }
        for (bad, reason) in [
            ("", "absolute"),
            ("a", "absolute"),
            ("/", "empty segment"),
            ("/a/", "empty segment"),
            ("//a", "empty segment"),
            ("/a/./b", "`.`"),
            ("/..", "`..`"),
            ("/a/**", "`**`"),
            ("/a\n", "control"),
            (&format!("{longest}x"), "too long"),
        ] {
            let error = bad.parse::<PathPattern>().unwrap_err().to_string();
            assert!(error.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn the_parts_between_stars_come_one_after_the_other() {
        let pattern: PathPattern = "/a*bc*bc*d".parse().unwrap();
        for (path, expected) in [
            ("/abcbcd", true),
            ("/axbcybczd", true),
            ("/abcd", false),
            ("/abcbd", false),
            ("/xxxxbcbcd", false),
            ("/abbcd", false),
        ] {
            assert_eq!(pattern.matches(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn arguments_are_bounded_and_equal_only_to_their_like() {
        let longest = "x".repeat(LONGEST);
        assert!(ArgPattern::literal(longest.clone()).is_ok() && ArgPattern::literal(longest + "x").is_err());
        assert!(ArgPattern::one_of(Vec::new()).is_err() && ArgPattern::one_of(vec!["a\0".into()]).is_err());
        let patterns = ["a", "b"].map(|text| {
            [
                ArgPattern::literal(text.into()).unwrap(),
                ArgPattern::one_of(vec![text.into()]).unwrap(),
                ArgPattern::matching(text).unwrap(),
            ]
        });
        let all: Vec<&ArgPattern> = patterns.iter().flatten().collect();
        for (at, own) in all.iter().enumerate() {
            for (index, other) in all.iter().enumerate() {
                assert_eq!(own == other, at == index, "{own:?} {other:?}");
            }
        }
    }
}
