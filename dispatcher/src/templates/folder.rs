//! The template files of a folder, which can be read repeatedly: a mounted `ConfigMap` changes without a
//! restart.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use dispatcher_core::template::{
    Policy, Problem, Template, TemplateError,
    catalog::{Document, Source},
};

use crate::templates::{template_files, within_limits};

/// The largest file, in bytes: the limit of a `ConfigMap`.
const MAX_FILE: u64 = 1 << 20;

/// The reads that a file is missing before it counts as removed: editors replace a file in two steps.
const MISSING_READS: u8 = 3;

struct File {
    text: Result<String, Problem>,
    document: Document,
    missing: u8,
}

/// A folder of template files. It parses a file again only if its text has changed.
pub(crate) struct Folder {
    path: PathBuf,
    policy: Arc<Policy>,
    read: BTreeMap<PathBuf, File>,
}

impl Folder {
    /// A folder that is not read yet.
    pub(crate) fn new(path: PathBuf, policy: Arc<Policy>) -> Self {
        Self { path, policy, read: BTreeMap::new() }
    }

    /// Reads all files. Returns whether a document has changed.
    ///
    /// # Errors
    /// If the folder cannot be read, or contains no template file. The files of before count then.
    pub(crate) fn read(&mut self) -> Result<bool, TemplateError> {
        let files = template_files(&self.path)?;
        let mut before = std::mem::take(&mut self.read);
        let mut is_changed = false;
        for path in files {
            let text = read(&path);
            let document = match before.remove(&path) {
                Some(old) if old.text == text => old.document,
                _ => {
                    is_changed = true;
                    self.parse(&text)
                }
            };
            self.read.insert(path, File { text, document, missing: 0 });
        }
        for (path, file) in before {
            let missing = file.missing + 1;
            if missing < MISSING_READS {
                self.read.insert(path, File { missing, ..file });
            } else {
                is_changed = true;
            }
        }
        Ok(is_changed)
    }

    /// The documents of the last read.
    pub(crate) fn documents(&self) -> BTreeMap<Source, Document> {
        let source = |path: &PathBuf| Source::File(path.display().to_string());
        self.read.iter().map(|(path, file)| (source(path), file.document.clone())).collect()
    }

    fn parse(&self, text: &Result<String, Problem>) -> Document {
        let template = match text {
            Ok(text) => within_limits(Template::parse(text), &self.policy),
            Err(problem) => Err(vec![problem.clone()]),
        };
        Document { template, deleting: false }
    }
}

fn read(path: &PathBuf) -> Result<String, Problem> {
    let problem = |error: std::io::Error| Problem::of_file(format!("cannot be read: {error}"));
    let size = std::fs::metadata(path).map_err(problem)?.len();
    if size > MAX_FILE {
        return Err(Problem::of_file(format!("expected at most {MAX_FILE} bytes, found {size}")));
    }
    std::fs::read_to_string(path).map_err(problem)
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::SIMPLE;

    use super::*;

    fn names(found: &BTreeMap<Source, Document>) -> Vec<(String, bool)> {
        let file = |source: &Source| match source {
            Source::File(path) => path.rsplit('/').next().unwrap().to_owned(),
            Source::Object(name) => name.clone(),
        };
        found.iter().map(|(source, document)| (file(source), document.template.is_ok())).collect()
    }

    fn read_names(folder: &mut Folder) -> Vec<(String, bool)> {
        folder.read().unwrap();
        names(&folder.documents())
    }

    #[test]
    fn only_a_changed_file_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), SIMPLE).unwrap();
        let mut watched = Folder::new(folder.path().to_owned(), Arc::default());
        assert_eq!([watched.read().unwrap(), watched.read().unwrap()], [true, false]);
        std::fs::write(folder.path().join("a.yaml"), "kind: [").unwrap();
        assert_eq!([watched.read().unwrap(), watched.read().unwrap()], [true, false]);
    }

    #[test]
    fn changed_added_and_removed_files_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let mut watched = Folder::new(folder.path().to_owned(), Arc::default());
        assert!(watched.read().is_err(), "the folder has no template yet");
        write("a.yaml", SIMPLE);
        write("notes.txt", "ignored");
        assert_eq!(read_names(&mut watched), [("a.yaml".to_owned(), true)]);
        write("a.yaml", "kind: [");
        write("b.yaml", SIMPLE);
        let found = read_names(&mut watched);
        assert_eq!(found, [("a.yaml".to_owned(), false), ("b.yaml".to_owned(), true)]);
        std::fs::remove_file(folder.path().join("a.yaml")).unwrap();
        for _ in 1..MISSING_READS {
            assert_eq!(read_names(&mut watched).len(), 2, "it may be replaced");
        }
        assert_eq!(read_names(&mut watched), [("b.yaml".to_owned(), true)]);
    }

    #[test]
    fn oversized_file_is_a_problem_of_that_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), vec![b' '; (MAX_FILE + 1).try_into().unwrap()]).unwrap();
        let mut watched = Folder::new(folder.path().to_owned(), Arc::default());
        assert!(watched.read().unwrap());
        let found = watched.documents();
        let document = found.values().next().unwrap();
        assert!(document.template.as_ref().unwrap_err()[0].message.contains("at most 1048576 bytes"));
    }
}
