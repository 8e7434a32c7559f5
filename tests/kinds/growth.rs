//! A released package only ever grows the allowed way.
//!
//! Its text, as released, stands below `tests/fixtures/wit/<package>/<version>/`. The package in `wit/` may say things
//! anew in its comments; beyond that it may add interfaces, worlds, and functions and types of interfaces that plugins
//! import, under a higher version. All else would break a plugin that somebody has: value types are compared for equality,
//! and WIT knows no optional exports.

use std::collections::{BTreeMap, BTreeSet};

use wit_parser::{
    Function, FunctionKind, Handle, InterfaceId, PackageId, Resolve, Stability, Type, TypeDefKind, TypeId, World,
    WorldItem, WorldKey,
};

use crate::plugin::top;

/// One package, by what a component can see of it.
pub(crate) struct Package {
    version: semver::Version,
    /// Interfaces that a world of the package exports.
    exported: BTreeSet<String>,
    /// By a path that no two share.
    items: BTreeMap<String, Item>,
}

struct Item {
    /// None: of the package itself.
    interface: Option<String>,
    shape: String,
    since: Option<semver::Version>,
    documented: bool,
}

impl Package {
    pub(crate) fn of(resolve: &Resolve, id: PackageId) -> Self {
        let package = &resolve.packages[id];
        let version = package.name.version.clone().expect("packages have versions");
        let (mut exported, mut items) = (BTreeSet::new(), BTreeMap::new());
        for (name, id) in &package.interfaces {
            let interface = &resolve.interfaces[*id];
            let item = |shape: String, stability: &Stability, documented| Item {
                interface: Some(name.clone()),
                shape,
                since: since(stability),
                documented,
            };
            let documented = interface.docs.contents.is_some();
            let whole = Item { interface: None, ..item("interface".into(), &interface.stability, documented) };
            items.insert(format!("interface {name}"), whole);
            for (function_name, function) in &interface.functions {
                let documented = function.docs.contents.is_some();
                let item = item(function_shape(resolve, function), &function.stability, documented);
                items.insert(format!("function {name}.{function_name}"), item);
            }
            for (type_name, id) in &interface.types {
                let ty = &resolve.types[*id];
                let used = matches!(ty.kind, TypeDefKind::Type(Type::Id(_)));
                let mut item = item(definition(resolve, *id), &ty.stability, ty.docs.contents.is_some() || used);
                if used {
                    // `use` has no gate of its own.
                    item.since = since(&interface.stability);
                }
                items.insert(format!("type {name}.{type_name}"), item);
            }
        }
        for (name, id) in &package.worlds {
            let world = &resolve.worlds[*id];
            let item = |shape: String| {
                let documented = world.docs.contents.is_some();
                Item { interface: None, shape, since: since(&world.stability), documented }
            };
            exported.extend(own_exports(resolve, world, package));
            items
                .insert(format!("world {name}"), item(format!("exports {}", keys(resolve, &world.exports).join(", "))));
            for import in keys(resolve, &world.imports) {
                items.insert(format!("import {import} of world {name}"), item("import".into()));
            }
        }
        Self { version, exported, items }
    }

    /// What a plugin written against `released` may stumble over in this later text; empty: nothing.
    pub(crate) fn problems_since(&self, released: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        for (path, old) in &released.items {
            match self.items.get(path) {
                None => problems.push(format!("{path} was removed")),
                Some(new) if new.shape != old.shape => {
                    problems.push(format!("{path} was changed: from `{}` to `{}`", old.shape, new.shape));
                }
                Some(new) if new.since != old.since => problems.push(format!("{path} has another `@since`")),
                Some(_) => {}
            }
        }
        for (path, new) in &self.items {
            if released.items.contains_key(path) {
                continue;
            }
            let exported =
                |interface: &String| self.exported.contains(interface) || released.exported.contains(interface);
            let old_interface = |interface: &&String| released.items.contains_key(&format!("interface {interface}"));
            let world_import = path.starts_with("import ");
            if let Some(interface) = new.interface.as_ref().filter(old_interface)
                && exported(interface)
            {
                problems.push(format!("{path} was added to an interface that plugins export"));
            } else if self.version <= released.version {
                problems.push(format!("{path} was added without a new version"));
            } else if !world_import && new.since.as_ref().is_none_or(|since| *since <= released.version) {
                problems.push(format!("{path} was added without `@since` of a version after {}", released.version));
            }
        }
        problems
    }
}

