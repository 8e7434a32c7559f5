//! What a plugin really gets: what its manifest wants, the operator allows and the site's policy does not forbid, decided
//! request by request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::machine::{Access, CommandGrant, FactGrant, FileGrant};
use super::{ArgPattern, Grant, Grants, SecretGrant, SecretUse};
use crate::facts::{CommandRequest, FactRequest};
use crate::plugin::limits::{COMMAND_TIME, FILE_BYTES, OUTPUT_BYTES};

mod ceiling;
mod network;

pub use ceiling::Ceiling;
pub use network::{HttpAllowance, ProbeAllowance};

/// All sides. A request is granted when an entry of each covers it; the smaller of two bounds counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    wanted: Grants,
    allowed: Grants,
    ceiling: Ceiling,
}

/// A file that may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Largest content.
    pub max_bytes: u64,
}

/// Whose word is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeniedBy {
    /// The plugin's manifest does not ask for it.
    Manifest,
    /// The operator does not allow it.
    Operator,
    /// The site's policy stands against it, at this place: file and line.
    Policy(String),
    /// No grant can allow it.
    Always,
}

/// A request that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What was asked for, a few words.
    pub what: String,
    /// The grant that would allow it, in the syntax of a manifest; none where no grant does.
    pub line: Option<String>,
    /// The same for the command line, where it can be said there.
    pub flag: Option<String>,
    /// Whose word is missing. Where several are: the plugin's before the operator's before the policy's.
    pub by: DeniedBy,
    /// Whether the manifest says that the plugin can do without.
    pub optional: bool,
}

impl Denial {
    /// For the guest, and for people: ends with the line.
    pub fn message(&self) -> String {
        let Self { what, by, .. } = self;
        let line = self.line.as_deref().unwrap_or("nothing");
        match by {
            DeniedBy::Manifest => {
                format!("{what} is not granted; the plugin's manifest would have to ask for {line}")
            }
            DeniedBy::Operator => format!("{what} is not granted; the operator would have to allow {line}"),
            DeniedBy::Policy(place) => format!("{what} is forbidden by {place}; it would have to allow {line}"),
            DeniedBy::Always => format!("{what} is never granted"),
        }
    }

    /// Whether an operator learns something from both.
    pub(in crate::plugin) fn differs(&self, other: &Self) -> bool {
        self.line != other.line || (self.line.is_none() && self.what != other.what)
    }

    fn of(what: String, grant: Grant<'_>, by: DeniedBy) -> Box<Self> {
        Box::new(Self { what, line: Some(grant.line()), flag: grant.flag(), by, optional: grant.is_optional() })
    }
}

impl Grants {
    /// What a plugin with this manifest gets from an operator who allows that.
    pub fn intersect(wanted: Self, allowed: Self) -> Effective {
        Effective { wanted, allowed, ceiling: Ceiling::default() }
    }
}

impl Effective {
    /// A plugin of our own: it gets what it wants.
    pub fn own(wanted: Grants) -> Self {
        Self { allowed: wanted.clone(), wanted, ceiling: Ceiling::default() }
    }

    /// The same below a site's ceiling.
    #[must_use]
    pub fn below(self, ceiling: Ceiling) -> Self {
        Self { ceiling, ..self }
    }

