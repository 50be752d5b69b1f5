//! The places of a pod that the policy looks at, each with its path in the template.

use k8s_openapi::api::core::v1::{PodSpec, SecurityContext};

use crate::template::problem::Problem;

const POD: &str = "job.spec.template.spec";

/// A container of any of the three lists.
pub(super) struct Place<'a> {
    pub(super) field: String,
    pub(super) image: Option<&'a str>,
    context: Option<&'a SecurityContext>,
}

/// All containers of a pod: init containers and ephemeral ones too.
pub(super) fn containers(pod: &PodSpec) -> Vec<Place<'_>> {
    let field = |list: &str, i: usize| format!("{POD}.{list}[{i}]");
    let mut places = Vec::new();
    let lists = [
        ("initContainers", pod.init_containers.as_deref().unwrap_or_default()),
        ("containers", &pod.containers),
    ];
    for (list, containers) in lists {
        places.extend(containers.iter().enumerate().map(|(i, container)| Place {
            field: field(list, i),
            image: container.image.as_deref(),
            context: container.security_context.as_ref(),
        }));
    }
    let ephemeral = pod.ephemeral_containers.iter().flatten().enumerate();
    places.extend(ephemeral.map(|(i, container)| Place {
        field: field("ephemeralContainers", i),
        image: container.image.as_deref(),
        context: container.security_context.as_ref(),
    }));
    places
}

/// The ServiceAccounts that a pod names; the old field `serviceAccount` counts where it is set.
pub(super) fn service_accounts(pod: &PodSpec) -> Vec<(String, &str)> {
    let names = [("serviceAccountName", &pod.service_account_name), ("serviceAccount", &pod.service_account)];
    let mut accounts: Vec<(String, &str)> = names
        .into_iter()
        .filter_map(|(name, value)| Some((format!("{POD}.{name}"), value.as_deref()?)))
        .filter(|(_, account)| !account.is_empty())
        .collect();
    if accounts.is_empty() {
        accounts.push((format!("{POD}.serviceAccountName"), "default"));
    }
    accounts
}

/// See [`super::refusals`].
pub(super) fn refusals(pod: &PodSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse =
        |field: String| problems.push(Problem::at(field, "is refused, whatever the template says"));
    let host = [("hostNetwork", pod.host_network), ("hostPID", pod.host_pid), ("hostIPC", pod.host_ipc)];
    for (name, _) in host.iter().filter(|(_, value)| *value == Some(true)) {
        refuse(format!("{POD}.{name}"));
    }
    for (i, volume) in pod.volumes.iter().flatten().enumerate() {
        if volume.host_path.is_some() {
            refuse(format!("{POD}.volumes[{i}].hostPath"));
        }
    }
    let windows = pod.security_context.as_ref().and_then(|context| context.windows_options.as_ref());
    if windows.is_some_and(|options| options.host_process == Some(true)) {
        refuse(format!("{POD}.securityContext.windowsOptions.hostProcess"));
    }
    for Place { field, context, .. } in containers(pod) {
        let Some(context) = context else { continue };
        let windows = context.windows_options.as_ref().and_then(|options| options.host_process);
        for (name, value) in [
            ("privileged", context.privileged),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation),
            ("windowsOptions.hostProcess", windows),
        ] {
            if value == Some(true) {
                refuse(format!("{field}.securityContext.{name}"));
            }
        }
    }
    problems
}
