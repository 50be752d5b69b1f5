//! Which values the chart refuses, and how settings reach the dispatcher.

use std::collections::BTreeSet;

use clap::CommandFactory;
use dispatcher_tests::manifests::{Helm, chart};
use dispatcher_tests::or_skip;
use serde_json::{Value, json};

use super::{environment, find, rendered};

#[tokio::test]
async fn unknown_names_and_wrong_types_are_refused_with_their_path() {
    let helm = or_skip!(Helm::offline());
    for (values, expected) in [
        (json!({"replica": 3}), "'replica'"),
        (json!({"nats": {"uri": "nats://x"}}), "'uri'"),
        (json!({"jobs": {"namespace": {"nam": "x"}}}), "/jobs/namespace"),
        (json!({"monitoring": {"podMonitor": {"enable": true}}}), "/monitoring/podMonitor"),
        (json!({"settings": {"DISPATCHER_CONCURENCY": 3}}), "'DISPATCHER_CONCURENCY'"),
        (json!({"replicas": "3"}), "/replicas"),
        (json!({"replicas": 1.5}), "/replicas"),
        (json!({"settings": {"DISPATCHER_CONCURRENCY": 2000}}), "/settings/DISPATCHER_CONCURRENCY"),
        (json!({"settings": {"DISPATCHER_MAX_WAIT": "600"}}), "/settings/DISPATCHER_MAX_WAIT"),
        // A password belongs into a Secret.
        (json!({"settings": {"NATS_PASSWORD": "x"}}), "'NATS_PASSWORD'"),
        (json!({"limits": {"allowedImages": []}}), "/limits/allowedImages"),
        (json!({"limits": {"allowedImages": "a,b"}}), "/limits/allowedImages"),
        (json!({"limits": {"allowedImages": ["a,b"]}}), "/limits/allowedImages/0"),
        (json!({"limits": {"defaultActiveDeadlineSeconds": 0}}), "/limits/defaultActiveDeadlineSeconds"),
        (json!({"jobs": {"namespace": {"name": "Jobs"}}}), "/jobs/namespace/name"),
        (json!({"jobs": {"namespace": {"podSecurity": "none"}}}), "/jobs/namespace/podSecurity"),
        (json!({"image": {"repository": "dispatcher:1"}}), "/image/repository"),
        (json!({"templates": {"report": {"kind": "JobTemplate"}}}), "'report'"),
        (json!({"templates": {"report.yaml": 3}}), "/templates/report.yaml"),
        (json!({"commonLabels": {"team": 7}}), "/commonLabels/team"),
        (json!({"tolerations": {"key": "x"}}), "/tolerations"),
    ] {
        let refused = rendered(&helm, &values).await.unwrap_err();
        assert!(refused.contains(expected), "{values}: {refused}");
    }
}

#[tokio::test]
async fn contradicting_values_are_refused() {
    let helm = or_skip!(Helm::offline());
    for (values, expected) in [
        (
            json!({"jobs": {"namespace": {"name": "dispatcher"}}}),
            "jobs.namespace.name: \"dispatcher\" is the namespace of the release",
        ),
        (
            json!({"nats": {"credentials": {"creds": "x"}}}),
            "nats.credentials.secret: required with nats.credentials.creds",
        ),
        (json!({"nats": {"tls": {"ca": "ca.crt"}}}), "nats.tls.secret: required with nats.tls.ca"),
        (
            json!({"nats": {"tls": {"secret": "x", "cert": "tls.crt"}}}),
            "nats.tls.cert and nats.tls.key: set both or none",
        ),
        (json!({"nats": {"user": "x"}}), "nats.user and nats.credentials.password: set both or none"),
        (
            json!({"submitterKey": {"secret": "x"}}),
            "submitterKey.secret and submitterKey.key: set both or none",
        ),
        (
            json!({"jobs": {"serviceAccount": {"name": "runner"}}}),
            "limits.allowedServiceAccounts: does not contain \"runner\"",
        ),
        (
            json!({"serviceAccount": {"create": false}}),
            "serviceAccount.name: required if serviceAccount.create is false",
        ),
    ] {
        let refused = rendered(&helm, &values).await.unwrap_err();
        assert!(refused.contains(expected), "{values}: {refused}");
    }
}

