//! Reads the leader of two replicas from the Lease.

use dispatcher_tests::Dispatcher;
use dispatcher_tests::wait::{TIMEOUT, until};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::scenario::Scenario;

/// The Leases of the scenario's namespace.
pub(crate) fn leases(scenario: &Scenario) -> Api<Lease> {
    let namespace = &scenario.env.namespace;
    Api::namespaced(namespace.client.clone(), &namespace.name)
}

/// The identity in the Lease.
pub(crate) async fn holder(scenario: &Scenario) -> Result<String, String> {
    let lease = leases(scenario).get("dispatcher").await.map_err(|error| error.to_string())?;
    Ok(lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default())
}

/// Waits until one of the two leads; returns the leader and the follower.
pub(crate) async fn leader_and_follower<'a>(
    scenario: &'a Scenario,
    second: &'a Dispatcher,
) -> (&'a Dispatcher, &'a Dispatcher) {
    let first = &scenario.dispatcher;
    until("one of the two replicas to lead", TIMEOUT, || async {
        match holder(scenario).await? {
            holder if holder == first.pod => Ok((first, second)),
            holder if holder == second.pod => Ok((second, first)),
            holder => Err(holder),
        }
    })
    .await
}

/// Waits until this replica leads.
pub(crate) async fn until_leads(scenario: &Scenario, dispatcher: &Dispatcher) {
    until("the other replica to lead", TIMEOUT, || async {
        let holder = holder(scenario).await?;
        if holder == dispatcher.pod { Ok(()) } else { Err(holder) }
    })
    .await;
}
