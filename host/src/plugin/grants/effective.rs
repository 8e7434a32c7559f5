//! What a plugin really gets: what its manifest wants and the operator allows, decided request by request.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Access, CommandGrant, FactGrant, FileGrant, Grants};
use crate::facts::{CommandRequest, FactRequest};
use crate::plugin::limits::{COMMAND_TIME, FILE_BYTES, OUTPUT_BYTES};

/// User a command runs as when its grant names none.
const DEFAULT_USER: &str = "nobody";

/// Both sides. A request is granted when an entry of each covers it; the smaller of two bounds counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    wanted: Grants,
    allowed: Grants,
}

/// A file that may be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Largest content.
    pub max_bytes: u64,
}

/// A request that is not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What was asked for, a few words.
    pub what: String,
    /// The grant that would allow it, in the syntax of a manifest.
    pub line: String,
    /// The same for the command line, where it can be said there.
    pub flag: Option<String>,
    /// Whether the manifest asks for it, so that only the operator's word is missing.
    pub wanted: bool,
    /// Whether the manifest says that the plugin can do without.
    pub optional: bool,
}

impl Denial {
    /// For the guest, and for people: ends with the line.
    pub fn message(&self) -> String {
        let Self { what, line, wanted, .. } = self;
        if *wanted {
            format!("{what} is not granted; the operator would have to allow {line}")
        } else {
            format!("{what} is not granted; the plugin's manifest would have to ask for {line}")
        }
    }
}

impl Grants {
    /// What a plugin with this manifest gets from an operator who allows that.
    pub fn intersect(wanted: Self, allowed: Self) -> Effective {
        Effective { wanted, allowed }
    }
}

impl Effective {
    /// A plugin of our own: it gets what it wants.
    pub fn own(wanted: Grants) -> Self {
        Self { allowed: wanted.clone(), wanted }
    }

    /// Lines of the manifest that the operator allows, for people.
    pub fn lines(&self) -> Vec<String> {
        let facts = self.wanted.facts.iter().filter(|it| self.allows_fact(&it.name)).map(FactGrant::line);
        let files = self.wanted.files.iter().filter(|it| self.allows_file(it)).map(FileGrant::line);
        let commands = self.wanted.commands.iter().filter(|it| self.allows_command(it)).map(CommandGrant::line);
        facts.chain(files).chain(commands).collect()
    }

    /// Grants that the plugin cannot do without and the operator does not allow: as a line, and as a flag.
    pub fn missing(&self) -> Vec<(String, Option<String>)> {
        let facts = self.wanted.facts.iter().filter(|it| !it.optional && !self.allows_fact(&it.name));
        let files = self.wanted.files.iter().filter(|it| !it.optional && !self.allows_file(it));
        let commands = self.wanted.commands.iter().filter(|it| !it.optional && !self.allows_command(it));
        facts
            .map(|it| (it.line(), Some(it.flag())))
            .chain(files.map(|it| (it.line(), Some(it.flag()))))
            .chain(commands.map(|it| (it.line(), it.flag())))
            .collect()
    }

    fn allows_fact(&self, name: &str) -> bool {
        self.allowed.facts.iter().any(|it| name_covers(&it.name, name))
    }

    fn allows_file(&self, wanted: &FileGrant) -> bool {
        self.allowed.files.iter().any(|it| it.access >= wanted.access && it.path.covers(&wanted.path))
    }

    fn allows_command(&self, wanted: &CommandGrant) -> bool {
        self.allowed.commands.iter().any(|it| {
            it.program == wanted.program
                && it.args.len() == wanted.args.len()
                && it.args.iter().zip(&wanted.args).all(|(own, other)| own.covers(other))
                && wanted.env.iter().all(|name| it.env.contains(name))
                && wanted.user.as_ref().is_none_or(|user| user == it.user.as_deref().unwrap_or(DEFAULT_USER))
        })
    }

