//! The rules of the house that no compiler checks: which room may use which, module docs, and the size of files.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room and the rooms of ours that it may use; the order of `docs/architecture.md`.
const ROOMS: &[(&str, &[&str])] = &[
    ("cli", &["agent", "config", "server", "telemetry"]),
    ("server", &["*"]),
    ("agent", &["*"]),
    ("fuzzing", &["*"]),
    ("config", &[]),
    ("apiserver", &["api", "cache", "pki", "registry", "telemetry"]),
    ("registry", &["api", "cache", "store", "telemetry"]),
    ("cache", &["api", "store", "telemetry"]),
    ("store", &["api", "telemetry"]),
    ("scheduler", &["api", "client", "telemetry"]),
    ("controllers", &["api", "client", "telemetry"]),
    ("kubelet", &["api", "client", "cni", "cri", "host", "pki", "plugins", "telemetry"]),
    ("proxy", &["api", "client", "host", "telemetry"]),
    ("network", &["api", "client", "host", "telemetry"]),
    ("dns", &["api", "client", "host", "telemetry"]),
    ("plugins", &["telemetry"]),
    ("cri", &["host", "telemetry"]),
    ("cni", &["host", "telemetry"]),
    ("client", &["api", "pki", "telemetry"]),
    ("host", &["telemetry"]),
    ("api", &[]),
    ("pki", &["telemetry"]),
    ("telemetry", &[]),
];

/// Lines of a source file that are not its tests.
const LONGEST_FILE: usize = 800;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root().join("src")).unwrap().display().to_string()
}

/// The room that a file lies in: the first folder below `src`, or the file's own name there.
fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/") || file.ends_with("_tests.rs")
}

/// What a file holds before its inline tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap()
}

/// The names that follow `crate::` in a source text, outside its inline tests and comments.
fn names_used(text: &str) -> Vec<String> {
    let lines = without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let names = |part: &str| match part.strip_prefix('{') {
        Some(group) => top_level_names(group),
        None => vec![leading_name(part)],
    };
    code.split("crate::").skip(1).flat_map(names).collect()
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

/// The first names of a group such as `a, b::{c, d}, e}`, at the top level of its braces.
fn top_level_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                names.push(leading_name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn arrows_between_rooms_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    for path in sources(&root().join("src")) {
        let file = relative(&path);
        if is_test(&file) || matches!(file.as_str(), "main.rs" | "lib.rs") {
            continue;
        }
        let from = room(&file);
        let may = allowed.get(from).unwrap_or_else(|| panic!("{file} is in no known room"));
        for to in names_used(&fs::read_to_string(&path).unwrap()) {
            let known = allowed.contains_key(to.as_str());
            if known && to != from && !may.contains(&"*") && !may.contains(&to.as_str()) {
                wrong.push(format!("{file} uses {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::{api::{error, field}, store};\nuse crate::cache::Cache;\nlet x = crate::pki::new();\n// crate::cli\n";
    assert_eq!(names_used(text), ["api", "store", "cache", "pki"]);
    assert!(names_used("#[cfg(test)]\nmod tests {\nuse crate::server;\n}").is_empty());
}

#[test]
fn every_file_says_what_it_owns() {
    let silent: Vec<_> = sources(&root().join("src"))
        .iter()
        .chain(&sources(&root().join("tests")))
        .filter(|path| !fs::read_to_string(path).unwrap().starts_with("//!"))
        .map(|path| path.display().to_string())
        .collect();
    assert!(silent.is_empty(), "files without a module doc:\n{}", silent.join("\n"));
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for path in sources(&root().join("src")) {
        let file = relative(&path);
        let lines = without_tests(&fs::read_to_string(&path).unwrap()).lines().count();
        if !is_test(&file) && lines > LONGEST_FILE {
            long.push(format!("{file}: {lines} lines"));
        }
    }
    assert!(long.is_empty(), "files over {LONGEST_FILE} lines:\n{}", long.join("\n"));
}

#[test]
fn there_is_no_mod_rs() {
    let found: Vec<_> =
        sources(&root().join("src")).into_iter().filter(|path| path.ends_with("mod.rs")).collect();
    assert!(found.is_empty(), "name the file after its module: {found:?}");
}

/// How many behaviours upstream v1.36 counts as conformance.
const BEHAVIOURS: usize = 446;

/// `tests/conformance/` names, for each behaviour of upstream's conformance suite, the tests here that stand for it
/// (`path::name`, several with a comma between them; `-` where there is none yet).
#[test]
fn every_conformance_behaviour_is_listed_and_its_tests_exist() {
    let mut behaviours = BTreeSet::new();
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    for list in fs::read_dir(root().join("tests/conformance")).unwrap() {
        let list = list.unwrap().path();
        let sig = list.file_stem().unwrap().to_str().unwrap().to_owned();
        for line in fs::read_to_string(&list).unwrap().lines() {
            let (behaviour, tests) = line.split_once('\t').unwrap();
            behaviours.insert((sig.clone(), behaviour.to_owned()));
            for test in tests.split(", ").filter(|test| *test != "-") {
                let (path, name) = test.split_once("::").unwrap();
                let source = files
                    .entry(path.to_owned())
                    .or_insert_with(|| fs::read_to_string(root().join(path)).unwrap_or_default());
                if !source.contains(&format!("fn {name}(")) {
                    missing.push(format!("{sig}: {behaviour}: {test}"));
                }
            }
        }
    }
    assert_eq!(behaviours.len(), BEHAVIOURS);
    assert!(missing.is_empty(), "tests that are not there: {missing:#?}");
}
