//! `bench life` and `bench calls`: the whole life of Jobs with one pod each, until they are retired:
//! CPU time, calls to the API server and bytes of watches per Job.
//!
//! The Job controller is real. The benchmark runs and ends the pods by patches of their status, as a
//! kubelet does.

use dispatcher_tests::proxy::ApiProxy;
use dispatcher_tests::{Kubernetes, process};

use crate::environment::{Installation, Jobs, Run, control_plane, until_synced};
use crate::pods::Pods;
use crate::report::{Goal, Results, Row, Side};
use crate::requests;

/// A control plane where nothing but the benchmark handles pods.
async fn without_scheduler() -> Result<Kubernetes, String> {
    let kubernetes = control_plane().await?;
    kubernetes.freeze("scheduler").await;
    Ok(kubernetes)
}

pub(crate) async fn cpu(run: &Run) -> Result<Results, String> {
    let kubernetes = without_scheduler().await?;
    let mut cpu = Row::new("CPU time of the dispatcher per Job with one pod, request to retired", "ms")
        .goal(Goal::AtMost(0.6));
    let mut events = Row::new("status events per Job with one pod", "events");
    for _ in 0..run.size.rounds.min(2) {
        for program in &run.dispatchers {
            let installation = Installation::new(&kubernetes, Jobs::WithPods).await?;
            let dispatcher = installation.start(program).await?;
            let _pods = Pods::run(&installation.namespace.pods);
            let pid = dispatcher.pid().await;
            let before = process::cpu_time(pid)?;
            requests::burst(&installation.context, 0..run.size.jobs).await?;
            installation.until_retired().await?;
            let (used, jobs) = (process::cpu_time(pid)?.saturating_sub(before), run.size.jobs as f64);
            cpu.add(program.side, requests::milliseconds(used) / jobs);
            events.add(program.side, installation.messages("JOB_STATUS").await? as f64 / jobs);
        }
    }
    Ok(Results { rows: vec![cpu, events], curves: vec![] })
}

pub(crate) async fn calls(run: &Run) -> Result<Results, String> {
    let kubernetes = without_scheduler().await?;
    // Two, and one in a hundred Jobs for the restart of a watch.
    let mut calls = Row::new("calls to the API server per successful Job", "calls").goal(Goal::AtMost(2.01));
    let mut bytes = Row::new("bytes of watch responses per successful Job", "bytes")
        .goal(Goal::AtMostOf(0.5, Side::Baseline));
    for program in &run.dispatchers {
        let installation = Installation::new(&kubernetes, Jobs::WithPods).await?;
        let proxy = ApiProxy::start(&installation.namespace.dispatcher_kubeconfig).await;
        let builder = installation.builder_through(program, &proxy.kubeconfig);
        let dispatcher = builder.try_start().await?;
        until_synced(&dispatcher).await?;
        let _pods = Pods::run(&installation.namespace.pods);
        let before = proxy.traffic();
        requests::burst(&installation.context, 0..run.size.counted).await?;
        installation.until_retired().await?;
        let (traffic, jobs) = (proxy.traffic().since(&before), run.size.counted as f64);
        println!("    {}: {:?}", program.side, traffic.calls);
        // Renewals of the Lease and resumed watches depend on the time, not on the Jobs.
        let of_jobs = traffic.calls.iter().filter(|(call, _)| !is_periodic(call)).map(|(_, count)| *count);
        calls.add(program.side, of_jobs.sum::<u64>() as f64 / jobs);
        bytes.add(program.side, traffic.watch_bytes as f64 / jobs);
    }
    Ok(Results { rows: vec![calls, bytes], curves: vec![] })
}

fn is_periodic(call: &str) -> bool {
    call.starts_with("watch ") || call.ends_with(" leases")
}