    /// Decides about a fact.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn fact(&self, request: &FactRequest) -> Result<(), Box<Denial>> {
        let name = grant_name(request);
        let wanted = self.wanted.facts.iter().find(|it| name_covers(&it.name, &name));
        if wanted.is_some() && self.allows_fact(&name) {
            return Ok(());
        }
        let grant = FactGrant { name, reason: None, optional: false };
        Err(Box::new(Denial {
            what: format!("the fact `{}`", grant.name),
            line: grant.line(),
            flag: Some(grant.flag()),
            wanted: wanted.is_some(),
            optional: wanted.is_some_and(|it| it.optional),
        }))
    }

    /// Decides about a file.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn file(&self, path: &Path, access: Access) -> Result<Allowance, Box<Denial>> {
        let among = |grants: &[FileGrant]| {
            let matching = grants.iter().filter(|it| it.access >= access && it.path.matches(path));
            matching.map(|it| (it.max_bytes, it.optional)).max_by_key(|(bytes, _)| bytes.unwrap_or(FILE_BYTES))
        };
        let (wanted, allowed) = (among(&self.wanted.files), among(&self.allowed.files));
        if let (Some((wanted, _)), Some((allowed, _))) = (wanted, allowed) {
            let wanted = wanted.unwrap_or(FILE_BYTES);
            return Ok(Allowance { max_bytes: wanted.min(allowed.unwrap_or(u64::MAX)) });
        }
        let shown = path.to_string_lossy();
        let line = format!("files: [{{path: {}, access: {}}}]", serde_json::Value::from(&*shown), access.as_str());
        let grant =
            shown.parse().ok().map(|path| FileGrant { path, access, max_bytes: None, reason: None, optional: false });
        Err(Box::new(Denial {
            what: format!(
                "{} `{}`",
                if access == Access::Stat { "looking at" } else { "reading" },
                shown.escape_debug()
            ),
            line: grant.as_ref().map_or(line, FileGrant::line),
            flag: grant.as_ref().map(FileGrant::flag),
            wanted: wanted.is_some(),
            optional: wanted.is_some_and(|(_, optional)| optional),
        }))
    }

    /// Decides about a program run, and fills in its bounds.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub fn command(&self, program: &str, arguments: &[String]) -> Result<CommandRequest, Box<Denial>> {
        let fits = |it: &&CommandGrant| {
            it.program == Path::new(program)
                && it.args.len() == arguments.len()
                && it.args.iter().zip(arguments).all(|(pattern, argument)| pattern.matches(argument))
        };
        let wanted = self.wanted.commands.iter().find(fits);
        let user = |grant: &CommandGrant| grant.user.clone().unwrap_or_else(|| DEFAULT_USER.into());
        let allowed = self
            .allowed
            .commands
            .iter()
            .filter(fits)
            .find(|allowed| wanted.and_then(|it| it.user.as_ref()).is_none_or(|wanted| *wanted == user(allowed)));
        if let (Some(wanted), Some(allowed)) = (wanted, allowed) {
            return Ok(CommandRequest {
                program: PathBuf::from(program),
                arguments: arguments.to_vec(),
                environment: wanted.env.iter().filter(|name| allowed.env.contains(name)).cloned().collect(),
                user: user(allowed),
                timeout: wanted.timeout.unwrap_or(COMMAND_TIME).min(allowed.timeout.unwrap_or(Duration::MAX)),
                max_output_bytes: wanted.max_output.unwrap_or(OUTPUT_BYTES).min(allowed.max_output.unwrap_or(u64::MAX)),
            });
        }
        let literal = arguments.iter().map(|argument| super::ArgPattern::Literal(argument.clone())).collect();
        let grant = wanted.cloned().unwrap_or(CommandGrant {
            program: program.into(),
            args: literal,
            env: Vec::new(),
            timeout: None,
            max_output: None,
            user: None,
            reason: None,
            optional: false,
        });
        Err(Box::new(Denial {
            what: format!("running `{}` with these arguments", program.escape_debug()),
            line: grant.line(),
            flag: grant.flag(),
            wanted: wanted.is_some(),
            optional: grant.optional,
        }))
    }
}

