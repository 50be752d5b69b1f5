//! The names of one installation in NATS: its subjects, its streams, and its NATS service.
//!
//! Several installations share an account if each has its own prefix. A prefix is the first token of
//! every subject, and the beginning of the names of the streams and of the service.

use std::{fmt, sync::Arc};

use crate::contract::names::{JobName, Quoted, TemplateName, is_label};

/// The longest prefix. Stream names stay short enough for the file systems of servers (ADR-6).
pub const MAX_PREFIX: usize = 32;

/// The first tokens of the subjects without a prefix.
const FIRST_TOKENS: [&str; 2] = ["jobs", "dispatcher"];

/// The text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is not a prefix (at most {MAX_PREFIX} characters of a-z, 0-9 and '-', starting and ending with a \
     letter or digit; not `jobs` and not `dispatcher`)"
)]
pub struct PrefixError(Quoted);

/// The names in NATS of one installation. Clones share them.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsNames(Arc<Names>);

#[derive(PartialEq, Eq)]
struct Names {
    prefix: Option<String>,
    /// Empty, or the prefix and a dot.
    first: String,
    jobs: String,
    job_status: String,
    job_rejected: String,
    job_cancels: String,
    /// The stream without `KV_`.
    cancels_bucket: String,
    service: String,
}

impl NatsNames {
    fn new(prefix: Option<&str>) -> Self {
        let name = |name: &str| prefix.map_or_else(|| name.to_owned(), |prefix| format!("{prefix}_{name}"));
        Self(Arc::new(Names {
            prefix: prefix.map(str::to_owned),
            first: prefix.map(|prefix| format!("{prefix}.")).unwrap_or_default(),
            jobs: name("JOBS"),
            job_status: name("JOB_STATUS"),
            job_rejected: name("JOB_REJECTED"),
            job_cancels: format!("KV_{}", name("JOB_CANCELS")),
            cancels_bucket: name("JOB_CANCELS"),
            service: name("dispatcher"),
        }))
    }

    /// The names with a prefix, such as `blue`: subjects `blue.jobs.<template>.create`, streams
    /// `blue_JOBS`, service `blue_dispatcher`.
    ///
    /// # Errors
    /// [`PrefixError`] unless the text is an RFC 1123 label of at most [`MAX_PREFIX`] characters. The
    /// first tokens of the subjects without a prefix are no prefixes: the subjects would overlap.
    pub fn with_prefix(prefix: &str) -> Result<Self, PrefixError> {
        let is_prefix = is_label(prefix) && prefix.len() <= MAX_PREFIX && !FIRST_TOKENS.contains(&prefix);
        if is_prefix { Ok(Self::new(Some(prefix))) } else { Err(PrefixError(Quoted::new(prefix))) }
    }

    /// The prefix, if there is one.
    #[must_use]
    pub fn prefix(&self) -> Option<&str> {
        self.0.prefix.as_deref()
    }

    /// A subject, with the prefix as its first token.
    fn subject(&self, rest: fmt::Arguments<'_>) -> String {
        format!("{}{rest}", self.0.first)
    }

    /// The stream of requests.
    #[must_use]
    pub fn jobs(&self) -> &str {
        &self.0.jobs
    }

    /// The stream of status events.
    #[must_use]
    pub fn job_status(&self) -> &str {
        &self.0.job_status
    }

    /// The stream of dead letters.
    #[must_use]
    pub fn job_rejected(&self) -> &str {
        &self.0.job_rejected
    }

    /// The stream of the key-value bucket of cancellations (ADR-8: `KV_` and the bucket's name).
    #[must_use]
    pub fn job_cancels(&self) -> &str {
        &self.0.job_cancels
    }

    /// All four streams, the one of the requests first.
    #[must_use]
    pub fn streams(&self) -> [&str; 4] {
        [self.jobs(), self.job_status(), self.job_rejected(), self.job_cancels()]
    }

    /// The key-value bucket of cancellations.
    #[must_use]
    pub fn cancels_bucket(&self) -> &str {
        &self.0.cancels_bucket
    }

