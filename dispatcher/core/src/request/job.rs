//! `Request` + `Template` → the `batch/v1` Job to create.

use serde_json::{Map, Value, json};

use crate::{
    contract::{
        job::{
            ANNOTATION_JOB_NAME, ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ,
            ANNOTATION_SUBMITTER, ANNOTATION_TEMPLATE_HASH, LABEL_MANAGED_BY, LABEL_NAME, LABEL_TEMPLATE,
            MANAGED_BY,
        },
        rejection::{Reason, Rejection},
        submitter::Submitter,
        trace::{
            ANNOTATION_TRACEPARENT, ANNOTATION_TRACESTATE, ENV_TRACEPARENT, ENV_TRACESTATE, Trace,
            TraceContext,
        },
    },
    request::message::Request,
    template::{
        Template,
        object::{edit, entries_mut},
    },
};

/// Builds the Job of a request: the rendered template, the name, and the labels and annotations of
/// the contract. The trace goes to the annotations and to the environment of the containers.
///
/// # Errors
/// A [`Rejection`] if the operator's limits do not allow the rendered image or `ServiceAccount`.
pub fn build(request: &Request, template: &Template, context: &TraceContext) -> Result<Value, Rejection> {
    let mut job = template.render(&request.values).map_err(|problem| {
        Rejection::new(Reason::Refused, format!("the dispatcher refuses the Job: {problem}"))
            .with_name(&request.name)
    })?;
    edit(&mut job, &["metadata"], |metadata| {
        metadata.insert("name".to_owned(), request.name.as_ref().into());
    });
    edit(&mut job, &["metadata", "annotations"], |annotations| {
        add_annotations(annotations, request, context.trace.as_ref());
        annotations.insert(ANNOTATION_TEMPLATE_HASH.to_owned(), template.hash.as_str().into());
    });
    edit(&mut job, &["metadata", "labels"], |labels| add_labels(labels, request));
    edit(&mut job, &["spec", "template", "metadata", "labels"], |labels| add_labels(labels, request));
    if let Some(trace) = &context.in_containers {
        add_trace(&mut job, trace);
    }
    Ok(job)
}

/// Adds the annotation with the submitter. It is not part of the request: the same request may come
/// from another user.
pub fn set_submitter(job: &mut Value, submitter: Option<&Submitter>) {
    if let Some(submitter) = submitter {
        edit(job, &["metadata", "annotations"], |annotations| {
            annotations.insert(ANNOTATION_SUBMITTER.to_owned(), submitter.to_text().into());
        });
    }
}

fn add_annotations(annotations: &mut Map<String, Value>, request: &Request, trace: Option<&Trace>) {
    let mut set = |name: &str, value: String| drop(annotations.insert(name.to_owned(), value.into()));
    set(ANNOTATION_JOB_NAME, request.name.to_string());
    set(ANNOTATION_REQUEST_ID, request.identity.id.to_string());
    set(ANNOTATION_REQUEST_SEQ, request.identity.sequence.to_string());
    set(ANNOTATION_REQUEST_HASH, request.hash.clone());
    if let Some(trace) = trace {
        set(ANNOTATION_TRACEPARENT, trace.traceparent());
        if let Some(state) = trace.tracestate() {
            set(ANNOTATION_TRACESTATE, state.to_owned());
        }
    }
}

fn add_labels(labels: &mut Map<String, Value>, request: &Request) {
    let template = request.template.as_ref();
    for (label, value) in [(LABEL_MANAGED_BY, MANAGED_BY), (LABEL_NAME, template), (LABEL_TEMPLATE, template)]
    {
        labels.insert(label.to_owned(), value.into());
    }
}

/// Adds `TRACEPARENT` and `TRACESTATE` before the variables of every container, so that those can
/// reference them. If the template sets a variable of these names, it stays.
fn add_trace(job: &mut Value, trace: &Trace) {
    let mut variables = vec![(ENV_TRACEPARENT, trace.traceparent())];
    // Kubernetes expands `$(NAME)` in a value; `$$` escapes a dollar sign.
    variables.extend(trace.tracestate().map(|state| (ENV_TRACESTATE, state.replace('$', "$$"))));
    for list in ["initContainers", "containers"] {
        for container in entries_mut(job, &format!("/spec/template/spec/{list}")) {
            edit(container, &[], |container| add_variables(container, &variables));
        }
    }
}

