//! Rules of the repository that no compiler checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which module may import which: those of its own layer and of the layers below.
const LAYERS: &[&[&str]] = &[
    // Foundations.
    &[
        "access", "advisory", "backend", "channel", "config", "error", "kafka", "metrics", "mutation", "opaque",
        "options", "outgoing", "position", "reach", "registry", "secret", "task", "template", "time", "tls",
    ],
    // Pure core: no sockets, no files, no clock.
    &["frame", "format", "batch", "rollup", "generate"],
    // Edges: not each other either.
    &["source", "storage", "sink", "notify"],
    // Flows.
    &["ingest", "view", "delivery", "alert", "report"],
    // Engine.
    &["engine", "catalog", "database"],
    // Language.
    &["sql"],
    // Doors.
    &["server", "cli", "main", "lib"],
];

/// The layer whose modules do not import each other.
const EDGES: usize = 2;

/// What only these modules may name: crates and standard modules, as they are written in code.
const CONFINED: &[(&str, &[&str])] = &[
    ("pgwire::", &["server"]),
    ("sqlparser::", &["sql"]),
    (
        "std::fs",
        &[
            "storage", "source", "cli", "config", "secret", "catalog", "engine", "server", "sink", "sql", "notify",
            "reach", "tls",
        ],
    ),
    ("std::net", &["server", "cli", "source", "sink", "notify"]),
    ("SystemTime", &["time"]),
    ("println!", &["cli", "main"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder with this extension, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the repository has this folder") {
            let path = entry.expect("the folder is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The ready-made continuous queries; ready-made reports are in a folder below.
pub fn queries() -> Vec<PathBuf> {
    let folder = root().join("queries");
    files(&folder, "sql").into_iter().filter(|path| path.parent() == Some(&folder)).collect()
}

/// The ready-made alerts.
pub fn alerts() -> Vec<PathBuf> {
    files(&root().join("queries/alerts"), "sql")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("files of the repository are text")
}

/// A source file's place below `src/`, and its code: no comments and no tests.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let one = |path: PathBuf| {
        let name = path.strip_prefix(&src).expect("it was found there").display().to_string();
        let text = read(&path);
        let tested = text.find("#[cfg(test)]").unwrap_or(text.len());
        let code: Vec<&str> = text[..tested].lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        (name, code.join("\n"))
    };
    files(&src, "rs")
        .into_iter()
        .filter(|p| !p.iter().any(|part| part == "tests" || part == "tests.rs"))
        .map(one)
        .collect()
}

fn module(file: &str) -> &str {
    file.split(['/', '.']).next().expect("split gives at least one piece")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Modules that code names as `crate::module` or in `use crate::{module, …}`.
fn imports(code: &str) -> Vec<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => found.push(word(rest)),
            Some(list) => {
                // Names at the first level of the braces.
                let (mut depth, mut start) = (0, true);
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && c.is_alphanumeric() => {
                            found.push(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        let here = module(&file);
        let Some(own) = layer(here) else {
            wrong.push(format!("src/{file}: module {here} is in no layer; add it to the table"));
            continue;
        };
        for import in imports(&code) {
            match layer(&import) {
                // Names that lib.rs re-exports, and macros.
                None => {}
                Some(other) if other > own => {
                    wrong.push(format!("src/{file} imports {import}, which is a layer above"))
                }
                Some(other) if other == own && own == EDGES && import != here => {
                    wrong.push(format!("src/{file} imports {import}: edges do not know each other"));
                }
                Some(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_all_spellings() {
    let code = "use crate::a::B;\nuse crate::{c, d::{E, F}, g};\nfn f() { crate::h::i() }\nuse crate::{\n    j::K,\n};";
    assert_eq!(imports(code), ["a", "c", "d", "g", "h", "j"]);
}

#[test]
fn what_is_confined_stays_where_it_belongs() {
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        for (name, modules) in CONFINED {
            if modules.contains(&module(&file)) {
                continue;
            }
            for line in code.lines().filter(|line| line.contains(name) && !line.contains(&format!("e{name}"))) {
                wrong.push(format!("src/{file}: {name} belongs to {}: {}", modules.join(", "), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let mut paths = files(&root().join("src"), "rs");
    paths.extend(files(&root().join("tests"), "rs"));
    paths.extend(files(&root().join("benches"), "rs"));
    let silent: Vec<_> = paths.iter().filter(|p| !read(p).starts_with("//! ")).collect();
    assert!(silent.is_empty(), "these files do not start with what they are: {silent:#?}");
}

#[test]
fn lines_fit_and_end_cleanly() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches", "queries", "sql"] {
        for extension in ["rs", "sql"] {
            // What tools send stands as they send it.
            let recorded = root().join("tests/introspection");
            for path in files(&root().join(folder), extension).into_iter().filter(|path| !path.starts_with(&recorded)) {
                for (i, line) in read(&path).lines().enumerate() {
                    let long = line.chars().count() > 120 && extension == "sql";
                    if long || line.ends_with([' ', '\t']) || line.contains('\t') {
                        wrong.push(format!("{}:{}", path.display(), i + 1));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "too long, or with tabs or blanks at the end:\n{}", wrong.join("\n"));
}

#[test]
fn every_query_says_what_it_answers_and_is_listed() {
    let list = read(&root().join("src/cli/queries.rs"));
    for path in queries() {
        let text = read(&path);
        let name = path.file_stem().and_then(|n| n.to_str()).expect("names are ASCII");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("-- ") && first.contains('?'), "{name} does not start with its question");
        assert!(text.contains(&format!("CREATE MATERIALIZED VIEW {name} AS\n")), "{name} does not create {name}");
        assert!(
            list.contains(&format!("(\"{name}\", include_str!(\"../../queries/{name}.sql\"))")),
            "src/cli/queries.rs: {name}"
        );
    }
    assert_eq!(list.matches("include_str!").count(), queries().len());
}

#[test]
fn every_ready_made_alert_says_what_it_answers() {
    for path in alerts() {
        let text = read(&path);
        let name = path.file_stem().and_then(|n| n.to_str()).expect("names are ASCII");
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("-- ") && first.contains('?'), "{name} does not start with its question");
        assert!(text.contains(&format!("CREATE ALERT {name} ON ")), "{name} does not create {name}");
    }
}

/// Two versions of one of these would be two different types of the same name.
#[test]
fn the_core_crates_have_one_version() {
    let lock = read(&root().join("Cargo.lock"));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("name = ") {
            let version = lines.next().and_then(|l| l.strip_prefix("version = ")).expect("a version follows a name");
            versions.entry(name.trim_matches('"')).or_default().push(version.trim_matches('"'));
        }
    }
    let one = |name: &str| {
        let name_of = ["arrow", "datafusion", "sqlparser", "pgwire", "parquet", "object_store", "tokio"];
        name_of.contains(&name) || name.starts_with("arrow-") || name.starts_with("datafusion-")
    };
    let several: Vec<_> = versions.iter().filter(|(name, all)| one(name) && all.len() > 1).collect();
    assert!(several.is_empty(), "{several:?}");
}

/// Else `cargo run` and `cargo test` would each compile DataFusion, which takes most of an hour together.
#[test]
fn test_dependencies_change_no_feature() {
    let tree = |edges: &str| -> Vec<String> {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}", "--edges", edges])
            .current_dir(root())
            .output()
            .expect("cargo runs the tests");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("cargo writes text");
        let mut lines: Vec<String> = text.lines().map(|l| l.trim_end_matches(" (*)").to_string()).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let with = tree("normal,build,dev");
    // This package itself is meant to differ: tests have its feature `mutations`.
    let own = concat!(env!("CARGO_PKG_NAME"), " v");
    let without = tree("normal,build").into_iter().filter(|line| !line.starts_with(own));
    let changed: Vec<_> = without.filter(|line| !with.contains(line)).collect();
    assert!(changed.is_empty(), "name these in [dependencies] with the features that the tests add: {changed:#?}");
}
