use k8s_openapi::api::batch::v1::Job;

use super::*;
use crate::testing::{SIMPLE, changed, simple};

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn render(template: &Template, pairs: &[(&str, &str)]) -> Job {
    serde_json::from_value(template.render(&values(pairs)).unwrap()).unwrap()
}

fn env(job: &Job) -> BTreeMap<String, String> {
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let env = pod.containers[0].env.clone().unwrap();
    env.into_iter().map(|e| (e.name, e.value.unwrap_or_default())).collect()
}

#[test]
fn shipped_template_renders_the_expected_job() {
    let template = simple();
    assert_eq!(template.ttl_seconds, Some(600));
    let job = render(&template, &[("foo", "15")]);
    let spec = job.spec.as_ref().unwrap();
    assert_eq!(spec.backoff_limit, Some(3));
    assert_eq!(spec.ttl_seconds_after_finished, None, "patched on once the outcome is stored");
    let pod = spec.template.spec.as_ref().unwrap();
    assert_eq!(pod.restart_policy.as_deref(), Some("Never"));
    assert_eq!(pod.service_account_name.as_deref(), Some("job"));
    assert_eq!(pod.automount_service_account_token, Some(false));
    let container = &pod.containers[0];
    assert_eq!(container.image_pull_policy.as_deref(), Some("Never"));
    let limits = container.resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!((limits["memory"].0.as_str(), limits["cpu"].0.as_str()), ("64Mi", "100m"));
    assert_eq!(env(&job), values(&[("FOO", "15"), ("SLEEP_SECONDS", "15")]));
}

#[test]
fn optional_parameter_without_value_sets_no_variable() {
    let job = render(&simple(), &[("foo", "a"), ("fail", "true")]);
    assert_eq!(env(&job)["FAIL"], "true");
    let job = render(&simple(), &[("foo", "a")]);
    assert!(!env(&job).contains_key("FAIL"));
}

#[test]
fn value_cannot_reference_another_variable_of_the_container() {
    let job = render(&simple(), &[("foo", "$(SLEEP_SECONDS) ${fail} $$")]);
    assert_eq!(env(&job)["FOO"], "$$(SLEEP_SECONDS) $${fail} $$$$", "Kubernetes expands `$$` to `$`");
}