/// Whether a granted name stands for an asked one.
fn name_covers(granted: &str, asked: &str) -> bool {
    match granted.strip_suffix('*') {
        Some(stem) => asked.starts_with(stem),
        None => granted == asked,
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
mod tests {
    use super::*;

    fn grants(text: &str) -> Grants {
        Grants::parse(text).unwrap()
    }

    #[test]
    fn both_sides_must_name_a_fact() {
        let effective =
            Grants::intersect(grants("facts: [swap, 'sysctl:net.*']"), grants("facts: [kernel, 'sysctl:net.ipv4.*']"));
        let sysctl = |name: &str| effective.fact(&FactRequest::Sysctl { name: name.into() });
        assert!(sysctl("net.ipv4.ip_forward").is_ok());
        assert!(sysctl("net.ipv6.x").unwrap_err().wanted);
        let denial = effective.fact(&FactRequest::Swap).unwrap_err();
        assert!(denial.wanted);
        assert_eq!(denial.message(), "the fact `swap` is not granted; the operator would have to allow facts: [swap]");
        let denial = effective.fact(&FactRequest::Kernel).unwrap_err();
        assert_eq!(
            denial.message(),
            "the fact `kernel` is not granted; the plugin's manifest would have to ask for facts: [kernel]"
        );
    }

    #[test]
    fn the_smaller_bound_of_a_file_counts_and_stat_does_not_read() {
        let effective = Grants::intersect(
            grants("files: [{path: /etc/*, max-bytes: 100}, {path: /run/x, access: stat}]"),
            grants("files: [{path: /etc/os-release, max-bytes: 50}, {path: /run/x}]"),
        );
        let read = effective.file(Path::new("/etc/os-release"), Access::Read).unwrap();
        assert_eq!(read.max_bytes, 50);
        assert!(effective.file(Path::new("/etc/hosts"), Access::Read).is_err());
        assert!(effective.file(Path::new("/run/x"), Access::Stat).is_ok());
        assert!(effective.file(Path::new("/run/x"), Access::Read).is_err());
    }

    #[test]
    fn missing_lines_are_those_a_plugin_cannot_do_without() {
        let wanted = grants(
            "facts: [swap, {name: os, optional: true}]\nfiles: [{path: /a/*}]\n\
             commands: [{program: /bin/x, args: [{match: '[0-9]'}]}]",
        );
        let flags: Vec<_> = Grants::intersect(wanted.clone(), Grants::default()).missing();
        let flags: Vec<_> = flags.into_iter().filter_map(|(_, flag)| flag).collect();
        assert_eq!(
            flags,
            ["--grant facts=swap", "--grant 'files=/a/*:read'", "--grant 'commands=/bin/x {match:[0-9]}'"]
        );
        let mut allowed = grants("facts: [swap]\nfiles: [{path: /a/*}]");
        allowed.merge(Grants::parse_flag("commands=/bin/x {match:[0-9]}").unwrap());
        assert_eq!(Grants::intersect(wanted, allowed).missing(), []);
    }

    #[test]
    fn a_command_runs_with_the_operators_user_and_the_common_environment() {
        let effective = Grants::intersect(
            grants("commands: [{program: /bin/x, args: [a], env: [LANG, HOME], timeout: 20s}]"),
            grants("commands: [{program: /bin/x, args: [a], env: [LANG], timeout: 5s, user: daemon}]"),
        );
        let request = effective.command("/bin/x", &["a".into()]).unwrap();
        assert_eq!((request.environment.as_slice(), request.user.as_str()), (&["LANG".to_owned()][..], "daemon"));
        assert_eq!(request.timeout, Duration::from_secs(5));
        assert!(effective.command("/bin/x", &["b".into()]).is_err());
        assert!(effective.command("/bin/x", &["a".into(), "b".into()]).is_err());
    }
}
