//! Create, get, list, update, patch, delete.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;

use crate::cluster::{Cluster, Events, job, status, version};

#[tokio::test]
async fn a_job_from_its_create_to_its_delete() {
    for over_http in [false, true] {
        let cluster = Cluster::new().await;
        let jobs = cluster.both()[usize::from(over_http)].clone();
        let created = jobs.create(&PostParams::default(), &job("a")).await.unwrap();
        let mut events = Events::of(&jobs, WatchParams::default(), &version(&created)).await;
        assert_eq!(jobs.get("a").await.unwrap(), created);
        let patch = json!({"metadata": {"annotations": {"x": "y"}}});
        let patched = jobs.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        assert_eq!(patched.metadata.annotations.unwrap()["x"], "y");
        let status_patch = json!({"status": {"active": 1}});
        let patched =
            jobs.patch_status("a", &PatchParams::default(), &Patch::Merge(&status_patch)).await.unwrap();
        assert_eq!(patched.status.unwrap().active, Some(1));
        assert_eq!(jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
        let deleted = jobs.delete("a", &DeleteParams::background()).await.unwrap();
        assert_eq!(deleted.right().unwrap().details.unwrap().uid, created.metadata.uid.unwrap());
        for expected in ["MODIFIED a", "MODIFIED a", "DELETED a"] {
            assert_eq!(events.next().await, expected);
        }
        let (code, reason, message) = status(jobs.get("a").await);
        assert_eq!(
            (code, reason.as_str(), message.as_str()),
            (404, "NotFound", "jobs.batch \"a\" not found")
        );
    }
}
