//! Shares a bounded number of places among templates, so that the callers of one template never
//! take the places of another's.
//!
//! A template may take a place while it holds fewer than are free. So one busy template gets half
//! of the places, two get a third each, and the next one always finds some free.

use std::collections::HashMap;

use crate::contract::names::TemplateName;

/// The places and who holds them.
#[derive(Debug)]
pub struct FairShare {
    max: usize,
    held: HashMap<TemplateName, usize>,
    total: usize,
}

impl FairShare {
    /// `max` places.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: HashMap::new(), total: 0 }
    }

    /// Takes a place. Returns `false` if the template has its share or every place is taken. A single
    /// template may hold every place.
    pub fn take(&mut self, template: &TemplateName, templates: usize) -> bool {
        let free = self.max.saturating_sub(self.total);
        let held = self.held.get(template).copied().unwrap_or(0);
        if free == 0 || (templates > 1 && held >= free) {
            return false;
        }
        self.held.insert(template.clone(), held + 1);
        self.total += 1;
        true
    }

    /// Returns a place that [`Self::take`] gave.
    pub fn give_back(&mut self, template: &TemplateName) {
        let Some(held) = self.held.get_mut(template) else { return };
        *held -= 1;
        self.total -= 1;
        if *held == 0 {
            self.held.remove(template);
        }
    }

    /// The number of taken places.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(name: &str) -> TemplateName {
        TemplateName::try_from(name).unwrap()
    }

    fn take_all(share: &mut FairShare, name: &str, templates: usize) -> usize {
        std::iter::from_fn(|| share.take(&template(name), templates).then_some(())).count()
    }

    #[test]
    fn flood_of_one_template_leaves_places_for_the_others() {
        let mut share = FairShare::new(256);
        assert_eq!(take_all(&mut share, "loud", 3), 128);
        assert_eq!(take_all(&mut share, "second", 3), 64);
        assert!(take_all(&mut share, "third", 3) > 0);
    }

    #[test]
    fn single_template_uses_every_place() {
        let mut share = FairShare::new(7);
        assert_eq!(take_all(&mut share, "only", 1), 7);
    }

    #[test]
    fn returned_place_is_free_again() {
        let mut share = FairShare::new(1);
        assert!(share.take(&template("a"), 2));
        assert!(!share.take(&template("b"), 2));
        share.give_back(&template("a"));
        assert!(share.take(&template("b"), 2));
    }

    proptest! {
        #[test]
        fn any_sequence_keeps_the_bound_and_counts_correctly(
            max in 0usize..20, steps in prop::collection::vec((any::<bool>(), 0usize..4), 0..200)
        ) {
            let mut share = FairShare::new(max);
            let mut held = [0usize; 4];
            for (is_take, n) in steps {
                let name = template(&format!("t{n}"));
                if is_take {
                    held[n] += usize::from(share.take(&name, 4));
                } else {
                    held[n] = held[n].saturating_sub(1);
                    share.give_back(&name);
                }
                prop_assert_eq!(share.taken(), held.iter().sum::<usize>());
                prop_assert!(share.taken() <= max);
            }
        }
    }
}
