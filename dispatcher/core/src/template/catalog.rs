//! The templates in use, and how changed documents change them.
//!
//! A document is a file or a `JobTemplate` object. A document that is not valid changes nothing: its
//! last valid version stays in use, and no other template is affected.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    contract::names::TemplateName,
    template::{Problem, Template},
};

/// Where a template comes from. Files come before objects: if both define a template, the file wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A file, by its path.
    File(String),
    /// A `JobTemplate`, by its name.
    Object(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Object(name) => write!(f, "JobTemplate {name}"),
        }
    }
}

/// What a source contains.
#[derive(Debug, Clone)]
pub struct Document {
    /// The template, or the problems of the document.
    pub template: Result<Template, Vec<Problem>>,
    /// Whether the object is being deleted.
    pub deleting: bool,
}

/// A template in use.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The version in use.
    pub template: Arc<Template>,
    /// Where it comes from.
    pub source: Source,
    /// Whether its document is deleted. The queued requests are finished or rejected.
    pub deleting: bool,
}

/// The templates in use, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    entries: BTreeMap<TemplateName, Entry>,
    /// The last versions of deleted templates, for their remaining Jobs.
    former: BTreeMap<TemplateName, Arc<Template>>,
}

/// The most deleted templates that are remembered.
const MAX_FORMER: usize = 1_000;

/// Documents whose last version is not in use, with the reasons.
pub type Refused = BTreeMap<Source, Vec<Problem>>;

impl Catalog {
    /// The entries by name.
    pub fn entries(&self) -> impl Iterator<Item = (&TemplateName, &Entry)> {
        self.entries.iter()
    }

