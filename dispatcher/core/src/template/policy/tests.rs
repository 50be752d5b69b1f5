use serde_json::{Value, json};

use super::*;
use crate::{
    template::Template,
    testing::{SIMPLE, changed, shipped_limits, violations},
};

/// The shipped template with YAML added to its pod and its container.
fn with(pod: &str, container: &str) -> String {
    SIMPLE
        .replacen("          restartPolicy: Never\n", &format!("          restartPolicy: Never\n{pod}"), 1)
        .replacen("              env:\n", &format!("{container}              env:\n"), 1)
}

/// All problems of a template under these limits.
fn problems_under(text: &str, limits: Policy) -> Vec<Problem> {
    match Template::parse(text) {
        Ok(template) => template.with_policy(limits.into()).err().unwrap_or_default(),
        Err(problems) => problems,
    }
}

#[test]
fn violation_is_refused_in_every_template() {
    assert_eq!(problems_under(SIMPLE, shipped_limits()), []);
    for violation in violations() {
        let problems = problems_under(&violation.template(), shipped_limits());
        let found = problems.iter().any(|problem| problem.field.ends_with(violation.field));
        assert!(found, "{violation:?}: {problems:?}");
    }
}

#[test]
fn unknown_field_hides_no_violation() {
    let image = json!([{"name": "x", "image": "evil:1"}]);
    for (pointer, value, field) in [
        (
            "/spec/template/spec/sidecars",
            json!([{"securityContext": {"privileged": true}}]),
            "[0].securityContext.privileged",
        ),
        ("/spec/template/spec/sidecars", image, "sidecars[0].image"),
        ("/spec/template/spec/host", json!({"hostNetwork": true}), "host.hostNetwork"),
        ("/spec/template/spec/HostNetwork", json!(true), "HostNetwork"),
        ("/spec/template/spec/extra", json!({"serviceAccountName": "admin"}), "extra.serviceAccountName"),
        (
            "/spec/template/spec/volumes",
            json!([{"name": "a", "hostDevice": {"path": "/dev/mem"}}]),
            "volumes[0].hostDevice",
        ),
        (
            "/spec/template/spec/volumes",
            json!([{"name": "a", "projected": {"sources": [{"nodeToken": {}}]}}]),
            "sources[0].nodeToken",
        ),
        (
            "/spec/podTemplates",
            json!([{"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}}]),
            "volumes[0].hostPath",
        ),
        ("/spec/template/spec/labels", json!({"x": {"privileged": true}}), "labels.x.privileged"),
    ] {
        let problems = problems_under(&changed(pointer, &value), shipped_limits());
        assert!(problems.iter().any(|problem| problem.field.ends_with(field)), "{field}: {problems:?}");
    }
}

#[test]
fn allowed_values_of_restricted_fields_are_no_problem() {
    let limits = || Policy { csi_drivers: vec!["secrets.example.com".to_owned()], ..shipped_limits() };
    let volume = |volume: Value| ("/spec/template/spec/volumes", json!([volume]));
    for (pointer, value) in [
        volume(
            json!({"name": "a", "csi": {"driver": "secrets.example.com", "volumeAttributes": {"image": "x"}}}),
        ),
        volume(json!({"name": "a", "image": {"reference": "simple-job:2"}})),
        volume(
            json!({"name": "a", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}}),
        ),
        volume(json!({"name": "a", "projected": {"sources": [{"secret": {"name": "s"}}]}})),
        ("/spec/template/spec/priorityClassName", json!("low")),
        ("/spec/template/spec/nodeSelector", json!({"image": "x", "nodeName": "y", "hostPath": "z"})),
        ("/spec/template/spec/hostNetwork", json!(false)),
        (
            "/spec/template/metadata",
            json!({"annotations": {"privileged": "yes", "csi": "no", "procMount": "x"}}),
        ),
    ] {
        assert_eq!(problems_under(&changed(pointer, &value), limits()), [], "{pointer}: {value}");
    }
}

#[test]
fn parameter_cannot_choose_a_violation() {
    for (pointer, value, good, bad) in [
        ("/spec/template/spec/priorityClassName", json!("${foo}"), "low", "system-node-critical"),
        (
            "/spec/template/spec/volumes",
            json!([{"name": "a", "image": {"reference": "${foo}"}}]),
            "simple-job:2",
            "evil:1",
        ),
    ] {
        let template = Template::parse(&changed(pointer, &value)).unwrap();
        let template = template.with_policy(shipped_limits().into()).unwrap();
        let render = |foo: &str| template.render(&[("foo".to_owned(), foo.to_owned())].into());
        assert!(render(good).is_ok(), "{pointer}");
        assert!(render(bad).is_err(), "{pointer}");
    }
}

#[test]
fn parameter_cannot_set_a_refused_field() {
    // The fields are booleans, and a substituted value is always a string.
    for field in ["hostNetwork", "hostPID", "hostIPC", "automountServiceAccountToken"] {
        let text = SIMPLE.replace("          automountServiceAccountToken: false\n", "");
        let text = text.replacen(
            "          restartPolicy: Never\n",
            &format!("          restartPolicy: Never\n          {field}: ${{foo}}\n"),
            1,
        );
        let problems = Template::parse(&text).unwrap_err();
        let found = problems.iter().any(|problem| problem.message.contains("expected a boolean"));
        assert!(found, "{field}: {problems:?}");
    }
    // A hostPath is refused for every path.
    let text = with("          volumes: [{name: a, hostPath: {path: '${foo}'}}]\n", "");
    assert_eq!(Template::parse(&text).unwrap_err().len(), 1);
}

fn rendered(text: &str, policy: Policy) -> Value {
    let template = Template::parse(text).unwrap().with_policy(policy.into()).unwrap();
    let values = [("foo".to_owned(), "a".to_owned())].into();
    template.render(&values).unwrap()
}

#[test]
fn service_account_token_is_mounted_only_if_the_template_sets_it() {
    let mount = "          automountServiceAccountToken: false\n";
    let at = "/spec/template/spec/automountServiceAccountToken";
    let unset = SIMPLE.replace(mount, "");
    assert_eq!(rendered(&unset, Policy::default()).pointer(at), Some(&json!(false)));
    let set = SIMPLE.replace(mount, "          automountServiceAccountToken: true\n");
    assert_eq!(rendered(&set, Policy::default()).pointer(at), Some(&json!(true)));
}

#[test]
fn privilege_escalation_is_off_by_default_in_every_container() {
    let text = with("          initContainers: [{name: i, image: x}]\n", "");
    let text = text.replace("                allowPrivilegeEscalation: false\n", "");
    let job = rendered(&text, Policy::default());
    for list in ["containers", "initContainers"] {
        let at = format!("/spec/template/spec/{list}/0/securityContext/allowPrivilegeEscalation");
        assert_eq!(job.pointer(&at), Some(&json!(false)), "{list}");
    }
}

#[test]
fn deadline_of_the_template_overrides_that_of_the_operator() {
    let policy = Policy { active_deadline_seconds: NonZeroU32::new(60), ..Policy::default() };
    let at = "/spec/activeDeadlineSeconds";
    assert_eq!(rendered(SIMPLE, Policy::default()).pointer(at), None);
    assert_eq!(rendered(SIMPLE, policy.clone()).pointer(at), Some(&json!(60)));
    let own = SIMPLE.replace("backoffLimit: 3", "backoffLimit: 3\n      activeDeadlineSeconds: 5");
    assert_eq!(rendered(&own, policy).pointer(at), Some(&json!(5)));
}

#[test]
fn image_pattern_matches_an_image_or_a_prefix() {
    let matches = |pattern: &str, image: &str| pattern.parse::<ImagePattern>().unwrap().matches(image);
    for (pattern, image) in [
        ("simple-job:0.1.0", "simple-job:0.1.0"),
        ("registry.example.org/team/*", "registry.example.org/team/a/b:1@sha256:0"),
        ("simple-job:*", "simple-job:0.1.0"),
        ("simple-job:*", "simple-job:1@sha256:0"),
        ("simple-job@*", "simple-job@sha256:0"),
    ] {
        assert!(matches(pattern, image), "{pattern} {image}");
    }
    for (pattern, image) in [
        ("simple-job", "simple-job:0.1.0"),
        ("simple-job:0.1.0", "simple-job:0.1.01"),
        ("registry.example.org/team/*", "registry.example.org/team/"),
        ("registry.example.org/team/*", "registry.example.org.evil.org/team/a"),
        ("registry.example.org/team/*", "evil/registry.example.org/team/a"),
        ("simple-job:*", "simple-job:5000/evil"),
        ("simple-job:*", "simple-job"),
    ] {
        assert!(!matches(pattern, image), "{pattern} {image}");
    }
    for wrong in ["", "*", "a*", "a*b", "*/a", "a b", "a/**", "registry.example.org*"] {
        assert!(wrong.parse::<ImagePattern>().is_err(), "{wrong}");
    }
}

fn images(patterns: &[&str]) -> Policy {
    Policy { images: Some(patterns.iter().map(|p| p.parse().unwrap()).collect()), ..Policy::default() }
}

#[test]
fn fixed_image_is_checked_when_the_template_is_loaded() {
    let template = || Template::parse(SIMPLE).unwrap();
    assert!(template().with_policy(images(&["simple-job:*"]).into()).is_ok());
    let problems = template().with_policy(images(&["other:*"]).into()).unwrap_err();
    assert_eq!(
        problems,
        [Problem::at(
            "spec.job.spec.template.spec.containers[0].image",
            "\"simple-job:0.1.0\" is not allowed by the operator (allowed: other:*)"
        )]
    );
}

#[test]
fn image_with_a_parameter_is_checked_for_each_request() {
    let text = SIMPLE.replace("image: simple-job:0.1.0", "image: simple-job:${foo}");
    let template = Template::parse(&text).unwrap().with_policy(images(&["simple-job:*"]).into()).unwrap();
    let render = |foo: &str| template.render(&[("foo".to_owned(), foo.to_owned())].into());
    assert!(render("2").is_ok());
    let problem = render("5000/evil").unwrap_err();
    assert_eq!(problem.field, "job.spec.template.spec.containers[0].image");
}

#[test]
fn service_account_is_checked_under_both_field_names() {
    let policy = || {
        std::sync::Arc::new(Policy { service_accounts: Some(vec!["job".to_owned()]), ..Policy::default() })
    };
    let load = |text: &str| Template::parse(text).unwrap().with_policy(policy());
    assert!(load(SIMPLE).is_ok());
    let account = "serviceAccountName: job";
    for (instead, field, found) in [
        ("serviceAccountName: admin", "serviceAccountName", "\"admin\""),
        ("serviceAccount: admin", "serviceAccount", "\"admin\""),
        ("enableServiceLinks: true", "serviceAccountName", "\"default\""),
    ] {
        let text = SIMPLE.replace("          enableServiceLinks: false\n", "").replace(account, instead);
        let problems = load(&text).unwrap_err();
        assert_eq!(problems[0].field, format!("spec.job.spec.template.spec.{field}"));
        assert!(problems[0].message.contains(found), "{problems:?}");
    }
    let parameterized = SIMPLE.replace(account, "serviceAccountName: ${foo}");
    let template = load(&parameterized).unwrap();
    assert!(template.render(&[("foo".to_owned(), "job".to_owned())].into()).is_ok());
    assert!(template.render(&[("foo".to_owned(), "admin".to_owned())].into()).is_err());
}
