use serde_json::{Value, json};

use super::*;

fn images() -> BTreeMap<String, Program> {
    BTreeMap::from([("app:1".to_owned(), Program::new("/bin/app").with_arguments(["serve"]))])
}

fn prepared(container: Value) -> Result<ContainerCommand, StartFailure> {
    let mut container = container;
    container["name"] = json!("main");
    let pod = json!({
        "metadata": {"name": "pod-1", "namespace": "jobs", "uid": "u", "labels": {"a": "b"}},
        "spec": {"containers": [container]},
    });
    let pod: Pod = serde_json::from_value(pod).unwrap();
    prepare(&pod, &pod.spec.as_ref().unwrap().containers[0], &images(), "here")
}

#[test]
fn command_and_args_override_the_image_as_in_kubernetes() {
    for (command, args, program, arguments) in [
        (json!(null), json!(null), "/bin/app", vec!["serve"]),
        (json!(null), json!(["x"]), "/bin/app", vec!["x"]),
        (json!(["/bin/sh", "-c"]), json!(null), "/bin/sh", vec!["-c"]),
        (json!(["/bin/sh", "-c"]), json!(["x"]), "/bin/sh", vec!["-c", "x"]),
    ] {
        let command = prepared(json!({"image": "app:1", "command": command, "args": args})).unwrap();
        assert_eq!(
            (command.program.to_str().unwrap(), command.arguments),
            (program, arguments.into_iter().map(str::to_owned).collect())
        );
    }
}

#[test]
fn variables_refer_to_earlier_variables_and_arguments_to_all() {
    let command = prepared(json!({
        "image": "app:1",
        "args": ["$(B)", "$(C)"],
        "env": [{"name": "A", "value": "a"}, {"name": "B", "value": "$(A)$(C)"}, {"name": "C", "value": "c"}],
    }));
    assert_eq!(command.unwrap().arguments, ["a$(C)", "c"]);
}

#[test]
fn variable_of_the_image_map_overrides_the_container() {
    let program = Program::new("/bin/app").with_variable("SLEEP", "1");
    let pod = json!({"spec": {"containers": [{
        "name": "main", "image": "app:1", "args": ["$(SLEEP)"],
        "env": [{"name": "SLEEP", "value": "15"}, {"name": "OTHER", "value": "o"}],
    }]}});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let images = BTreeMap::from([("app:1".to_owned(), program)]);
    let command = prepare(&pod, &pod.spec.as_ref().unwrap().containers[0], &images, "here").unwrap();
    assert_eq!((command.environment["SLEEP"].as_str(), command.environment["OTHER"].as_str()), ("1", "o"));
    assert_eq!(command.arguments, ["1"]);
}

#[test]
fn pod_fields_are_resolved() {
    let paths = [
        "metadata.name",
        "metadata.labels['a']",
        "spec.nodeName",
        "status.podIP",
        "metadata.annotations['x']",
    ];
    let values = paths.map(|path| {
        let env = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
        prepared(json!({"image": "app:1", "env": env})).unwrap().environment["A"].clone()
    });
    assert_eq!(values, ["pod-1", "b", "here", "127.0.0.1", ""]);
}

#[test]
fn unknown_image_is_never_pulled() {
    let never = prepared(json!({"image": "b:1", "imagePullPolicy": "Never"})).unwrap_err();
    assert_eq!(never.reason, "ErrImageNeverPull");
    assert_eq!(never.message, "Container image \"b:1\" is not present with pull policy of Never");
    assert_eq!(prepared(json!({"image": "b:1"})).unwrap_err().reason, "ErrImagePull");
}

#[test]
fn unsupported_sources_are_rejected() {
    let secret = |optional| json!({"secretKeyRef": {"name": "s", "key": "k", "optional": optional}});
    for (env, is_supported) in
        [(secret(true), true), (secret(false), false), (json!({"fieldRef": {"fieldPath": "x"}}), false)]
    {
        let command = prepared(json!({"image": "app:1", "env": [{"name": "A", "valueFrom": env}]}));
        assert_eq!(command.is_ok(), is_supported, "{command:?}");
    }
    assert!(prepared(json!({"image": "app:1", "envFrom": [{"secretRef": {"name": "s"}}]})).is_err());
}

#[test]
fn memory_limit_is_parsed_as_a_quantity() {
    let limit = |text: &str| prepared(json!({"image": "app:1", "resources": {"limits": {"memory": text}}}));
    assert_eq!(limit("64Mi").unwrap().memory_limit, Some(64 << 20));
    assert_eq!(limit("lots").unwrap_err().reason, "CreateContainerConfigError");
}
