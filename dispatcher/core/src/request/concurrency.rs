//! The concurrency limit: how many unfinished Jobs a template has, and how many more it may get.
//!
//! A Job counts from its reservation until its end is known: the watch delivers its final condition,
//! or a GET shows it. A Job that leaves the watch without a final condition may only have left the
//! selector. No Job is reserved before the first list.

use std::collections::{HashMap, HashSet};

use crate::{
    contract::{
        job::{JobObject, JobState, status_of},
        names::{JobName, RequestId, TemplateName},
        uid::UidKey,
    },
    status::outcome_label::is_watched,
};

/// Identifies a reservation.
pub type ReservationId = u64;

/// A counted Job that the watch delivers no more. A GET decides whether it still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepartedJob {
    /// The template.
    pub template: TemplateName,
    /// The Job's name.
    pub name: JobName,
    /// The Job's uid.
    pub uid: String,
}

/// What a GET shows about a [`DepartedJob`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The Job is deleted or finished: it does not count any more.
    Ended,
    /// The watch selects the Job, and delivers its end.
    Watched,
    /// The Job is unfinished and in no watch. A later GET shows its end.
    Hidden,
}

impl DepartedJob {
    /// Decides by the Job that has the name now.
    #[must_use]
    pub fn departure(&self, found: Option<&JobObject>) -> Departure {
        let found = found.filter(|found| found.metadata.uid.as_deref() == Some(self.uid.as_str()));
        match found {
            Some(found) if status_of(found).result().is_some() => Departure::Ended,
            Some(found) if is_watched(found) => Departure::Watched,
            Some(_) => Departure::Hidden,
            None => Departure::Ended,
        }
    }
}

/// The unfinished Jobs and the reservations of all templates.
#[derive(Debug, Default)]
pub struct ConcurrencyTable {
    templates: HashMap<TemplateName, Usage>,
    last_id: ReservationId,
    synced: bool,
    /// The uids that the list in progress has delivered so far.
    listed: Option<HashSet<UidKey>>,
}

/// What counts towards the limit of one template.
#[derive(Debug, Default)]
struct Usage {
    /// The unfinished Jobs by uid, as the watch has delivered them.
    unfinished: HashMap<UidKey, (JobName, RequestId)>,
    reservations: HashMap<ReservationId, ReservationState>,
}

#[derive(Debug, Default)]
struct ReservationState {
    request: Option<RequestId>,
    /// The watch has delivered the Job since the reservation was bound to its request.
    observed: bool,
    /// The Job exists, and the watch has not delivered it yet: the reservation outlives its request.
    awaits_watch: bool,
    /// It awaited the watch when the list in progress began: if the list lacks the Job, the Job is
    /// deleted.
    awaited_before_list: bool,
}

impl Usage {
    fn total(&self) -> usize {
        self.unfinished.len() + self.reservations.values().filter(|state| !state.observed).count()
    }
}

impl ConcurrencyTable {
    /// Makes as many reservations as the limit allows, at most `max`.
    pub fn reserve(&mut self, template: &TemplateName, limit: usize, max: usize) -> Vec<ReservationId> {
        if !self.synced {
            return vec![];
        }
        let usage = self.templates.entry(template.clone()).or_default();
        let free = limit.saturating_sub(usage.total()).min(max);
        let mut ids = Vec::with_capacity(free);
        for _ in 0..free {
            self.last_id += 1;
            usage.reservations.insert(self.last_id, ReservationState::default());
            ids.push(self.last_id);
        }
        ids
    }

    /// Binds a reservation to its request. From now on the Job of the request, once the watch
    /// delivers it, counts in place of the reservation.
    pub fn bind(&mut self, template: &TemplateName, id: ReservationId, request: &RequestId) {
        let usage = self.templates.get_mut(template);
        if let Some(state) = usage.and_then(|usage| usage.reservations.get_mut(&id)) {
            state.request = Some(request.clone());
        }
    }

    /// The request of this reservation has a Job.
    pub fn job_exists(&mut self, template: &TemplateName, id: ReservationId, uid: &str, finished: bool) {
        let Some(usage) = self.templates.get_mut(template) else { return };
        let counted = usage.unfinished.contains_key(&UidKey::from(uid));
        if let Some(state) = usage.reservations.get_mut(&id) {
            state.awaits_watch = !(finished || counted || state.observed);
        }
    }