/// The problems of an invalid template, one per line.
fn problems(text: &str) -> String {
    let all = Template::parse(text).unwrap_err();
    assert!(!all.is_empty());
    all.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The shipped template with one text replaced by another.
fn with(from: &str, to: &str) -> String {
    assert!(SIMPLE.contains(from), "{from}");
    SIMPLE.replacen(from, to, 1)
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of cases")]
fn invalid_template_is_reported_with_the_field() {
    for (from, to, expected) in [
        ("name: simple\nspec", "name: Simple\nspec", "metadata.name: expected a match of the pattern"),
        (
            "kind: JobTemplate",
            "knd: JobTemplate",
            "kind: required field is missing\nknd: unknown field (allowed: apiVersion, kind, metadata, spec)",
        ),
        ("jobName:", "jobNames:", "spec.jobName: required field is missing"),
        ("kind: JobTemplate", "kind: JobTemplate\nkind: JobTemplate", "not valid YAML"),
        ("kind: JobTemplate", "kind: [", "not valid YAML"),
        ("jobName: simple-job-", "jobName: Simple_Job-", "spec.jobName: gives no request a valid Job name"),
        ("simple-job-${foo}", "simple-job-${foo}-", "spec.jobName: gives no request a valid Job name"),
        ("simple-job-${foo}", "simple-job-${fail}", "spec.jobName: references optional parameter `fail`"),
        ("simple-job-${foo}", "simple-job-${bar}", "spec.jobName: references undeclared parameter `bar`"),
        ("simple-job-${foo}", "simple-job-${foo", "spec.jobName: `${` has no closing `}`"),
        ("maxLength: 1024", "minLength: 60", "spec.jobName: gives no request a valid Job name"),
        (
            "maxLength: 1024",
            "enum: [A, B]",
            "spec.jobName: references parameter `foo`, which has no value that a Job name can contain",
        ),
        ("value: ${foo}\n", "value: ${bar}\n", "env[0].value: references undeclared parameter `bar`"),
        ("value: ${foo}\n", "value: ${foo\n", "env[0].value: `${` has no closing `}`"),
        ("backoffLimit: 3", "backoffLimit: three", "spec.job.spec.backoffLimit: not valid in a batch/v1 Job"),
        (
            "backoffLimit: 3",
            "backoffLimit: ${foo}",
            "spec.job.spec.backoffLimit: not valid in a batch/v1 Job",
        ),
        (
            "restartPolicy: Never",
            "restartPolicy: Nver",
            "spec.job.spec.template.spec.restartPolicy: found \"Nver\"; did you mean `Never`?",
        ),
        ("kind: Job\n", "kind: Pod\n", "spec.job.kind: expected \"Job\", found \"Pod\""),
        (
            "ttlSecondsAfterFinished: 600",
            "ttlSecondsAfterFinished: -1",
            "spec.job.spec.ttlSecondsAfterFinished: expected a non-negative number of seconds, found -1",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {name: x}\n",
            "spec.job.metadata.name: set by the dispatcher",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {annotations: {natsjobs.dev/outcome: x}}\n",
            "spec.job.metadata.annotations: `natsjobs.dev/outcome` has the reserved prefix",
        ),
        (
            "    template:\n",
            "    template:\n        metadata: {labels: {natsjobs.dev/template: x}}\n",
            "spec.job.spec.template.metadata.labels: `natsjobs.dev/template` has the reserved prefix",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {labels: {a: '${fail}'}}\n",
            "spec.job.metadata.labels.a: references optional parameter `fail`: the whole Job would be omitted",
        ),
        (
            "image: simple-job:0.1.0",
            "image: 'simple-job:${fail}'",
            "containers[0].image: references optional parameter `fail`: the container would be omitted",
        ),
        ("    foo:", "    name:", "spec.parameters.properties.name: reserved"),
        ("    foo:", "    foo.bar:", "spec.parameters.properties.foo.bar: not a valid parameter name"),
        (
            "required: [foo]",
            "required: [foo, food]",
            "spec.parameters.required: \"food\" is not declared in `properties`",
        ),
        ("required: [foo]", "required: foo", "spec.parameters.required: expected an array, found a string"),
        (
            "required: [foo]",
            "required: [foo]\n    requires: [a]",
            "spec.parameters.requires: unknown JSON Schema keyword",
        ),
        (
            "required: [foo]",
            "required: [foo]\n    additionalProperties: true",
            "spec.parameters.additionalProperties: must be `false`",
        ),
        (
            "required: [foo]",
            "required: [foo]\n    patternProperties: {x: {}}",
            "spec.parameters.patternProperties: not supported",
        ),
        (
            "required: [foo]",
            "required: [foo, fail]",
            "spec.parameters.properties.fail: an `x-truthy` parameter cannot be required",
        ),
        ("type: object", "type: array", "spec.parameters.type: must be `object`"),
        (
            "type: object",
            "$schema: http://json-schema.org/draft-07/schema#\n    type: object",
            "spec.parameters.$schema: must be",
        ),
        ("type: string", "type: strin", "spec.parameters.properties.foo.type:"),
        ("type: string", "type: array", "spec.parameters.properties.foo: type `array` has no text form"),
        (
            "type: string",
            "type: [string, \"null\"]",
            "spec.parameters.properties.foo: type `null` has no text form",
        ),
        ("type: string", "type: string\n        pattern: '('", "parameters"),
        ("type: string", "type: string\n        format: uuuid", "not a usable JSON Schema"),
        ("type: string", "$ref: https://example.org/schema.json", "not a usable JSON Schema"),
        (
            "maxLength: 1024",
            "maxLenght: 1024",
            "spec.parameters.properties.foo: `maxLenght`: unknown JSON Schema keyword",
        ),
        (
            "maxLength: 1024",
            "maxLength: -1",
            "spec.parameters.properties.foo.maxLength: expected at least 0, found -1",
        ),
        (
            "maxLength: 1024",
            "default: 7",
            "spec.parameters.properties.foo.default: expected a string, found a number",
        ),
        ("x-truthy: true", "x-truthy: maybe", "spec.parameters.properties.fail: `x-truthy` must be"),
    ] {
        let found = problems(&with(from, to));
        assert!(found.contains(expected), "{from} → {to}: {found}");
    }
}

/// Fields that Kubernetes 1.37 knows and the client library does not; a misspelled one looks the same.
#[test]
fn unknown_field_is_passed_through_with_a_warning() {
    let pod = "/spec/template/spec";
    let container = |extra: Value| {
        let mut container = serde_json::json!({"name": "main", "image": "x"});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        (format!("{pod}/containers"), Value::from(vec![container]))
    };
    let rules = serde_json::json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    for ((pointer, value), field, at) in [
        (
            container(serde_json::json!({"restartPolicy": "Never", "restartPolicyRules": rules})),
            "containers[0].restartPolicyRules",
            "/containers/0/restartPolicyRules/0/exitCodes/values/0",
        ),
        (
            container(
                serde_json::json!({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "e", "path": "a", "key": "K"}}}]}),
            ),
            "containers[0].env[0].valueFrom.fileKeyRef",
            "/containers/0/env/0/valueFrom/fileKeyRef/key",
        ),
        ((format!("{pod}/hostnameOverride"), "h".into()), "hostnameOverride", "/hostnameOverride"),
        (
            (format!("{pod}/schedulingGroup"), serde_json::json!({"podGroupName": "${foo}"})),
            "schedulingGroup",
            "/schedulingGroup/podGroupName",
        ),
        ((format!("{pod}/backofLimit"), 3.into()), "backofLimit", "/backofLimit"),
    ] {
        let template = Template::parse(&changed(&pointer, &value)).unwrap();
        let warning = Problem::at(
            format!("spec.job.spec.template.spec.{field}"),
            "unknown field of a batch/v1 Job, passed through",
        );
        assert_eq!(template.warnings, [warning]);
        let job = template.render(&values(&[("foo", "group")])).unwrap();
        assert!(job.pointer(&format!("{pod}{at}")).is_some(), "{at}: {job}");
    }
    assert_eq!(simple().warnings, []);
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = with("jobName: simple-job-", "jobName: Simple-").replace("${fail}", "${flail}");
    let text = text.replace("ttlSecondsAfterFinished: 600", "ttlSecondsAfterFinished: x");
    let found = problems(&text);
    assert_eq!(found.lines().count(), 3, "{found}");
    let error = TemplateError { file: "a.yaml".to_owned(), problems: Template::parse(&text).unwrap_err() };
    assert!(error.to_string().starts_with("a.yaml: spec.job.spec."), "{error}");
    assert!(error.to_string().ends_with("(and 2 more: run `dispatcher check a.yaml`)"), "{error}");
}

