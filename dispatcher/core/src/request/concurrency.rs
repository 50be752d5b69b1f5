//! The table itself. Pure.

use std::collections::{HashMap, HashSet};

use crate::contract::{
    job::JobState,
    names::{JobName, RequestId, TemplateName},
};

/// Which slot.
pub type Number = u64;

#[derive(Debug, Default)]
pub struct Table {
    templates: HashMap<TemplateName, PerTemplate>,
    last: Number,
    complete: bool,
    /// The uids of the list that is under way.
    in_list: Option<HashSet<String>>,
}

#[derive(Debug, Default)]
struct PerTemplate {
    unfinished: HashMap<String, (JobName, RequestId)>,
    slots: HashMap<Number, Usage>,
}

/// A slot: a request under work.
#[derive(Debug, Default)]
struct Usage {
    request: Option<RequestId>,
    /// The watch has told of its Job since the claim.
    seen: bool,
    /// Nobody works on it any more, and the watch has not told of its Job yet.
    awaited: bool,
    /// It was awaited before the list under way began: if it is not in there, it is gone.
    before_list: bool,
}

impl PerTemplate {
    fn used(&self) -> usize {
        self.unfinished.len() + self.slots.values().filter(|slot| !slot.seen).count()
    }
}

impl Table {
    /// Numbers of new slots: as many as the limit leaves, and at most `most`.
    pub fn reserve(&mut self, template: &TemplateName, limit: usize, most: usize) -> Vec<Number> {
        if !self.complete {
            return vec![];
        }
        let of_template = self.templates.entry(template.clone()).or_default();
        let free = limit.saturating_sub(of_template.used()).min(most);
        let mut numbers = Vec::with_capacity(free);
        for _ in 0..free {
            self.last += 1;
            of_template.slots.insert(self.last, Usage::default());
            numbers.push(self.last);
        }
        numbers
    }

    pub fn claim(&mut self, template: &TemplateName, number: Number, id: &RequestId) {
        if let Some(slot) = self.slot(template, number) {
            slot.request = Some(id.clone());
        }
    }

    /// The request's Job is there, unless it is over already.
    pub fn has(&mut self, template: &TemplateName, number: Number, uid: &str, finished: bool) {
        let Some(of_template) = self.templates.get_mut(template) else { return };
        let counted = of_template.unfinished.contains_key(uid);
        if let Some(slot) = of_template.slots.get_mut(&number) {
            // Whatever the watch will tell of it has been told, or will be.
            slot.awaited = !(finished || counted || slot.seen);
        }
    }

    /// Nobody works on it any more: it stays only while its Job is awaited.
    pub fn release(&mut self, template: &TemplateName, number: Number) {
        if let Some(of_template) = self.templates.get_mut(template)
            && of_template.slots.get(&number).is_some_and(|slot| !slot.awaited)
        {
            of_template.slots.remove(&number);
        }
    }

    /// The watch tells of a Job; one that is gone is finished.
    pub fn apply(&mut self, state: &JobState, finished: bool) {
        let JobState { template, uid, name, request_id: id, .. } = state;
        if let Some(in_list) = &mut self.in_list {
            in_list.insert(uid.clone());
        }
        let of_template = self.templates.entry(template.clone()).or_default();
        if finished {
            of_template.unfinished.remove(uid);
        } else {
            of_template.unfinished.insert(uid.clone(), (name.clone(), id.clone()));
        }
        of_template.slots.retain(|_, slot| {
            let seen = slot.request.as_ref() == Some(id);
            slot.seen |= seen;
            !(seen && slot.awaited)
        });
    }

    pub fn list_begins(&mut self) {
        self.in_list = Some(HashSet::new());
        for slot in self.templates.values_mut().flat_map(|of_template| of_template.slots.values_mut()) {
            slot.before_list = slot.awaited;
        }
    }

    /// What is in no list is gone.
    pub fn listed(&mut self) {
        let in_list = self.in_list.take().unwrap_or_default();
        for of_template in self.templates.values_mut() {
            of_template.unfinished.retain(|uid, _| in_list.contains(uid));
            of_template.slots.retain(|_, slot| !(slot.awaited && slot.before_list));
        }
        self.complete = true;
    }

    /// How many unfinished Jobs each template has; `None` before they are listed.
    pub fn counts(&self) -> Option<Vec<(TemplateName, usize)>> {
        let count = |(template, of_template): (&TemplateName, &PerTemplate)| {
            (template.clone(), of_template.unfinished.len())
        };
        self.complete.then(|| self.templates.iter().map(count).collect())
    }

    /// The name of the unfinished Job that this request has.
    pub fn name_of(&self, template: &TemplateName, id: &RequestId) -> Option<JobName> {
        let mut jobs = self.templates.get(template)?.unfinished.values();
        jobs.find(|(_, of)| of == id).map(|(name, _)| name.clone())
    }

    fn slot(&mut self, template: &TemplateName, number: Number) -> Option<&mut Usage> {
        self.templates.get_mut(template)?.slots.get_mut(&number)
    }
}

#[cfg(test)]
mod tests;
