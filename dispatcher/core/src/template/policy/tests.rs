use serde_json::{Value, json};

use super::*;
use crate::{template::Template, testing::SIMPLE};

/// The shipped template with something added to its pod, or to its container.
fn with(pod: &str, container: &str) -> String {
    SIMPLE
        .replacen("          restartPolicy: Never\n", &format!("          restartPolicy: Never\n{pod}"), 1)
        .replacen("              env:\n", &format!("{container}              env:\n"), 1)
}

#[test]
fn no_template_lifts_a_refusal() {
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
        let expected = Problem::at(
            format!("spec.job.spec.template.spec.{field}"),
            "is refused, whatever the template says",
        );
        assert_eq!(problems, [expected], "{pod}{context}");
    }
}

#[test]
fn a_parameter_reaches_no_refused_place() {
    // Booleans stay booleans: a text there is no Job.
    for place in ["hostNetwork", "hostPID", "hostIPC", "automountServiceAccountToken"] {
        let text = SIMPLE.replace("          automountServiceAccountToken: false\n", "");
        let text = text.replacen(
            "          restartPolicy: Never\n",
            &format!("          restartPolicy: Never\n          {place}: ${{foo}}\n"),
            1,
        );
        let problems = Template::parse(&text).unwrap_err();
        assert!(problems[0].message.contains("expected a boolean"), "{place}: {problems:?}");
    }
    // And hostPath is refused whatever its path is.
    let text = with("          volumes: [{name: a, hostPath: {path: '${foo}'}}]\n", "");
    assert_eq!(Template::parse(&text).unwrap_err().len(), 1);
}

fn rendered(text: &str, policy: Policy) -> Value {
    let template = Template::parse(text).unwrap().under(policy.into()).unwrap();
    let values = [("foo".to_owned(), "a".to_owned())].into();
    serde_json::to_value(template.render(&values).unwrap()).unwrap()
}

#[test]
fn a_token_of_the_service_account_is_mounted_only_where_the_template_says_so() {
    let mount = "          automountServiceAccountToken: false\n";
    let at = "/spec/template/spec/automountServiceAccountToken";
    let silent = SIMPLE.replace(mount, "");
    assert_eq!(rendered(&silent, Policy::default()).pointer(at), Some(&json!(false)));
    let asked = SIMPLE.replace(mount, "          automountServiceAccountToken: true\n");
    assert_eq!(rendered(&asked, Policy::default()).pointer(at), Some(&json!(true)));
}

#[test]
fn no_container_may_gain_rights_where_the_template_is_silent() {
    let text = with("          initContainers: [{name: i, image: x}]\n", "");
    let text = text.replace("                allowPrivilegeEscalation: false\n", "");
    let job = rendered(&text, Policy::default());
    for list in ["containers", "initContainers"] {
        let at = format!("/spec/template/spec/{list}/0/securityContext/allowPrivilegeEscalation");
        assert_eq!(job.pointer(&at), Some(&json!(false)), "{list}");
    }
}

#[test]
fn a_deadline_for_all_kinds_yields_to_that_of_a_template() {
    let policy = Policy { active_deadline_seconds: NonZeroU32::new(60), ..Policy::default() };
    let at = "/spec/activeDeadlineSeconds";
    assert_eq!(rendered(SIMPLE, Policy::default()).pointer(at), None);
    assert_eq!(rendered(SIMPLE, policy.clone()).pointer(at), Some(&json!(60)));
    let own = SIMPLE.replace("backoffLimit: 3", "backoffLimit: 3\n      activeDeadlineSeconds: 5");
    assert_eq!(rendered(&own, policy).pointer(at), Some(&json!(5)));
}

#[test]
fn an_image_pattern_is_the_image_or_what_it_begins_with() {
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
fn an_image_that_is_fixed_is_held_to_the_list_at_load() {
    let template = || Template::parse(SIMPLE).unwrap();
    assert!(template().under(images(&["simple-job:*"]).into()).is_ok());
    let problems = template().under(images(&["other:*"]).into()).unwrap_err();
    assert_eq!(
        problems,
        [Problem::at(
            "spec.job.spec.template.spec.containers[0].image",
            "found \"simple-job:0.1.0\", the operator allows other:*"
        )]
    );
}

#[test]
fn an_image_of_a_parameter_is_held_to_the_list_at_each_request() {
    let text = SIMPLE.replace("image: simple-job:0.1.0", "image: simple-job:${foo}");
    let template = Template::parse(&text).unwrap().under(images(&["simple-job:*"]).into()).unwrap();
    let render = |foo: &str| template.render(&[("foo".to_owned(), foo.to_owned())].into());
    assert!(render("2").is_ok());
    let problem = render("5000/evil").unwrap_err();
    assert_eq!(problem.field, "job.spec.template.spec.containers[0].image");
}

#[test]
fn a_service_account_is_held_to_the_list_under_both_its_names() {
    let policy = || {
        std::sync::Arc::new(Policy { service_accounts: Some(vec!["job".to_owned()]), ..Policy::default() })
    };
    let under = |text: &str| Template::parse(text).unwrap().under(policy());
    assert!(under(SIMPLE).is_ok());
    let account = "serviceAccountName: job";
    for (instead, field, found) in [
        ("serviceAccountName: admin", "serviceAccountName", "\"admin\""),
        ("serviceAccount: admin", "serviceAccount", "\"admin\""),
        ("enableServiceLinks: true", "serviceAccountName", "\"default\""),
    ] {
        let text = SIMPLE.replace("          enableServiceLinks: false\n", "").replace(account, instead);
        let problems = under(&text).unwrap_err();
        assert_eq!(problems[0].field, format!("spec.job.spec.template.spec.{field}"));
        assert!(problems[0].message.contains(found), "{problems:?}");
    }
    let chosen = SIMPLE.replace(account, "serviceAccountName: ${foo}");
    let template = under(&chosen).unwrap();
    assert!(template.render(&[("foo".to_owned(), "job".to_owned())].into()).is_ok());
    assert!(template.render(&[("foo".to_owned(), "admin".to_owned())].into()).is_err());
}