fn add_variables(container: &mut Map<String, Value>, variables: &[(&str, String)]) {
    let own = container.remove("env").and_then(|env| env.as_array().cloned()).unwrap_or_default();
    // A `TRACESTATE` belongs to its `TRACEPARENT`: add both or neither.
    let is_free = |name: &str| !own.iter().any(|variable| variable["name"] == name);
    let added = variables.iter().filter(|(name, _)| is_free(ENV_TRACEPARENT) && is_free(name));
    let mut env: Vec<Value> = added.map(|(name, value)| json!({"name": name, "value": value})).collect();
    env.extend(own);
    if !env.is_empty() {
        container.insert("env".to_owned(), env.into());
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::Job;

    use super::*;
    use crate::{
        request::message::{Envelope, Identity},
        testing::simple,
    };

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(payload: &str) -> Request {
        let envelope = Envelope {
            payload: payload.as_bytes(),
            message_id: Some("id-1"),
            stream: "JOBS x",
            sequence: 17,
            stored_nanos: 5,
        };
        let identity = Identity::of(&envelope).unwrap();
        Request::parse(&simple(), identity, envelope.payload).unwrap()
    }

    fn typed(job: Result<Value, Rejection>) -> Job {
        serde_json::from_value(job.unwrap()).unwrap()
    }

    #[test]
    fn job_has_the_labels_and_annotations_of_the_contract() {
        let request = request(r#"{"foo":"15"}"#);
        let job: Job = typed(build(&request, &simple(), &TraceContext::default()));
        assert_eq!(job.metadata.name.as_deref(), Some("simple-job-15"));
        let pod = job.spec.unwrap().template.metadata.unwrap();
        for labels in [job.metadata.labels.unwrap(), pod.labels.unwrap()] {
            assert_eq!(labels["app.kubernetes.io/managed-by"], "dispatcher");
            assert_eq!(labels["app.kubernetes.io/name"], "simple");
            assert_eq!(labels["natsjobs.dev/template"], "simple");
        }
        let annotations = job.metadata.annotations.unwrap();
        assert_eq!(annotations["natsjobs.dev/job-name"], "simple-job-15");
        assert_eq!(annotations["natsjobs.dev/request-id"], "id-1");
        assert_eq!(annotations["natsjobs.dev/request-seq"], "17");
        assert_eq!(annotations["natsjobs.dev/request-hash"], request.hash);
        assert_eq!(annotations["natsjobs.dev/template-hash"], simple().hash);
        assert!(!annotations.contains_key("natsjobs.dev/outcome"));
        assert!(!annotations.contains_key("natsjobs.dev/traceparent"));
    }

    #[test]
    fn job_has_its_trace_and_is_otherwise_the_same() {
        let request = request(r#"{"foo":"15"}"#);
        let trace = Trace::from_headers(Some(PARENT), Some("vendor=x")).unwrap();
        let context = TraceContext { in_containers: Some(trace.clone()), trace: Some(trace) };
        let mut job: Job = typed(build(&request, &simple(), &context));
        let annotations = job.metadata.annotations.as_mut().unwrap();
        assert_eq!(annotations.remove("natsjobs.dev/traceparent").as_deref(), Some(PARENT));
        assert_eq!(annotations.remove("natsjobs.dev/tracestate").as_deref(), Some("vendor=x"));
        let pod = job.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        for container in &mut pod.containers {
            let env = container.env.as_mut().unwrap();
            let names: Vec<_> = env.drain(..2).map(|variable| variable.name).collect();
            assert_eq!(names, ["TRACEPARENT", "TRACESTATE"]);
            container.env = container.env.take().filter(|env| !env.is_empty());
        }
        assert_eq!(job, typed(build(&request, &simple(), &TraceContext::default())));
    }

    fn with_trace(pod: Value, state: Option<&str>) -> Value {
        let mut job = json!({"spec": {"template": {"spec": pod}}});
        add_trace(&mut job, &Trace::from_headers(Some(PARENT), state).unwrap());
        job.pointer("/spec/template/spec").unwrap().clone()
    }

    #[test]
    fn every_container_gets_the_trace_before_its_own_variables() {
        let own = json!({"name": "COPY", "value": "$(TRACEPARENT)"});
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
    fn trace_variables_of_the_template_stay() {
        for own in [
            json!([{"name": "TRACEPARENT", "value": "mine"}]),
            json!([{"name": "TRACEPARENT"}, {"name": "A"}]),
        ] {
            let pod = json!({"containers": [{"name": "a", "env": own}]});
            assert_eq!(with_trace(pod, Some("v=1"))["containers"][0]["env"], own);
        }
    }
}