    /// The subject of a key of that bucket; `>` for all keys.
    #[must_use]
    pub fn cancel_subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.cancels_bucket())
    }

    /// The NATS service, and the queue group of its replicas (ADR-32).
    #[must_use]
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// The subject of requests for a Job of this template.
    #[must_use]
    pub fn create_subject(&self, template: &TemplateName) -> String {
        self.subject(format_args!("jobs.{template}.create"))
    }

    /// The subject of a call of the NATS service, such as `jobs.<template>.submit`; `*` for all
    /// templates.
    #[must_use]
    pub fn call_subject(&self, template: &str, verb: &str) -> String {
        self.subject(format_args!("jobs.{template}.{verb}"))
    }

    /// The only subject of the stream of requests while there is no template: without a subject, the
    /// server would use the stream's name. Clients may not publish to it.
    #[must_use]
    pub fn no_template_subject(&self) -> String {
        self.subject(format_args!("dispatcher.requests.none"))
    }

    /// The subject of the dead letter of the request with this sequence in the stream of requests.
    #[must_use]
    pub fn dead_letter_subject(&self, template: &TemplateName, request_seq: u64) -> String {
        self.subject(format_args!("jobs.{template}.rejected.{request_seq}"))
    }

    /// The subjects of all dead letters.
    #[must_use]
    pub fn dead_letter_subjects(&self) -> String {
        self.subject(format_args!("jobs.*.rejected.*"))
    }

    /// The subject of rejection notices, for subscribers of `jobs.<template>.status.>`. No Job has
    /// this name, since `_rejected` is not an RFC 1123 label.
    #[must_use]
    pub fn rejected_notice_subject(&self, template: &TemplateName) -> String {
        self.subject(format_args!("jobs.{template}.status._rejected"))
    }

    /// The subject under which the stream of status events stores and republishes the events of a
    /// Job.
    #[must_use]
    pub fn status_subject(&self, template: &TemplateName, name: &JobName) -> String {
        self.subject(format_args!("jobs.{template}.status.{name}"))
    }

    /// The subjects of the events of all Jobs, and of all rejection notices.
    #[must_use]
    pub fn status_subjects(&self) -> String {
        self.subject(format_args!("jobs.*.status.*"))
    }

    /// The subject to which the dispatcher publishes the status events of a Job. The stream maps
    /// those it accepts to [`Self::status_subject`].
    #[must_use]
    pub fn event_subject(&self, template: &TemplateName, name: &JobName) -> String {
        self.subject(format_args!("dispatcher.event.{template}.{name}"))
    }

    /// The subjects of [`Self::event_subject`], and the subject that the stream maps them to.
    #[must_use]
    pub fn event_transform(&self) -> (String, String) {
        let mapped = format_args!("jobs.{{{{wildcard(1)}}}}.status.{{{{wildcard(2)}}}}");
        (self.subject(format_args!("dispatcher.event.*.*")), self.subject(mapped))
    }

    /// Parses `jobs.<template>.create`; `None` for any other subject.
    #[must_use]
    pub fn parse_create_subject(&self, subject: &str) -> Option<TemplateName> {
        let template = self.without_prefix(subject)?.strip_suffix(".create")?;
        TemplateName::try_from(template).ok()
    }

    /// Parses `jobs.<template>.status.<name>`; `None` for any other subject.
    #[must_use]
    pub fn parse_status_subject(&self, subject: &str) -> Option<(TemplateName, JobName)> {
        let (template, name) = self.without_prefix(subject)?.split_once(".status.")?;
        Some((TemplateName::try_from(template).ok()?, JobName::try_from(name).ok()?))
    }

    /// Parses `jobs.<template>.rejected.<seq>`, the subject of a dead letter; `None` for any other
    /// one.
    #[must_use]
    pub fn parse_dead_letter_subject(&self, subject: &str) -> Option<(TemplateName, u64)> {
        let (template, sequence) = self.without_prefix(subject)?.split_once(".rejected.")?;
        Some((TemplateName::try_from(template).ok()?, sequence.parse().ok()?))
    }

    fn without_prefix<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.0.first.as_str())?.strip_prefix("jobs.")
    }
}

/// The names without a prefix.
impl Default for NatsNames {
    fn default() -> Self {
        Self::new(None)
    }
}

