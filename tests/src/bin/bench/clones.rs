//! Makes large states in seconds: copies of one object that the API server stored, written to etcd.
//!
//! A copy differs from its sample in its names and uids only, which keep their lengths. So it stays
//! a valid object of the API server's storage format.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dispatcher_tests::Kubernetes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

/// The objects of one transaction; etcd's limit is 128 operations.
const BATCH: usize = 100;
const CONCURRENT_BATCHES: usize = 4;
const CONCURRENT_PUTS: usize = 32;

/// The storage of a testbed's control plane.
pub(crate) struct Etcd(kube::Client);

impl Etcd {
    pub(crate) fn of(kubernetes: &Kubernetes) -> Result<Self, String> {
        let url = kubernetes.etcd().ok_or("this Kubernetes has no etcd of the testbed")?;
        let url = url.parse().map_err(|error| format!("{url}: {error}"))?;
        // A client of HTTP; etcd has a gateway for JSON.
        let client = kube::Client::try_from(kube::Config::new(url));
        client.map(Self).map_err(|error| format!("etcd: {error}"))
    }

    async fn post(&self, call: &str, body: &Value) -> Result<Value, String> {
        let request = http::Request::post(format!("/v3/kv/{call}")).body(body.to_string().into_bytes());
        let request = request.map_err(|error| error.to_string())?;
        self.0.request(request).await.map_err(|error| format!("etcd: {call}: {error}"))
    }

    async fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let answer = self.post("range", &json!({"key": STANDARD.encode(key)})).await?;
        let value = answer.pointer("/kvs/0/value").and_then(Value::as_str);
        let value = value.ok_or_else(|| format!("etcd has no {key}"))?;
        STANDARD.decode(value).map_err(|error| format!("etcd: {key}: {error}"))
    }

    /// Writes the copies with these numbers of all samples, each with its own resourceVersion:
    /// a watch that resumes from a resourceVersion skips what shares it.
    pub(crate) async fn copy(
        &self,
        samples: &[Sample],
        numbers: RangeInclusive<usize>,
    ) -> Result<(), String> {
        let copies = numbers.flat_map(|n| samples.iter().map(move |sample| sample.copy(n)));
        let put = |(key, value)| async move {
            self.post("put", &json!({"key": key, "value": value})).await.map(drop)
        };
        stream::iter(copies).map(put).buffer_unordered(CONCURRENT_PUTS).try_collect().await
    }

    /// Writes the copies in large transactions, which is faster; for copies that no client watches.
    pub(crate) async fn copy_unwatched(
        &self,
        samples: &[Sample],
        numbers: RangeInclusive<usize>,
    ) -> Result<(), String> {
        let batch = (BATCH / samples.len().max(1)).max(1);
        let numbers: Vec<usize> = numbers.collect();
        stream::iter(numbers.chunks(batch))
            .map(|numbers| async {
                let copies = numbers.iter().flat_map(|n| samples.iter().map(|sample| sample.copy(*n)));
                let puts = copies.map(|(key, value)| json!({"requestPut": {"key": key, "value": value}}));
                let done = self.post("txn", &json!({"success": puts.collect::<Vec<_>>()})).await?;
                match done.get("succeeded") {
                    Some(Value::Bool(true)) => Ok(()),
                    _ => Err(format!("etcd: the transaction failed: {done}")),
                }
            })
            .buffer_unordered(CONCURRENT_BATCHES)
            .try_collect()
            .await
    }
}

/// A stored object, and where its bytes contain what differs in a copy.
#[derive(Debug)]
pub(crate) struct Sample {
    key: Pattern,
    value: Pattern,
}

impl Sample {
    /// Reads a stored object. `job` is the name of the sample Job, `uids` are the uid of the object
    /// and those that it refers to.
    pub(crate) async fn read(etcd: &Etcd, key: String, job: &str, uids: &[&str]) -> Result<Self, String> {
        let value = etcd.get(&key).await?;
        let value = Pattern::new(value, job, uids);
        if value.places.len() <= uids.len() {
            return Err(format!("{key} does not contain {job} and the uids {uids:?}"));
        }
        Ok(Self { key: Pattern::new(key.into_bytes(), job, &[]), value })
    }

    fn copy(&self, number: usize) -> (String, String) {
        (STANDARD.encode(self.key.copy(number)), STANDARD.encode(self.value.copy(number)))
    }
}

/// A text whose copies contain a number in place of the sample's name, and in uids.
#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    /// The offsets of the digits to replace, their number and whether they are hexadecimal.
    places: Vec<(usize, usize, bool)>,
}

/// The digits of a name.
const NAME_DIGITS: usize = 9;
/// The digits of a uid that differ between copies.
const UID_DIGITS: usize = 12;

/// The name of the Job with this number, and the id of its request.
pub(crate) fn job_name(number: usize) -> String {
    format!("bench-{number:0NAME_DIGITS$}")
}

impl Pattern {
    pub(crate) fn new(bytes: Vec<u8>, job: &str, uids: &[&str]) -> Self {
        let mut places = Vec::new();
        let mut find = |text: &str, digits: usize, hexadecimal: bool| {
            let at = bytes.windows(text.len().max(1)).enumerate();
            let found = at.filter(|(_, window)| *window == text.as_bytes());
            places.extend(found.map(|(at, _)| (at + text.len() - digits, digits, hexadecimal)));
        };
        find(job, NAME_DIGITS, false);
        uids.iter().filter(|uid| uid.len() >= UID_DIGITS).for_each(|uid| find(uid, UID_DIGITS, true));
        Self { bytes, places }
    }

    pub(crate) fn copy(&self, number: usize) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (at, digits, hexadecimal) in &self.places {
            let text = match hexadecimal {
                true => format!("{number:0digits$x}"),
                false => format!("{number:0digits$}"),
            };
            if let Some(place) = bytes.get_mut(*at..at + digits) {
                place.copy_from_slice(text.as_bytes());
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b0e5a0c-54c8-44a4-9f4c-0123456789ab";

    #[test]
    fn copy_has_its_own_name_and_uid_and_the_same_length() {
        let job = job_name(0);
        let text = format!("x {job} {UID} {job}-pod y");
        let pattern = Pattern::new(text.clone().into_bytes(), &job, &[UID]);
        let copy = String::from_utf8(pattern.copy(255)).unwrap();
        let uid = "0b0e5a0c-54c8-44a4-9f4c-0000000000ff";
        assert_eq!(copy, format!("x bench-000000255 {uid} bench-000000255-pod y"));
        assert_eq!(copy.len(), text.len());
        assert_ne!(pattern.copy(1), pattern.copy(2));
    }

    #[test]
    fn text_without_the_sample_is_copied_unchanged() {
        let pattern = Pattern::new(b"other".to_vec(), &job_name(1), &[UID, ""]);
        assert_eq!(pattern.copy(7), b"other");
        assert!(pattern.places.is_empty());
    }
}
