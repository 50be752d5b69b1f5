//! The trace in the environment of a Job's containers.

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};

use crate::contract::trace::{ENV_TRACEPARENT, ENV_TRACESTATE, Trace};

/// Puts `TRACEPARENT` and `TRACESTATE` before the variables of every container, so that they can refer to them. What the template
/// itself says under these names stays.
pub(super) fn put_trace(pod: &mut PodSpec, trace: &Trace) {
    let mut variables = vec![(ENV_TRACEPARENT, trace.traceparent())];
    // Kubernetes takes `$(NAME)` in a value for a reference, and `$$` for a dollar sign.
    variables.extend(trace.tracestate().map(|state| (ENV_TRACESTATE, state.replace('$', "$$"))));
    for container in pod.init_containers.iter_mut().flatten().chain(&mut pod.containers) {
        put(container, &variables);
    }
}

fn put(container: &mut Container, variables: &[(&str, String)]) {
    let own = container.env.take().unwrap_or_default();
    // A `TRACESTATE` belongs to its `TRACEPARENT`: both are ours, or none.
    let ours = !own.iter().any(|variable| variable.name == ENV_TRACEPARENT);
    let put = variables.iter().filter(|(name, _)| ours && !own.iter().any(|variable| variable.name == *name));
    let put = put.map(|(name, value)| EnvVar {
        name: (*name).to_owned(),
        value: Some(value.clone()),
        ..EnvVar::default()
    });
    let env: Vec<EnvVar> = put.chain(own.iter().cloned()).collect();
    container.env = (!env.is_empty()).then_some(env);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn with_trace(pod: Value, state: Option<&str>) -> Value {
        let mut pod = serde_json::from_value(pod).unwrap();
        put_trace(&mut pod, &Trace::of(Some(PARENT), state).unwrap());
        serde_json::to_value(pod).unwrap()
    }

    #[test]
    fn every_container_gets_it_before_its_own_variables() {
        let own = json!({"name": "SEE", "value": "$(TRACEPARENT)"});
        let pod = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b", "env": [own]}]});
        let pod = with_trace(pod, Some("v=$(HOME)"));
        let ours = [
            json!({"name": "TRACEPARENT", "value": PARENT}),
            json!({"name": "TRACESTATE", "value": "v=$$(HOME)"}),
        ];
        assert_eq!(pod["initContainers"][0]["env"], json!(ours));
        assert_eq!(pod["containers"][0]["env"], json!(ours));
        assert_eq!(pod["containers"][1]["env"], json!([ours[0], ours[1], own]));
    }

    #[test]
    fn the_templates_own_stays() {
        for own in [
            json!([{"name": "TRACEPARENT", "value": "mine"}]),
            json!([{"name": "TRACEPARENT"}, {"name": "A"}]),
        ] {
            let pod = json!({"containers": [{"name": "a", "env": own}]});
            assert_eq!(with_trace(pod, Some("v=1"))["containers"][0]["env"], own);
        }
    }
}