impl fmt::Debug for NatsNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NatsNames").field(&self.prefix()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template() -> TemplateName {
        "simple".try_into().unwrap()
    }

    fn name() -> JobName {
        "a-1".try_into().unwrap()
    }

    /// Every subject and name for `template` and `name`.
    fn all(names: &NatsNames) -> Vec<String> {
        let (template, name) = (template(), name());
        let (inner, public) = names.event_transform();
        vec![
            names.create_subject(&template),
            names.call_subject("simple", "submit"),
            names.dead_letter_subject(&template, 17),
            names.dead_letter_subjects(),
            names.rejected_notice_subject(&template),
            names.status_subject(&template, &name),
            names.status_subjects(),
            names.event_subject(&template, &name),
            inner,
            public,
            names.no_template_subject(),
            names.cancel_subject("job.x"),
            names.jobs().to_owned(),
            names.job_status().to_owned(),
            names.job_rejected().to_owned(),
            names.job_cancels().to_owned(),
            names.service().to_owned(),
        ]
    }

    #[test]
    fn names_without_a_prefix_are_those_of_the_protocol() {
        let expected = [
            "jobs.simple.create",
            "jobs.simple.submit",
            "jobs.simple.rejected.17",
            "jobs.*.rejected.*",
            "jobs.simple.status._rejected",
            "jobs.simple.status.a-1",
            "jobs.*.status.*",
            "dispatcher.event.simple.a-1",
            "dispatcher.event.*.*",
            "jobs.{{wildcard(1)}}.status.{{wildcard(2)}}",
            "dispatcher.requests.none",
            "$KV.JOB_CANCELS.job.x",
            "JOBS",
            "JOB_STATUS",
            "JOB_REJECTED",
            "KV_JOB_CANCELS",
            "dispatcher",
        ];
        assert_eq!(all(&NatsNames::default()), expected);
    }

    #[test]
    fn every_name_has_the_prefix() {
        let (plain, blue) = (all(&NatsNames::default()), all(&NatsNames::with_prefix("blue").unwrap()));
        for (plain, blue) in plain.iter().zip(blue) {
            let expected = match plain.as_str() {
                "$KV.JOB_CANCELS.job.x" => "$KV.blue_JOB_CANCELS.job.x".to_owned(),
                "KV_JOB_CANCELS" => "KV_blue_JOB_CANCELS".to_owned(),
                subject if subject.contains('.') => format!("blue.{subject}"),
                name => format!("blue_{name}"),
            };
            assert_eq!(blue, expected);
        }
    }

    #[test]
    fn prefix_is_a_label_that_no_other_subject_begins_with() {
        for good in ["a", "team-1", &"x".repeat(MAX_PREFIX)] {
            assert_eq!(NatsNames::with_prefix(good).unwrap().prefix(), Some(good));
        }
        let long = "x".repeat(MAX_PREFIX + 1);
        for bad in ["", "a.b", "A", "a_b", "*", "jobs", "dispatcher", "-a", long.as_str()] {
            let error = NatsNames::with_prefix(bad).unwrap_err().to_string();
            assert!(error.contains("at most 32"), "{error}");
        }
    }

    #[test]
    fn only_subjects_of_the_installation_are_parsed() {
        let (plain, blue) = (NatsNames::default(), NatsNames::with_prefix("blue").unwrap());
        for (of, other) in [(&plain, &blue), (&blue, &plain)] {
            let create = of.create_subject(&template());
            let status = of.status_subject(&template(), &name());
            let letter = of.dead_letter_subject(&template(), 17);
            assert_eq!(of.parse_create_subject(&create), Some(template()));
            assert_eq!(of.parse_status_subject(&status), Some((template(), name())));
            assert_eq!(of.parse_dead_letter_subject(&letter), Some((template(), 17)));
            assert_eq!(other.parse_create_subject(&create), None);
            assert_eq!(other.parse_status_subject(&status), None);
            assert_eq!(other.parse_dead_letter_subject(&letter), None);
        }
        for other in ["jobs.simple.status._rejected", "jobs.simple.create", "jobs.simple.status.a.b", "x"] {
            assert_eq!(plain.parse_status_subject(other), None, "{other}");
        }
        for other in ["jobs.simple.rejected.x", "jobs.simple.status.17", "jobs.A.rejected.1", ""] {
            assert_eq!(plain.parse_dead_letter_subject(other), None, "{other}");
        }
        assert_eq!(plain.parse_create_subject("jobs.*.create"), None);
    }

    proptest! {
        #[test]
        fn status_subject_has_four_tokens_and_is_parsed_again(
            (template, name, prefix) in ("[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", "[a-z][a-z0-9]{0,6}")
        ) {
            let (template, name) = (TemplateName::try_from(template).unwrap(), JobName::try_from(name).unwrap());
            let mut all = vec![(NatsNames::default(), 4)];
            all.extend(NatsNames::with_prefix(&prefix).ok().map(|names| (names, 5)));
            for (names, tokens) in all {
                let subject = names.status_subject(&template, &name);
                prop_assert_eq!(subject.split('.').count(), tokens);
                prop_assert_eq!(names.parse_status_subject(&subject), Some((template.clone(), name.clone())));
            }
        }
    }
}
