//! The module structure: which folders may import which, and no cycles between files.
//!
//! The rules are those of `docs/architecture.md`, "Modules". Test code is exempt.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The layers of `dispatcher/src`, lowest first. A module imports its own layer and lower ones.
const LAYERS: [&[&str]; 8] = [
    &["clock", "cli", "retry", "supervisor", "templates", "concurrency", "shares", "leadership", "telemetry"],
    &["nats", "kube"],
    &["leader", "cancellation"],
    &["status"],
    &["intake", "watch"],
    &["micro", "admin", "console"],
    &["app", "check", "doctor"],
    &["dev", "lib", "main"],
];

/// Libraries that would bring I/O, a clock or a runtime into the rules.
const FORBIDDEN_IN_CORE: [&str; 6] = ["async-nats", "axum", "hyper", "kube", "kube-client", "tokio"];

type Graph = BTreeMap<String, BTreeSet<String>>;

fn source(krate: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(krate).join("src")
}

/// Every source file by its module path (`a::b`), without tests.
fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(root).unwrap().with_extension("");
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
                let test = |part: &str| ["tests", "fuzz", "testing"].contains(&part);
                if !parts.iter().any(|part| test(part)) {
                    let module = parts.join("::");
                    let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                    found.insert(module, without_tests(&fs::read_to_string(&path).unwrap()));
                }
            }
        }
    }
    found
}

/// The text up to its test module, without comments.
fn without_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every path of `text` that begins with `crate`, `super` or `self`, as the module `from` means it.
fn paths(text: &str, from: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                expand(&text[at..], Vec::new(), from, &mut found);
            }
        }
    }
    found
}

/// Reads one path, or one tree of a `use` declaration.
fn expand(text: &str, mut path: Vec<String>, from: &str, found: &mut Vec<Vec<String>>) {
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        match &rest[..end] {
            "" => break,
            "crate" if path.is_empty() => path.push("crate".to_owned()),
            "self" if path.is_empty() => path = absolute(from),
            "super" => {
                if path.is_empty() {
                    path = absolute(from);
                }
                path.pop();
            }
            segment => path.push(segment.to_owned()),
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) => rest = after,
            None => break,
        }
    }
    let Some(tree) = rest.strip_prefix('{') else {
        found.push(path);
        return;
    };
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = tree[begin..at].trim();
                if !item.is_empty() {
                    expand(item, path.clone(), from, found);
                }
                begin = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

fn absolute(module: &str) -> Vec<String> {
    let segments = module.split("::").filter(|segment| *segment != "lib").map(str::to_owned);
    std::iter::once("crate".to_owned()).chain(segments).collect()
}

/// Which file imports names that which other files define.
///
/// A name that a file re-exports from its child (`pub use child::Name`) counts as the child's.
fn imports(files: &BTreeMap<String, String>) -> Graph {
    let mut graph = Graph::new();
    for (module, text) in files {
        let targets = graph.entry(module.clone()).or_default();
        for path in paths(text, module) {
            let mut path: Vec<String> = path.into_iter().skip(1).collect();
            let last = path.last().cloned();
            while !path.is_empty() && !files.contains_key(&path.join("::")) {
                path.pop();
            }
            let mut target = path.join("::");
            if let Some(child) = last.and_then(|name| re_exported(files, &target, &name)) {
                target = child;
            }
            if !target.is_empty() && target != *module {
                targets.insert(target);
            }
        }
    }
    graph
}

/// The child of `module` from which `module` re-exports `name`.
fn re_exported(files: &BTreeMap<String, String>, module: &str, name: &str) -> Option<String> {
    let text = files.get(module)?;
    let mut declarations = text.split("use ").skip(1).filter_map(|rest| rest.split(';').next());
    declarations.find_map(|declaration| {
        let path = declaration.trim_start_matches("self::");
        let (child, names) = path.split_once("::")?;
        let child = format!("{module}::{child}");
        let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        (files.contains_key(&child) && words.into_iter().any(|word| word == name)).then_some(child)
    })
}

/// The files of one cycle, if there is one.
fn cycle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(
        graph: &Graph,
        node: &str,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = path.iter().position(|other| other == node) {
            return Some(path[at..].to_vec());
        }
        if !done.insert(node.to_owned()) {
            return None;
        }
        path.push(node.to_owned());
        let found = graph.get(node).into_iter().flatten().find_map(|next| visit(graph, next, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(graph, node, &mut Vec::new(), &mut done))
}

#[test]
fn no_files_import_each_other_in_a_cycle() {
    for krate in [".", "core"] {
        let files = files(&source(krate));
        assert!(files.len() > 20, "{krate}: found {} files", files.len());
        assert_eq!(cycle(&imports(&files)), None, "{krate}");
    }
}

#[test]
fn a_module_imports_only_its_own_layer_and_lower_ones() {
    let layer = |module: &str| {
        let top = module.split("::").next().unwrap_or(module);
        let found = LAYERS.iter().position(|layer| layer.contains(&top));
        found.unwrap_or_else(|| panic!("`{top}` has no layer: add it to LAYERS and to docs/architecture.md"))
    };
    let mut wrong = Vec::new();
    for (module, targets) in imports(&files(&source("."))) {
        for target in targets.iter().filter(|target| layer(target) > layer(&module)) {
            wrong.push(format!("{module} imports {target}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_depends_on_no_client_and_no_runtime() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--package", "dispatcher-core", "--edges", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains("kube-core") && packages.contains("serde"), "{packages:?}");
    let forbidden: Vec<_> = FORBIDDEN_IN_CORE.iter().filter(|name| packages.contains(**name)).collect();
    assert!(forbidden.is_empty(), "dispatcher-core depends on {forbidden:?}");
}

/// `docs/architecture.md` lists the file of each step that a request passes until its Job is retired.
#[test]
fn the_documented_path_of_a_request_names_existing_files_in_at_most_22_steps() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(folder.join("../docs/architecture.md")).unwrap();
    let section = text.split("### Files on the path").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let is_step = |line: &&str| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit();
    let steps: Vec<_> = section.lines().filter(is_step).collect();
    assert!((15..=22).contains(&steps.len()), "{} steps", steps.len());
    for step in steps {
        let path = step.split('`').nth(1).unwrap();
        let file = match path.strip_prefix("core/") {
            Some(rest) => folder.join("core/src").join(rest),
            None => folder.join(path),
        };
        assert!(file.is_file(), "{step}: {} does not exist", file.display());
    }
    assert_eq!(section.matches("**return ").count(), 2);
}

mod the_checks_themselves {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> Graph {
        imports(&files.iter().map(|(module, text)| ((*module).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn a_cycle_through_nested_imports_is_found() {
        let files = [
            ("a", "use crate::{b::{self, X}, c::Y};"),
            ("b", "use std::fmt;\nfn f() { super::c::g(); }"),
            ("c", "use crate::a::Z;"),
        ];
        assert_eq!(cycle(&graph(&files)).map(|cycle| cycle.len()), Some(3));
        assert_eq!(cycle(&graph(&files[..2])), None);
    }

    #[test]
    fn a_name_that_a_parent_re_exports_is_its_childs() {
        let files = [
            ("a", "mod b;\nmod c;\npub use self::b::X;\npub use c::Y;"),
            ("a::b", ""),
            ("a::c", "use super::X;"),
        ];
        let graph = graph(&files);
        assert_eq!(graph["a::c"], ["a::b".to_owned()].into());
        assert_eq!(cycle(&graph), None);
    }
}
