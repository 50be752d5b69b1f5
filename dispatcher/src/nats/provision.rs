//! Creates the streams and consumers at start, or verifies the existing ones.
//!
//! Refuses every setting that is not known to be harmless. Replicas, ages, sizes and placement belong
//! to the operator. Adds the subjects of new templates, removes none, keeps every other field, and
//! reads the result again.

mod errors;

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{self, PullConsumer},
    response::Response,
    stream::{Config, ConsumerError, Info},
};
use dispatcher_core::{
    contract::{names::TemplateName, nats_names::NatsNames, settings::Owner},
    request::ACK_WAIT,
    versions,
};
use serde_json::{Map, Value};

use self::errors::{NOT_FOUND, check_server, consumer_error, create_error, is_missing};
use crate::{
    cli::StartError,
    kube::chain,
    nats::{
        definitions::{self, NAMESPACE_UID},
        jobs_stream::JobsStream,
        settings,
    },
};

/// How to treat the streams at start.
#[derive(Debug, Clone)]
pub(crate) struct Provision {
    /// The names of the streams and subjects.
    pub names: NatsNames,
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
    /// The consumer of each template.
    pub consumers: BTreeMap<TemplateName, Queue>,
}

/// The queue of one template.
pub(crate) struct Queue {
    /// The consumer.
    pub consumer: PullConsumer,
    /// The last sequence of `JOBS` when the consumer was found.
    pub last_sequence: u64,
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
        let server = context.client().server_info().version;
        check_server(&server)?;
        if versions::skips_messages(&server) {
            tracing::warn!(server, "the NATS server can skip requests; update it to 2.10.26 or newer");
        }
        let [(owner, jobs), others @ ..] = self.streams(templates);
        let jobs = self.stream(context, owner, jobs).await?;
        for (owner, config) in others {
            self.stream(context, owner, config).await?;
        }
        let mut consumers = BTreeMap::new();
        for template in templates {
            let consumer = self.consumer(context, template).await?;
            let last_sequence = jobs.state.last_sequence;
            consumers.insert(template.clone(), Queue { consumer, last_sequence });
        }
        let jobs = JobsStream::new(context.clone(), self.names.clone(), &jobs);
        Ok(Provisioned { jobs, consumers })
    }

    /// The streams that this dispatcher expects, the one of the requests first.
    pub(crate) fn streams(&self, templates: &[TemplateName]) -> [(Owner, Config); 4] {
        definitions::streams(&self.names, templates).map(|(owner, mut stream)| {
            if owner == Owner::StatusEvents {
                stream.metadata.insert(NAMESPACE_UID.to_owned(), self.namespace_uid.clone());
            }
            (owner, stream)
        })
    }

    /// Creates or verifies the queue of one template: its subject of `JOBS` and its consumer.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn template(
        &self,
        context: &jetstream::Context,
        template: &TemplateName,
    ) -> Result<Queue, StartError> {
        let jobs = self.stream(context, Owner::Requests, definitions::jobs(&self.names, [template])).await?;
        let consumer = self.consumer(context, template).await?;
        Ok(Queue { consumer, last_sequence: jobs.state.last_sequence })
    }

    /// Removes the queue of a template if it is empty. Returns whether it is gone.
    ///
    /// The subject goes first: otherwise a request could arrive that no consumer delivers. If one
    /// arrives meanwhile, the subject comes back, since the server accepts no ack of a message whose
    /// subject the stream has lost (measured on 2.12.8 and 2.15.1).
    ///
    /// # Errors
    /// If the server refuses or does not answer.
    pub(crate) async fn remove(&self, jobs: &JobsStream, template: &TemplateName) -> Result<bool, String> {
        let context = jobs.context();
        match jobs.queue(template).await? {
            None => return Ok(true),
            Some(info) if !is_empty(&info) => return Ok(false),
            // An administrator removes the queue.
            Some(_) if self.verify_only => return Ok(true),
            Some(_) => {}
        }
        self.set_subject(context, template, false).await?;
        if !jobs.queue(template).await?.is_none_or(|info| is_empty(&info)) {
            self.set_subject(context, template, true).await?;
            return Ok(false);
        }
        let deleted = context.delete_consumer_from_stream(template.consumer_name(), self.names.jobs()).await;
        if let Err(error) = deleted
            && !is_missing(&error)
        {
            return Err(chain(&error));
        }
        tracing::info!(%template, "the template's subject and consumer are removed");
        Ok(true)
    }

    /// Whether the leader has removed the queue of a template; with `--no-provision`, whether it is
    /// empty.
    ///
    /// # Errors
    /// If the server does not answer.
    pub(crate) async fn is_removed(
        &self,
        jobs: &JobsStream,
        template: &TemplateName,
    ) -> Result<bool, String> {
        let queue = jobs.queue(template).await?;
        Ok(queue.is_none_or(|info| self.verify_only && is_empty(&info)))
    }

    /// Adds the subject of a template to `JOBS`, or removes it.
    async fn set_subject(
        &self,
        context: &jetstream::Context,
        template: &TemplateName,
        present: bool,
    ) -> Result<(), String> {
        let (stream, no_template) = (self.names.jobs(), self.names.no_template_subject());
        let found = existing(context, stream).await.map_err(|e| e.to_string())?;
        let mut config = found.get("config").cloned().unwrap_or_default();
        let subject = self.names.create_subject(template);
        let mut all = subjects(&config);
        all.retain(|other| *other != subject && *other != no_template);
        if present {
            all.push(subject);
        }
        if all.is_empty() {
            all.push(no_template);
        }
        if let Some(config) = config.as_object_mut() {
            config.insert("subjects".to_owned(), all.into());
        }
        update_stream(context, stream, &config).await.map_err(|e| e.to_string())
    }

    async fn stream(
        &self,
        context: &jetstream::Context,
        owner: Owner,
        expected: Config,
    ) -> Result<Info, StartError> {
        let setting = format!("stream {}", expected.name);
        let found = match find(context, &expected.name).await? {
            Some(found) => found,
            None if self.verify_only => {
                return Err(StartError::new(setting, NOT_FOUND));
            }
            None => {
                context.create_stream(&expected).await.map_err(|e| create_error(&expected, &e))?;
                tracing::info!(stream = expected.name, "stream created");
                existing(context, &expected.name).await?
            }
        };
        self.verify(context, &setting, owner, &expected, &found)?;
        let config = found.get("config").unwrap_or(&Value::Null);
        let Some(update) = self.update(&setting, &expected, config)? else { return typed(&setting, found) };
        if self.verify_only {
            let additions = additions(config, &update);
            let message = format!("lacks {additions}, and --no-provision forbids to add it");
            return Err(StartError::new(setting, message));
        }
        update_stream(context, &expected.name, &update).await?;
        // Another replica may have updated the stream at the same time, and the last update wins.
        let found = existing(context, &expected.name).await?;
        match self.update(&setting, &expected, found.get("config").unwrap_or(&Value::Null))? {
            None => typed(&setting, found),
            Some(_) => {
                Err(StartError::new(setting, "was changed at the same time by another process; try again"))
            }
        }
    }

    /// The configuration of the stream with its additions, and with every other field as the server
    /// returned it; `None` if there are no additions.
    ///
    /// # Errors
    /// If the stream has other subjects, or belongs to another namespace.
    pub(crate) fn update(
        &self,
        setting: &str,
        expected: &Config,
        found: &Value,
    ) -> Result<Option<Value>, StartError> {
        let (before, no_template) = (subjects(found), self.names.no_template_subject());
        let is_new =
            |subject: &&String| !before.contains(subject) && (before.is_empty() || **subject != no_template);
        let new = expected.subjects.iter().filter(is_new);
        let is_needed = |subject: &String| expected.subjects.contains(subject) || *subject != no_template;
        let after: Vec<_> = before.iter().filter(|subject| is_needed(subject)).chain(new).cloned().collect();
        if expected.name == self.names.job_status() && after != expected.subjects {
            let message = format!("subjects: found {before:?}, must be {:?}", expected.subjects);
            return Err(StartError::new(setting, message));
        }
        let mut metadata = metadata(found);
        for (key, value) in &expected.metadata {
            match metadata.get(key).and_then(Value::as_str) {
                Some(other) if other != value && !self.adopt => {
                    let message = format!(
                        "metadata {key}: found {other}, this namespace is {value}: the stream belongs to \
                         another cluster's Jobs; use another DISPATCHER_PREFIX or NATS account, or --adopt to take \
                         it over"
                    );
                    return Err(StartError::new(setting, message));
                }
                Some(same) if same == value => {}
                _ => drop(metadata.insert(key.clone(), value.as_str().into())),
            }
        }
        let mut update = found.as_object().cloned().unwrap_or_default();
        update.insert("subjects".to_owned(), after.into());
        if !metadata.is_empty() {
            update.insert("metadata".to_owned(), metadata.into());
        }
        let update = Value::Object(update);
        Ok((update != *found).then_some(update))
    }

    async fn consumer(
        &self,
        context: &jetstream::Context,
        template: &TemplateName,
    ) -> Result<PullConsumer, StartError> {
        let (name, expected) = (template.consumer_name(), definitions::consumer(&self.names, template));
        let stream_name = self.names.jobs();
        let setting = format!("consumer {name} of stream {stream_name}");
        let failed = |error: &ConsumerError| consumer_error(&setting, error);
        let consumer: PullConsumer = if self.verify_only {
            let found = context.get_consumer_from_stream(&name, stream_name).await;
            found.map_err(|e| failed(&e))?
        } else {
            let stream = context.get_stream_no_info(stream_name).await;
            let stream = stream.map_err(|e| StartError::new(setting.clone(), chain(&e)))?;
            let found = stream.get_or_create_consumer(&name, expected.clone()).await;
            found.map_err(|e| failed(&e))?
        };
        let info = settings::info(context, &format!("CONSUMER.INFO.{stream_name}.{name}")).await;
        let info = info.map_err(|e| e.at_start(&setting))?.unwrap_or_default();
        self.verify(context, &setting, Owner::Consumer, &expected, &info)?;
        let found = &consumer.cached_info().config;
        ack_wait_problem(found.ack_wait)
            .map_or(Ok(consumer), |problem| Err(StartError::new(setting, problem)))
    }

    /// Refuses settings that break a guarantee. The watchdog logs the warnings.
    fn verify(
        &self,
        context: &jetstream::Context,
        setting: &str,
        owner: Owner,
        expected: &impl serde::Serialize,
        info: &Value,
    ) -> Result<(), StartError> {
        let max_payload = context.client().max_payload();
        let checked = settings::check(&self.names, owner, expected, info, max_payload);
        if checked.harmful.is_empty() {
            return Ok(());
        }
        Err(StartError::new(setting, checked.harmful.join("; ")))
    }
}