/// The shipped template with these lines instead of its limits.
fn with_lines(lines: &str) -> String {
    let start = SIMPLE.find("  limits:\n").unwrap();
    let end = start + SIMPLE.get(start..).unwrap().find("\n\n").unwrap();
    let (before, after) = (SIMPLE.get(..start).unwrap(), SIMPLE.get(end..).unwrap());
    format!("{before}{after}  {lines}\n")
}

#[test]
fn concurrency_limit_is_a_positive_number() {
    let limit = |lines| Template::parse(&with_lines(lines)).unwrap().max_active;
    assert_eq!(simple().max_active, NonZeroU32::new(200));
    assert_eq!(limit("limits: {maxActive: 2}"), NonZeroU32::new(2));
    assert_eq!(limit("limits: {}"), None);
    assert_eq!(limit("logTail: true"), None);
    for invalid in
        ["{maxActive: 0}", "{maxActive: -1}", "{maxActive: many}", "{maxactive: 2}", "{maxActive: 1.5}"]
    {
        let found = problems(&with_lines(&format!("limits: {invalid}")));
        assert!(found.starts_with("spec.limits.max"), "{invalid}: {found}");
    }
}

#[test]
fn log_tail_is_bounded_and_can_be_disabled() {
    let tail = |lines| Template::parse(&with_lines(lines)).unwrap().log_tail;
    assert_eq!(simple().log_tail, Some(LogTail { lines: 20, bytes: 4096 }));
    assert_eq!(tail("logTail: true"), Some(LogTail::default()));
    assert_eq!(tail("logTail: false"), None);
    assert_eq!(tail("logTail: {lines: 5}"), Some(LogTail { lines: 5, bytes: 4096 }));
    assert_eq!(tail("logTail: {lines: 1, bytes: 16384}"), Some(LogTail { lines: 1, bytes: 16384 }));
    for (invalid, expected) in [
        ("{lines: 0}", "spec.logTail.lines: expected at least 1, found 0"),
        ("{lines: 1001}", "spec.logTail.lines: expected at most 1000, found 1001"),
        ("{bytes: 0}", "spec.logTail.bytes: expected at least 1, found 0"),
        ("{bytes: 16385}", "spec.logTail.bytes: expected at most 16384, found 16385"),
        ("{line: 3}", "spec.logTail.line: unknown field (allowed: bytes, lines)"),
        ("none", "logTail: expected a boolean or an object, found a string"),
    ] {
        let found = problems(&with_lines(&format!("logTail: {invalid}")));
        assert!(found.contains(expected), "{invalid}: {found}");
    }
}