    /// The entry of a template.
    #[must_use]
    pub fn get(&self, name: &TemplateName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The template that the Jobs of this name are made from, or were.
    #[must_use]
    pub fn template(&self, name: &TemplateName) -> Option<&Arc<Template>> {
        self.get(name).map(|entry| &entry.template).or_else(|| self.former.get(name))
    }

    /// The catalog for these documents, and the documents that it does not use.
    ///
    /// - Of several documents with the same name, the one in use wins, otherwise the first.
    /// - An object that is being deleted comes back only after a restart.
    /// - A template whose document is gone stays until [`Self::without`] removes it.
    /// - The naming rule of a template in use is fixed: otherwise a redelivered request could get
    ///   another name, and become a second Job.
    #[must_use]
    pub fn update(&self, documents: &BTreeMap<Source, Document>) -> (Self, Refused) {
        let mut next = Self { entries: BTreeMap::new(), former: self.former.clone() };
        let mut refused = Refused::new();
        // Templates in use come first, so that a new document never takes the place of one.
        let owned = |source: &Source| self.entries.values().any(|entry| entry.source == *source);
        let (used, new): (Vec<_>, Vec<_>) = documents.iter().partition(|(source, _)| owned(source));
        for (source, document) in used.into_iter().chain(new) {
            let is_removed = |template: &Template| {
                document.deleting && !owned(source) && self.former.contains_key(&template.name)
            };
            if document.template.as_ref().is_ok_and(is_removed) {
                continue;
            }
            match self.checked(&next, source, document) {
                Ok(template) => next.insert(template, source, document.deleting),
                Err(problems) => drop(refused.insert(source.clone(), problems)),
            }
        }
        for (name, entry) in &self.entries {
            // An invalid document keeps its last valid version; one that defines another template does not.
            let is_kept = |document: &Document| {
                !document.deleting && document.template.as_ref().map_or(true, |now| now.name == *name)
            };
            let deleting = !documents.get(&entry.source).is_some_and(is_kept);
            next.entries.entry(name.clone()).or_insert_with(|| Entry { deleting, ..entry.clone() });
        }
        (next.with_reserved_prefixes(self), refused)
    }

    /// The catalog without a template, whose deletion is complete.
    #[must_use]
    pub fn without(&self, name: &TemplateName) -> Self {
        let mut next = self.clone();
        if let Some(entry) = next.entries.remove(name) {
            if next.former.len() >= MAX_FORMER {
                next.former.pop_first();
            }
            next.former.insert(name.clone(), entry.template);
        }
        next
    }

    /// The template of a document, if it can be used together with those in `next`.
    fn checked<'a>(
        &self,
        next: &Self,
        source: &Source,
        document: &'a Document,
    ) -> Result<&'a Template, Vec<Problem>> {
        let template = document.template.as_ref().map_err(Clone::clone)?;
        let problems = self.problems(next, template, source);
        if problems.is_empty() { Ok(template) } else { Err(problems) }
    }

    /// Why the template cannot be used together with those in `next`.
    fn problems(&self, next: &Self, template: &Template, source: &Source) -> Vec<Problem> {
        let owner = next.entries.get(&template.name).or_else(|| self.entries.get(&template.name));
        if let Some(owner) = owner
            && owner.source != *source
        {
            let message = format!("{} defines the template `{}`", owner.source, template.name);
            return vec![Problem::at("metadata.name", message)];
        }
        if let Some(owner) = owner
            && owner.template.naming_rule() != template.naming_rule()
        {
            let message = "the naming rule (spec.jobName, and the defaults that it refers to) of a template in use \
                           cannot change: delete the template and create it again, or use another name";
            return vec![Problem::at("spec.jobName", message)];
        }
        let others = next.entries.values().filter(|entry| entry.template.name != template.name);
        others.filter_map(|entry| template.name_conflict(&entry.template)).collect()
    }

    fn insert(&mut self, template: &Template, source: &Source, deleting: bool) {
        let entry = Entry { template: Arc::new(template.clone()), source: source.clone(), deleting };
        self.former.remove(&template.name);
        self.entries.insert(template.name.clone(), entry);
    }

    /// Reserves the prefix of each template. A template that is the same as `before` keeps its
    /// allocation, so that a change can be recognized.
    fn with_reserved_prefixes(mut self, before: &Self) -> Self {
        let prefixes: Vec<_> = self
            .entries
            .values()
            .map(|entry| (entry.template.name.clone(), entry.template.name_prefix().to_owned()))
            .collect();
        for (name, entry) in &mut self.entries {
            let template = (*entry.template).clone().with_reserved_prefixes(&prefixes);
            entry.template = match before.entries.get(name) {
                Some(old) if old.template.is_same(&template) => old.template.clone(),
                _ => Arc::new(template),
            };
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::SIMPLE;

    fn name(name: &str) -> TemplateName {
        TemplateName::try_from(name).unwrap()
    }

    fn text(name: &str) -> String {
        SIMPLE.replacen("name: simple\n", &format!("name: {name}\n"), 1)
    }

    fn document(text: &str) -> Document {
        Document { template: Template::parse(text), deleting: false }
    }

    fn file(name: &str) -> Source {
        Source::File(format!("{name}.yaml"))
    }

    fn documents<const N: usize>(all: [(Source, Document); N]) -> BTreeMap<Source, Document> {
        BTreeMap::from(all)
    }

    fn one(text: &str) -> BTreeMap<Source, Document> {
        documents([(file("a"), document(text))])
    }

    fn hash(catalog: &Catalog, of: &str) -> String {
        catalog.get(&name(of)).unwrap().template.hash.clone()
    }

    #[test]
    fn documents_are_added_changed_and_deleted() {
        let (first, refused) = Catalog::default().update(&one(&text("a")));
        assert!(refused.is_empty());
        let changed = text("a").replacen("  job:", "  logTail: false\n  job:", 1);
        let (second, refused) = first.update(&one(&changed));
        assert!(refused.is_empty(), "{refused:?}");
        assert_ne!(hash(&first, "a"), hash(&second, "a"));
        let (third, _) = second.update(&BTreeMap::new());
        assert!(third.get(&name("a")).unwrap().deleting, "it stays until its queue is empty");
        assert_eq!(third.without(&name("a")).entries().count(), 0);
        let (back, _) = third.update(&one(&changed));
        assert!(!back.get(&name("a")).unwrap().deleting);
    }

    #[test]
    fn document_that_defines_another_template_deletes_the_first() {
        let (first, _) = Catalog::default().update(&one(&text("a")));
        let (second, refused) = first.update(&one(&text("b")));
        assert!(refused.is_empty(), "{refused:?}");
        let deleting = |of: &str| second.get(&name(of)).unwrap().deleting;
        assert_eq!((deleting("a"), deleting("b")), (true, false));
    }

    #[test]
    fn unchanged_template_keeps_its_allocation() {
        let (first, _) = Catalog::default().update(&one(&text("a")));
        let (second, _) =
            first.update(&documents([(file("a"), document(&text("a"))), (file("b"), document(&text("b")))]));
        let of = |catalog: &Catalog| catalog.get(&name("a")).unwrap().template.clone();
        assert!(Arc::ptr_eq(&of(&first), &of(&second)));
    }

    #[test]
    fn invalid_document_keeps_its_last_valid_version_and_disturbs_no_other() {
        let good = documents([(file("a"), document(&text("a"))), (file("b"), document(&text("b")))]);
        let (first, _) = Catalog::default().update(&good);
        for broken in
            ["kind: [", "kind: JobTemplate", &text("a").replacen("jobName: ", "jobName: ${missing}", 1)]
        {
            let mut all = good.clone();
            all.insert(file("a"), document(broken));
            let (next, refused) = first.update(&all);
            assert_eq!(hash(&next, "a"), hash(&first, "a"));
            assert_eq!(refused.keys().collect::<Vec<_>>(), [&file("a")]);
            assert!(!next.get(&name("a")).unwrap().deleting && next.get(&name("b")).is_some());
        }
        let (fresh, refused) = Catalog::default().update(&one("kind: ["));
        assert_eq!((fresh.entries().count(), refused.len()), (0, 1), "no version was ever valid");
    }

    #[test]
    fn naming_rule_of_a_template_in_use_is_fixed() {
        let (first, _) = Catalog::default().update(&one(&text("a")));
        let changed = text("a").replacen("jobName: simple-job-${foo}", "jobName: other-${foo}", 1);
        let (next, refused) = first.update(&one(&changed));
        assert_eq!(refused[&file("a")][0].field, "spec.jobName");
        assert_eq!(hash(&next, "a"), hash(&first, "a"));
        let (deleting, _) = first.update(&BTreeMap::new());
        let (_, refused) = deleting.update(&one(&changed));
        assert_eq!(refused.len(), 1, "also until its queue is empty");
        let (_, refused) = deleting.without(&name("a")).update(&one(&changed));
        assert!(refused.is_empty());
    }

    #[test]
    fn the_document_in_use_wins_then_the_first() {
        let object = Source::Object("a".to_owned());
        let both = documents([(file("a"), document(&text("a"))), (object.clone(), document(&text("a")))]);
        let (next, refused) = Catalog::default().update(&both);
        assert_eq!(next.get(&name("a")).unwrap().source, file("a"));
        assert_eq!(refused[&object][0].message, "a.yaml defines the template `a`");
        let (in_use, _) = Catalog::default().update(&documents([(object.clone(), document(&text("a")))]));
        let (next, refused) = in_use.update(&both);
        assert_eq!(next.get(&name("a")).unwrap().source, object);
        assert_eq!(refused.keys().collect::<Vec<_>>(), [&file("a")]);
    }

    #[test]
    fn overlapping_prefix_refuses_the_newer_template() {
        let prefixed = |name: &str| {
            text(name).replacen("jobName: simple-job-${foo}\n", "jobName: x-${foo}\n  namePrefix: x-\n", 1)
        };
        let (first, _) = Catalog::default().update(&documents([(file("b"), document(&prefixed("b")))]));
        let (next, refused) = first.update(&documents([
            (file("a"), document(&prefixed("a"))),
            (file("b"), document(&prefixed("b"))),
        ]));
        assert_eq!(refused.keys().collect::<Vec<_>>(), [&file("a")]);
        assert!(next.get(&name("a")).is_none());
    }
}
