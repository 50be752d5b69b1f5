//! The fields of a Job that have a fixed set of values: a misspelled one is found by
//! `dispatcher check`, and not by the first request.

use serde_json::Value;

use crate::{
    contract::names::Quoted,
    template::{fields::Fields, pattern::Pattern, problem::Problem},
};

const RESTART: &[&str] = &["Always", "Never", "OnFailure"];
const SELECT: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];
const SELECT_NODE: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
const PROFILE: &[&str] = &["Unconfined", "RuntimeDefault", "Localhost"];
const INCLUSION: &[&str] = &["Ignore", "Honor"];

/// The end of a field's path, without the indices of lists, and the values of the field. The first
/// match counts. From the API types of Kubernetes 1.37 (`k8s.io/api`, `batch/v1` and `core/v1`).
const VALUES: &[(&str, &[&str])] = &[
    // A Job allows only two of the three policies of a pod.
    (".template.spec.restartPolicy", &["Never", "OnFailure"]),
    (".containers.restartPolicy", RESTART),
    (".initContainers.restartPolicy", RESTART),
    (".resizePolicy.restartPolicy", &["NotRequired", "RestartContainer"]),
    (".restartPolicyRules.action", &["Restart", "RestartAllContainers"]),
    (".exitCodes.operator", &["In", "NotIn"]),
    (".onExitCodes.operator", &["In", "NotIn"]),
    (".podFailurePolicy.rules.action", &["FailJob", "FailIndex", "Ignore", "Count"]),
    (".onPodConditions.status", &["True", "False", "Unknown"]),
    (".completionMode", &["NonIndexed", "Indexed"]),
    (".podReplacementPolicy", &["TerminatingOrFailed", "Failed"]),
    (".imagePullPolicy", &["Always", "Never", "IfNotPresent"]),
    (".image.pullPolicy", &["Always", "Never", "IfNotPresent"]),
    (".terminationMessagePolicy", &["File", "FallbackToLogsOnError"]),
    (".ports.protocol", &["TCP", "UDP", "SCTP"]),
    (".httpGet.scheme", &["HTTP", "HTTPS"]),
    (".mountPropagation", &["None", "HostToContainer", "Bidirectional"]),
    (".recursiveReadOnly", &["Disabled", "IfPossible", "Enabled"]),
    (".procMount", &["Default", "Unmasked"]),
    (".seccompProfile.type", PROFILE),
    (".appArmorProfile.type", PROFILE),
    (".dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]),
    (".supplementalGroupsPolicy", &["Merge", "Strict"]),
    (".fsGroupChangePolicy", &["OnRootMismatch", "Always"]),
    (".seLinuxChangePolicy", &["Recursive", "MountOption"]),
    (".os.name", &["linux", "windows"]),
    (".preemptionPolicy", &["PreemptLowerPriority", "Never"]),
    (".tolerations.operator", &["Exists", "Equal", "Lt", "Gt"]),
    (".tolerations.effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    (".topologySpreadConstraints.whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    (".nodeAffinityPolicy", INCLUSION),
    (".nodeTaintsPolicy", INCLUSION),
    (".nodeSelectorTerms.matchExpressions.operator", SELECT_NODE),
    (".nodeSelectorTerms.matchFields.operator", SELECT_NODE),
    (".preference.matchExpressions.operator", SELECT_NODE),
    (".preference.matchFields.operator", SELECT_NODE),
    (".matchExpressions.operator", SELECT),
    (".azureDisk.cachingMode", &["None", "ReadOnly", "ReadWrite"]),
    (".azureDisk.kind", &["Shared", "Dedicated", "Managed"]),
    (
        ".volumeClaimTemplate.spec.accessModes",
        &["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"],
    ),
    (".volumeClaimTemplate.spec.volumeMode", &["Block", "Filesystem"]),
];

/// The least similarity of a suggestion, from 0 to 1 (Jaro-Winkler).
const SIMILAR: f64 = 0.75;

/// The values of a manifest that are none of their field's values. A value with a parameter is left
/// to Kubernetes.
pub(super) fn problems(manifest: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in Fields::of(manifest).iter() {
        let path = field.path();
        let names = without_indices(&path);
        let Some((_, values)) = VALUES.iter().find(|(end, _)| names.ends_with(end)) else { continue };
        let texts = std::iter::once(field.value).chain(field.value.as_array().into_iter().flatten());
        for text in texts.filter_map(Value::as_str) {
            let has_reference = Pattern::parse(text).is_ok_and(|it| it.references().next().is_some());
            if !has_reference && !values.contains(&text) {
                problems.push(Problem::at(&path, message(text, values)));
            }
        }
    }
    problems
}

/// `containers[0].image` → `containers.image`
fn without_indices(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |names, part| names + part.split_once(']').map_or(part, |(_, rest)| rest))
}

fn message(found: &str, values: &[&str]) -> String {
    let allowed = values.join(", ");
    let found_text = Quoted::new(found);
    match similar(found, values) {
        Some(value) => format!("found {found_text}; did you mean `{value}`? (allowed: {allowed})"),
        None => format!("found {found_text} (allowed: {allowed})"),
    }
}

fn similar<'a>(found: &str, values: &[&'a str]) -> Option<&'a str> {
    let found = found.to_ascii_lowercase();
    let rate = |value: &&str| strsim::jaro_winkler(&found, &value.to_ascii_lowercase());
    let best = values.iter().copied().max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    (rate(&best) >= SIMILAR).then_some(best)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pod: Value) -> Vec<String> {
        let job = json!({"spec": {"template": {"spec": pod}}});
        problems(&job).into_iter().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn wrong_value_is_found_with_its_field_and_a_suggestion() {
        for (pod, expected) in [
            (
                json!({"restartPolicy": "Nver"}),
                "restartPolicy: found \"Nver\"; did you mean `Never`? (allowed: Never, OnFailure)",
            ),
            (
                json!({"restartPolicy": "Always"}),
                "restartPolicy: found \"Always\" (allowed: Never, OnFailure)",
            ),
            (
                json!({"containers": [{"imagePullPolicy": "ifnotpresent"}]}),
                "containers[0].imagePullPolicy: found \"ifnotpresent\"; did you mean `IfNotPresent`?",
            ),
            (
                json!({"tolerations": [{"operator": "Exist"}]}),
                "tolerations[0].operator: found \"Exist\"; did you mean `Exists`?",
            ),
            (
                json!({"containers": [{"ports": [{"protocol": "HTTP"}]}]}),
                "containers[0].ports[0].protocol: found \"HTTP\"",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "runtimedefault"}}}),
                "seccompProfile.type: found \"runtimedefault\"; did you mean `RuntimeDefault`?",
            ),
            (
                json!({"initContainers": [{"restartPolicy": "always"}]}),
                "initContainers[0].restartPolicy: found \"always\"; did you mean `Always`?",
            ),
        ] {
            let found = found(pod);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn value_of_the_field_or_with_a_parameter_is_no_problem() {
        for pod in [
            json!({"restartPolicy": "OnFailure", "dnsPolicy": "None"}),
            json!({"restartPolicy": "${policy}"}),
            json!({"containers": [{"restartPolicy": "Always", "env": [{"name": "operator", "value": "x"}]}]}),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]}}}}),
        ] {
            assert_eq!(found(pod.clone()), [""; 0], "{pod}");
        }
    }
}
