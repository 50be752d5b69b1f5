//! The templates: whether they are valid, and whether the objects that they name exist.

use std::collections::BTreeSet;

use crate::{
    doctor::{Finding, Section, Severity, links},
    template::{
        Problem, Template,
        catalog::{Catalog, Refused, Source},
    },
};

const S: Section = Section::Templates;

/// What the sources of templates contain.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The valid templates.
    pub catalog: Catalog,
    /// The documents that are not valid.
    pub refused: Refused,
    /// Why the directory of files cannot be read, if so.
    pub folder: Option<String>,
    /// Why the `JobTemplate` objects cannot be listed, if so.
    pub objects: Option<String>,
    /// Whether templates can be objects.
    pub job_templates: bool,
}

/// The findings about the templates themselves.
#[must_use]
pub fn findings(sources: &Sources) -> Vec<Finding> {
    let mut found = vec![];
    if let Some(error) = &sources.folder {
        let advice = "set DISPATCHER_TEMPLATES to the directory of the template files (`*.yaml`)";
        found.push(match sources.job_templates {
            true => S.ok("template files", format!("{error}; JobTemplates are used")),
            false => S.error("template files", error).advise(advice).see(links::TEMPLATES),
        });
    }
    if let Some(error) = &sources.objects {
        found.push(S.skipped("JobTemplates", format!("cannot be listed: {error}")));
    }
    for (source, problems) in &sources.refused {
        found.extend(problems.iter().map(|problem| invalid(source, problem)));
    }
    for (name, entry) in sources.catalog.entries() {
        let source = &entry.source;
        let warnings = entry.template.warnings.iter();
        let warnings: Vec<_> = warnings
            .map(|warning| {
                let advice =
                    "check the spelling of the field: this version of the dispatcher does not know it";
                S.warning(source.to_string(), warning.to_string()).advise(advice).see(links::TEMPLATES)
            })
            .collect();
        match warnings.is_empty() {
            true => found.push(S.ok(source.to_string(), format!("the template {name} is valid"))),
            false => found.extend(warnings),
        }
    }
    if sources.catalog.entries().next().is_none() && sources.folder.is_none() && sources.objects.is_none() {
        let message = "there is no valid template";
        found.push(match sources.job_templates {
            true => S.warning("templates", message).advise("create a JobTemplate").see(links::JOB_TEMPLATES),
            false => {
                S.error("templates", message).advise("correct or add a template file").see(links::TEMPLATES)
            }
        });
    }
    found
}

fn invalid(source: &Source, problem: &Problem) -> Finding {
    let advice = match source {
        Source::File(path) => {
            format!("correct the file; `dispatcher check {path}` checks it without a cluster")
        }
        Source::Object(name) => format!("correct the object: `kubectl edit jobtemplate {name}`"),
    };
    S.error(source.to_string(), problem.to_string()).advise(advice).see(links::TEMPLATES)
}

/// An object that pods of a template need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The identity of the pods.
    ServiceAccount,
    /// The login to the image registry.
    ImagePullSecret,
    /// The priority of the pods.
    PriorityClass,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::ServiceAccount, Self::ImagePullSecret, Self::PriorityClass];

    /// The kind in Kubernetes, and its resource.
    #[must_use]
    pub fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("ServiceAccount", "serviceaccounts"),
            Self::ImagePullSecret => ("Secret", "secrets"),
            Self::PriorityClass => ("PriorityClass", "priorityclasses"),
        }
    }
}

/// The objects that the pods of a template name, without those that a parameter names.
#[must_use]
pub fn references(template: &Template) -> BTreeSet<(Kind, String)> {
    let names = template.references();
    let of = |kind, names: Vec<String>| names.into_iter().map(move |name| (kind, name));
    of(Kind::ServiceAccount, names.service_accounts)
        .chain(of(Kind::ImagePullSecret, names.image_pull_secrets))
        .chain(of(Kind::PriorityClass, names.priority_classes))
        .collect()
}

/// Whether an object exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exists {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It may not be read. The shipped Role does not permit it.
    Forbidden,
    /// No answer, or an error.
    Unknown(String),
}

/// An object that templates name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The templates.
    pub templates: Vec<String>,
    /// Whether it exists.
    pub exists: Exists,
}

/// The findings about the objects that templates name.
#[must_use]
pub fn reference_findings(references: &[Reference], namespace: &str) -> Vec<Finding> {
    let mut found: Vec<_> = references.iter().filter_map(|reference| missing(reference, namespace)).collect();
    let existing = references.iter().filter(|reference| reference.exists == Exists::Yes).count();
    if existing > 0 {
        found.push(S.ok("referenced objects", format!("{existing} exist")));
    }
    for kind in Kind::ALL {
        let hidden: Vec<_> = references
            .iter()
            .filter(|reference| reference.kind == kind && reference.exists == Exists::Forbidden)
            .map(|reference| reference.name.as_str())
            .collect();
        if !hidden.is_empty() {
            let (_, resource) = kind.names();
            let reason = format!(
                "the Role of the dispatcher does not permit to read {resource}. An administrator checks {} with \
                 `kubectl --namespace {namespace} get {resource}`",
                hidden.join(", ")
            );
            found.push(S.skipped(format!("referenced {resource}"), reason));
        }
    }
    found
}

