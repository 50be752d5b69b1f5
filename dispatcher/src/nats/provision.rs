//! Streams and consumers at start: created where absent, verified where present.
//!
//! Only what the promises rest on is synced; replicas, ages, sizes, placement and the deduplication window belong to
//! the operator. Subjects of new templates are added, none is removed, and the result is read again.

use async_nats::jetstream::{
    self,
    consumer::PullConsumer,
    context::GetStreamErrorKind,
    stream::{Config, Info},
};
use serde_json::Value;

use crate::nats::{
    definitions::{
        self, JOB_STATUS, JOBS, NAMESPACE_UID, PROMISED_OF_CONSUMER, PROMISED_OF_STREAM, conflicts,
    },
    incarnation::StreamIncarnation,
};
use crate::{cli::StartError, kube::chain};
use dispatcher_core::contract::names::TemplateName;

/// The oldest server whose JetStream does what the promises need (subject transforms).
const OLDEST_SERVER: (u64, u64) = (2, 10);

/// How streams are treated at start.
#[derive(Debug, Clone)]
pub struct Provision {
    /// Verify only; create and change nothing.
    pub verify_only: bool,
    /// EventHandler over a `JOB_STATUS` that tells of another namespace.
    pub adopt: bool,
    /// The uid of the Jobs' namespace.
    pub namespace_uid: String,
}

/// What the service works with.
pub struct Provisioned {
    /// Which `JOBS` it is.
    pub jobs: StreamIncarnation,
    /// The last sequence of `JOBS` at this start.
    pub last_sequence: u64,
    /// The consumer of each template.
    pub consumers: Vec<(TemplateName, PullConsumer)>,
}

impl Provision {
    /// Sees to it that every stream and consumer is there as the contract says.
    ///
    /// # Errors
    /// [`StartError`] that names the stream or consumer, and each field that differs.
    pub async fn run(
        &self,
        context: &jetstream::Context,
        templates: &[TemplateName],
    ) -> Result<Provisioned, StartError> {
        check_server(&context.client().server_info().version)?;
        let jobs = self.stream(context, definitions::jobs(templates)).await?;
        let mut status = definitions::job_status();
        status.metadata.insert(NAMESPACE_UID.to_owned(), self.namespace_uid.clone());
        self.stream(context, status).await?;
        self.stream(context, definitions::job_rejected()).await?;
        self.stream(context, definitions::job_cancels()).await?;
        let mut consumers = Vec::new();
        for template in templates {
            consumers.push((template.clone(), self.consumer(context, template).await?));
        }
        let last_sequence = jobs.state.last_sequence;
        Ok(Provisioned { jobs: StreamIncarnation::of(&jobs), last_sequence, consumers })
    }

    async fn stream(&self, context: &jetstream::Context, wanted: Config) -> Result<Info, StartError> {
        let setting = format!("stream {}", wanted.name);
        let failed = |error: &dyn std::error::Error| StartError::new(setting.clone(), chain(error));
        let found = match context.get_stream(&wanted.name).await {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(e)
                    if e.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    if self.verify_only {
                        return Err(StartError::new(
                            setting,
                            "is not there, and --no-provision forbids to create it",
                        ));
                    }
                    let created = context.create_stream(wanted.clone()).await.map_err(|e| failed(&e))?;
                    tracing::info!(stream = wanted.name, "created");
                    created.cached_info().clone()
                }
                _ => return Err(failed(&error)),
            },
        };
        verify(&setting, &wanted, &found.config, &PROMISED_OF_STREAM)?;
        let Some(update) = self.update(&setting, &wanted, &found.config)? else { return Ok(found) };
        if self.verify_only {
            let lacking = lacking(&found.config, &update);
            let message = format!("lacks {lacking}, and --no-provision forbids to add it");
            return Err(StartError::new(setting, message));
        }
        context.update_stream(update).await.map_err(|e| failed(&e))?;
        // Of two updates at once the last wins: what counts is what is there now.
        let found = context.get_stream(&wanted.name).await.map_err(|e| failed(&e))?.cached_info().clone();
        match self.update(&setting, &wanted, &found.config)? {
            None => Ok(found),
            Some(_) => Err(StartError::new(setting, "was changed by somebody else meanwhile; start again")),
        }
    }

    /// The stream's configuration with what is to be added; `None` where nothing is.
    fn update(&self, setting: &str, wanted: &Config, found: &Config) -> Result<Option<Config>, StartError> {
        let mut update = found.clone();
        let lacking = wanted.subjects.iter().filter(|subject| !found.subjects.contains(subject)).cloned();
        update.subjects.extend(lacking);
        if wanted.name == JOB_STATUS && update.subjects != wanted.subjects {
            let message = format!("subjects: found {:?}, must be {:?}", found.subjects, wanted.subjects);
            return Err(StartError::new(setting, message));
        }
        for (key, value) in &wanted.metadata {
            match found.metadata.get(key) {
                Some(other) if other != value && !self.adopt => {
                    let message = format!(
                        "metadata {key}: found {other}, this namespace is {value}: the stream tells of another \
                         cluster's Jobs; use another NATS account, or --adopt to take it over"
                    );
                    return Err(StartError::new(setting, message));
                }
                _ => {
                    update.metadata.insert(key.clone(), value.clone());
                }
            }
        }
        Ok((update.subjects != found.subjects || update.metadata != found.metadata).then_some(update))
    }

    async fn consumer(
        &self,
        context: &jetstream::Context,
        template: &TemplateName,
    ) -> Result<PullConsumer, StartError> {
        let wanted = definitions::consumer(template);
        let setting = format!("consumer {} of stream {JOBS}", template.consumer_name());
        let failed = |error: &dyn std::error::Error| StartError::new(setting.clone(), chain(error));
        let stream = context.get_stream_no_info(JOBS).await.map_err(|e| failed(&e))?;
        let consumer: PullConsumer = if self.verify_only {
            stream
                .get_consumer(&template.consumer_name())
                .await
                .map_err(|e| StartError::new(setting.clone(), e.to_string()))?
        } else {
            stream
                .get_or_create_consumer(&template.consumer_name(), wanted.clone())
                .await
                .map_err(|e| failed(&e))?
        };
        let found = &consumer.cached_info().config;
        verify(&setting, &wanted, found, &PROMISED_OF_CONSUMER)?;
        if found.ack_wait < definitions::ACK_WAIT {
            let (found, least) = (found.ack_wait.as_secs(), definitions::ACK_WAIT.as_secs());
            return Err(StartError::new(
                setting,
                format!("ack_wait: found {found} s, must be at least {least} s"),
            ));
        }
        Ok(consumer)
    }
}