/// Why a consumer cannot have this `ack_wait`, if so.
pub(crate) fn ack_wait_problem(found: Duration) -> Option<String> {
    let (seconds, least) = (found.as_secs(), ACK_WAIT.as_secs());
    (found < ACK_WAIT).then(|| format!("ack_wait: found {seconds} s, must be at least {least} s"))
}

fn is_empty(queue: &consumer::Info) -> bool {
    queue.num_pending == 0 && queue.num_ack_pending == 0
}

/// The server's information about a stream, if it exists.
async fn find(context: &jetstream::Context, name: &str) -> Result<Option<Value>, StartError> {
    let info = settings::info(context, &format!("STREAM.INFO.{name}")).await;
    info.map_err(|e| e.at_start(format!("stream {name}")))
}

async fn update_stream(context: &jetstream::Context, name: &str, config: &Value) -> Result<(), StartError> {
    let error = |message: String| StartError::new(format!("stream {name}"), message);
    let answer = context.request(format!("STREAM.UPDATE.{name}"), config).await;
    match answer.map_err(|e| error(chain(&e)).transient_if(true))? {
        Response::<Value>::Ok(_) => Ok(()),
        Response::Err { error: refused } => {
            let away = settings::is_unavailable(refused.error_code());
            Err(error(refused.to_string()).transient_if(away))
        }
    }
}