fn missing(reference: &Reference, namespace: &str) -> Option<Finding> {
    let (kind, resource) = reference.kind.names();
    let (subject, templates) = (format!("{kind} {}", reference.name), reference.templates.join(", "));
    match &reference.exists {
        Exists::Yes | Exists::Forbidden => None,
        Exists::Unknown(error) => Some(S.skipped(subject, error)),
        Exists::No => {
            let (severity, effect) = match reference.kind {
                Kind::ServiceAccount | Kind::PriorityClass => (Severity::Error, "their Jobs get no pods"),
                Kind::ImagePullSecret => (Severity::Warning, "private images cannot be pulled"),
            };
            let message = format!("does not exist, and the templates {templates} name it: {effect}");
            let place = match reference.kind {
                Kind::PriorityClass => String::new(),
                _ => format!(" in the namespace {namespace}"),
            };
            let advice = format!(
                "create it{place} (`kubectl get {resource}` lists the existing ones), or correct the templates"
            );
            Some(S.finding(severity, subject, message).advise(advice).see(links::TEMPLATES))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{template::catalog::Document, testing::SIMPLE};

    fn sources(documents: &[(&str, &str)]) -> Sources {
        let document = |text: &str| Document { template: Template::parse(text), deleting: false };
        let documents: BTreeMap<_, _> =
            documents.iter().map(|(path, text)| (Source::File((*path).to_owned()), document(text))).collect();
        let (catalog, refused) = Catalog::default().update(&documents);
        Sources { catalog, refused, ..Sources::default() }
    }

    #[test]
    fn valid_template_is_ok_and_each_problem_of_another_is_an_error() {
        let found = findings(&sources(&[("a.yaml", SIMPLE), ("b.yaml", "kind: x\n")]));
        let valid = found.iter().find(|finding| finding.subject == "a.yaml").unwrap();
        assert_eq!((valid.severity, valid.message.as_str()), (Severity::Ok, "the template simple is valid"));
        let invalid: Vec<_> = found.iter().filter(|finding| finding.subject == "b.yaml").collect();
        assert!(!invalid.is_empty() && invalid.iter().all(|finding| finding.severity == Severity::Error));
        assert!(invalid[0].advice.as_ref().unwrap().contains("dispatcher check b.yaml"));
    }

    #[test]
    fn missing_files_are_an_error_unless_objects_are_used() {
        let none = |job_templates| {
            let folder = Some("/x: cannot be read".to_owned());
            findings(&Sources { folder, job_templates, ..Sources::default() }).remove(0).severity
        };
        assert_eq!((none(false), none(true)), (Severity::Error, Severity::Ok));
        let empty =
            |job_templates| findings(&Sources { job_templates, ..Sources::default() }).remove(0).severity;
        assert_eq!((empty(false), empty(true)), (Severity::Error, Severity::Warning));
    }

    #[test]
    fn names_of_a_manifest_are_references_and_those_of_parameters_are_not() {
        let text = SIMPLE
            .replace("serviceAccountName: job", "serviceAccountName: job\n          priorityClassName: high");
        let template = Arc::new(Template::parse(&text).unwrap());
        let found = references(&template);
        assert!(found.contains(&(Kind::PriorityClass, "high".to_owned())), "{found:?}");
        assert!(found.contains(&(Kind::ServiceAccount, "job".to_owned())), "{found:?}");
    }

    #[test]
    fn missing_object_is_judged_by_what_its_jobs_lack() {
        let reference = |kind, exists| Reference {
            kind,
            name: "x".to_owned(),
            templates: vec!["simple".to_owned()],
            exists,
        };
        let of = |kind, exists| reference_findings(&[reference(kind, exists)], "jobs").remove(0);
        let account = of(Kind::ServiceAccount, Exists::No);
        assert_eq!((account.severity, account.subject.as_str()), (Severity::Error, "ServiceAccount x"));
        assert!(account.advice.unwrap().contains("create it in the namespace jobs"));
        assert_eq!(of(Kind::ImagePullSecret, Exists::No).severity, Severity::Warning);
        assert_eq!(of(Kind::PriorityClass, Exists::Yes).severity, Severity::Ok);
        let hidden = of(Kind::PriorityClass, Exists::Forbidden);
        assert_eq!(hidden.severity, Severity::Skipped);
        assert!(hidden.message.contains("get priorityclasses"));
    }
}
