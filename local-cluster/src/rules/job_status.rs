//! Validation of a Job's status: final conditions are permanent and require certain other fields.

use serde_json::Value;

use crate::{
    error::Cause,
    object::{has, list, number, text},
};

fn is_true(job: &Value, condition: &str) -> bool {
    list(job, "/status/conditions")
        .iter()
        .any(|found| text(found, "/type") == condition && text(found, "/status") == "True")
}

/// Validates an update of a Job's status.
pub(crate) fn validate_update(old: &Value, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut invalid = |why: String| causes.push(Cause::invalid_without_value("status.conditions", why));
    for condition in ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"] {
        if is_true(old, condition) && !is_true(new, condition) {
            invalid(format!("cannot disable the terminal {condition}=True condition"));
        }
    }
    let (complete, failed) = (is_true(new, "Complete"), is_true(new, "Failed"));
    let (met, target) = (is_true(new, "SuccessCriteriaMet"), is_true(new, "FailureTarget"));
    if complete && failed {
        invalid("cannot set Complete=True and Failed=true conditions".to_owned());
    }
    if complete && !met {
        invalid(
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition".to_owned(),
        );
    }
    if failed && !target {
        invalid("cannot set Failed=True condition without the FailureTarget=true condition".to_owned());
    }
    if met && target {
        invalid("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions".to_owned());
    }
    causes.extend(validate_times(old, new, complete, failed));
    causes
}

fn validate_times(old: &Value, new: &Value, complete: bool, failed: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let finished = complete || failed;
    let became_final = finished && !is_true(old, "Complete") && !is_true(old, "Failed");
    if became_final && !has(new, "/status/startTime") {
        causes.push(Cause::required("status.startTime", "startTime is required for finished job"));
    }
    if finished && number(new, "/status/active") > 0 {
        let value = new.pointer("/status/active").unwrap_or(&Value::Null);
        causes.push(Cause::invalid("status.active", value, "active>0 is invalid for finished job"));
    }
    let completion = new.pointer("/status/completionTime").unwrap_or(&Value::Null);
    if complete && completion.is_null() {
        let why = "completionTime is required for Complete jobs";
        causes.push(Cause::required("status.completionTime", why));
    }
    if !complete && !completion.is_null() {
        let why = "cannot set completionTime when there is no Complete=True condition";
        causes.push(Cause::invalid("status.completionTime", completion, why));
    }
    let is_suspended = new.pointer("/spec/suspend") == Some(&Value::Bool(true));
    if has(old, "/status/startTime") && !is_suspended {
        let (before, after) = (old.pointer("/status/startTime"), new.pointer("/status/startTime"));
        if before != after {
            let why = "field is immutable for unsuspended job once set";
            causes.push(Cause::invalid("status.startTime", after.unwrap_or(&Value::Null), why));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(conditions: &[&str], more: Value) -> Value {
        let list: Vec<_> = conditions.iter().map(|type_| json!({"type": type_, "status": "True"})).collect();
        let mut status = json!({"startTime": "t", "conditions": list});
        json_patch::merge(&mut status, &more);
        json!({"status": status})
    }

    fn causes(old: &Value, new: &Value) -> usize {
        validate_update(old, new).len()
    }

    #[test]
    fn usual_transitions_are_valid() {
        let new = job(&[], json!({"startTime": null}));
        let running = job(&[], json!({"active": 1}));
        let target = job(&["FailureTarget"], json!({"active": 1}));
        let failed = job(&["FailureTarget", "Failed"], json!({}));
        let complete = job(&["SuccessCriteriaMet", "Complete"], json!({"completionTime": "t"}));
        for (old, new) in [(&new, &running), (&running, &target), (&target, &failed), (&running, &complete)] {
            assert_eq!(validate_update(old, new), []);
        }
    }

    #[test]
    fn final_conditions_are_permanent() {
        let failed = job(&["FailureTarget", "Failed"], json!({}));
        assert_eq!(causes(&failed, &job(&["FailureTarget"], json!({}))), 1);
        assert_eq!(causes(&failed, &job(&["FailureTarget", "Failed"], json!({"startTime": "u"}))), 1);
    }

    #[test]
    fn final_condition_requires_its_related_fields() {
        let running = job(&[], json!({}));
        for (conditions, more) in [
            (vec!["Complete"], json!({"completionTime": "t"})),
            (vec!["Failed"], json!({})),
            (vec!["FailureTarget", "Failed"], json!({"active": 1})),
            (vec!["FailureTarget", "Failed"], json!({"completionTime": "t"})),
            (vec!["SuccessCriteriaMet", "Complete"], json!({})),
            (vec!["SuccessCriteriaMet", "FailureTarget"], json!({})),
        ] {
            assert_eq!(causes(&running, &job(&conditions, more)), 1, "{conditions:?}");
        }
        let unstarted = job(&["FailureTarget", "Failed"], json!({"startTime": null}));
        assert_eq!(causes(&job(&[], json!({"startTime": null})), &unstarted), 1);
    }
}