/// The values that set the variables which `settings` does not have.
const ELSEWHERE: [(&str, &str); 24] = [
    ("NATS_URL", "nats.url"),
    ("NATS_CREDS", "nats.credentials.creds"),
    ("NATS_NKEY", "nats.credentials.nkey"),
    ("NATS_USER", "nats.user"),
    ("NATS_PASSWORD", "a Secret: nats.credentials.password"),
    ("NATS_PASSWORD_FILE", "nats.credentials.password"),
    ("NATS_TOKEN", "a Secret: nats.credentials.token"),
    ("NATS_TOKEN_FILE", "nats.credentials.token"),
    ("NATS_CA", "nats.tls.ca"),
    ("NATS_CERT", "nats.tls.cert"),
    ("NATS_KEY", "nats.tls.key"),
    ("DISPATCHER_NAMESPACE", "jobs.namespace.name"),
    ("DISPATCHER_LEASE_NAME", "lease.name"),
    ("DISPATCHER_LEASE_NAMESPACE", "lease.namespace"),
    ("DISPATCHER_TEMPLATES", "templates"),
    ("DISPATCHER_JOB_TEMPLATES", "jobTemplates.enabled"),
    ("DISPATCHER_KUEUE", "kueue.enabled"),
    ("DISPATCHER_ALLOWED_IMAGES", "limits.allowedImages"),
    ("DISPATCHER_ALLOWED_SERVICE_ACCOUNTS", "limits.allowedServiceAccounts"),
    ("DISPATCHER_ALLOWED_CSI_DRIVERS", "limits.allowedCSIDrivers"),
    ("DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS", "limits.defaultActiveDeadlineSeconds"),
    ("DISPATCHER_SUBMITTER_KEY", "submitterKey"),
    ("DISPATCHER_CONSOLE_TOKEN_FILE", "consoleToken"),
    // The probes and the PodMonitor use its port.
    ("DISPATCHER_ADMIN_ADDR", "fixed"),
];

#[test]
fn every_setting_of_the_dispatcher_has_a_value() {
    let command = dispatcher::cli::Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let variables = run.get_arguments().filter_map(|argument| argument.get_env());
    // The pod sets its name, and has no kubeconfig.
    let variables = variables.map(|name| name.to_string_lossy().into_owned());
    let variables: BTreeSet<String> =
        variables.filter(|name| !["KUBECONFIG", "POD_NAME"].contains(&name.as_str())).collect();
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let settings = schema["properties"]["settings"]["properties"].as_object().unwrap();
    let settings = settings.keys().map(String::as_str).filter(|name| *name != "RUST_LOG");
    let valued: BTreeSet<String> =
        settings.chain(ELSEWHERE.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
    assert_eq!(variables, valued);
}

#[tokio::test]
async fn settings_become_variables_without_exponents() {
    let helm = or_skip!(Helm::offline());
    let values = json!({
        "settings": {
            "DISPATCHER_CONCURRENCY": 8, "DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY": true, "RUST_LOG": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318",
        },
        "limits": {"defaultActiveDeadlineSeconds": 31_536_000},
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
    });
    let objects = rendered(&helm, &values).await.unwrap();
    let environment = environment(&objects);
    for (name, value) in [
        ("DISPATCHER_CONCURRENCY", "8"),
        ("DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY", "true"),
        ("DISPATCHER_LOG_FORMAT", "json"),
        ("RUST_LOG", "debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"),
        ("TZ", "UTC"),
    ] {
        assert_eq!(environment[name], value, "{name}");
    }
    let limits = &find(&objects, "ConfigMap", "dispatcher-limits").unwrap()["data"];
    assert_eq!(limits["DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS"], "31536000");
}

#[tokio::test]
async fn null_removes_a_limit() {
    let helm = or_skip!(Helm::offline());
    let limits = json!({"limits": {"allowedImages": null, "allowedServiceAccounts": null, "defaultActiveDeadlineSeconds": null}});
    let objects = rendered(&helm, &limits).await.unwrap();
    let limits = &find(&objects, "ConfigMap", "dispatcher-limits").unwrap()["data"];
    assert_eq!(*limits, json!({"DISPATCHER_ALLOWED_CSI_DRIVERS": ""}));
}