#[test]
fn other_fields_of_a_job_pass_through_unchanged() {
    let spec = "backoffLimit: 3\n      completions: 5\n      parallelism: 2\n      completionMode: Indexed\n      suspend: true\n      \
                activeDeadlineSeconds: 90\n      podFailurePolicy:\n        rules:\n          - action: FailJob\n            \
                onExitCodes: {operator: In, values: [42]}";
    let text = with("backoffLimit: 3", spec);
    let text = text
        .replace("kind: Job\n", "kind: Job\n    metadata: {labels: {kueue.x-k8s.io/queue-name: '${foo}'}}\n");
    let text = text.replace("restartPolicy: Never", "restartPolicy: Never\n          priorityClassName: low");
    let job = render(&Template::parse(&text).unwrap(), &[("foo", "a")]);
    assert_eq!(job.metadata.labels.unwrap()["kueue.x-k8s.io/queue-name"], "a");
    let spec = job.spec.unwrap();
    assert_eq!((spec.completions, spec.parallelism, spec.suspend), (Some(5), Some(2), Some(true)));
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    assert_eq!(spec.active_deadline_seconds, Some(90));
    assert_eq!(spec.pod_failure_policy.unwrap().rules[0].action, "FailJob");
    assert_eq!(spec.template.spec.unwrap().priority_class_name.as_deref(), Some("low"));
}

#[test]
fn dollar_is_escaped_only_where_kubernetes_expands_variables() {
    let places = "              args: ['${foo}']\n              livenessProbe: {exec: {command: ['${foo}']}}\n              \
                  lifecycle: {preStop: {exec: {command: ['${foo}']}}}\n              \
                  readinessProbe: {httpGet: {port: 1, httpHeaders: [{name: a, value: '${foo}'}]}}\n              \
                  volumeMounts: [{name: v, mountPath: '${foo}', subPathExpr: '${foo}'}]\n              env:\n";
    let text = with("              env:\n", places);
    let text = text.replace(
        "restartPolicy: Never",
        "restartPolicy: Never\n          tolerations: [{key: a, value: '${foo}'}]",
    );
    let job = render(&Template::parse(&text).unwrap(), &[("foo", "$(X)")]);
    let pod = serde_json::to_value(job.spec.unwrap().template.spec.unwrap()).unwrap();
    let at = |pointer: &str| pod.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    for expanded in [
        "/containers/0/env/0/value",
        "/containers/0/args/0",
        "/containers/0/livenessProbe/exec/command/0",
        "/containers/0/volumeMounts/0/subPathExpr",
    ] {
        assert_eq!(at(expanded), "$$(X)", "{expanded}");
    }
    for plain in [
        "/containers/0/lifecycle/preStop/exec/command/0",
        "/containers/0/readinessProbe/httpGet/httpHeaders/0/value",
        "/containers/0/volumeMounts/0/mountPath",
        "/tolerations/0/value",
    ] {
        assert_eq!(at(plain), "$(X)", "{plain}");
    }
}

pub(crate) mod places;
