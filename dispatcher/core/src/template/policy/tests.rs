use serde_json::{Value, json};

use super::*;
use crate::{template::Template, testing::SIMPLE};

/// The shipped template with YAML added to its pod and its container.
fn with(pod: &str, container: &str) -> String {
    SIMPLE
        .replacen("          restartPolicy: Never\n", &format!("          restartPolicy: Never\n{pod}"), 1)
        .replacen("              env:\n", &format!("{container}              env:\n"), 1)
}

#[test]
fn dangerous_fields_are_refused_in_every_template() {
    let security = "              securityContext:\n                allowPrivilegeEscalation: false\n";
    assert!(SIMPLE.contains(security));
    for (pod, context, field) in [
        ("hostNetwork: true", "", "hostNetwork"),
        ("hostPID: true", "", "hostPID"),
        ("hostIPC: true", "", "hostIPC"),
        ("volumes: [{name: a, emptyDir: {}}, {name: b, hostPath: {path: /}}]", "", "volumes[1].hostPath"),
        (
            "initContainers: [{name: i, image: x, securityContext: {privileged: true}}]",
            "",
            "initContainers[0].securityContext.privileged",
        ),
        (
            "ephemeralContainers: [{name: i, image: x, securityContext: {privileged: true}}]",
            "",
            "ephemeralContainers[0].securityContext.privileged",
        ),
        (
            "initContainers: [{name: i, image: x, securityContext: {allowPrivilegeEscalation: true}}]",
            "",
            "initContainers[0].securityContext.allowPrivilegeEscalation",
        ),
        ("", "privileged: true", "containers[0].securityContext.privileged"),
        (
            "",
            "windowsOptions: {hostProcess: true}",
            "containers[0].securityContext.windowsOptions.hostProcess",
        ),
    ] {
        let mut text = with(&format!("          {pod}\n"), "");
        if !context.is_empty() {
            text = text.replacen(security, &format!("{security}                {context}\n"), 1);
        }
        let problems = Template::parse(&text).unwrap_err();
        let expected =
            Problem::at(format!("spec.job.spec.template.spec.{field}"), "not allowed in any template");
        assert_eq!(problems, [expected], "{pod}{context}");
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
        assert!(problems[0].message.contains("expected a boolean"), "{field}: {problems:?}");
    }
    // A hostPath is refused for every path.
    let text = with("          volumes: [{name: a, hostPath: {path: '${foo}'}}]\n", "");
    assert_eq!(Template::parse(&text).unwrap_err().len(), 1);
}

fn rendered(text: &str, policy: Policy) -> Value {
    let template = Template::parse(text).unwrap().with_policy(policy.into()).unwrap();
    let values = [("foo".to_owned(), "a".to_owned())].into();
    serde_json::to_value(template.render(&values).unwrap()).unwrap()
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
