//! Jobs that the refusal list and the shipped limits do not allow. The rules of `template::policy` and
//! the `ValidatingAdmissionPolicy` in `deploy/base` must refuse the same ones.

use serde_json::{Value, json};

use super::SIMPLE;
use crate::template::{Policy, object::edit};

/// The shipped template with one change that is not allowed.
#[derive(Debug)]
pub struct Violation {
    /// The path of the changed value in the Job, as a JSON pointer.
    pointer: &'static str,
    value: Value,
    /// The end of the path of the field that is refused.
    pub field: &'static str,
}

impl Violation {
    /// The template.
    ///
    /// # Panics
    /// If the shipped template is not valid.
    #[must_use]
    pub fn template(&self) -> String {
        changed(self.pointer, &self.value)
    }

    /// The Job as a dispatcher without a policy would create it.
    ///
    /// # Panics
    /// If the shipped template is not valid.
    #[must_use]
    pub fn job(&self, name: &str) -> Value {
        job_of(&self.template(), name)
    }
}

/// The shipped template with the value at `pointer` of its Job replaced.
///
/// # Panics
/// If the shipped template is not valid.
#[allow(clippy::unwrap_used, reason = "test code")]
#[must_use]
pub fn changed(pointer: &str, value: &Value) -> String {
    let mut template: Value = serde_saphyr::from_str(SIMPLE).unwrap();
    let job = template.pointer_mut("/spec/job").unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    edit(job.pointer_mut(parent).unwrap(), &[], |object| {
        if value.is_null() {
            object.remove(key)
        } else {
            object.insert(key.to_owned(), value.clone())
        };
    });
    template.to_string()
}

/// The Job of a template, with the parameter `foo`, the deadline of the shipped limits and no policy.
///
/// # Panics
/// If the template is no JSON.
#[allow(clippy::unwrap_used, reason = "test code")]
#[must_use]
pub fn job_of(template: &str, name: &str) -> Value {
    let mut template: Value = serde_json::from_str(template).unwrap();
    let mut job = template.pointer_mut("/spec/job").unwrap().take();
    edit(&mut job, &["metadata"], |metadata| drop(metadata.insert("name".to_owned(), name.into())));
    edit(&mut job, &["spec"], |spec| drop(spec.insert("activeDeadlineSeconds".to_owned(), 60.into())));
    job
}

/// The limits that `deploy/base` sets.
///
/// # Panics
/// Never: the patterns are valid.
#[allow(clippy::unwrap_used, reason = "test code")]
#[must_use]
pub fn shipped_limits() -> Policy {
    Policy {
        images: Some(vec!["simple-job:*".parse().unwrap()]),
        service_accounts: Some(vec!["job".to_owned()]),
        ..Policy::default()
    }
}

/// All kinds of violations.
#[must_use]
pub fn violations() -> Vec<Violation> {
    let pod = |pointer, value, field| Violation { pointer, value, field };
    let container = |list: &'static str, extra: Value, field| {
        let mut container = json!({"name": "x", "image": "simple-job:0.1.0"});
        if let (Some(container), Some(extra)) = (container.as_object_mut(), extra.as_object()) {
            container.extend(extra.clone());
        }
        Violation { pointer: list, value: json!([container]), field }
    };
    let volume = |source: Value, field| Violation {
        pointer: "/spec/template/spec/volumes",
        value: json!([{"name": "a", "emptyDir": {}}, source]),
        field,
    };
    let projected = |source: Value, field| {
        volume(json!({"name": "b", "projected": {"sources": [{"configMap": {"name": "c"}}, source]}}), field)
    };
    // The API server allows it only in a user namespace.
    let unmasked = |list: &str, field| {
        let plain = json!({"name": "plain", "image": "simple-job:0.1.0"});
        let unmasked =
            json!({"name": "x", "image": "simple-job:0.1.0", "securityContext": {"procMount": "Unmasked"}});
        let mut pod = json!({"restartPolicy": "Never", "serviceAccountName": "job", "hostUsers": false,
            "containers": [plain]});
        edit(&mut pod, &[], |pod| drop(pod.insert(list.to_owned(), json!([unmasked]))));
        Violation { pointer: "/spec/template/spec", value: pod, field }
    };
    let init = "/spec/template/spec/initContainers";
    let ours = "/spec/template/spec/containers";
    let security = |context: Value| json!({"securityContext": context});
    vec![
        pod("/spec/template/spec/hostNetwork", json!(true), ".hostNetwork"),
        pod("/spec/template/spec/hostPID", json!(true), ".hostPID"),
        pod("/spec/template/spec/hostIPC", json!(true), ".hostIPC"),
        pod("/spec/template/spec/nodeName", json!("node"), ".nodeName"),
        pod("/spec/template/spec/priorityClassName", json!("system-node-critical"), ".priorityClassName"),
        pod("/spec/template/spec/priorityClassName", json!("system-cluster-critical"), ".priorityClassName"),
        pod("/spec/template/spec/serviceAccountName", json!("admin"), ".serviceAccountName"),
        pod("/spec/template/spec/serviceAccountName", Value::Null, ".serviceAccountName"),
        pod(
            "/spec/template/spec/securityContext",
            json!({"windowsOptions": {"hostProcess": true}}),
            ".securityContext.windowsOptions.hostProcess",
        ),
        container(init, security(json!({"privileged": true})), "[0].securityContext.privileged"),
        container(ours, security(json!({"privileged": true})), "[0].securityContext.privileged"),
        container(
            init,
            security(json!({"allowPrivilegeEscalation": true})),
            "[0].securityContext.allowPrivilegeEscalation",
        ),
        unmasked("containers", "containers[0].securityContext.procMount"),
        unmasked("initContainers", "initContainers[0].securityContext.procMount"),
        container(
            ours,
            security(json!({"windowsOptions": {"hostProcess": true}})),
            "[0].securityContext.windowsOptions.hostProcess",
        ),
        container(ours, json!({"image": "evil:1"}), "containers[0].image"),
        container(ours, json!({"image": "simple-job:5000/evil"}), "containers[0].image"),
        container(init, json!({"image": "evil:1"}), "initContainers[0].image"),
        volume(json!({"name": "b", "hostPath": {"path": "/"}}), "volumes[1].hostPath"),
        volume(json!({"name": "b", "csi": {"driver": "evil.example.com"}}), "volumes[1].csi.driver"),
        volume(json!({"name": "b", "flexVolume": {"driver": "x/y"}}), "volumes[1].flexVolume"),
        volume(json!({"name": "b", "gitRepo": {"repository": "x"}}), "volumes[1].gitRepo"),
        volume(json!({"name": "b", "image": {"reference": "evil:1"}}), "volumes[1].image.reference"),
        projected(json!({"serviceAccountToken": {"path": "token"}}), "sources[1].serviceAccountToken"),
        projected(
            json!({"serviceAccountToken": {"path": "token", "audience": "vault"}}),
            "sources[1].serviceAccountToken",
        ),
        projected(
            json!({"podCertificate": {"signerName": "example.com/x", "keyType": "ED25519", "credentialBundlePath": "c"}}),
            "sources[1].podCertificate",
        ),
    ]
}