    /// The request is handled: removes its reservation, unless that awaits the watch.
    pub fn release(&mut self, template: &TemplateName, id: ReservationId) {
        if let Some(usage) = self.templates.get_mut(template)
            && usage.reservations.get(&id).is_some_and(|state| !state.awaits_watch)
        {
            usage.reservations.remove(&id);
        }
    }

    /// The watch delivered a Job. Without a final condition, a deleted Job is no finished one: see
    /// [`Self::departed`].
    pub fn apply(&mut self, job: &JobState, finished: bool) {
        let JobState { template, name, request_id, .. } = job;
        let uid = UidKey::from(job.uid.as_str());
        if let Some(listed) = &mut self.listed {
            listed.insert(uid.clone());
        }
        let usage = self.templates.entry(template.clone()).or_default();
        if finished {
            usage.unfinished.remove(&uid);
        } else {
            usage.unfinished.entry(uid).or_insert_with(|| (name.clone(), request_id.clone()));
        }
        usage.reservations.retain(|_, state| {
            let is_its_job = state.request.as_ref() == Some(request_id);
            state.observed |= is_its_job;
            !(is_its_job && state.awaits_watch)
        });
    }

    /// A list of all Jobs begins.
    pub fn begin_list(&mut self) {
        self.listed = Some(HashSet::new());
        for state in self.templates.values_mut().flat_map(|usage| usage.reservations.values_mut()) {
            state.awaited_before_list = state.awaits_watch;
        }
    }

    /// The list is complete. Returns the counted Jobs that it lacks.
    pub fn end_list(&mut self) -> Vec<DepartedJob> {
        let listed = self.listed.take().unwrap_or_default();
        let mut departed = Vec::new();
        for (template, usage) in &mut self.templates {
            let unlisted = usage.unfinished.iter().filter(|(uid, _)| !listed.contains(*uid));
            departed.extend(unlisted.map(|(uid, (name, _))| departed_job(template, name, &uid.to_string())));
            usage.reservations.retain(|_, state| !(state.awaits_watch && state.awaited_before_list));
        }
        self.synced = true;
        departed
    }

    /// The watch delivered that the Job with this uid left it without a final condition. Returns the
    /// Job if it counts.
    #[must_use]
    pub fn departed(&self, uid: &str) -> Option<DepartedJob> {
        self.templates.iter().find_map(|(template, usage)| {
            usage.unfinished.get(&UidKey::from(uid)).map(|(name, _)| departed_job(template, name, uid))
        })
    }

    /// A GET showed that the Job has ended.
    pub fn ended(&mut self, job: &DepartedJob) {
        if let Some(usage) = self.templates.get_mut(&job.template) {
            usage.unfinished.remove(&UidKey::from(job.uid.as_str()));
        }
    }

    /// The number of unfinished Jobs of each template; `None` before the first list.
    #[must_use]
    pub fn counts(&self) -> Option<Vec<(TemplateName, usize)>> {
        let count = |(template, usage): (&TemplateName, &Usage)| (template.clone(), usage.unfinished.len());
        self.synced.then(|| self.templates.iter().map(count).collect())
    }

    /// Whether the watch has delivered an unfinished Job of this name.
    #[must_use]
    pub fn has_job(&self, template: &TemplateName, name: &JobName) -> bool {
        let usage = self.templates.get(template);
        usage.is_some_and(|usage| usage.unfinished.values().any(|(found, _)| found == name))
    }

    /// The name of the unfinished Job of a request.
    #[must_use]
    pub fn job_name(&self, template: &TemplateName, request: &RequestId) -> Option<JobName> {
        let mut jobs = self.templates.get(template)?.unfinished.values();
        jobs.find(|(_, id)| id == request).map(|(name, _)| name.clone())
    }
}

fn departed_job(template: &TemplateName, name: &JobName, uid: &str) -> DepartedJob {
    DepartedJob { template: template.clone(), name: name.clone(), uid: uid.to_owned() }
}

#[cfg(test)]
mod tests;
