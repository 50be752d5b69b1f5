//! `Request` + `Template` → the `batch/v1` Job to create.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;

use super::request::Request;
use crate::contract::{
    job::{
        ANNOTATION_REQUEST_HASH, ANNOTATION_REQUEST_ID, ANNOTATION_REQUEST_SEQ, LABEL_KIND, LABEL_MANAGED_BY,
        LABEL_NAME, MANAGED_BY,
    },
    rejection::{Reason, Rejection},
    template::Template,
};

/// Builds the Job of a request: the template's manifest, the name, and the contract's labels and annotations.
///
/// # Errors
/// A [`Rejection`] where the operator's limits do not allow the Job that the values make: an image or a ServiceAccount.
pub fn build(request: &Request, template: &Template) -> Result<Job, Rejection> {
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
    if let Some(spec) = &mut job.spec {
        let pod = spec.template.metadata.get_or_insert_default();
        label(pod.labels.get_or_insert_default(), request);
    }
    Ok(job)
}

fn label(labels: &mut BTreeMap<String, String>, request: &Request) {
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    labels.insert(LABEL_NAME.to_owned(), request.kind.to_string());
    labels.insert(LABEL_KIND.to_owned(), request.kind.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contract::template::tests::simple,
        intake::request::{Envelope, Identity},
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
        let job = build(&request, &simple()).unwrap();
        assert_eq!(job.metadata.name.as_deref(), Some("simple-job-15"));
        let pod = job.spec.unwrap().template.metadata.unwrap();
        for labels in [job.metadata.labels.unwrap(), pod.labels.unwrap()] {
            assert_eq!(labels["app.kubernetes.io/managed-by"], "dispatcher");
            assert_eq!(labels["app.kubernetes.io/name"], "simple");
            assert_eq!(labels["dispatcher/kind"], "simple");
        }
        let annotations = job.metadata.annotations.unwrap();
        assert_eq!(annotations["dispatcher/request-id"], "id-1");
        assert_eq!(annotations["dispatcher/request-seq"], "17");
        assert_eq!(annotations["dispatcher/request-hash"], request.hash);
        assert!(!annotations.contains_key("dispatcher/settled"));
    }
}