/// Names of the package's own interfaces among a world's exports.
fn own_exports(resolve: &Resolve, world: &World, package: &wit_parser::Package) -> BTreeSet<String> {
    let own = |id: &InterfaceId| package.interfaces.values().any(|own| own == id);
    let interfaces = world.exports.values().filter_map(|item| match item {
        WorldItem::Interface { id, .. } if own(id) => resolve.interfaces[*id].name.clone(),
        _ => None,
    });
    interfaces.collect()
}

fn since(stability: &Stability) -> Option<semver::Version> {
    match stability {
        Stability::Stable { since, .. } => Some(since.clone()),
        Stability::Unknown | Stability::Unstable { .. } => None,
    }
}

/// Names of what a world imports or exports, without versions, sorted.
fn keys<'a>(resolve: &Resolve, items: impl IntoIterator<Item = (&'a WorldKey, &'a WorldItem)>) -> Vec<String> {
    let name = |(key, item): (&WorldKey, &WorldItem)| match (key, item) {
        (WorldKey::Interface(id), _) => interface_name(resolve, *id),
        (WorldKey::Name(name), WorldItem::Function(function)) => {
            format!("{name}: {}", function_shape(resolve, function))
        }
        (WorldKey::Name(name), _) => name.clone(),
    };
    let mut names: Vec<String> = items.into_iter().map(name).collect();
    names.sort();
    names
}

fn interface_name(resolve: &Resolve, id: InterfaceId) -> String {
    let interface = &resolve.interfaces[id];
    let package = interface.package.map(|id| &resolve.packages[id].name);
    let package = package.map(|name| format!("{}:{}/", name.namespace, name.name)).unwrap_or_default();
    format!("{package}{}", interface.name.as_deref().unwrap_or("-"))
}

fn function_shape(resolve: &Resolve, function: &Function) -> String {
    let is_async = !matches!(function.kind, FunctionKind::Freestanding);
    let kind = if is_async { format!("{:?} ", function.kind) } else { String::new() };
    let parameters: Vec<String> =
        function.params.iter().map(|it| format!("{}: {}", it.name, reference(resolve, &it.ty))).collect();
    let result = function.result.as_ref().map(|ty| format!(" -> {}", reference(resolve, ty))).unwrap_or_default();
    format!("{kind}func({}){result}", parameters.join(", "))
}

/// A type where it is used: by its name, if it has one.
fn reference(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => match (&resolve.types[*id].name, &resolve.types[*id].kind) {
            // Followed to where the type is defined.
            (_, TypeDefKind::Type(aliased)) => reference(resolve, aliased),
            (Some(name), _) => match resolve.types[*id].owner {
                wit_parser::TypeOwner::Interface(owner) => format!("{}.{name}", interface_name(resolve, owner)),
                _ => name.clone(),
            },
            (None, _) => definition(resolve, *id),
        },
        plain => format!("{plain:?}").to_lowercase(),
    }
}

