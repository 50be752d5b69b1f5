use super::*;
use crate::testing::{SIMPLE, simple};

fn values(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn env(job: &Job) -> BTreeMap<String, String> {
    let pod = job.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
    let env = pod.containers[0].env.clone().unwrap();
    env.into_iter().map(|e| (e.name, e.value.unwrap_or_default())).collect()
}

#[test]
fn the_shipped_template_is_that_of_the_ancestor() {
    let template = simple();
    assert_eq!(template.ttl_seconds, Some(600));
    let job = template.render(&values(&[("foo", "15")])).unwrap();
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
fn an_optional_parameter_without_a_value_leaves_no_variable() {
    let job = simple().render(&values(&[("foo", "a"), ("fail", "true")])).unwrap();
    assert_eq!(env(&job)["FAIL"], "true");
    let job = simple().render(&values(&[("foo", "a")])).unwrap();
    assert!(!env(&job).contains_key("FAIL"));
}

#[test]
fn a_value_cannot_refer_to_another_variable_of_the_container() {
    let job = simple().render(&values(&[("foo", "$(SLEEP_SECONDS) ${fail} $$")])).unwrap();
    assert_eq!(env(&job)["FOO"], "$$(SLEEP_SECONDS) $${fail} $$$$", "Kubernetes takes `$$` for `$`");
}

/// All that is said of a file that is no template, a line each.
fn told(text: &str) -> String {
    let problems = Template::parse(text).unwrap_err();
    assert!(!problems.is_empty());
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The shipped template with one text replaced by another.
fn with(from: &str, to: &str) -> String {
    assert!(SIMPLE.contains(from), "{from}");
    SIMPLE.replacen(from, to, 1)
}

#[test]
fn what_is_no_template_is_told_with_its_field() {
    for (from, to, field) in [
        (
            "name: simple\nspec",
            "name: Simple\nspec",
            "metadata.name: found \"Simple\", allowed is what matches",
        ),
        (
            "kind: JobTemplate",
            "knd: JobTemplate",
            "kind: is missing, but required\nknd: is no field that is known here",
        ),
        ("jobName:", "jobNames:", "spec.jobName: is missing, but required"),
        ("kind: JobTemplate", "kind: JobTemplate\nkind: JobTemplate", "not valid YAML"),
        ("kind: JobTemplate", "kind: [", "not valid YAML"),
        ("jobName: simple-job-", "jobName: Simple_Job-", "spec.jobName: makes no valid name of any request"),
        ("simple-job-${foo}", "simple-job-${foo}-", "spec.jobName: makes no valid name"),
        (
            "simple-job-${foo}",
            "simple-job-${fail}",
            "spec.jobName: refers to `fail`, which a request may leave out",
        ),
        (
            "simple-job-${foo}",
            "simple-job-${bar}",
            "spec.jobName: refers to `bar`, which is no declared parameter",
        ),
        ("simple-job-${foo}", "simple-job-${foo", "spec.jobName: `${` without a closing `}`"),
        ("maxLength: 1024", "minLength: 60", "spec.jobName: makes no valid name"),
        (
            "maxLength: 1024",
            "enum: [A, B]",
            "spec.jobName: refers to `foo`, none of whose values can stand in a name",
        ),
        (
            "value: ${foo}\n",
            "value: ${bar}\n",
            "env[0].value: refers to `bar`, which is no declared parameter",
        ),
        ("value: ${foo}\n", "value: ${foo\n", "env[0].value: `${` without a closing `}`"),
        ("backoffLimit: 3", "backofLimit: 3", "spec.job.spec.backofLimit: is no field of a batch/v1 Job"),
        (
            "backoffLimit: 3",
            "backoffLimit: three",
            "spec.job.spec.backoffLimit: is no field of a batch/v1 Job as it stands",
        ),
        (
            "backoffLimit: 3",
            "backoffLimit: ${foo}",
            "spec.job.spec.backoffLimit: is no field of a batch/v1 Job as it stands",
        ),
        (
            "imagePullPolicy:",
            "imagePulPolicy:",
            "spec.job.spec.template.spec.containers[0].imagePulPolicy: is no field",
        ),
        ("kind: Job\n", "kind: Pod\n", "spec.job.kind: found \"Pod\", must be \"Job\""),
        (
            "ttlSecondsAfterFinished: 600",
            "ttlSecondsAfterFinished: -1",
            "spec.job.spec.ttlSecondsAfterFinished: found -1",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {name: x}\n",
            "spec.job.metadata.name: is set by the dispatcher",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {annotations: {natsjobs.dev/outcome: x}}\n",
            "spec.job.metadata.annotations: `natsjobs.dev/outcome` is set by",
        ),
        (
            "    template:\n",
            "    template:\n        metadata: {labels: {natsjobs.dev/template: x}}\n",
            "spec.job.spec.template.metadata.labels: `natsjobs.dev/template` is set by",
        ),
        (
            "kind: Job\n",
            "kind: Job\n    metadata: {labels: {a: '${fail}'}}\n",
            "spec.job.metadata.labels.a: refers to `fail`, which a request may leave out, and the whole Job would go",
        ),
        (
            "image: simple-job:0.1.0",
            "image: 'simple-job:${fail}'",
            "containers[0].image: refers to `fail`, which a request may leave out, and the container would go",
        ),
        ("    foo:", "    name:", "spec.parameters.properties.name: is a reserved key"),
        ("    foo:", "    foo.bar:", "spec.parameters.properties.foo.bar: a parameter's name is made of"),
        (
            "required: [foo]",
            "required: [foo, food]",
            "spec.parameters.required: \"food\" is no declared property",
        ),
        ("required: [foo]", "required: foo", "spec.parameters.required: found a string, allowed is an array"),
        (
            "required: [foo]",
            "required: [foo]\n    requires: [a]",
            "spec.parameters.requires: is no keyword of JSON Schema",
        ),
        (
            "required: [foo]",
            "required: [foo]\n    additionalProperties: true",
            "spec.parameters.additionalProperties: must be `false`",
        ),
        (
            "required: [foo]",
            "required: [foo]\n    patternProperties: {x: {}}",
            "spec.parameters.patternProperties: parameters are declared one by one",
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
        (
            "type: string",
            "type: array",
            "spec.parameters.properties.foo: the type `array` cannot be put into a text",
        ),
        (
            "type: string",
            "type: [string, \"null\"]",
            "spec.parameters.properties.foo: the type `null` cannot be put into a text",
        ),
        ("type: string", "type: string\n        pattern: '('", "parameters"),
        ("type: string", "type: string\n        format: uuuid", "is no JSON Schema that can be used"),
        ("type: string", "$ref: https://example.org/schema.json", "is no JSON Schema that can be used"),
        (
            "maxLength: 1024",
            "maxLenght: 1024",
            "spec.parameters.properties.foo: `maxLenght` is no keyword of JSON Schema",
        ),
        (
            "maxLength: 1024",
            "maxLength: -1",
            "spec.parameters.properties.foo.maxLength: found -1, allowed is at least 0",
        ),
        (
            "maxLength: 1024",
            "default: 7",
            "spec.parameters.properties.foo.default: found a number, allowed is a string",
        ),
        ("x-truthy: true", "x-truthy: maybe", "spec.parameters.properties.fail: `x-truthy` must be"),
    ] {
        let told = told(&with(from, to));
        assert!(told.contains(field), "{from} → {to}: {told}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = with("jobName: simple-job-", "jobName: Simple-").replace("${fail}", "${flail}");
    let text = text.replace("ttlSecondsAfterFinished: 600", "ttlSecondsAfterFinished: x");
    let told = told(&text);
    assert_eq!(told.lines().count(), 3, "{told}");
    let error = TemplateError { file: "a.yaml".to_owned(), problems: Template::parse(&text).unwrap_err() };
    assert!(error.to_string().starts_with("a.yaml: spec.job.spec."), "{error}");
    assert!(error.to_string().ends_with("(and 2 more: `dispatcher check a.yaml` tells all)"), "{error}");
}

fn with_lines(lines: &str) -> String {
    format!("{SIMPLE}  {lines}\n")
}

#[test]
fn a_limit_of_active_jobs_is_a_number_from_one_on() {
    let limit = |lines| Template::parse(&with_lines(lines)).unwrap().max_active;
    assert_eq!(simple().max_active, None);
    assert_eq!(limit("limits: {maxActive: 2}"), NonZeroU32::new(2));
    assert_eq!(limit("limits: {}"), None);
    for wrong in
        ["{maxActive: 0}", "{maxActive: -1}", "{maxActive: many}", "{maxactive: 2}", "{maxActive: 1.5}"]
    {
        let told = told(&with_lines(&format!("limits: {wrong}")));
        assert!(told.starts_with("spec.limits.max"), "{wrong}: {told}");
    }
}

#[test]
fn a_log_tail_is_bounded_and_can_be_turned_off() {
    let tail = |lines| Template::parse(&with_lines(lines)).unwrap().log_tail;
    assert_eq!(simple().log_tail, Some(LogTail { lines: 20, bytes: 4096 }));
    assert_eq!(tail("logTail: true"), Some(LogTail::default()));
    assert_eq!(tail("logTail: false"), None);
    assert_eq!(tail("logTail: {lines: 5}"), Some(LogTail { lines: 5, bytes: 4096 }));
    assert_eq!(tail("logTail: {lines: 1, bytes: 16384}"), Some(LogTail { lines: 1, bytes: 16384 }));
    for (wrong, field) in [
        ("{lines: 0}", "spec.logTail.lines: found 0, allowed is at least 1"),
        ("{lines: 1001}", "spec.logTail.lines: found 1001, allowed is at most 1000"),
        ("{bytes: 0}", "spec.logTail.bytes: found 0"),
        ("{bytes: 16385}", "spec.logTail.bytes: found 16385"),
        ("{line: 3}", "spec.logTail.line: is no field"),
        ("none", "logTail: found a string, allowed is a boolean or an object"),
    ] {
        let told = told(&with_lines(&format!("logTail: {wrong}")));
        assert!(told.contains(field), "{wrong}: {told}");
    }
}

#[test]
fn the_rest_of_a_job_passes_through_as_it_is() {
    let spec = "backoffLimit: 3\n      completions: 5\n      parallelism: 2\n      completionMode: Indexed\n      suspend: true\n      \
                activeDeadlineSeconds: 90\n      podFailurePolicy:\n        rules:\n          - action: FailJob\n            \
                onExitCodes: {operator: In, values: [42]}";
    let text = with("backoffLimit: 3", spec);
    let text = text
        .replace("kind: Job\n", "kind: Job\n    metadata: {labels: {kueue.x-k8s.io/queue-name: '${foo}'}}\n");
    let text = text.replace("restartPolicy: Never", "restartPolicy: Never\n          priorityClassName: low");
    let job = Template::parse(&text).unwrap().render(&values(&[("foo", "a")])).unwrap();
    assert_eq!(job.metadata.labels.unwrap()["kueue.x-k8s.io/queue-name"], "a");
    let spec = job.spec.unwrap();
    assert_eq!((spec.completions, spec.parallelism, spec.suspend), (Some(5), Some(2), Some(true)));
    assert_eq!(spec.completion_mode.as_deref(), Some("Indexed"));
    assert_eq!(spec.active_deadline_seconds, Some(90));
    assert_eq!(spec.pod_failure_policy.unwrap().rules[0].action, "FailJob");
    assert_eq!(spec.template.spec.unwrap().priority_class_name.as_deref(), Some("low"));
}

#[test]
fn a_dollar_is_doubled_only_where_kubernetes_expands_variables() {
    let places = "              args: ['${foo}']\n              livenessProbe: {exec: {command: ['${foo}']}}\n              \
                  lifecycle: {preStop: {exec: {command: ['${foo}']}}}\n              \
                  readinessProbe: {httpGet: {port: 1, httpHeaders: [{name: a, value: '${foo}'}]}}\n              \
                  volumeMounts: [{name: v, mountPath: '${foo}', subPathExpr: '${foo}'}]\n              env:\n";
    let text = with("              env:\n", places);
    let text = text.replace(
        "restartPolicy: Never",
        "restartPolicy: Never\n          tolerations: [{key: a, value: '${foo}'}]",
    );
    let job = Template::parse(&text).unwrap().render(&values(&[("foo", "$(X)")])).unwrap();
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

#[test]
fn every_shipped_template_is_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/templates");
    let files = files_of(&folder).unwrap();
    let templates: Vec<_> = files.iter().map(|file| Template::load(file).unwrap().name.to_string()).collect();
    assert_eq!(templates, ["memory", "simple"]);
}

pub(crate) mod places;
