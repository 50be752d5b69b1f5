//! Facts about the streams and consumers, by the code that provisions them at the start.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream::Config};
use dispatcher_core::{
    contract::{names::TemplateName, nats_names::NatsNames, settings::Owner},
    doctor::{
        account::MissingStream,
        consumers::{self, Leftover, Queue},
        streams::{Context, Details, Found, Overlap, State, Stream, Update},
    },
    template::Template,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    doctor::nats::Connection,
    nats::{
        definitions,
        provision::{self, Provision},
        scan::get_message,
        settings,
    },
    templates::ttl_problem,
};

/// How many calls are in flight.
const CONCURRENT: usize = 8;

/// The streams and consumers.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) streams: Vec<Stream>,
    pub(super) overlaps: Vec<Overlap>,
    /// Why overlaps could not be looked for, if so.
    pub(super) overlaps_unknown: Option<String>,
    pub(super) queues: Vec<Queue>,
    pub(super) leftovers: Vec<Leftover>,
    /// Consumers of no template.
    pub(super) other_consumers: u64,
    /// Streams that do not exist.
    pub(super) missing: Vec<MissingStream>,
    /// The time of the server, and of this machine when it answered.
    pub(super) clock: Option<(OffsetDateTime, OffsetDateTime)>,
    /// The number of dead letters.
    pub(super) dead_letters: Option<u64>,
    /// The most replicas of a stream.
    pub(super) replicas: u64,
}

/// What the facts are compared with.
pub(super) struct Expected<'a> {
    /// The names of the streams and subjects.
    pub(super) names: NatsNames,
    /// The templates in use.
    pub(super) templates: BTreeMap<TemplateName, Arc<Template>>,
    /// The uid of the Jobs' namespace, if it is known.
    pub(super) namespace_uid: Option<String>,
    pub(super) verify_only: bool,
    pub(super) adopt: bool,
    pub(super) connection: &'a Connection,
}

