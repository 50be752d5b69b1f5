//! Streams and consumers of a test environment, and how they differ from `nats-config/`.

use async_nats::jetstream::stream;
use serde_json::{Value, json};

use super::{TestEnv, text};
use crate::paths;

impl TestEnv {
    /// Creates a stream before a dispatcher does.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn create_stream(&self, config: &Value) {
        let name = text(&config["name"]);
        let subject = format!("STREAM.CREATE.{name}");
        let answer: Value = self.jetstream.request(subject, config).await.unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }

    /// Creates the streams with the shortest deduplication window that NATS allows, so that no test
    /// depends on deduplication; in a NATS cluster with three replicas.
    ///
    /// # Panics
    /// If the server refuses one.
    pub async fn create_streams_without_deduplication(&self) {
        for stream in ["JOBS", "JOB_STATUS", "JOB_REJECTED", "KV_JOB_CANCELS"] {
            let mut config = shipped_config(stream);
            config["duplicate_window"] = 100_000_000.into();
            if self.nats.is_cluster() {
                config["num_replicas"] = 3.into();
            }
            self.create_stream(&config).await;
        }
    }

    /// The server's configuration of a stream, or of a consumer of `JOBS`.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn config(&self, name: &str) -> Value {
        let subject = match name.strip_prefix("dispatcher-") {
            None => format!("STREAM.INFO.{name}"),
            Some(_) => format!("CONSUMER.INFO.JOBS.{name}"),
        };
        let info: Value = self.jetstream.request(subject, &json!({})).await.unwrap();
        info["config"].clone()
    }

    /// The fields in which a stream or consumer differs from `nats-config/`.
    ///
    /// # Panics
    /// If `nats-config/` has no such file.
    pub async fn differences_from_shipped(&self, name: &str) -> Vec<String> {
        let config = self.config(name).await;
        let difference = |(field, shipped): (&String, &Value)| {
            let found = &config[field];
            let default = shipped == &json!(0) || shipped == &json!(false);
            let same = found == shipped
                || found.is_null() && default
                || without_false(found) == without_false(shipped);
            (!same).then(|| format!("{field}: found {found}, shipped {shipped}"))
        };
        shipped_config(name).as_object().unwrap().iter().filter_map(difference).collect()
    }

    /// Limits `JOB_STATUS` to the one message that it holds, so that it refuses every other one.
    /// Returns the configuration that lifts the limit.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn fill_status_stream(&self) -> stream::Config {
        let stream = self.jetstream.get_stream("JOB_STATUS").await.unwrap();
        let config = stream.cached_info().config.clone();
        let discard = stream::DiscardPolicy::New;
        let full = stream::Config { max_messages: 1, discard, ..config.clone() };
        self.jetstream.update_stream(full).await.unwrap();
        config
    }
}

/// The configuration of a stream or consumer in `nats-config/`.
///
/// # Panics
/// If `nats-config/` has no such file.
#[must_use]
pub fn shipped_config(name: &str) -> Value {
    let path = paths::workspace().join(format!("nats-config/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The server leaves out fields that are `false`.
fn without_false(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| field != &Value::from(false));
    }
    value
}
