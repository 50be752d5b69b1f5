//! Changes of a template under load.

use std::collections::BTreeSet;
use std::path::Path;

use dispatcher_core::template::Template;
use dispatcher_tests::{Dispatcher, until, wait::TIMEOUT};
use kube::api::ListParams;

use crate::scenario::{Scenario, repeat};

/// The requests during each version, and the versions: 1,000 requests.
const REQUESTS: usize = 200;
const VERSIONS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn template_is_changed_and_broken_while_replicas_are_killed() {
    repeat("template changed and broken while two replicas are killed in turn", async |scenario, random| {
        scenario.add_replica().await;
        let file = scenario.templates.path().join("simple.yaml");
        let shipped = std::fs::read_to_string(&file).unwrap();
        let mut valid = BTreeSet::from([Template::parse(&shipped).unwrap().hash]);
        for version in 0..VERSIONS {
            let lines = version + 1;
            let changed = shipped.replacen("spec:\n", &format!("spec:\n  logTail: {{lines: {lines}}}\n"), 1);
            let hash = Template::parse(&changed).unwrap().hash;
            valid.insert(hash.clone());
            let killed = random.usize(0..2);
            tokio::join!(scenario.load(version * REQUESTS, REQUESTS), async {
                replace(&file, &changed);
                for replica in replicas(scenario) {
                    let log = || async { replica.log().contains(&hash).then_some(()) };
                    until("the changed template", TIMEOUT, log).await;
                }
                let killed = replicas(scenario)[killed];
                killed.kill().await;
                killed.keep_running().await;
                replace(&file, "kind: [");
                for replica in replicas(scenario) {
                    until_refused(replica).await;
                }
            });
        }
        replace(&file, &shipped);
        scenario.until_works("after").await;
        for job in scenario.env.namespace.jobs.list(&ListParams::default()).await.unwrap() {
            let annotations = job.metadata.annotations.unwrap_or_default();
            let hash = &annotations["natsjobs.dev/template-hash"];
            assert!(valid.contains(hash), "{:?} has the hash {hash}, valid are {valid:?}", job.metadata.name);
        }
    })
    .await;
}

fn replicas(scenario: &Scenario) -> [&Dispatcher; 2] {
    [&scenario.dispatcher, &scenario.replicas[0]]
}

/// Replaces a file in one step, as the kubelet does.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

async fn until_refused(replica: &Dispatcher) {
    until("the broken template to be reported", TIMEOUT, || async {
        let verbose = replica.get("/readyz?verbose").await?.1;
        if verbose.contains("simple.yaml is not in use") { Ok(()) } else { Err(verbose) }
    })
    .await;
}