impl Expected<'_> {
    /// The circumstances that decide what a finding means.
    pub(super) fn context(&self) -> Context {
        Context { verify_only: self.verify_only, is_clustered: self.connection.is_clustered }
    }

    fn jetstream(&self) -> &jetstream::Context {
        &self.connection.jetstream
    }

    /// Reads everything.
    pub(super) async fn read(&self) -> Streams {
        let names: Vec<_> = self.templates.keys().cloned().collect();
        let namespace_uid = self.namespace_uid.clone().unwrap_or_default();
        let provision = Provision {
            names: self.names.clone(),
            verify_only: self.verify_only,
            adopt: self.adopt,
            namespace_uid,
        };
        let mut expected = provision.streams(&names);
        if self.namespace_uid.is_none() {
            // Unknown, so it cannot be compared.
            expected.iter_mut().for_each(|(_, config)| config.metadata.clear());
        }
        let mut all = Streams { replicas: 1, ..Streams::default() };
        let mut jobs = None;
        for (owner, config) in &expected {
            let info = self.stream(&provision, *owner, config, &mut all).await;
            if *owner == Owner::Requests {
                jobs = info;
            } else if *owner == Owner::DeadLetters {
                all.dead_letters = info.map(|info| State::of(&info).messages);
            }
        }
        let subjects = expected.iter().flat_map(|(_, config)| {
            config.subjects.iter().map(|subject| (config.name.clone(), subject.clone(), false))
        });
        let republished = (self.names.job_status().to_owned(), self.names.status_subjects(), true);
        self.overlaps(subjects.chain([republished]).collect(), &mut all).await;
        if let Some(jobs) = jobs {
            self.queues(&jobs, &mut all).await;
        }
        all
    }

    async fn stream(
        &self,
        provision: &Provision,
        owner: Owner,
        expected: &Config,
        all: &mut Streams,
    ) -> Option<Value> {
        let name = expected.name.clone();
        let answer = settings::info(self.jetstream(), &format!("STREAM.INFO.{name}")).await;
        let here = OffsetDateTime::now_utc();
        let (found, info) = match answer {
            Err(error) => (Found::Unknown(error.to_string()), None),
            Ok(None) => {
                let max_bytes = u64::try_from(expected.max_bytes).unwrap_or_default();
                all.missing.push(MissingStream { name: name.clone(), max_bytes });
                (Found::Missing, None)
            }
            Ok(Some(info)) => {
                all.clock = server_time(&info).map(|time| (time, here)).or(all.clock);
                let details = details(provision, owner, expected, &info, self.max_payload());
                all.replicas = all.replicas.max(details.state.replicas);
                (Found::Exists(Box::new(details)), Some(info))
            }
        };
        all.streams.push(Stream { name, found });
        info
    }

    fn max_payload(&self) -> usize {
        self.connection.client.max_payload()
    }

    async fn overlaps(&self, subjects: Vec<(String, String, bool)>, all: &mut Streams) {
        let mut answers = stream::iter(subjects)
            .map(|(stream, subject, is_republished)| async move {
                let names = settings::streams_on(self.jetstream(), &subject).await;
                (Overlap { subject, stream, is_republished, others: vec![] }, names)
            })
            .buffered(CONCURRENT);
        while let Some((overlap, names)) = answers.next().await {
            match names {
                Err(error) => {
                    // The other calls would fail too, after the same time.
                    all.overlaps_unknown = Some(error.to_string());
                    return;
                }
                Ok(names) => {
                    let others: Vec<_> = names.into_iter().filter(|name| *name != overlap.stream).collect();
                    if !others.is_empty() {
                        all.overlaps.push(Overlap { others, ..overlap });
                    }
                }
            }
        }
    }

    /// The queues of the templates in use, and those of others in the stream of requests.
    async fn queues(&self, jobs: &Value, all: &mut Streams) {
        let limit =
            jobs.pointer("/config/max_msgs_per_subject").and_then(Value::as_u64).filter(|max| *max > 0);
        let subjects = provision::subjects(jobs.get("config").unwrap_or(&Value::Null));
        let in_stream = subjects.iter().filter_map(|subject| self.names.parse_create_subject(subject));
        let unused = in_stream.filter(|template| !self.templates.contains_key(template));
        let templates: Vec<_> = self.templates.keys().cloned().chain(unused).collect();
        let mut answers = stream::iter(templates)
            .map(|template| async move {
                let subject = format!("CONSUMER.INFO.{}.{}", self.names.jobs(), template.consumer_name());
                let info = settings::info(self.jetstream(), &subject).await;
                let oldest = match &info {
                    Ok(Some(info)) => self.oldest(&template, info).await,
                    _ => None,
                };
                (template, info, oldest)
            })
            .buffered(CONCURRENT);
        let mut known = 0_u64;
        while let Some((template, info, oldest)) = answers.next().await {
            known += u64::from(matches!(&info, Ok(Some(_))));
            let found = match info {
                Err(error) => consumers::Found::Unknown(error.to_string()),
                Ok(None) => consumers::Found::Missing,
                Ok(Some(info)) => {
                    let mut details = self.consumer(&template, &info);
                    (details.oldest, details.limit) = (oldest, limit);
                    consumers::Found::Exists(details)
                }
            };
            let consumer = template.consumer_name();
            if self.templates.contains_key(&template) {
                let template = template.to_string();
                all.queues.push(Queue { stream: self.names.jobs().to_owned(), template, consumer, found });
            } else {
                let requests = match found {
                    consumers::Found::Exists(details) => Some(details.waiting + details.in_progress),
                    _ => None,
                };
                let (subject, template) = (self.names.create_subject(&template), template.to_string());
                all.leftovers.push(Leftover { template, subject, consumer, requests });
            }
        }
        all.other_consumers = State::of(jobs).consumers.saturating_sub(known);
    }

    fn consumer(&self, template: &TemplateName, info: &Value) -> consumers::Details {
        let shipped = definitions::consumer(&self.names, template);
        let checked = settings::check(&self.names, Owner::Consumer, &shipped, info, self.max_payload());
        let nanos = info.pointer("/config/ack_wait").and_then(Value::as_u64).unwrap_or_default();
        let ack_wait = Duration::from_nanos(nanos);
        let ttl = self.templates.get(template).and_then(|template| ttl_problem(template, ack_wait));
        let harmful = checked.harmful.into_iter();
        let harmful = harmful
            .chain(provision::ack_wait_problem(ack_wait))
            .chain(ttl.map(|problem| problem.to_string()));
        consumers::Details {
            harmful: harmful.collect(),
            warnings: checked.warnings,
            ..consumers::Details::of(info)
        }
    }

    /// The age of the oldest request in a queue, by the clock of the server.
    async fn oldest(&self, template: &TemplateName, info: &Value) -> Option<Duration> {
        let details = consumers::Details::of(info);
        if details.waiting + details.in_progress == 0 {
            return None;
        }
        let query = json!({"seq": 1, "next_by_subj": self.names.create_subject(template)});
        let message = get_message(self.jetstream(), self.names.jobs(), &query).await.ok()??;
        (server_time(info)? - message.time).try_into().ok()
    }
}

fn details(
    provision: &Provision,
    owner: Owner,
    expected: &Config,
    info: &Value,
    max_payload: usize,
) -> Details {
    let checked = settings::check(&provision.names, owner, expected, info, max_payload);
    let config = info.get("config").unwrap_or(&Value::Null);
    let update = match provision.update(&expected.name, expected, config) {
        Ok(None) => Update::None,
        Ok(Some(update)) => Update::Adds(provision::additions(config, &update)),
        Err(error) => Update::Refuses(error.message().to_owned()),
    };
    Details { state: State::of(info), harmful: checked.harmful, warnings: checked.warnings, update }
}

/// The time of the server in an answer.
fn server_time(info: &Value) -> Option<OffsetDateTime> {
    let text = info.get("ts").and_then(Value::as_str)?;
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}
