//! Kubernetes versions, as far as the checks compare them.

use std::cmp::Ordering;
use std::fmt;

/// A semantic version without build metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// 1, so far.
    pub major: u32,
    /// For example 37.
    pub minor: u32,
    /// For example 2.
    pub patch: u32,
    /// For example `rc.1`; a pre-release is lower than its release.
    pub pre_release: Option<String>,
}

impl Version {
    /// A release.
    pub fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, pre_release: None }
    }

    /// The version in what `kubelet --version` prints, `Kubernetes v1.37.2`.
    ///
    /// None where kubeadm would not understand it, either: other words, numbers with leading zeros, characters
    /// beyond `[-\w.+]` after the numbers.
    pub fn parse_kubelet_output(output: &str) -> Option<Self> {
        let version = output.trim().strip_prefix("Kubernetes v")?;
        let numbers_end = version
            .bytes()
            .scan(0, |dots, byte| {
                *dots += u32::from(byte == b'.');
                Some(byte.is_ascii_digit() || (byte == b'.' && *dots <= 2))
            })
            .position(|part_of_numbers| !part_of_numbers)
            .unwrap_or(version.len());
        let (numbers, rest) = version.split_at_checked(numbers_end)?;
        let mut numbers = numbers.split('.').map(number);
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let pre_release = match rest.split('+').next().unwrap_or_default() {
            "" => None,
            pre_release => Some(pre_release.strip_prefix('-')?.to_owned()),
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        (numbers.next().is_none() && rest.bytes().all(allowed)).then_some(Self { major, minor, patch, pre_release })
    }
}

fn number(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| canonical)
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let numbers = |version: &Self| (version.major, version.minor, version.patch);
        match numbers(self).cmp(&numbers(other)) {
            // Which of two pre-releases is higher is never asked.
            Ordering::Equal if self.pre_release == other.pre_release => Some(Ordering::Equal),
            Ordering::Equal if self.pre_release.is_none() => Some(Ordering::Greater),
            Ordering::Equal if other.pre_release.is_none() => Some(Ordering::Less),
            Ordering::Equal => None,
            decided => Some(decided),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        self.pre_release.iter().try_for_each(|pre_release| write!(f, "-{pre_release}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_kubelet_prints() {
        for (output, version) in [
            ("Kubernetes v1.37.2", "1.37.2"),
            ("  Kubernetes v1.34.0-rc.1+0a1b\n", "1.34.0-rc.1"),
            ("Kubernetes v1.35.10+k3s1", "1.35.10"),
            ("Kubernetes v1.0.0-beta.0.12-dirty", "1.0.0-beta.0.12-dirty"),
        ] {
            let parsed = Version::parse_kubelet_output(output).map(|version| version.to_string());
            assert_eq!(parsed.as_deref(), Some(version), "{output}");
        }
    }

    #[test]
    fn refuses_what_is_no_version() {
        for output in [
            "",
            "Kubernetes",
            "Kubernetes v1.37",
            "Kubernetes v1.37.",
            "Kubernetes v01.37.2",
            "Kubernetes v1.037.2",
            "Kubernetes v1.37.2.1",
            "Kubernetes v1.37.2 extra",
            "Kubernetes v1.37.2\nKubernetes v1.37.2",
            "Kubernetes v1.37.2x",
            "Kubernetes v99999999999.1.1",
            "kubelet v1.37.2",
        ] {
            assert_eq!(Version::parse_kubelet_output(output), None, "{output}");
        }
    }

    #[test]
    fn pre_release_is_lower_than_its_release() {
        let parse = |text: &str| Version::parse_kubelet_output(&format!("Kubernetes v{text}")).unwrap();
        assert!(parse("1.34.0-rc.1") < parse("1.34.0"));
        assert!(parse("1.34.0") < parse("1.34.1-alpha.0"));
        assert!(parse("1.9.0") < parse("1.10.0"));
        assert_eq!(parse("1.34.0-a").partial_cmp(&parse("1.34.0-b")), None);
    }
}