async fn existing(context: &jetstream::Context, name: &str) -> Result<Value, StartError> {
    let missing = || StartError::new(format!("stream {name}"), "was deleted during the start");
    find(context, name).await?.ok_or_else(missing)
}

fn typed(setting: &str, info: Value) -> Result<Info, StartError> {
    serde_json::from_value(info).map_err(|e| StartError::new(setting, format!("unexpected information: {e}")))
}

/// The subjects of a stream's configuration.
pub(crate) fn subjects(config: &Value) -> Vec<String> {
    let subjects = config.get("subjects").and_then(Value::as_array).into_iter().flatten();
    subjects.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn metadata(config: &Value) -> Map<String, Value> {
    config.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The additions of an update, for an error message.
pub(crate) fn additions(found: &Value, update: &Value) -> String {
    let (before, after) = (subjects(found), subjects(update));
    let subjects = after.iter().filter(|s| !before.contains(s)).map(|s| format!("subject {s}"));
    let (before, after) = (metadata(found), metadata(update));
    let metadata = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = metadata.map(|(key, value)| format!("metadata {key}={}", text(value)));
    subjects.chain(metadata).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provision(adopt: bool) -> Provision {
        Provision { names: NatsNames::default(), verify_only: false, adopt, namespace_uid: "here".into() }
    }

    fn status(uid: Option<&str>) -> Config {
        let mut config = definitions::job_status(&NatsNames::default());
        config.metadata.extend(uid.map(|uid| (NAMESPACE_UID.to_owned(), uid.to_owned())));
        config
    }

    fn json(config: &Config) -> Value {
        serde_json::to_value(config).unwrap()
    }

    #[test]
    fn subjects_of_new_templates_are_added_and_none_is_removed() {
        let templates =
            |names: &[&str]| names.iter().map(|n| TemplateName::try_from(*n).unwrap()).collect::<Vec<_>>();
        let found = definitions::jobs(&NatsNames::default(), &templates(&["old", "simple"]));
        let expected = definitions::jobs(&NatsNames::default(), &templates(&["simple", "new"]));
        let mut server = json(&found);
        server["placement"] = serde_json::json!({"unknown to the client library": true});
        let update = provision(false).update("s", &expected, &server).unwrap().unwrap();
        assert_eq!(subjects(&update), ["jobs.old.create", "jobs.simple.create", "jobs.new.create"]);
        assert_eq!(update["placement"], server["placement"], "other fields are kept");
        assert_eq!(provision(false).update("s", &found, &json(&found)).unwrap(), None);
    }

    #[test]
    fn the_status_stream_of_another_cluster_is_refused_unless_adopted() {
        let expected = status(Some("here"));
        assert_eq!(provision(false).update("s", &expected, &json(&expected)).unwrap(), None);
        let unmarked = provision(false).update("s", &expected, &json(&status(None))).unwrap();
        assert!(unmarked.is_some(), "a stream without a uid is taken over");
        let error =
            provision(false).update("s", &expected, &json(&status(Some("there")))).unwrap_err().to_string();
        assert!(error.contains("found there, this namespace is here"), "{error}");
        assert!(provision(true).update("s", &expected, &json(&status(Some("there")))).unwrap().is_some());
    }
}
