//! Which replica reports: the rule of the Lease. What was seen of it, and when → what to do.
//!
//! The rule is client-go's: no clock of one machine is synced with that of another. A Lease is held for its duration from
//! the moment that *this* process first saw what it says now. The holder counts from the moment before it asked for the
//! renewal that was granted, and not as long ([`HOLD`] is less than [`DURATION`]): it stops before anyone takes over.

use std::time::{Duration, Instant};

use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

/// How long the others let a holder be that is not heard of.
pub const DURATION: Duration = Duration::from_secs(10);
/// How long a holder may act on one renewal.
pub const HOLD: Duration = Duration::from_secs(7);
/// How often a holder renews.
const RENEW: Duration = Duration::from_secs(3);
/// How often the others look.
const LOOK: Duration = Duration::from_secs(2);
/// The longest duration that is believed of a Lease that somebody else wrote.
const LONGEST: Duration = Duration::from_secs(60);

/// One replica's part in the election.
#[derive(Debug)]
pub struct Election {
    identity: String,
    seen: Option<(LeaseSpec, Instant)>,
    /// When the last renewal that was granted had been asked for.
    renewed: Option<Instant>,
}

impl Election {
    /// The part of the replica `identity`, which no other replica has.
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed: None }
    }

    /// What the Lease says now; the default where there is none. Whether it has another holder than before.
    pub fn saw(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let before = self.seen.as_ref().map(|(before, _)| holder(before).to_owned());
        if self.seen.as_ref().is_none_or(|(before, _)| before != spec) {
            self.seen = Some((spec.clone(), now));
        }
        if holder(spec) != self.identity {
            self.renewed = None;
        }
        before.as_deref() != Some(holder(spec))
    }

    /// Who holds the Lease, as far as was seen; empty where nobody does.
    pub fn holder(&self) -> &str {
        self.seen.as_ref().map(|(spec, _)| holder(spec)).unwrap_or_default()
    }

    /// How long until this replica is to write the Lease, to take or to renew it. Of a Lease that another one holds: how
    /// long unless it is renewed.
    pub fn write_in(&self, now: Instant) -> Duration {
        let Some((spec, since)) = &self.seen else { return Duration::ZERO };
        let at = match (holder(spec), self.renewed) {
            ("", _) => return Duration::ZERO,
            (holder, Some(renewed)) if holder == self.identity => renewed + RENEW,
            // Our own of an earlier life, or of a write whose answer was lost.
            (holder, None) if holder == self.identity => return Duration::ZERO,
            _ => *since + duration(spec),
        };
        at.saturating_duration_since(now)
    }

    /// How long until the next look or write.
    pub fn next_in(&self, now: Instant) -> Duration {
        match self.until(now) {
            Some(_) => self.write_in(now),
            None => self.write_in(now).min(LOOK),
        }
    }

    /// The Lease to write, in place of the one that was seen. `wall` is for people to read.
    pub fn claim(&self, wall: &MicroTime) -> LeaseSpec {
        let seen = self.seen.as_ref().map(|(spec, _)| spec.clone()).unwrap_or_default();
        let ours = holder(&seen) == self.identity;
        let transitions = seen.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: seen.acquire_time.clone().filter(|_| ours).or_else(|| Some(wall.clone())),
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            renew_time: Some(wall.clone()),
            ..seen
        }
    }

    /// The claim was granted; `asked` is the moment before it was sent.
    pub fn granted(&mut self, written: &LeaseSpec, asked: Instant, now: Instant) {
        self.saw(written, now);
        if holder(written) == self.identity {
            self.renewed = Some(asked);
        }
    }

    /// Until when this replica reports, if it does.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + HOLD).filter(|until| now < *until)
    }

    /// The Lease to write at the end: nobody's, for the next one to take at once. `None` where it is another one's.
    pub fn release(&self) -> Option<LeaseSpec> {
        let (seen, _) = self.seen.as_ref().filter(|(seen, _)| holder(seen) == self.identity)?;
        Some(LeaseSpec { holder_identity: Some(String::new()), ..seen.clone() })
    }
}

fn holder(spec: &LeaseSpec) -> &str {
    spec.holder_identity.as_deref().unwrap_or_default()
}

fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs).min(LONGEST)
}

#[cfg(test)]
mod tests;
