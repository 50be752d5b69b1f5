//! Checks that links and `make` targets in Markdown files exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::paths::workspace;

/// The lines of a Markdown text outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The targets of the links of a Markdown text: `[text](target)`.
fn targets(text: &str) -> Vec<&str> {
    let of_line = |line: &'_ str| line.match_indices("](").map(|(at, _)| at + 2).collect::<Vec<_>>();
    let targets = prose(text)
        .flat_map(|line| of_line(line).into_iter().filter_map(|at| line.get(at..)?.split(')').next()));
    targets.collect()
}

/// The anchors of the headings, as GitHub generates them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings.map(anchor).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The `make` targets that a text names: `make demo`, `make chaos RUNS=20`.
fn make_targets(text: &str) -> BTreeSet<&str> {
    let is_target =
        |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    let words =
        |after: &'_ str| after.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().map(str::len);
    text.match_indices("`make ")
        .filter_map(|(at, start)| {
            let after = text.get(at + start.len()..)?;
            after.get(..words(after)?)
        })
        .filter(is_target)
        .collect()
}

/// All Markdown files of the repository.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            documents(&path, found);
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// Why the link `target` of the document `from` is broken.
fn problem(from: &Path, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, fragment) = target.split_once('#').unwrap_or((target, ""));
    let file = from.parent()?.join(path);
    if !path.is_empty() && !file.exists() {
        return Some(format!("{}: ({target}): {} does not exist", from.display(), file.display()));
    }
    let missing = |text: &str| !fragment.is_empty() && !anchors(text).contains(fragment);
    let missing = match path.is_empty() {
        true => missing(text),
        false => {
            file.extension().is_some_and(|end| end == "md")
                && missing(&std::fs::read_to_string(&file).unwrap())
        }
    };
    missing.then(|| format!("{}: ({target}): no such heading", from.display()))
}

#[test]
fn links_and_make_targets_exist() {
    let mut files = Vec::new();
    documents(&workspace(), &mut files);
    assert!(files.len() > 10, "{files:?}");
    let makefile = std::fs::read_to_string(workspace().join("Makefile")).unwrap();
    let mut problems = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        problems.extend(targets(&text).into_iter().filter_map(|target| problem(file, &text, target)));
        let unknown =
            make_targets(&text).into_iter().filter(|name| !makefile.contains(&format!("\n{name}:")));
        problems.extend(unknown.map(|name| format!("{}: `make {name}`: no such target", file.display())));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn anchors_and_links_are_parsed_as_on_github() {
    let text = "# A `b`: c's (d)\n[x](#a-b-cs-d) and [y](z.md#q)\n```sh\n# a comment [n](o)\n```\n";
    assert_eq!(targets(text), ["#a-b-cs-d", "z.md#q"]);
    assert_eq!(anchors(text), BTreeSet::from(["a-b-cs-d".to_owned()]));
    assert!(problem(Path::new("/x/a.md"), text, "#a-b-cs-d").is_none());
    assert!(problem(Path::new("/x/a.md"), text, "#no-heading-no").is_some());
    assert!(problem(Path::new("/x/a.md"), text, "nowhere.md").is_some());
    assert_eq!(make_targets("`make a-b C=1`, `make d`, `make` and make e"), BTreeSet::from(["a-b", "d"]));
}
