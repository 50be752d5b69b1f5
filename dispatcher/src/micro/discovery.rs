//! The discovery of ADR-32: the answers to `$SRV.PING`, `$SRV.INFO` and `$SRV.STATS`.
//!
//! An answer that does not fit in a message is shortened instead of lost: first the schemas, then
//! the endpoints of single templates, which one endpoint with a wildcard replaces.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use dispatcher_core::contract::nats_names::NatsNames;
use serde_json::{Value, json};

use crate::{
    clock::now,
    micro::{
        api::Verb,
        endpoint::{Counts, Endpoint},
    },
};

/// The largest answer, in bytes, if the server allows it: the schemas of about 50 templates.
const MAX_ANSWER: usize = 512 * 1024;
const DESCRIPTION: &str = "Turns requests into Kubernetes Jobs and publishes their status";

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Ping,
    Info,
    Stats,
}

impl Question {
    pub(super) const ALL: [Self; 3] = [Self::Ping, Self::Info, Self::Stats];

    /// The subjects: of all services, of this one, and of this replica.
    pub(super) fn subjects(self, service: &str, id: &str) -> [String; 3] {
        let verb = match self {
            Self::Ping => "PING",
            Self::Info => "INFO",
            Self::Stats => "STATS",
        };
        [format!("$SRV.{verb}"), format!("$SRV.{verb}.{service}"), format!("$SRV.{verb}.{service}.{id}")]
    }
}

/// Answers for one replica.
pub(super) struct Discovery {
    names: NatsNames,
    pub(super) id: String,
    started: String,
    endpoints: Mutex<Vec<Arc<Endpoint>>>,
    /// The last limit and its answer to `INFO`, which changes only with the endpoints.
    info: Mutex<Option<(usize, Bytes)>>,
}

impl Discovery {
    /// The discovery of a replica that starts now.
    pub(super) fn new(names: NatsNames, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { names, id, started: now(), endpoints: Mutex::new(endpoints), info: Mutex::default() }
    }

    /// Replaces the endpoints, or describes changed ones.
    pub(super) fn set(&self, endpoints: Vec<Arc<Endpoint>>) {
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) = endpoints;
        *self.info.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer, in at most `max_payload` bytes.
    pub(super) fn answer(&self, question: Question, max_payload: usize) -> Bytes {
        let limit = max_payload.min(MAX_ANSWER);
        match question {
            Question::Ping => self.document("ping", json!({})).to_string().into(),
            Question::Stats => fitting(limit, [&|| self.stats(), &|| self.stats_by_verb()]),
            Question::Info => {
                let mut info = self.info.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((_, answer)) = info.as_ref().filter(|(of, _)| *of == limit) {
                    return answer.clone();
                }
                let forms: [&dyn Fn() -> Value; 3] =
                    [&|| self.info(true), &|| self.info(false), &|| self.info_by_verb()];
                let answer = fitting(limit, forms);
                *info = Some((limit, answer.clone()));
                answer
            }
        }
    }

    fn document(&self, kind: &str, fields: Value) -> Value {
        let mut document = json!({"type": format!("io.nats.micro.v1.{kind}_response"), "name": self.names.service(),
            "id": self.id, "version": env!("CARGO_PKG_VERSION"), "metadata": {}});
        if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), fields) {
            document.extend(fields);
        }
        document
    }

    fn info(&self, with_schemas: bool) -> Value {
        let endpoints = self.endpoints();
        let endpoints = endpoints.iter().map(|endpoint| {
            let metadata = if with_schemas { json!(endpoint.metadata()) } else { json!({}) };
            json!({"name": endpoint.name, "subject": endpoint.subject, "queue_group": self.names.service(),
                "metadata": metadata})
        });
        self.info_of(endpoints.collect())
    }

    fn info_by_verb(&self) -> Value {
        let endpoint = |verb: Verb| {
            let (subject, group) = (self.wildcard(verb), self.names.service());
            json!({"name": verb.as_str(), "subject": subject, "queue_group": group, "metadata": {}})
        };
        self.info_of(Verb::ALL.into_iter().map(endpoint).collect())
    }

    fn info_of(&self, endpoints: Vec<Value>) -> Value {
        self.document("info", json!({"description": DESCRIPTION, "endpoints": endpoints}))
    }

    fn stats(&self) -> Value {
        let of =
            |endpoint: &Arc<Endpoint>| self.counted(&endpoint.name, &endpoint.subject, &endpoint.counts());
        self.stats_of(self.endpoints().iter().map(of).collect())
    }

    /// The sums of all templates.
    fn stats_by_verb(&self) -> Value {
        let endpoints = self.endpoints();
        let sum = |verb: Verb| {
            let of_verb = endpoints.iter().filter(|endpoint| endpoint.verb == verb);
            let total =
                of_verb.map(|endpoint| endpoint.counts()).fold(Counts::default(), |sum, next| Counts {
                    requests: sum.requests + next.requests,
                    errors: sum.errors + next.errors,
                    processing: sum.processing + next.processing,
                    last_error: String::new(),
                });
            self.counted(verb.as_str(), &self.wildcard(verb), &total)
        };
        self.stats_of(Verb::ALL.into_iter().map(sum).collect())
    }

    fn stats_of(&self, endpoints: Vec<Value>) -> Value {
        self.document("stats", json!({"started": self.started, "endpoints": endpoints}))
    }

    fn wildcard(&self, verb: Verb) -> String {
        self.names.call_subject("*", verb.as_str())
    }

    fn counted(&self, name: &str, subject: &str, counts: &Counts) -> Value {
        let Counts { requests, errors, processing, last_error } = counts;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let average = nanos(*processing).checked_div(*requests).unwrap_or(0);
        json!({"name": name, "subject": subject, "queue_group": self.names.service(),
            "num_requests": requests, "num_errors": errors, "last_error": last_error,
            "processing_time": nanos(*processing), "average_processing_time": average})
    }
}

