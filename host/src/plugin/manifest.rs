//! What a component says of itself without being run: its manifest, its exports and its imports.

use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};

use super::error::Unfit;
use super::grants::Grants;
use super::kind::Kind;
use super::limits::{GUEST_TIME, GUEST_TIME_MAX, MEMORY_BYTES, MEMORY_BYTES_MAX};

mod settings;

pub(super) use settings::Schema;

/// Custom section that holds the manifest, in the component or in a module inside it.
pub(super) const SECTION: &str = "mortise:manifest";
/// Why a component with two of them is refused.
pub(super) const SEVERAL: &str = "there are several";
/// Value of `schema`.
const SCHEMA: &str = "mortise.dev/plugin/v1alpha1";
/// Largest manifest.
const MANIFEST_BYTES: usize = 256 << 10;
/// Interfaces this host answers, each in the version and those that are compatible with it.
const IMPORTS: [(&str, &str); 7] = [
    ("mortise:host/", "0.1"),
    ("wasi:io/", "0.2"),
    ("wasi:cli/", "0.2"),
    ("wasi:clocks/", "0.2"),
    ("wasi:random/", "0.2"),
    ("wasi:filesystem/", "0.2"),
    ("wasi:sockets/", "0.2"),
];

/// `plugin.yaml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Manifest {
    /// Checked with [`Head`].
    #[serde(rename = "schema")]
    _schema: String,
    #[serde(default)]
    pub(super) min_host: Option<String>,
    pub(super) id: String,
    pub(super) version: String,
    kind: String,
    #[serde(default)]
    pub(super) title: Option<String>,
    #[serde(default)]
    pub(super) licence: Option<String>,
    #[serde(default)]
    pub(super) grants: Grants,
    /// JSON Schema of the settings; kept as it is.
    #[serde(default)]
    pub(super) settings: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) limits: Limits,
}

/// What of a manifest must be understood before the rest can be: a newer one may have keys that this host does not know.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema: Option<String>,
    min_host: Option<String>,
}

/// `limits` of a manifest.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Limits {
    #[serde(default)]
    memory: Option<super::grants::Size>,
    #[serde(default)]
    time: Option<String>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Inspected {
    /// None: the component has no manifest, and so gets no grants.
    pub(super) manifest: Option<Manifest>,
    /// What it exports, in the order of [`Kind::ALL`]; at least one.
    pub(super) kinds: Vec<Kind>,
    /// Of each linear memory.
    pub(super) memory_bytes: u64,
    /// Computing, per call.
    pub(super) guest_time: std::time::Duration,
}

/// Reads a component and checks that it is a plugin this host can run.
pub(super) fn inspect(component: &[u8]) -> Result<Inspected, Unfit> {
    let found = scan(component)?;
    let manifest = match found.manifests.as_slice() {
        [] => None,
        [one] => Some(parse(one)?),
        _ => return Err(Unfit::Manifest(SEVERAL.into())),
    };
    let kinds = kinds(&found.exports)?;
    if let Some(manifest) = &manifest
        && !kinds.iter().any(|kind| kind.name() == manifest.kind)
    {
        let kinds = kinds.iter().map(|kind| format!("`{kind}`")).collect::<Vec<_>>().join(" and ");
        return Err(Unfit::Manifest(format!(
            "its kind is `{}`, but by its exports the plugin is of kind {kinds}",
            manifest.kind.escape_debug()
        )));
    }
    let vouches = manifest.as_ref().is_some_and(|manifest| manifest.grants.trust_root.is_some());
    if vouches && !kinds.contains(&Kind::Discovery) {
        return Err(Unfit::Manifest("`trust-root` is for discovery plugins only".into()));
    }
    for import in &found.imports {
        verify_import(import)?;
    }
    let limits = manifest.as_ref().map(|manifest| manifest.limits.clone()).unwrap_or_default();
    let wrong = |error: super::grants::GrantError| Unfit::Manifest(format!("`limits`: {error}"));
    let memory = super::grants::size("memory", limits.memory, MEMORY_BYTES_MAX).map_err(wrong)?;
    let time = limits.time.as_deref().map(super::grants::parse_duration).transpose().map_err(wrong)?;
    if time.is_some_and(|time| time.is_zero() || time > GUEST_TIME_MAX) {
        return Err(Unfit::Manifest(format!(
            "`limits`: `time` must be above 0 and at most {} s",
            GUEST_TIME_MAX.as_secs()
        )));
    }
    let (memory_bytes, guest_time) = (memory.unwrap_or(MEMORY_BYTES), time.unwrap_or(GUEST_TIME));
    Ok(Inspected { manifest, kinds, memory_bytes, guest_time })
}

/// Names of what a component imports and exports, as a registry shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interfaces {
    /// With their versions.
    pub exports: Vec<String>,
    /// With their versions.
    pub imports: Vec<String>,
}

/// Reads the names without judging them.
///
/// # Errors
///
/// [`Unfit`] for what is no component.
pub fn interfaces(component: &[u8]) -> Result<Interfaces, Unfit> {
    let found = scan(component)?;
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Ok(Interfaces { exports: own(&found.exports), imports: own(&found.imports) })
}