/// What a type is.
fn definition(resolve: &Resolve, id: TypeId) -> String {
    let of = |ty: &Type| reference(resolve, ty);
    let maybe = |ty: &Option<Type>| ty.as_ref().map_or("_".into(), of);
    let join = |parts: Vec<String>| parts.join(", ");
    match &resolve.types[id].kind {
        TypeDefKind::Record(it) => {
            format!(
                "record {{ {} }}",
                join(it.fields.iter().map(|it| format!("{}: {}", it.name, of(&it.ty))).collect())
            )
        }
        TypeDefKind::Variant(it) => {
            format!(
                "variant {{ {} }}",
                join(it.cases.iter().map(|it| format!("{}({})", it.name, maybe(&it.ty))).collect())
            )
        }
        TypeDefKind::Enum(it) => format!("enum {{ {} }}", join(it.cases.iter().map(|it| it.name.clone()).collect())),
        TypeDefKind::Flags(it) => format!("flags {{ {} }}", join(it.flags.iter().map(|it| it.name.clone()).collect())),
        TypeDefKind::Tuple(it) => format!("tuple<{}>", join(it.types.iter().map(of).collect())),
        TypeDefKind::Option(it) => format!("option<{}>", of(it)),
        TypeDefKind::Result(it) => format!("result<{}, {}>", maybe(&it.ok), maybe(&it.err)),
        TypeDefKind::List(it) => format!("list<{}>", of(it)),
        TypeDefKind::Type(it) => format!("type {}", of(it)),
        TypeDefKind::Resource => "resource".into(),
        TypeDefKind::Handle(Handle::Own(it)) => format!("own<{}>", of(&Type::Id(*it))),
        TypeDefKind::Handle(Handle::Borrow(it)) => format!("borrow<{}>", of(&Type::Id(*it))),
        other => panic!("`{}` is in no interface of ours", other.as_str()),
    }
}

/// The packages of `wit/`, by name.
fn current() -> BTreeMap<String, Package> {
    let mut resolve = Resolve::default();
    resolve.push_dir(top().join("wit/runner")).unwrap();
    let packages = resolve.packages.iter().filter(|(_, package)| package.name.name != "runner");
    packages.map(|(id, package)| (package.name.name.clone(), Package::of(&resolve, id))).collect()
}

/// The released texts, in order of their versions.
fn released(package: &str) -> Vec<Package> {
    let directory = |package: &str| top().join("tests/fixtures/wit").join(package);
    let versions = |package: &str| {
        let entries = std::fs::read_dir(directory(package)).into_iter().flatten();
        let mut versions: Vec<semver::Version> =
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        versions.sort();
        versions
    };
    let mut resolve = Resolve::default();
    let mut packages: Vec<Package> = Vec::new();
    // What the others use comes first.
    let names = if package == "host" { vec![package] } else { vec!["host", package] };
    for name in names {
        for version in versions(name) {
            let (id, _) = resolve.push_dir(directory(name).join(version.to_string())).unwrap();
            if name == package {
                packages.push(Package::of(&resolve, id));
            }
        }
    }
    packages
}

/// Whether a plugin written against one may be linked to the other.
fn same_line(a: &semver::Version, b: &semver::Version) -> bool {
    (a.major, if a.major == 0 { a.minor } else { 0 }) == (b.major, if b.major == 0 { b.minor } else { 0 })
}

#[test]
fn released_packages_only_grow_the_allowed_way() {
    let mut problems = Vec::new();
    for (name, package) in current() {
        let released = released(&name);
        assert!(!released.is_empty(), "there is no released text of `{name}`: see CONTRIBUTING.md, Interfaces");
        for old in released.iter().filter(|old| same_line(&old.version, &package.version)) {
            let found = package.problems_since(old);
            problems.extend(found.into_iter().map(|it| format!("mortise:{name} since {}: {it}", old.version)));
        }
    }
    assert!(problems.is_empty(), "\n{}\nsee CONTRIBUTING.md, Interfaces", problems.join("\n"));
}

#[test]
fn every_item_says_what_it_means_and_since_when() {
    for (name, package) in current() {
        for (path, item) in &package.items {
            assert!(item.documented, "mortise:{name}: {path} has no comment");
            assert!(item.since.is_some(), "mortise:{name}: {path} has no `@since`");
        }
    }
}