/// The first form that fits, or the last one.
fn fitting<const N: usize>(limit: usize, forms: [&dyn Fn() -> Value; N]) -> Bytes {
    let mut text = String::new();
    for form in forms {
        text = form().to_string();
        if text.len() <= limit {
            break;
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use dispatcher_core::testing::simple;

    use super::*;
    use crate::micro::error::{ErrorCode, ServiceError};

    fn discovery(templates: usize) -> Discovery {
        let endpoints = (0..templates).flat_map(|n| {
            let mut template = simple();
            template.name = format!("simple-{n}").as_str().try_into().unwrap();
            Verb::ALL.map(|verb| Arc::new(Endpoint::new(&NatsNames::default(), &template, verb)))
        });
        Discovery::new(NatsNames::default(), endpoints.collect())
    }

    fn answer(discovery: &Discovery, question: Question, max_payload: usize) -> Value {
        let answer = discovery.answer(question, max_payload);
        assert!(answer.len() <= max_payload, "{question:?}: {} > {max_payload}", answer.len());
        serde_json::from_slice(&answer).unwrap()
    }

    #[test]
    fn few_templates_are_described_with_their_schemas() {
        let info = answer(&discovery(2), Question::Info, 1 << 20);
        let endpoints = info["endpoints"].as_array().unwrap();
        assert_eq!(endpoints.len(), 6);
        assert_eq!(endpoints[0]["name"], "submit-simple-0");
        assert!(endpoints[0]["metadata"]["request_schema"].is_string());
    }

    #[test]
    fn every_answer_fits_whatever_the_number_of_templates() {
        for (templates, max_payload, endpoints) in [
            // 18 KB hold no schemas of two templates.
            (2, 18_000, 6),
            (120, 1 << 20, 360),
            (120, 18_000, 3),
            (2000, 4096, 3),
        ] {
            let discovery = discovery(templates);
            for question in Question::ALL {
                let answer = answer(&discovery, question, max_payload);
                assert_eq!(answer["name"], "dispatcher");
                if question == Question::Info {
                    assert_eq!(answer["endpoints"].as_array().unwrap().len(), endpoints, "{templates}");
                }
            }
        }
    }

    #[test]
    fn answer_follows_a_changed_limit() {
        let discovery = discovery(10);
        let count = |max| answer(&discovery, Question::Info, max)["endpoints"].as_array().unwrap().len();
        assert_eq!([count(1 << 20), count(2000), count(1 << 20)], [30, 3, 30]);
    }

    #[test]
    fn statistics_count_calls_and_name_the_last_error() {
        let discovery = discovery(1);
        let endpoint = &discovery.endpoints()[0];
        endpoint.count(Duration::from_nanos(10), None);
        endpoint.count(Duration::from_nanos(30), Some(&ServiceError::new(ErrorCode::BadRequest, "no")));
        let stats = answer(&discovery, Question::Stats, 1 << 20);
        let stats = &stats["endpoints"][0];
        assert_eq!((&stats["num_requests"], &stats["num_errors"]), (&json!(2), &json!(1)));
        assert_eq!(stats["average_processing_time"], 20);
        assert_eq!(stats["last_error"], "400:BadRequest: no");
    }
}
