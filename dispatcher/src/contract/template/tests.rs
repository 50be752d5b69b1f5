use super::*;

pub(crate) const SIMPLE: &str = include_str!("../../../../deploy/templates/simple.yaml");

/// The shipped template `simple`, for the tests of other rooms too.
pub(crate) fn simple() -> Template {
    Template::parse(SIMPLE).unwrap()
}

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

#[test]
fn what_is_no_template_is_told_with_its_field() {
    for (from, to, field) in [
        ("${foo}\n", "${bar}\n", "refers to `bar`, which is no declared parameter"),
        ("backoffLimit: 3", "backofLimit: 3", "job.spec.backofLimit: is no field of a batch/v1 Job"),
        ("backoffLimit: 3", "backoffLimit: three", "job: is no batch/v1 Job"),
        ("kind: Job", "kind: Pod", "job.kind: must be `Job`"),
        ("defaultName: simple-job-", "defaultName: Simple_Job-", "defaultName:"),
        (
            "defaultName: simple-job-${foo}",
            "defaultName: simple-job-${fail}",
            "which a request may leave out",
        ),
        (
            "ttlSecondsAfterFinished: 600",
            "ttlSecondsAfterFinished: -1",
            "job.spec.ttlSecondsAfterFinished: found -1",
        ),
        (
            "kind: Job\n",
            "kind: Job\n  metadata: {annotations: {dispatcher/settled: x}}\n",
            "`dispatcher/settled` is set by",
        ),
        ("kind: simple", "kind: Simple", "is not an RFC 1123 label"),
        ("    foo:", "    name:", "parameters.properties.name: is a reserved key"),
        ("required: [foo]", "required: [food]", "`food` is no declared property"),
        ("defaultName:", "defaultNames:", "defaultNames"),
    ] {
        assert!(SIMPLE.contains(from), "{from}");
        let error = Template::parse(&SIMPLE.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(field), "{from} → {to}: {error}");
    }
}

fn with(lines: &str) -> Result<Template, String> {
    Template::parse(&format!("{lines}\n{SIMPLE}")).map_err(|e| e.to_string())
}

#[test]
fn a_limit_of_active_jobs_is_a_number_from_one_on() {
    assert_eq!(simple().max_active, None);
    assert_eq!(with("limits: {maxActive: 2}").unwrap().max_active, NonZeroU32::new(2));
    assert_eq!(with("limits: {}").unwrap().max_active, None);
    for wrong in
        ["{maxActive: 0}", "{maxActive: -1}", "{maxActive: many}", "{maxactive: 2}", "{maxActive: 1.5}"]
    {
        assert!(with(&format!("limits: {wrong}")).is_err(), "{wrong}");
    }
}

#[test]
fn a_log_tail_is_bounded_and_can_be_turned_off() {
    let tail = |lines| with(lines).unwrap().log_tail;
    assert_eq!(simple().log_tail, Some(LogTail { lines: 20, bytes: 4096 }));
    assert_eq!(tail("logTail: true"), Some(LogTail::default()));
    assert_eq!(tail("logTail: false"), None);
    assert_eq!(tail("logTail: {lines: 5}"), Some(LogTail { lines: 5, bytes: 4096 }));
    assert_eq!(tail("logTail: {lines: 1, bytes: 16384}"), Some(LogTail { lines: 1, bytes: 16384 }));
    for (wrong, field) in [
        ("{lines: 0}", "logTail.lines: found 0"),
        ("{lines: 1001}", "logTail.lines: found 1001"),
        ("{bytes: 0}", "logTail.bytes: found 0"),
        ("{bytes: 16385}", "logTail.bytes: found 16385"),
        ("{line: 3}", "logTail"),
        ("none", "logTail"),
    ] {
        let error = with(&format!("logTail: {wrong}")).unwrap_err();
        assert!(error.contains(field), "{wrong}: {error}");
    }
}
