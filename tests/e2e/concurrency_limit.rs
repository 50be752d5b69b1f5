//! The concurrency limit of a template (`maxActive`), observed through a watch of the Jobs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use dispatcher_tests::job_controller::{JobController, managed_template};
use dispatcher_tests::test_env::TestEnv;
use dispatcher_tests::wait::TIMEOUT;
use dispatcher_tests::{or_skip, until};
use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::task::JoinHandle;

/// What the watch has observed of the Jobs of one template.
#[derive(Debug, Default)]
struct Observed {
    unfinished: BTreeSet<String>,
    all: BTreeSet<String>,
    /// The maximum of `unfinished`.
    peak: usize,
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

fn watch(jobs: Api<Job>, template: &str) -> (Arc<Mutex<Observed>>, JoinHandle<()>) {
    let observed = Arc::new(Mutex::new(Observed::default()));
    let (table, config) =
        (observed.clone(), watcher::Config::default().labels(&format!("natsjobs.dev/template={template}")));
    let task = tokio::spawn(async move {
        let mut events = Box::pin(watcher::watcher(jobs, config));
        loop {
            let Ok(Some(event)) = events.try_next().await else { continue };
            let mut observed = table.lock().unwrap();
            match event {
                Event::Apply(job) | Event::InitApply(job) if !is_finished(&job) => {
                    observed.unfinished.insert(job.name_any());
                    observed.all.insert(job.name_any());
                    observed.peak = observed.peak.max(observed.unfinished.len());
                }
                Event::Apply(job) | Event::InitApply(job) | Event::Delete(job) => {
                    observed.unfinished.remove(&job.name_any());
                }
                Event::Init | Event::InitDone => {}
            }
        }
    });
    (observed, task)
}

/// `simple` with a limit of two, and `other` without one.
fn templates() -> tempfile::TempDir {
    let (folder, path) = managed_template();
    let simple = std::fs::read_to_string(path.join("simple.yaml")).unwrap();
    let other =
        simple.replace("name: simple\nspec", "name: other\nspec").replace("simple-job-$", "other-job-$");
    std::fs::write(path.join("other.yaml"), other).unwrap();
    std::fs::write(path.join("simple.yaml"), format!("{simple}  limits:\n    maxActive: 2\n")).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn template_stays_within_its_limit_and_blocks_no_other() {
    let env = or_skip!(TestEnv::start().await);
    let folder = templates();
    let dispatcher = env.dispatcher().templates(folder.path()).start().await;
    let (observed, watching) = watch(env.namespace.jobs.clone(), "simple");
    // The Jobs do not finish, so the template stays at its limit.
    for n in 0..20 {
        env.request(format!(r#"{{"foo":"{n}"}}"#)).await;
    }
    until("two Jobs", TIMEOUT, || async { (observed.lock().unwrap().all.len() == 2).then_some(()) }).await;
    for n in 0..5 {
        let request = format!(r#"{{"foo":"{n}"}}"#);
        env.jetstream.publish("jobs.other.create", request.into()).await.unwrap().await.unwrap();
    }
    let others = ListParams::default().labels("natsjobs.dev/template=other");
    until("all Jobs of the other template", TIMEOUT, || async {
        let found = env.namespace.jobs.list(&others).await.map_err(|e| e.to_string())?.items.len();
        if found == 5 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(
        dispatcher.get("/readyz").await.unwrap().0,
        200,
        "a template at its limit makes the dispatcher unready"
    );
    // After a restart the existing Jobs count.
    assert_eq!(dispatcher.terminate().await, Some(0));
    dispatcher.restart().await;
    assert_eq!(observed.lock().unwrap().all.len(), 2);

    let _controller = JobController::start(env.namespace.jobs.clone());
    until("all Jobs of the limited template", TIMEOUT, || async {
        let observed = observed.lock().unwrap();
        if observed.all.len() == 20 { Ok(()) } else { Err(format!("{observed:?}")) }
    })
    .await;
    env.until_queue_is_empty().await;
    assert_eq!(observed.lock().unwrap().peak, 2);
    watching.abort();
}
