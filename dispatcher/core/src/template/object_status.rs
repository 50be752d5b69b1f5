//! The status of a `JobTemplate` object: whether its last version is in use, and its queue.

use serde_json::{Value, json};

use crate::template::Problem;

/// What the status reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectState {
    /// The generation of the object.
    pub generation: i64,
    /// Why the last version is not in use; empty if it is.
    pub problems: Vec<Problem>,
    /// Why the template is in use and receives no requests, for example because its consumer is
    /// missing.
    pub unserved: Option<String>,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The hash of the version in use, if a version is in use.
    pub hash: Option<String>,
    /// The queued requests, if they are known.
    pub queued: Option<u64>,
    /// The unfinished Jobs.
    pub active: usize,
    /// The concurrency limit.
    pub limit: Option<u32>,
}

impl ObjectState {
    fn condition(&self) -> (&'static str, &'static str, String) {
        if self.deleting {
            let message = "the template accepts no new requests; the object disappears with its queue";
            return ("False", "Deleting", message.to_owned());
        }
        if let Some(first) = self.problems.first() {
            let more = match self.problems.len() {
                1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let kept = match self.hash {
                Some(_) => "; the last valid version stays in use",
                None => "; no version was valid since the dispatcher started",
            };
            return ("False", "Invalid", format!("{first}{more}{kept}"));
        }
        match &self.unserved {
            Some(reason) => ("False", "NotServed", reason.clone()),
            None => ("True", "InUse", "requests become Jobs of this version".to_owned()),
        }
    }

    /// The status subresource. A condition that has not changed keeps its transition time from
    /// `before`, as the Kubernetes API conventions demand; otherwise it is `now`, in RFC 3339.
    #[must_use]
    pub fn status(&self, before: &Value, now: &str) -> Value {
        let (status, reason, message) = self.condition();
        let old = before.pointer("/conditions/0").filter(|old| old["status"] == status);
        let since = old.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(now);
        json!({
            "observedGeneration": self.generation,
            "hash": self.hash,
            "queued": self.queued,
            "active": self.active,
            "limit": self.limit,
            "conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": message,
                "observedGeneration": self.generation, "lastTransitionTime": since,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(state: &ObjectState, before: &Value, now: &str) -> Value {
        state.status(before, now)["conditions"][0].clone()
    }

    #[test]
    fn ready_is_true_while_the_last_version_is_in_use() {
        let mut state = ObjectState { generation: 3, hash: Some("h".into()), ..ObjectState::default() };
        let ready = condition(&state, &Value::Null, "t1");
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("True"), &json!("InUse")));
        assert_eq!(ready["observedGeneration"], 3);
        state.unserved = Some("the consumer is missing".into());
        assert_eq!(condition(&state, &Value::Null, "t1")["reason"], "NotServed");
        state.deleting = true;
        assert_eq!(condition(&state, &Value::Null, "t1")["reason"], "Deleting");
    }

    #[test]
    fn invalid_version_names_the_field_and_what_is_in_use() {
        let problems = vec![Problem::at("spec.jobName", "wrong"), Problem::at("spec.job", "wrong too")];
        let mut state = ObjectState { problems, hash: Some("h".into()), ..ObjectState::default() };
        let message = condition(&state, &Value::Null, "t")["message"].clone();
        assert_eq!(message, "spec.jobName: wrong (and 1 more); the last valid version stays in use");
        state.hash = None;
        let message = condition(&state, &Value::Null, "t")["message"].clone();
        assert!(message.as_str().unwrap().ends_with("no version was valid since the dispatcher started"));
    }

    #[test]
    fn transition_time_changes_with_the_status_only() {
        let mut state = ObjectState::default();
        let before = state.status(&Value::Null, "t1");
        state.active = 5;
        assert_eq!(condition(&state, &before, "t2")["lastTransitionTime"], "t1");
        state.problems = vec![Problem::of_file("wrong")];
        assert_eq!(condition(&state, &before, "t3")["lastTransitionTime"], "t3");
    }
}
