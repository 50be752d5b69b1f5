//! A template's limit of unfinished Jobs, watched from outside.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use dispatcher_tests::{or_skip, until};
use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt, api::ListParams};
use tokio::task::JoinHandle;

use dispatcher_tests::job_controller::JobController as Controller;
use dispatcher_tests::job_controller::managed_template;
use dispatcher_tests::test_env::TestEnv as World;
use dispatcher_tests::wait::TIMEOUT as PATIENCE;

/// Every name that was there, and the most unfinished Jobs of the template that were there at once.
#[derive(Debug, Default)]
struct Seen {
    unfinished: BTreeSet<String>,
    ever: BTreeSet<String>,
    most: usize,
}

fn is_finished(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

fn watch(jobs: Api<Job>, template: &str) -> (Arc<Mutex<Seen>>, JoinHandle<()>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (table, config) =
        (seen.clone(), watcher::Config::default().labels(&format!("natsjobs.dev/template={template}")));
    let task = tokio::spawn(async move {
        let mut events = Box::pin(watcher::watcher(jobs, config));
        loop {
            let Ok(Some(event)) = events.try_next().await else { continue };
            let mut seen = table.lock().unwrap();
            match event {
                Event::Apply(job) | Event::InitApply(job) if !is_finished(&job) => {
                    seen.unfinished.insert(job.name_any());
                    seen.ever.insert(job.name_any());
                    seen.most = seen.most.max(seen.unfinished.len());
                }
                Event::Apply(job) | Event::InitApply(job) | Event::Delete(job) => {
                    seen.unfinished.remove(&job.name_any());
                }
                Event::Init | Event::InitDone => {}
            }
        }
    });
    (seen, task)
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
async fn a_kind_never_passes_its_limit_and_holds_up_no_other() {
    let world = or_skip!(World::start().await);
    let folder = templates();
    let dispatcher = world.dispatcher().templates(folder.path()).start().await;
    let (seen, watching) = watch(world.namespace.jobs.clone(), "simple");
    // Nobody ends them: the template is at its limit for good.
    for n in 0..20 {
        world.request(format!(r#"{{"foo":"{n}"}}"#)).await;
    }
    until("two Jobs", PATIENCE, || async { (seen.lock().unwrap().ever.len() == 2).then_some(()) }).await;
    for n in 0..5 {
        let request = format!(r#"{{"foo":"{n}"}}"#);
        world.jetstream.publish("jobs.other.create", request.into()).await.unwrap().await.unwrap();
    }
    let others = ListParams::default().labels("natsjobs.dev/template=other");
    until("all Jobs of the other template", PATIENCE, || async {
        let found = world.namespace.jobs.list(&others).await.map_err(|e| e.to_string())?.items.len();
        if found == 5 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    assert_eq!(dispatcher.get("/readyz").await.unwrap().0, 200, "a limit is no trouble");
    // A restart counts those that are there.
    assert_eq!(dispatcher.terminate().await, Some(0));
    dispatcher.restart().await;
    assert_eq!(seen.lock().unwrap().ever.len(), 2);

    let _controller = Controller::start(world.namespace.jobs.clone());
    until("all twenty", PATIENCE, || async {
        let seen = seen.lock().unwrap();
        if seen.ever.len() == 20 { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    world.until_queue_is_empty().await;
    assert_eq!(seen.lock().unwrap().most, 2);
    watching.abort();
}
