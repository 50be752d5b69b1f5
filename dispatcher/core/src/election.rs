//! Leader election by a Lease: given the observed Lease and the time, what to do next.
//!
//! The rule is that of client-go and needs no synchronized clocks. A Lease is valid for its duration
//! from the moment at which *this* process first observed its current content. The holder counts
//! from before it sent the successful renewal, and for a shorter time ([`HOLD`] is less than
//! [`DURATION`]), so it stops before another replica takes over.

use std::time::{Duration, Instant};

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

/// The time after which another replica takes over a Lease that is not renewed.
pub const DURATION: Duration = Duration::from_secs(10);
/// The time for which a replica leads after one renewal.
pub const HOLD: Duration = Duration::from_secs(7);
/// The interval at which the holder renews the Lease.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// The interval at which the other replicas read the Lease.
const READ_INTERVAL: Duration = Duration::from_secs(2);
/// The longest accepted duration of a Lease of another holder.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// The election as one replica sees it.
#[derive(Debug)]
pub struct Election {
    identity: String,
    /// The last observed Lease, and when it was first observed with this content.
    observed: Option<(LeaseSpec, Instant)>,
    /// When the last successful renewal was sent.
    renewed: Option<Instant>,
}

impl Election {
    /// The election as seen by the replica with this unique identity.
    #[must_use]
    pub fn new(identity: String) -> Self {
        Self { identity, observed: None, renewed: None }
    }

    /// Observes the Lease (the default if there is none). Returns whether the holder changed.
    pub fn observe(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let previous_holder = self.observed.as_ref().map(|(previous, _)| holder(previous).to_owned());
        if self.observed.as_ref().is_none_or(|(previous, _)| previous != spec) {
            self.observed = Some((spec.clone(), now));
        }
        if holder(spec) != self.identity {
            self.renewed = None;
        }
        previous_holder.as_deref() != Some(holder(spec))
    }

    /// The last observed holder; empty if there is none.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.observed.as_ref().map(|(spec, _)| holder(spec)).unwrap_or_default()
    }

    /// The time until this replica must write the Lease, to renew it or to take it over. The holder
    /// may renew it before that.
    #[must_use]
    pub fn write_in(&self, now: Instant) -> Duration {
        let Some((spec, since)) = &self.observed else { return Duration::ZERO };
        let at = match (holder(spec), self.renewed) {
            ("", _) => return Duration::ZERO,
            (holder, Some(renewed)) if holder == self.identity => renewed + RENEW_INTERVAL,
            // Held by an earlier process of this replica, or written without an answer.
            (holder, None) if holder == self.identity => return Duration::ZERO,
            _ => *since + duration(spec),
        };
        at.saturating_duration_since(now)
    }

    /// The time until the next read or write.
    #[must_use]
    pub fn next_in(&self, now: Instant) -> Duration {
        match self.leads_until(now) {
            Some(_) => self.write_in(now),
            None => self.write_in(now).min(READ_INTERVAL),
        }
    }

    /// The Lease to write over the observed one. Its `wall_clock` times are for people only.
    #[must_use]
    pub fn claim(&self, wall_clock: &MicroTime) -> LeaseSpec {
        let observed = self.observed.as_ref().map(|(spec, _)| spec.clone()).unwrap_or_default();
        let held = holder(&observed) == self.identity;
        let transitions = observed.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: observed.acquire_time.clone().filter(|_| held).or_else(|| Some(wall_clock.clone())),
            lease_transitions: Some(if held { transitions } else { transitions.saturating_add(1) }),
            renew_time: Some(wall_clock.clone()),
            ..observed
        }
    }

    /// The claim was written. `sent` is a time before it was sent.
    pub fn written(&mut self, claim: &LeaseSpec, sent: Instant, now: Instant) {
        self.observe(claim, now);
        if holder(claim) == self.identity {
            self.renewed = Some(sent);
        }
    }

    /// The time until which this replica leads; `None` if it does not lead.
    #[must_use]
    pub fn leads_until(&self, now: Instant) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + HOLD).filter(|until| now < *until)
    }

    /// The Lease to write at shutdown: without a holder, so that another replica takes it immediately.
    /// `None` if another replica holds it.
    #[must_use]
    pub fn release(&self) -> Option<LeaseSpec> {
        let (observed, _) = self.observed.as_ref().filter(|(spec, _)| holder(spec) == self.identity)?;
        Some(LeaseSpec { holder_identity: Some(String::new()), ..observed.clone() })
    }
}

fn holder(spec: &LeaseSpec) -> &str {
    spec.holder_identity.as_deref().unwrap_or_default()
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs).min(MAX_DURATION)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the tests start from the current time")]
mod tests;
