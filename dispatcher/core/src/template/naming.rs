//! The prefix of the names of a template's Jobs, so that no client of one template can take a name
//! of another.

use std::sync::Arc;

use crate::{
    contract::names::TemplateName,
    template::{pattern::Pattern, problem::Problem},
};

/// The prefixes that the names of a template's Jobs must and must not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Prefixes {
    own: Option<String>,
    /// The prefixes of the other templates.
    reserved: Arc<[Reserved]>,
}

/// A prefix of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reserved {
    prefix: String,
    template: TemplateName,
}

/// How another template names its Jobs.
#[derive(Clone, Copy)]
pub(super) struct Other<'a> {
    pub name: &'a TemplateName,
    pub prefixes: &'a Prefixes,
    pub job_name: &'a Pattern,
}

impl Prefixes {
    pub(super) fn new(own: Option<String>) -> Self {
        Self { own, reserved: Arc::default() }
    }

    /// The template's own prefix; empty if it has none.
    pub(super) fn own(&self) -> &str {
        self.own.as_deref().unwrap_or_default()
    }

    /// Checks the naming rule: every name that it gives has the prefix.
    pub(super) fn check_default(&self, job_name: &Pattern) -> Result<(), String> {
        if job_name.start().starts_with(self.own()) {
            return Ok(());
        }
        Err(format!("expected a text that starts with `namePrefix`, `{}`", self.own()))
    }

    /// Why no Job of the template can have the name; `None` if it can.
    pub(super) fn problem(&self, name: &str) -> Option<String> {
        if !name.starts_with(self.own()) {
            return Some(format!("expected a name that starts with `{}`, the template's prefix", self.own()));
        }
        let taken = self.reserved.iter().find(|reserved| name.starts_with(&reserved.prefix))?;
        Some(format!("names that start with `{}` belong to the template `{}`", taken.prefix, taken.template))
    }

    /// Why the template with the naming rule `job_name` and another one could give a Job the same
    /// name, although one of them has a prefix.
    pub(super) fn conflict(&self, job_name: &Pattern, other: Other<'_>) -> Option<Problem> {
        let (own, others) = (self.own(), other.prefixes.own());
        let name = other.name;
        if !own.is_empty() && !others.is_empty() {
            let overlap = own.starts_with(others) || others.starts_with(own);
            return overlap.then(|| {
                let message = format!(
                    "`{own}` and `{others}`, the prefix of the template `{name}`, can start the same name"
                );
                Problem::at("spec.namePrefix", message)
            });
        }
        if !own.is_empty() && other.job_name.start().starts_with(own) {
            let message = format!("the default names of the template `{name}` start with `{own}`");
            return Some(Problem::at("spec.namePrefix", message));
        }
        (!others.is_empty() && job_name.start().starts_with(others)).then(|| {
            let message = format!("names that start with `{others}` belong to the template `{name}`");
            Problem::at("spec.jobName", message)
        })
    }

    /// Reserves the prefixes of the templates other than `own`.
    pub(super) fn reserve(&mut self, own: &TemplateName, all: &[(TemplateName, String)]) {
        let others = all.iter().filter(|(template, prefix)| template != own && !prefix.is_empty());
        self.reserved = others
            .map(|(template, prefix)| Reserved { prefix: prefix.clone(), template: template.clone() })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contract::names::JobName, template::Template, testing::SIMPLE};

    fn template(name: &str, job_name: &str, prefix: &str) -> Result<Template, Vec<Problem>> {
        let prefix = if prefix.is_empty() { String::new() } else { format!("  namePrefix: {prefix}\n") };
        let text = SIMPLE.replacen("name: simple\n", &format!("name: {name}\n"), 1).replacen(
            "jobName: simple-job-${foo}\n",
            &format!("jobName: {job_name}\n{prefix}"),
            1,
        );
        Template::parse(&text)
    }

    fn problem(template: &Template, name: &str) -> String {
        template.name_problem(&JobName::try_from(name).unwrap()).unwrap_or_default()
    }

    #[test]
    fn every_name_of_the_template_starts_with_its_prefix() {
        let a = template("a", "a-${foo}", "a-").unwrap();
        assert_eq!(problem(&a, "a-1"), "");
        for other in ["b-1", "a", "aa-1"] {
            assert_eq!(problem(&a, other), "expected a name that starts with `a-`, the template's prefix");
        }
        for invalid in ["b-${foo}", "${foo}", "a${foo}"] {
            let problems = template("a", invalid, "a-").unwrap_err();
            assert_eq!(problems[0].field, "spec.jobName", "{problems:?}");
        }
        for invalid in ["A-", "'-a'", "a.", "'a b'", "''"] {
            assert!(template("a", "a-${foo}", invalid).is_err(), "{invalid}");
        }
    }

    #[test]
    fn templates_with_overlapping_prefixes_conflict() {
        let conflict = |one: (&str, &str), another: (&str, &str)| {
            let a = template("a", &format!("{}${{foo}}", one.0), one.1).unwrap();
            let b = template("b", &format!("{}${{foo}}", another.0), another.1).unwrap();
            assert_eq!(a.name_conflict(&b).is_some(), b.name_conflict(&a).is_some());
            a.name_conflict(&b).map(|problem| problem.field)
        };
        assert_eq!(conflict(("a-", "a-"), ("b-", "b-")), None);
        assert_eq!(conflict(("a-", "a-"), ("a-", "a-")).as_deref(), Some("spec.namePrefix"));
        assert_eq!(conflict(("a-", "a-"), ("a-b-", "a-b-")).as_deref(), Some("spec.namePrefix"));
        assert_eq!(conflict(("a-", "a-"), ("a-b-", "")).as_deref(), Some("spec.namePrefix"));
        assert_eq!(conflict(("a-b-", ""), ("a-", "a-")).as_deref(), Some("spec.jobName"));
        assert_eq!(conflict(("a-", ""), ("a-", "")), None, "without prefixes, clients share the names");
    }

    #[test]
    fn template_without_a_prefix_cannot_take_a_name_of_another() {
        let all = [("a", "a-"), ("b", "")].map(|(t, p)| (TemplateName::try_from(t).unwrap(), p.to_owned()));
        let b = template("b", "b-${foo}", "").unwrap().with_reserved_prefixes(&all);
        assert_eq!(problem(&b, "c"), "");
        assert_eq!(problem(&b, "a-1"), "names that start with `a-` belong to the template `a`");
        let a = template("a", "a-${foo}", "a-").unwrap().with_reserved_prefixes(&all);
        assert_eq!(problem(&a, "a-1"), "");
    }
}
