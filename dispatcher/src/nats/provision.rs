//! Creates the streams and consumers at start, or verifies the existing ones.
//!
//! Verifies only the fields that the guarantees depend on. Replicas, ages, sizes, placement and the
//! deduplication window belong to the operator. Adds the subjects of new templates, removes none,
//! and reads the result again.

use async_nats::jetstream::{
    self,
    consumer::PullConsumer,
    context::GetStreamErrorKind,
    stream::{Config, Info},
};
use dispatcher_core::{contract::names::TemplateName, request::ACK_WAIT};
use serde_json::Value;

use crate::{
    cli::StartError,
    kube::chain,
    nats::{
        definitions::{
            self, JOB_STATUS, JOBS, NAMESPACE_UID, REQUIRED_OF_CONSUMER, REQUIRED_OF_STREAM, conflicts,
        },
        jobs_stream::JobsStream,
    },
};

/// The oldest server with the required `JetStream` features (subject transforms).
const OLDEST_SERVER: (u64, u64) = (2, 10);

/// How to treat the streams at start.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    /// Verify only; create and change nothing (`--no-provision`).
    pub verify_only: bool,
    /// Take over a `JOB_STATUS` of another namespace (`--adopt`).
    pub adopt: bool,
    /// The uid of the Jobs' namespace.
    pub namespace_uid: String,
}

/// The streams and consumers after provisioning.
pub(crate) struct Provisioned {
    /// The stream of requests.
    pub jobs: JobsStream,
    /// The last sequence of `JOBS` at this start.
    pub last_sequence: u64,
    /// The consumer of each template.
    pub consumers: Vec<(TemplateName, PullConsumer)>,
}

impl Provision {
    /// Creates or verifies every stream and consumer.
    ///
    /// # Errors
    /// [`StartError`] with the stream or consumer, and each field that differs.
    pub(crate) async fn run(
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
        Ok(Provisioned { jobs: JobsStream::new(context.clone(), &jobs), last_sequence, consumers })
    }

    async fn stream(&self, context: &jetstream::Context, expected: Config) -> Result<Info, StartError> {
        let setting = format!("stream {}", expected.name);
        let failed = |error: &dyn std::error::Error| StartError::new(setting.clone(), chain(error));
        let found = match self.find(context, &expected.name).await? {
            Some(found) => found,
            None if self.verify_only => {
                let message = "not found, and --no-provision forbids to create it";
                return Err(StartError::new(setting, message));
            }
            None => {
                let created = context.create_stream(expected.clone()).await.map_err(|e| failed(&e))?;
                tracing::info!(stream = expected.name, "stream created");
                created.cached_info().clone()
            }
        };
        verify(&setting, &expected, &found.config, &REQUIRED_OF_STREAM)?;
        let Some(update) = self.update(&setting, &expected, &found.config)? else { return Ok(found) };
        if self.verify_only {
            let additions = additions(&found.config, &update);
            let message = format!("lacks {additions}, and --no-provision forbids to add it");
            return Err(StartError::new(setting, message));
        }
        context.update_stream(update).await.map_err(|e| failed(&e))?;
        // Another replica may have updated the stream at the same time, and the last update wins.
        let found = context.get_stream(&expected.name).await.map_err(|e| failed(&e))?.cached_info().clone();
        match self.update(&setting, &expected, &found.config)? {
            None => Ok(found),
            Some(_) => {
                Err(StartError::new(setting, "was changed at the same time by another process; restart"))
            }
        }
    }