/// What an update adds, for the reader.
fn lacking(found: &Config, update: &Config) -> String {
    let subjects =
        update.subjects.iter().filter(|s| !found.subjects.contains(s)).map(|s| format!("subject {s}"));
    let metadata = update.metadata.iter().filter(|(key, value)| found.metadata.get(*key) != Some(value));
    let metadata = metadata.map(|(key, value)| format!("metadata {key}={value}"));
    subjects.chain(metadata).collect::<Vec<_>>().join(", ")
}

fn verify(
    setting: &str,
    wanted: &impl serde::Serialize,
    found: &impl serde::Serialize,
    fields: &[&'static str],
) -> Result<(), StartError> {
    let wanted = serde_json::to_value(wanted).unwrap_or(Value::Null);
    let found = serde_json::to_value(found).unwrap_or(Value::Null);
    let differing = conflicts(&wanted, &found, fields);
    if differing.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = differing.iter().map(ToString::to_string).collect();
    Err(StartError::new(setting, list.join("; ")))
}

fn check_server(version: &str) -> Result<(), StartError> {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_SERVER => {
            let (major, minor) = OLDEST_SERVER;
            Err(StartError::new(
                "NATS_URL",
                format!("the server is {version}, {major}.{minor} or newer is needed"),
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provision(adopt: bool) -> Provision {
        Provision { verify_only: false, adopt, namespace_uid: "here".into() }
    }

    fn status(uid: Option<&str>) -> Config {
        let mut config = definitions::job_status();
        config.metadata.extend(uid.map(|uid| (NAMESPACE_UID.to_owned(), uid.to_owned())));
        config
    }

    #[test]
    fn subjects_of_new_kinds_are_added_and_none_is_removed() {
        let templates =
            |names: &[&str]| names.iter().map(|n| TemplateName::try_from(*n).unwrap()).collect::<Vec<_>>();
        let found = definitions::jobs(&templates(&["old", "simple"]));
        let wanted = definitions::jobs(&templates(&["simple", "new"]));
        let update = provision(false).update("s", &wanted, &found).unwrap().unwrap();
        assert_eq!(update.subjects, ["jobs.old.create", "jobs.simple.create", "jobs.new.create"]);
        assert_eq!(provision(false).update("s", &found, &found).unwrap(), None);
    }

    #[test]
    fn a_status_stream_of_another_cluster_is_refused_unless_adopted() {
        let wanted = status(Some("here"));
        assert_eq!(provision(false).update("s", &wanted, &wanted).unwrap(), None);
        assert!(provision(false).update("s", &wanted, &status(None)).unwrap().is_some(), "taken at once");
        let error = provision(false).update("s", &wanted, &status(Some("there"))).unwrap_err().to_string();
        assert!(error.contains("found there, this namespace is here"), "{error}");
        assert!(provision(true).update("s", &wanted, &status(Some("there"))).unwrap().is_some());
    }

    #[test]
    fn an_old_server_is_refused() {
        assert!(check_server("2.9.25").is_err());
        for version in ["2.10.0", "2.15.1", "3.0.0-dev", "unknown"] {
            assert!(check_server(version).is_ok(), "{version}");
        }
    }
}