#[derive(Default)]
struct Found<'a> {
    manifests: Vec<&'a [u8]>,
    exports: Vec<&'a str>,
    imports: Vec<&'a str>,
}

fn scan(component: &[u8]) -> Result<Found<'_>, Unfit> {
    let mut found = Found::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        let broken = |error: wasmparser::BinaryReaderError| Unfit::Malformed(error.to_string());
        match payload.map_err(|error| if depth == 0 { not_wasm(component, &error) } else { broken(error) })? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(Unfit::CoreModule),
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if section.name() == SECTION => found.manifests.push(section.data()),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    found.imports.push(import.map_err(broken)?.name.name);
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    found.exports.push(export.map_err(broken)?.name.name);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Says what a file is whose beginning is not that of a WebAssembly binary.
fn not_wasm(content: &[u8], error: &wasmparser::BinaryReaderError) -> Unfit {
    let kind = match content {
        [] => "an empty file",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file; native code is never taken from a file",
        [0, b'a', b's', b'm', ..] => return Unfit::Malformed(error.to_string()),
        _ if content.starts_with(b"(component") || content.starts_with(b"(module") => "WebAssembly text",
        _ => "something else",
    };
    Unfit::NotWasm(kind)
}

fn parse(section: &[u8]) -> Result<Manifest, Unfit> {
    if section.len() > MANIFEST_BYTES {
        return Err(Unfit::Manifest(format!("{} bytes; {MANIFEST_BYTES} are allowed", section.len())));
    }
    let text = std::str::from_utf8(section).map_err(|_| Unfit::Manifest("it is not UTF-8".into()))?;
    // Where not even the head can be read, the whole says why.
    if let Ok(head) = serde_saphyr::from_str::<Head>(text) {
        verify_head(&head)?;
    }
    let manifest: Manifest = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { with_snippet: false })
        .map_err(|error| Unfit::Manifest(error.to_string().trim_end().to_owned()))?;
    let name = |text: &str| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
    };
    if !name(&manifest.id) || !name(&manifest.version) {
        return Err(Unfit::Manifest("`id` and `version` are 1 to 128 characters of `[A-Za-z0-9._+-]`".into()));
    }
    if !Kind::ALL.iter().any(|kind| kind.name() == manifest.kind) {
        return Err(Unfit::Manifest(format!(
            "its kind is `{}`, not `preflight`, `discovery` or `approval`",
            manifest.kind.escape_debug()
        )));
    }
    let unexplained = |it: &super::grants::Grant<'_>| it.reason().is_none_or(|reason| reason.trim().is_empty());
    if let Some(grant) = manifest.grants.iter().find(unexplained) {
        return Err(Unfit::Manifest(format!("it does not give the `reason` why it asks for {}", grant.line())));
    }
    if let Some(schema) = &manifest.settings {
        Schema::parse(schema).map_err(Unfit::Manifest)?;
    }
    Ok(manifest)
}

fn verify_head(head: &Head) -> Result<(), Unfit> {
    if let Some(schema) = head.schema.as_deref().filter(|schema| *schema != SCHEMA) {
        return Err(Unfit::Manifest(format!("its schema is `{}`; this host reads `{SCHEMA}`", shown(schema))));
    }
    let own = env!("CARGO_PKG_VERSION");
    match head.min_host.as_deref().map(|wanted| (wanted, numbers(wanted))) {
        Some((wanted, None)) => {
            Err(Unfit::Manifest(format!("`minHost` is `{}`, no version such as `0.1.0`", shown(wanted))))
        }
        Some((wanted, wanted_numbers)) if wanted_numbers > numbers(own) => {
            Err(Unfit::MinHost { wanted: shown(wanted), own })
        }
        _ => Ok(()),
    }
}

/// Major, minor and patch.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}

/// The kinds that a component's exports make it. A known interface in an unknown version is an error, so that half a
/// plugin is never taken for a whole one.
fn kinds(exports: &[&str]) -> Result<Vec<Kind>, Unfit> {
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        let expected = kind.interface();
        let same = |export: &&&str| export.split('@').next() == expected.split('@').next();
        match exports.iter().find(same) {
            Some(export) if compatible(export, "0.1") => kinds.push(kind),
            Some(export) => return Err(Unfit::ExportVersion { found: shown(export), expected }),
            None => {}
        }
    }
    if kinds.is_empty() {
        let found = exports.iter().map(|export| format!("`{}`", shown(export))).collect::<Vec<_>>();
        let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
        return Err(Unfit::World { found });
    }
    Ok(kinds)
}

fn verify_import(import: &str) -> Result<(), Unfit> {
    let known = IMPORTS.iter().find(|(package, _)| import.starts_with(package));
    match known {
        Some((_, version)) if compatible(import, version) => Ok(()),
        Some((package, version)) => {
            Err(Unfit::ImportVersion { found: shown(import), expected: format!("{package}*@{version}") })
        }
        None => Err(Unfit::Import { found: shown(import) }),
    }
}

/// Whether a name ends in a version of this line: `0.1` or `0.1.7` for `0.1`.
fn compatible(name: &str, line: &str) -> bool {
    let version = name.split_once('@').map_or("", |(_, version)| version);
    version.strip_prefix(line).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A name out of a component, safe and short.
fn shown(name: &str) -> String {
    name.escape_debug().take(200).collect()
}
