//! The second look, some time after each comparison: at what is open in `JOB_STATUS` and was told of neither by the comparison
//! nor by the watch since.
//!
//! A Job may be created and deleted before the list of a comparison, and its first event be stored after the scan: then it
//! was in neither, and no watch will bring it. Living Jobs cost nothing here: they have been told of. A look that finds one is
//! followed by another: a later Job of its name may have gone the same way, and is spoken of only when this one is closed.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use crate::watch::jobs::JobWatch;
use crate::{intake::HANDLE_DEADLINE, status::Stopped};
use dispatcher_core::{
    contract::{
        job::JobState,
        names::{JobName, TemplateName},
    },
    status::SubjectState,
};

/// How long after a comparison: by then a request that had created its Job before has said the first event, or is delivered
/// again.
const AFTER: Duration = HANDLE_DEADLINE.saturating_add(Duration::from_secs(5));

/// Looks after each comparison, until the writer is gone; the caller drops it to stop. `synced` changes with each.
pub(super) async fn second_looks(watch: &JobWatch, told: &CoveredJobs, mut synced: watch::Receiver<u64>) {
    if synced.changed().await.is_err() {
        return;
    }
    loop {
        let looked = async {
            while {
                sleep(AFTER).await;
                look(watch, told).await?
            } {}
            told.ends();
            Ok::<(), Stopped>(())
        };
        let again = tokio::select! {
            // Another comparison has second looks of its own.
            again = synced.changed() => again.is_ok(),
            looked = looked => looked.is_ok() && synced.changed().await.is_ok(),
        };
        if !again {
            return;
        }
    }
}

/// Whether there was one that was overlooked.
async fn look(watch: &JobWatch, told: &CoveredJobs) -> Result<bool, Stopped> {
    if !watch.leadership.is_ours() {
        return Ok(false);
    }
    let open = watch.scan().await;
    let overlooked = told.overlooked(&open);
    tracing::debug!(open = open.len(), overlooked = overlooked.len(), "a second look");
    told.of_all(overlooked.iter().filter_map(|subject| open.get(subject)));
    let found = !overlooked.is_empty();
    // One of them that the watch is just about to bring is there, and the writer lets it be.
    watch.missing(overlooked).await?;
    Ok(found)
}

/// The Jobs, by uid, that a comparison and the watch after it have told of; kept until the second look. Clones are the same
/// one.
#[derive(Debug, Clone, Default)]
pub(super) struct CoveredJobs(Arc<Mutex<Option<HashSet<String>>>>);

impl CoveredJobs {
    /// A comparison begins: what is open in its scan is told of, be it in the list or not.
    pub(super) fn begins<'a>(&self, open: impl IntoIterator<Item = &'a SubjectState>) {
        let uids = open.into_iter().filter_map(|known| Some(known.last.as_ref()?.uid.clone()));
        *self.uids() = Some(uids.collect());
    }

    /// A list or the watch has told of a Job. The many that are retired have no open subject, and need not be known.
    pub(super) fn of(&self, state: &JobState) {
        if let (Some(uids), false) = (self.uids().as_mut(), state.retired) {
            uids.insert(state.uid.clone());
        }
    }

    /// These open subjects are looked at: the next look is for others.
    fn of_all<'a>(&self, open: impl IntoIterator<Item = &'a SubjectState>) {
        if let Some(uids) = self.uids().as_mut() {
            uids.extend(open.into_iter().filter_map(|known| Some(known.last.as_ref()?.uid.clone())));
        }
    }

    /// Nothing is kept until the next comparison.
    pub(super) fn ends(&self) {
        *self.uids() = None;
    }

    /// The open subjects of Jobs that were not told of. None where no comparison waits for its second look.
    pub(super) fn overlooked<'a>(
        &self,
        open: impl IntoIterator<Item = (&'a (TemplateName, JobName), &'a SubjectState)>,
    ) -> Vec<(TemplateName, JobName)> {
        let uids = self.uids();
        let Some(uids) = uids.as_ref() else { return vec![] };
        let was_told = |known: &SubjectState| known.last.as_ref().is_none_or(|said| uids.contains(&said.uid));
        open.into_iter().filter(|(_, known)| !was_told(known)).map(|(subject, _)| subject.clone()).collect()
    }

    fn uids(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::watch::jobs::Open;
    use dispatcher_core::{contract::event::EventType, status::LastEvent, testing::a_job};

    /// The subject of a Job, which was spoken of.
    fn open(uid: &str) -> Open {
        let said = LastEvent { uid: uid.to_owned(), resource_version: 1, event: EventType::Added };
        let (template, name) = (TemplateName::try_from("simple").unwrap(), JobName::try_from("a").unwrap());
        Open::from([((template, name), SubjectState { sequence: 1, last: Some(said) })])
    }

    #[test]
    fn overlooked_is_who_was_in_neither_scan_nor_list_and_is_not_brought_by_the_watch() {
        let told = CoveredJobs::default();
        assert_eq!(told.overlooked(&open("a")).len(), 0, "before any comparison");
        told.begins(open("in-scan").values());
        for state in [a_job("in-list", 2, json!({})), a_job("retired", 3, json!({}))] {
            told.of(&JobState { retired: state.uid == "retired", ..state });
        }
        for (uid, overlooked) in [("in-scan", 0), ("in-list", 0), ("retired", 1), ("in-neither", 1)] {
            assert_eq!(told.overlooked(&open(uid)).len(), overlooked, "{uid}");
        }
        told.ends();
        told.of(&a_job("later", 4, json!({})));
        assert_eq!(told.overlooked(&open("in-neither")).len(), 0, "it was looked at");
    }

    #[test]
    fn who_was_looked_at_is_not_overlooked_again() {
        let told = CoveredJobs::default();
        told.begins(Open::new().values());
        told.of_all(open("a").values());
        assert_eq!(told.overlooked(&open("a")).len(), 0);
        assert_eq!(told.overlooked(&open("the-next-of-its-name")).len(), 1);
    }

    #[test]
    fn a_comparison_forgets_what_the_one_before_it_had_told() {
        let told = CoveredJobs::default();
        told.begins(open("before").values());
        told.begins(open("now").values());
        assert_eq!(told.overlooked(&open("before")).len(), 1, "its lane may be another replica's since");
    }
}
