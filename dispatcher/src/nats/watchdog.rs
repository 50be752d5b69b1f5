//! Checks that the streams exist, are still the same ones, and have no harmful setting: an idle
//! dispatcher would not notice.
//!
//! A missing stream makes the component not ready. It is not recreated: its messages are lost, and
//! the operator has to know. A stream that was recreated counts as a reconnect, so that the leader
//! resyncs.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream;
use dispatcher_core::contract::{nats_names::NatsNames, settings::Owner};
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use crate::{
    nats::{
        definitions,
        settings::{self, Checked, InfoError},
    },
    telemetry::health::Component,
    templates::served::ServedTemplates,
};

const INTERVAL: Duration = Duration::from_secs(8);
/// Unanswered checks in a row that leave the component ready.
const MAX_UNANSWERED: u32 = 1;

/// Checks the streams.
pub(crate) struct Watchdog {
    /// `JetStream`.
    pub context: jetstream::Context,
    /// The names of the streams and subjects.
    pub names: NatsNames,
    /// The templates, whose consumers are checked.
    pub templates: ServedTemplates,
    /// Ready while all streams exist and no setting is harmful.
    pub health: Component,
    /// Counts reconnects, and streams that were recreated.
    pub reconnects: watch::Sender<u64>,
}

/// What one check found.
#[derive(Default)]
struct Found {
    /// Whether a stream was recreated since the last check.
    recreated: bool,
    settings: Checked,
}

impl Watchdog {
    /// Checks forever; the caller drops the future to stop.
    pub(crate) async fn run(self) {
        let (mut created, mut unanswered) = (HashMap::new(), 0_u32);
        loop {
            match self.check(&mut created).await {
                Ok(found) => {
                    unanswered = 0;
                    self.report(found);
                }
                Err(InfoError::Refused(reason)) => self.health.not_ready(reason),
                Err(InfoError::NoAnswer(reason)) => {
                    unanswered = unanswered.saturating_add(1);
                    if unanswered > MAX_UNANSWERED {
                        self.health.not_ready(reason);
                    }
                }
            }
            sleep(INTERVAL).await;
        }
    }

    fn report(&self, found: Found) {
        let Checked { harmful, warnings } = found.settings;
        self.health.warnings(warnings);
        match &harmful[..] {
            [] => self.health.ready(),
            harmful => self.health.not_ready(harmful.join("; ")),
        }
        if found.recreated {
            self.reconnects.send_modify(|count| *count += 1);
        }
    }

    async fn check(&self, created: &mut HashMap<String, Value>) -> Result<Found, InfoError> {
        let mut found = Found::default();
        let (names, templates) = (&self.names, self.templates.names());
        for (owner, shipped) in definitions::streams(names, &templates) {
            let label = format!("stream {}", shipped.name);
            let info = self.info(&label, &format!("STREAM.INFO.{}", shipped.name)).await?;
            let info = info.ok_or_else(|| InfoError::Refused(format!("{label}: not found")))?;
            found.add(&label, settings::check(names, owner, &shipped, &info, self.max_payload()));
            let now = info.get("created").cloned().unwrap_or_default();
            if created.insert(shipped.name.clone(), now.clone()).is_some_and(|before| before != now) {
                tracing::warn!(stream = shipped.name, "stream was recreated");
                found.recreated = true;
            }
        }
        for template in &templates {
            let name = template.consumer_name();
            let stream = names.jobs();
            let label = format!("consumer {name} of stream {stream}");
            // The intake recreates a missing consumer.
            if let Some(info) = self.info(&label, &format!("CONSUMER.INFO.{stream}.{name}")).await? {
                let shipped = definitions::consumer(names, template);
                found.add(
                    &label,
                    settings::check(names, Owner::Consumer, &shipped, &info, self.max_payload()),
                );
            }
        }
        found.settings.warnings.extend(self.streams_on_status_subjects().await);
        Ok(found)
    }

    async fn info(&self, label: &str, subject: &str) -> Result<Option<Value>, InfoError> {
        settings::info(&self.context, subject).await.map_err(|error| match error {
            InfoError::Refused(error) => InfoError::Refused(format!("{label}: {error}")),
            InfoError::NoAnswer(error) => InfoError::NoAnswer(format!("{label}: {error}")),
        })
    }

    fn max_payload(&self) -> usize {
        self.context.client().max_payload()
    }

    /// Streams that capture the status events, which `JOB_STATUS` republishes. Such a stream checks
    /// the fence header of each event against its own sequences, and drops events without an error.
    async fn streams_on_status_subjects(&self) -> Vec<String> {
        let subjects = self.names.status_subjects();
        match settings::streams_on(&self.context, &subjects).await {
            Ok(streams) => streams.iter().map(|stream| self.captures_status(stream)).collect(),
            Err(error) => vec![format!("the streams on {subjects} cannot be listed: {error}")],
        }
    }

    fn captures_status(&self, stream: &str) -> String {
        let (subjects, source) = (self.names.status_subjects(), self.names.job_status());
        format!(
            "stream {stream} captures {subjects} and loses events: remove these subjects from it, and add \
             the source {source} instead"
        )
    }
}

impl Found {
    /// Adds the findings about one object.
    fn add(&mut self, label: &str, checked: Checked) {
        let named = |texts: Vec<String>| texts.into_iter().map(move |text| format!("{label}: {text}"));
        self.settings.harmful.extend(named(checked.harmful));
        self.settings.warnings.extend(named(checked.warnings));
    }
}
