//! Good and bad changes to a small package: proof that the growth check knows them apart.

use wit_parser::Resolve;

use crate::growth::Package;

const RELEASED: &str = r#"
package a:b@0.1.0;

/// Imported.
@since(version = 0.1.0)
interface facts {
    /// .
    @since(version = 0.1.0)
    record kernel { name: string, release: option<string> }
    /// .
    @since(version = 0.1.0)
    enum level { low, high }
    /// .
    @since(version = 0.1.0)
    kernel-of: func(name: string) -> result<kernel, string>;
    /// .
    @since(version = 0.1.0)
    level-of: func() -> level;
}

/// Exported.
@since(version = 0.1.0)
interface check {
    use facts.{kernel};
    /// .
    @since(version = 0.1.0)
    variant verdict { good, bad(string) }
    /// .
    @since(version = 0.1.0)
    run: func(kernel: kernel) -> verdict;
}

/// A plugin.
@since(version = 0.1.0)
world plugin {
    import facts;
    export check;
}
"#;

/// A text of the released package and what it becomes.
type Replacement<'a> = (&'a str, &'a str);

fn package(text: &str) -> Package {
    let mut resolve = Resolve::default();
    let id = resolve.push_source("table.wit", text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
    Package::of(&resolve, id)
}

/// The released text with replacements, under another version.
fn changed(version: &str, replacements: &[Replacement<'_>]) -> Package {
    let mut text = RELEASED.replacen("a:b@0.1.0", &format!("a:b@{version}"), 1);
    for (from, to) in replacements {
        assert_eq!(text.matches(from).count(), 1, "`{from}`");
        text = text.replacen(from, to, 1);
    }
    package(&text)
}

const LEVEL: &str = "level-of: func() -> level;";
const LEVEL_WHOLE: &str = "/// .\n    @since(version = 0.1.0)\n    level-of: func() -> level;";
const RUN: &str = "run: func(kernel: kernel) -> verdict;";

#[test]
fn allowed_growth_passes() {
    let function = "level-of: func() -> level;\n/// .\n@since(version = 0.1.1)\nswap: func() -> list<string>;";
    let with_type = "level-of: func() -> level;\n/// .\n@since(version = 0.1.1)\nrecord extent { a: u32 }\n\
                     /// .\n@since(version = 0.1.1)\nmore: func() -> extent;";
    let interface = "/// A plugin.\n@since(version = 0.1.0)\nworld";
    let second = "/// Second.\n@since(version = 0.1.1)\ninterface check-more {\n/// .\n@since(version = 0.1.1)\n\
                  again: func();\n}\n/// A plugin.\n@since(version = 0.1.0)\nworld";
    let imported = "/// More.\n@since(version = 0.1.1)\ninterface more {\n/// .\n@since(version = 0.1.1)\n\
                    again: func();\n}\n/// A plugin.\n@since(version = 0.1.0)\nworld";
    let cases: &[(&str, &str, &[Replacement<'_>])] = &[
        ("nothing", "0.1.0", &[]),
        ("a higher version", "0.1.1", &[]),
        ("a comment", "0.1.0", &[("/// Imported.", "/// What the host knows.")]),
        ("a function of an imported interface", "0.1.1", &[(LEVEL, function)]),
        ("a type for it", "0.1.1", &[(LEVEL, with_type)]),
        ("an interface", "0.1.1", &[(interface, second)]),
        (
            "an interface that plugins import",
            "0.1.1",
            &[(interface, imported), ("import facts;", "import facts;\nimport more;")],
        ),
    ];
    for (what, version, replacements) in cases {
        let problems = changed(version, replacements).problems_since(&package(RELEASED));
        assert!(problems.is_empty(), "{what}: {problems:?}");
    }
}

#[test]
fn what_breaks_a_plugin_is_refused_in_its_own_words() {
    let added = |name: &str, since: &str| format!("{name}\n/// .\n@since(version = {since})\nmore: func();");
    let (level_new, level_old, run_new) = (added(LEVEL, "0.1.1"), added(LEVEL, "0.1.0"), added(RUN, "0.1.1"));
    let no_since = format!("{LEVEL}\n/// .\nmore: func();");
    let type_new = format!("{RUN}\n/// .\n@since(version = 0.1.1)\nrecord more {{ a: u32 }}");
    let cases: &[(&str, &[Replacement<'_>], &str)] = &[
        (
            "0.1.1",
            &[("name: string, release", "name: string, machine: string, release")],
            "type facts.kernel was changed",
        ),
        ("0.1.1", &[(", release: option<string>", "")], "type facts.kernel was changed"),
        (
            "0.1.1",
            &[("name: string, release: option<string>", "release: option<string>, name: string")],
            "type facts.kernel was changed",
        ),
        ("0.1.1", &[("release: option<string>", "release: string")], "type facts.kernel was changed"),
        ("0.1.1", &[("enum level { low, high }", "enum level { low, high, higher }")], "type facts.level was changed"),
        ("0.1.1", &[("bad(string) }", "bad(string), unsure }")], "type check.verdict was changed"),
        ("0.1.1", &[("(name: string)", "(name: string, deep: bool)")], "function facts.kernel-of was changed"),
        ("0.1.1", &[("(name: string)", "(path: string)")], "function facts.kernel-of was changed"),
        ("0.1.1", &[("result<kernel, string>", "result<kernel>")], "function facts.kernel-of was changed"),
        ("0.1.1", &[(LEVEL, "level-of: async func() -> level;")], "function facts.level-of was changed"),
        ("0.1.1", &[(LEVEL_WHOLE, "")], "function facts.level-of was removed"),
        ("0.1.1", &[(RUN, &run_new)], "function check.more was added to an interface that plugins export"),
        ("0.1.1", &[(RUN, &type_new)], "type check.more was added to an interface that plugins export"),
        ("0.1.0", &[(LEVEL, &level_old)], "function facts.more was added without a new version"),
        ("0.1.1", &[(LEVEL, &level_old)], "function facts.more was added without `@since` of a version after 0.1.0"),
        ("0.1.1", &[(LEVEL, &no_since)], "function facts.more was added without `@since`"),
        ("0.1.1", &[("import facts;\n", "")], ""),
        ("0.1.1", &[("export check;", "export check;\nexport facts;")], "world plugin was changed"),
        ("0.1.1", &[("export check;", "")], "world plugin was changed"),
        (
            "0.1.1",
            &[("interface check {", "interface checks {"), ("export check;", "export checks;")],
            "interface check was removed",
        ),
        (
            "0.1.1",
            &[("export check;", "export check;\nexport facts;"), (LEVEL, &level_new)],
            "function facts.more was added to an interface that plugins export",
        ),
    ];
    for (version, replacements, words) in cases {
        let problems = changed(version, replacements).problems_since(&package(RELEASED));
        // An export that uses a type imports its interface anyway: leaving the line out changes nothing.
        assert_eq!(problems.is_empty(), words.is_empty(), "{replacements:?}: {problems:?}");
        assert!(words.is_empty() || problems.iter().any(|it| it.contains(words)), "{words}: {problems:?}");
    }
}
