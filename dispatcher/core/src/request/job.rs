//! `Request` + `Template` → the `batch/v1` Job to create.

mod env;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;

use crate::contract::trace::TraceContext;
use crate::request::Request;
use crate::{
    contract::{
        job::{
            ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, LABEL_MANAGED_BY,
            LABEL_NAME, LABEL_TEMPLATE, MANAGED_BY,
        },
        rejection::{Reason, Rejection},
        trace::{ANNOTATION_TRACEPARENT, ANNOTATION_TRACESTATE},
    },
    template::Template,
};

/// Builds the Job of a request: the template's manifest, the name, and the contract's labels and annotations; with the
/// trace that it belongs to, for whoever reads the Job and for its containers.
///
/// # Errors
/// A [`Rejection`] where the operator's limits do not allow the Job that the values make: an image or a ServiceAccount.
pub fn build(request: &Request, template: &Template, carried: &TraceContext) -> Result<Job, Rejection> {
    let mut job = template.render(&request.values).map_err(|problem| {
        Rejection::new(Reason::Refused, format!("the dispatcher refuses the Job: {problem}"))
            .of(&request.name)
    })?;
    job.metadata.name = Some(request.name.to_string());
    let labels = job.metadata.labels.get_or_insert_default();
    label(labels, request);
    let annotations = job.metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_REQUEST_ID.to_owned(), request.identity.id.to_string());
    annotations.insert(ANNOTATION_REQUEST_SEQ.to_owned(), request.identity.sequence.to_string());
    annotations.insert(ANNOTATION_REQUEST_HASH.to_owned(), request.hash.clone());
    if let Some(trace) = &carried.trace {
        annotations.insert(ANNOTATION_TRACEPARENT.to_owned(), trace.traceparent());
        let state = trace.tracestate().map(|state| (ANNOTATION_TRACESTATE.to_owned(), state.to_owned()));
        annotations.extend(state);
    }
    if let Some(spec) = &mut job.spec {
        if let (Some(pod), Some(trace)) = (&mut spec.template.spec, &carried.in_containers) {
            env::put_trace(pod, trace);
        }
        let pod = spec.template.metadata.get_or_insert_default();
        label(pod.labels.get_or_insert_default(), request);
    }
    Ok(job)
}

fn label(labels: &mut BTreeMap<String, String>, request: &Request) {
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    labels.insert(LABEL_NAME.to_owned(), request.template.to_string());
    labels.insert(LABEL_TEMPLATE.to_owned(), request.template.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::trace::Trace,
        request::{Envelope, Identity},
        testing::simple,
    };

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

    #[test]
    fn a_job_carries_the_labels_and_annotations_of_the_contract() {
        let request = request(r#"{"foo":"15"}"#);
        let job = build(&request, &simple(), &TraceContext::default()).unwrap();
        assert_eq!(job.metadata.name.as_deref(), Some("simple-job-15"));
        let pod = job.spec.unwrap().template.metadata.unwrap();
        for labels in [job.metadata.labels.unwrap(), pod.labels.unwrap()] {
            assert_eq!(labels["app.kubernetes.io/managed-by"], "dispatcher");
            assert_eq!(labels["app.kubernetes.io/name"], "simple");
            assert_eq!(labels["natsjobs.dev/template"], "simple");
        }
        let annotations = job.metadata.annotations.unwrap();
        assert_eq!(annotations["natsjobs.dev/request-id"], "id-1");
        assert_eq!(annotations["natsjobs.dev/request-seq"], "17");
        assert_eq!(annotations["natsjobs.dev/request-hash"], request.hash);
        assert!(!annotations.contains_key("natsjobs.dev/outcome"));
        assert!(!annotations.contains_key("natsjobs.dev/traceparent"));
    }

    #[test]
    fn a_job_tells_its_trace_and_is_the_same_job_otherwise() {
        let request = request(r#"{"foo":"15"}"#);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::of(Some(parent), Some("vendor=x")).unwrap();
        let carried = TraceContext { in_containers: Some(trace.clone()), trace: Some(trace) };
        let mut job = build(&request, &simple(), &carried).unwrap();
        let annotations = job.metadata.annotations.as_mut().unwrap();
        assert_eq!(annotations.remove("natsjobs.dev/traceparent").as_deref(), Some(parent));
        assert_eq!(annotations.remove("natsjobs.dev/tracestate").as_deref(), Some("vendor=x"));
        let pod = job.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        for container in &mut pod.containers {
            let env = container.env.as_mut().unwrap();
            let names: Vec<_> = env.drain(..2).map(|variable| variable.name).collect();
            assert_eq!(names, ["TRACEPARENT", "TRACESTATE"]);
            container.env = container.env.take().filter(|env| !env.is_empty());
        }
        assert_eq!(job, build(&request, &simple(), &TraceContext::default()).unwrap());
    }
}