    async fn find(&self, context: &jetstream::Context, name: &str) -> Result<Option<Info>, StartError> {
        match context.get_stream(name).await {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(e)
                    if e.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                _ => Err(StartError::new(format!("stream {name}"), chain(&error))),
            },
        }
    }

    /// The configuration of the stream with its additions; `None` if there are none.
    fn update(&self, setting: &str, expected: &Config, found: &Config) -> Result<Option<Config>, StartError> {
        let mut update = found.clone();
        let new = expected.subjects.iter().filter(|subject| !found.subjects.contains(subject)).cloned();
        update.subjects.extend(new);
        if expected.name == JOB_STATUS && update.subjects != expected.subjects {
            let message = format!("subjects: found {:?}, must be {:?}", found.subjects, expected.subjects);
            return Err(StartError::new(setting, message));
        }
        for (key, value) in &expected.metadata {
            match found.metadata.get(key) {
                Some(other) if other != value && !self.adopt => {
                    let message = format!(
                        "metadata {key}: found {other}, this namespace is {value}: the stream belongs to \
                         another cluster's Jobs; use another NATS account, or --adopt to take it over"
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
        let (name, expected) = (template.consumer_name(), definitions::consumer(template));
        let setting = format!("consumer {name} of stream {JOBS}");
        let failed = |error: &dyn std::error::Error| StartError::new(setting.clone(), chain(error));
        let stream = context.get_stream_no_info(JOBS).await.map_err(|e| failed(&e))?;
        let consumer: PullConsumer = if self.verify_only {
            let found = stream.get_consumer(&name).await;
            found.map_err(|e| StartError::new(setting.clone(), e.to_string()))?
        } else {
            stream.get_or_create_consumer(&name, expected.clone()).await.map_err(|e| failed(&e))?
        };
        let found = &consumer.cached_info().config;
        verify(&setting, &expected, found, &REQUIRED_OF_CONSUMER)?;
        if found.ack_wait < ACK_WAIT {
            let (found, least) = (found.ack_wait.as_secs(), ACK_WAIT.as_secs());
            let message = format!("ack_wait: found {found} s, must be at least {least} s");
            return Err(StartError::new(setting, message));
        }
        Ok(consumer)
    }
}

/// The additions of an update, for an error message.
fn additions(found: &Config, update: &Config) -> String {
    let subjects =
        update.subjects.iter().filter(|s| !found.subjects.contains(s)).map(|s| format!("subject {s}"));
    let metadata = update.metadata.iter().filter(|(key, value)| found.metadata.get(*key) != Some(value));
    let metadata = metadata.map(|(key, value)| format!("metadata {key}={value}"));
    subjects.chain(metadata).collect::<Vec<_>>().join(", ")
}

fn verify(
    setting: &str,
    expected: &impl serde::Serialize,
    found: &impl serde::Serialize,
    fields: &[&'static str],
) -> Result<(), StartError> {
    let expected = serde_json::to_value(expected).unwrap_or(Value::Null);
    let found = serde_json::to_value(found).unwrap_or(Value::Null);
    let conflicts = conflicts(&expected, &found, fields);
    if conflicts.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    Err(StartError::new(setting, list.join("; ")))
}

fn check_server(version: &str) -> Result<(), StartError> {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_SERVER => {
            let (major, minor) = OLDEST_SERVER;
            let message = format!("the server is {version}, {major}.{minor} or newer is needed");
            Err(StartError::new("NATS_URL", message))
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
    fn subjects_of_new_templates_are_added_and_none_is_removed() {
        let templates =
            |names: &[&str]| names.iter().map(|n| TemplateName::try_from(*n).unwrap()).collect::<Vec<_>>();
        let found = definitions::jobs(&templates(&["old", "simple"]));
        let expected = definitions::jobs(&templates(&["simple", "new"]));
        let update = provision(false).update("s", &expected, &found).unwrap().unwrap();
        assert_eq!(update.subjects, ["jobs.old.create", "jobs.simple.create", "jobs.new.create"]);
        assert_eq!(provision(false).update("s", &found, &found).unwrap(), None);
    }

    #[test]
    fn the_status_stream_of_another_cluster_is_refused_unless_adopted() {
        let expected = status(Some("here"));
        assert_eq!(provision(false).update("s", &expected, &expected).unwrap(), None);
        let unmarked = provision(false).update("s", &expected, &status(None)).unwrap();
        assert!(unmarked.is_some(), "a stream without a uid is taken over");
        let error = provision(false).update("s", &expected, &status(Some("there"))).unwrap_err().to_string();
        assert!(error.contains("found there, this namespace is here"), "{error}");
        assert!(provision(true).update("s", &expected, &status(Some("there"))).unwrap().is_some());
    }

    #[test]
    fn an_old_server_is_refused() {
        assert!(check_server("2.9.25").is_err());
        for version in ["2.10.0", "2.15.1", "3.0.0-dev", "unknown"] {
            assert!(check_server(version).is_ok(), "{version}");
        }
    }
}
