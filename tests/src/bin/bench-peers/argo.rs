//! Argo Events: an `EventSource` on core NATS, its `EventBus` on `JetStream`, and a Sensor that creates
//! Jobs. Both run with the environment that its controller would set on their pods.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dispatcher_tests::helper::Program;
use dispatcher_tests::{Namespace, Nats, paths, ports};
use serde_json::{Value, json};

use crate::manifest::{REQUEST, job};
use crate::process::Process;

/// The subject of the requests.
pub(crate) const SUBJECT: &str = "requests";
/// Above what the API server can do.
const LIFTED: [&str; 2] = ["--kube-api-qps=10000", "--kube-api-burst=10000"];
/// The stream settings of `manifests/base/controller-manager` of v1.9.11, for one server.
const STREAM: &str =
    "maxMsgs: 50000\nmaxAge: 168h\nmaxBytes: -1\nreplicas: 1\nduplicates: 300s\nretention: 0\ndiscard: 0\n";

/// The settings of a Sensor.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// Whether the limits of its Kubernetes client are lifted.
    pub(crate) lifted: bool,
    pub(crate) at_least_once: bool,
    /// Whether the name of the Job follows from the request; it is generated otherwise.
    pub(crate) named: bool,
}

/// Starts the two processes.
pub(crate) async fn start(
    settings: Settings,
    nats: &Nats,
    namespace: &Namespace,
    folder: &Path,
) -> Result<Vec<Process>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let objects = [
        ("eventsource", "EVENTSOURCE_OBJECT", event_source(nats, namespace)),
        ("sensor", "SENSOR_OBJECT", sensor(settings, namespace)?),
    ];
    let bus = json!({"jetstream": {"url": nats.url, "streamConfig": STREAM}});
    let mut processes = Vec::new();
    for (name, variable, object) in objects {
        let own = folder.join(name);
        std::fs::create_dir_all(&own).map_err(failed)?;
        std::fs::write(own.join("kubeconfig"), kubeconfig(namespace)?).map_err(failed)?;
        let encode = |value: &Value| STANDARD.encode(value.to_string());
        let env = [
            (variable, encode(&object)),
            ("EVENTBUS_CONFIG", encode(&bus)),
            ("EVENTBUS_SUBJECT", format!("eventbus-{}", namespace.name)),
            ("POD_NAME", format!("{name}-0")),
            ("KUBECONFIG", "/tmp/kubeconfig".to_owned()),
        ];
        let mut args = with_own_tmp(&own)?;
        args.extend([name.to_owned(), format!("--metrics-port={}", ports::free())]);
        if settings.lifted && name == "sensor" {
            args.extend(LIFTED.map(str::to_owned));
        }
        let program = Program {
            name: name.to_owned(),
            path: paths::program("unshare")?,
            args,
            env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            log: folder.join(format!("{name}.log")),
            folder: None,
        };
        processes.push(Process::start(&program).await?);
    }
    Ok(processes)
}

/// The dispatcher's kubeconfig, with the certificate inside: its file is not in the `/tmp` that the
/// process sees.
fn kubeconfig(namespace: &Namespace) -> Result<String, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let path = &namespace.dispatcher_kubeconfig;
    let mut config: Value =
        serde_json::from_slice(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let cluster = config.pointer_mut("/clusters/0/cluster").and_then(Value::as_object_mut);
    let cluster = cluster.ok_or_else(|| format!("{}: no cluster", path.display()))?;
    if let Some(Value::String(file)) = cluster.remove("certificate-authority") {
        let data = STANDARD.encode(read(Path::new(&file))?);
        cluster.insert("certificate-authority-data".to_owned(), data.into());
    }
    Ok(config.to_string())
}

/// The arguments of `unshare` that run the program with a folder as its `/tmp`, as in a pod: both
/// processes keep the state of their leader election in `/tmp/graft.log`.
fn with_own_tmp(folder: &Path) -> Result<Vec<String>, String> {
    let script = r#"mount --bind "$1" /tmp && shift && exec "$@""#;
    let mut args = vec!["--mount".to_owned()];
    if !rustix::process::geteuid().is_root() {
        args.push("--map-root-user".to_owned());
    }
    let program = paths::argo_events()?.display().to_string();
    args.extend(["--", "sh", "-c", script, "sh"].map(str::to_owned));
    args.extend([folder.display().to_string(), program]);
    Ok(args)
}

fn event_source(nats: &Nats, namespace: &Namespace) -> Value {
    json!({
        "metadata": {"name": "nats", "namespace": namespace.name},
        "spec": {"nats": {"request": {"url": nats.url, "subject": SUBJECT, "jsonBody": true}}},
    })
}

fn sensor(settings: Settings, namespace: &Namespace) -> Result<Value, String> {
    let mut job = job()?;
    let metadata = match settings.named {
        true => json!({"name": "set by a parameter", "labels": {REQUEST: ""}}),
        false => json!({"generateName": "simple-job-", "labels": {REQUEST: ""}}),
    };
    job.as_object_mut().ok_or("the job is no object")?.insert("metadata".to_owned(), metadata);
    let parameter = |dest: &str, prefix: Option<&str>| {
        let mut parameter =
            json!({"src": {"dependencyName": "request", "dataKey": "body.foo"}, "dest": dest});
        if let (Some(prefix), Some(map)) = (prefix, parameter.as_object_mut()) {
            let template = format!("{prefix}{{{{ .Input.body.foo }}}}");
            map.insert("src".to_owned(), json!({"dependencyName": "request", "dataTemplate": template}));
        }
        parameter
    };
    let mut parameters = vec![
        parameter("spec.template.spec.containers.0.env.0.value", None),
        parameter(&format!("metadata.labels.{REQUEST}"), None),
    ];
    if settings.named {
        parameters.push(parameter("metadata.name", Some("simple-job-")));
    }
    let mut trigger = json!({
        "template": {"name": "job", "k8s": {
            "operation": "create", "source": {"resource": job}, "parameters": parameters}},
    });
    if let (true, Some(map)) = (settings.at_least_once, trigger.as_object_mut()) {
        map.insert("atLeastOnce".to_owned(), true.into());
        map.insert("retryStrategy".to_owned(), json!({"steps": 3, "duration": "1s"}));
    }
    Ok(json!({
        "metadata": {"name": "jobs", "namespace": namespace.name},
        "spec": {
            "dependencies": [{"name": "request", "eventSourceName": "nats", "eventName": "request"}],
            "triggers": [trigger],
        },
    }))
}