    /// Grants of the manifest that the operator and the policy allow whole.
    pub fn granted(&self) -> impl Iterator<Item = Grant<'_>> {
        self.wanted.iter().filter(|it| self.refusal(*it).is_none())
    }

    /// The same as lines, for people.
    pub fn lines(&self) -> Vec<String> {
        self.granted().map(Grant::line).collect()
    }

    /// Grants that the plugin cannot do without and that the operator does not allow whole.
    pub fn missing(&self) -> Vec<Grant<'_>> {
        self.wanted.iter().filter(|it| !it.is_optional() && !self.allowed.cover(*it)).collect()
    }

    /// Lines of grants that the plugin cannot do without and that the policy does not leave whole, each with the place.
    pub fn forbidden(&self) -> Vec<(String, String)> {
        let required = self.wanted.iter().filter(|it| !it.is_optional());
        required.filter_map(|it| Some((it.line(), self.ceiling.permits(it).err()?))).collect()
    }

    /// Grants of the manifest of which nothing is granted, with whose word is missing.
    pub fn refused(&self) -> Vec<(Grant<'_>, DeniedBy)> {
        let possible = self.possible();
        let refused = self.wanted.iter().filter(|it| !possible.iter().any(|other| other == *it));
        let by = |it: Grant<'_>| match self.ceiling.permits(it) {
            Err(place) => DeniedBy::Policy(place),
            Ok(()) => DeniedBy::Operator,
        };
        refused.map(|it| (it, by(it))).collect()
    }

    /// Grants of the manifest of which anything at all could be granted.
    pub fn possible(&self) -> Grants {
        let some = |it: Grant<'_>| {
            self.upper().all(|side| side.iter().any(|own| own.overlaps(it))) && !self.ceiling.forbids(it)
        };
        let Grants { facts, files, commands, http, probe, secrets, trust_root } = &self.wanted;
        fn kept<T: Clone>(all: &[T], keep: impl Fn(&T) -> bool) -> Vec<T> {
            all.iter().filter(|it| keep(it)).cloned().collect()
        }
        Grants {
            facts: kept(facts, |it| some(Grant::Fact(it))),
            files: kept(files, |it| some(Grant::File(it))),
            commands: kept(commands, |it| some(Grant::Command(it))),
            http: kept(http, |it| some(Grant::Http(it))),
            probe: kept(probe, |it| some(Grant::Probe(it))),
            secrets: kept(secrets, |it| some(Grant::Secret(it))),
            trust_root: trust_root.clone().filter(|it| some(Grant::TrustRoot(it))),
        }
    }

    /// Whose word is missing for a request that is written as a grant of itself alone.
    fn refusal(&self, asked: Grant<'_>) -> Option<DeniedBy> {
        if !self.wanted.cover(asked) {
            return Some(DeniedBy::Manifest);
        }
        if !self.allowed.cover(asked) {
            return Some(DeniedBy::Operator);
        }
        self.ceiling.permits(asked).err().map(DeniedBy::Policy)
    }

    /// What the operator and, where it has one, the policy's list say.
    fn upper(&self) -> impl Iterator<Item = &Grants> {
        std::iter::once(&self.allowed).chain(self.ceiling.grants())
    }

    /// Decides about a fact.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn fact(&self, request: &FactRequest) -> Result<(), Box<Denial>> {
        let name = grant_name(request);
        let optional = self.wanted.facts.iter().any(|it| it.covers(&name) && it.optional);
        let asked = FactGrant { name, reason: None, optional };
        match self.refusal(Grant::Fact(&asked)) {
            None => Ok(()),
            Some(by) => Err(Denial::of(format!("the fact `{}`", asked.name), Grant::Fact(&asked), by)),
        }
    }

    /// Decides about a file.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn file(&self, path: &Path, access: Access) -> Result<Allowance, Box<Denial>> {
        let shown = path.to_string_lossy();
        let doing = if access == Access::Stat { "looking at" } else { "reading" };
        let what = format!("{doing} `{}`", shown.escape_debug());
        let Ok(pattern) = shown.parse() else {
            let (line, flag, by) = (None, None, DeniedBy::Always);
            return Err(Box::new(Denial { what, line, flag, by, optional: false }));
        };
        let mut asked = FileGrant { path: pattern, access, max_bytes: None, reason: None, optional: false };
        let fitting = |grants: &Grants, otherwise: u64| {
            let fits = |it: &&FileGrant| Grant::File(it).covers(Grant::File(&asked));
            grants.files.iter().filter(fits).map(|it| it.max_bytes.unwrap_or(otherwise)).max()
        };
        let wanted = fitting(&self.wanted, FILE_BYTES).unwrap_or(FILE_BYTES);
        let max_bytes = self.upper().filter_map(|it| fitting(it, u64::MAX)).fold(wanted, u64::min);
        let Some(by) = self.refusal(Grant::File(&asked)) else { return Ok(Allowance { max_bytes }) };
        asked.optional = self.wanted.files.iter().any(|it| it.optional && it.path.matches(path));
        Err(Denial::of(what, Grant::File(&asked), by))
    }

    /// Decides about a program run, and fills in its bounds.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn command(&self, program: &str, arguments: &[String]) -> Result<CommandRequest, Box<Denial>> {
        let literal = |argument: &String| ArgPattern::Literal(argument.clone());
        let mut asked = CommandGrant {
            program: program.into(),
            args: arguments.iter().map(literal).collect(),
            env: Vec::new(),
            timeout: None,
            max_output: None,
            user: None,
            reason: None,
            optional: false,
        };
        fn fitting<'a>(grants: &'a Grants, asked: &CommandGrant) -> Option<&'a CommandGrant> {
            grants.commands.iter().find(|it| Grant::Command(it).covers(Grant::Command(asked)))
        }
        let wanted = fitting(&self.wanted, &asked);
        // Who it runs as is the operator's choice, unless the plugin needs one.
        asked.user = wanted.and_then(|it| it.user.clone());
        let allowed = fitting(&self.allowed, &asked);
        asked.user = allowed.map(|it| it.user().to_owned());
        let what = format!("running `{}` with these arguments", program.escape_debug());
        let Some(wanted) = wanted else {
            return Err(Denial::of(what, Grant::Command(&asked), DeniedBy::Manifest));
        };
        let refused = |by| Err(Denial::of(what.clone(), Grant::Command(wanted), by));
        if allowed.is_none() {
            return refused(DeniedBy::Operator);
        }
        if let Err(place) = self.ceiling.permits(Grant::Command(&asked)) {
            return refused(DeniedBy::Policy(place));
        }
        let upper: Vec<_> = self.upper().filter_map(|it| fitting(it, &asked)).collect();
        let ours = |name: &&String| upper.iter().all(|it| it.env.contains(name));
        let timeout = upper.iter().filter_map(|it| it.timeout).min().unwrap_or(Duration::MAX);
        let max_output = upper.iter().filter_map(|it| it.max_output).min().unwrap_or(u64::MAX);
        Ok(CommandRequest {
            program: PathBuf::from(program),
            arguments: arguments.to_vec(),
            environment: wanted.env.iter().filter(ours).cloned().collect(),
            user: asked.user.unwrap_or_default(),
            timeout: wanted.timeout.unwrap_or(COMMAND_TIME).min(timeout),
            max_output_bytes: wanted.max_output.unwrap_or(OUTPUT_BYTES).min(max_output),
        })
    }

    /// Decides about the use of a secret.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn secret(&self, name: &str, using: SecretUse<'_>) -> Result<(), Box<Denial>> {
        let what = match using {
            SecretUse::Header { url, header } => format!(
                "sending the secret `{}` to `{}` in the header `{}`",
                name.escape_debug(),
                url.authority(),
                header.escape_debug()
            ),
            SecretUse::Argv { program, .. } => {
                format!("passing the secret `{}` to `{}`", name.escape_debug(), program.escape_debug())
            }
            SecretUse::Reveal => format!("reading the secret `{}`", name.escape_debug()),
        };
        let Some(mut asked) = SecretGrant::asked(name, using) else {
            let (line, flag, by) = (None, None, DeniedBy::Always);
            return Err(Box::new(Denial { what, line, flag, by, optional: false }));
        };
        let Some(by) = self.refusal(Grant::Secret(&asked)) else { return Ok(()) };
        asked.optional = self.wanted.secrets.iter().any(|it| it.optional && it.name == name);
        Err(Denial::of(what, Grant::Secret(&asked), by))
    }

    /// Decides whether a discovery source is believed without a pin of the operator's.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn trust_root(&self) -> Result<(), Box<Denial>> {
        let asked = self.wanted.trust_root.clone().unwrap_or_default();
        match self.refusal(Grant::TrustRoot(&asked)) {
            None => Ok(()),
            Some(by) => Err(Denial::of("vouching for a cluster".into(), Grant::TrustRoot(&asked), by)),
        }
    }
}

/// Name of the grant behind which a fact is.
fn grant_name(request: &FactRequest) -> String {
    match request {
        FactRequest::Kernel | FactRequest::KernelOptions { .. } => "kernel",
        FactRequest::Modules => "modules",
        FactRequest::Sysctl { name } => return format!("sysctl:{name}"),
        FactRequest::Cgroup => "cgroup",
        FactRequest::Swap => "swap",
        FactRequest::UsableCpus => "cpu",
        FactRequest::MemoryTotal => "memory",
        FactRequest::Mounts => "mounts",
        FactRequest::TcpPort { .. } => "ports",
        FactRequest::Interfaces => "interfaces",
        FactRequest::Unit { .. } => "units",
        FactRequest::Executable { .. } => "executables",
        FactRequest::ContainerRuntime => "runtime",
        FactRequest::Os => "os",
        FactRequest::NodeNameAddresses => "resolver",
        FactRequest::ProxyFor { .. } => "proxy",
        FactRequest::CurrentUid => "users",
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
