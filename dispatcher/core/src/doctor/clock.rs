//! The clocks of this machine, the API server and NATS, compared.
//!
//! No guarantee depends on a clock, and the leader election compares none. But people and tools
//! compare times: of the Lease, of status events, of logs. And credentials have times of validity.

use std::time::Duration;

use time::OffsetDateTime;

use crate::{
    doctor::{Finding, Section, links},
    election::DURATION,
};

const S: Section = Section::Clock;

/// API servers accept a token this long before its first second of validity.
pub const TOKEN_LEEWAY: Duration = Duration::from_mins(1);

/// The time of another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The machine.
    pub of: &'static str,
    /// Its time.
    pub time: OffsetDateTime,
    /// The time of this machine when the answer arrived.
    pub here: OffsetDateTime,
    /// How far the reading can be off: the round trip and the resolution.
    pub uncertainty: Duration,
}

impl Reading {
    /// How far this machine is ahead, in seconds.
    fn ahead(&self) -> f64 {
        (self.here - self.time).as_seconds_f64()
    }

    fn skew(&self) -> Duration {
        let skew = self.ahead().abs() - self.uncertainty.as_secs_f64();
        Duration::try_from_secs_f64(skew.max(0.0)).unwrap_or(Duration::MAX)
    }
}

/// The findings about the clocks; `unread` are the machines whose time is unknown.
#[must_use]
pub fn findings(readings: &[Reading], unread: &[&'static str]) -> Vec<Finding> {
    let wrong: Vec<&Reading> = readings.iter().filter(|reading| reading.skew() > DURATION).collect();
    let is_ours = wrong.len() > 1 && wrong.len() == readings.len();
    let found = readings.iter().map(|reading| finding(reading, is_ours));
    let unread = unread.iter().map(|of| S.skipped(format!("clock of {of}"), "no answer contains its time"));
    found.chain(unread).collect()
}

fn finding(reading: &Reading, is_ours: bool) -> Finding {
    let Reading { of, .. } = reading;
    let (subject, skew) = (format!("clock of {of}"), reading.skew());
    if skew <= DURATION {
        let (off, limit) = (reading.ahead().abs(), DURATION.as_secs());
        return S.ok(
            subject,
            format!("{off:.1} s from this machine's (limit: {limit} s, the duration of the Lease)"),
        );
    }
    let direction = if reading.ahead() > 0.0 { "ahead of" } else { "behind" };
    let off = skew.as_secs();
    let (severity, limit, effect) = if skew > TOKEN_LEEWAY {
        let effect = "tokens, JWTs and certificates can be refused as expired or not yet valid";
        (crate::doctor::Severity::Error, TOKEN_LEEWAY, effect)
    } else {
        let effect =
            "a live Lease can look expired in kubectl, and times of status events and logs do not compare";
        (crate::doctor::Severity::Warning, DURATION, effect)
    };
    let limit = match severity {
        crate::doctor::Severity::Error => format!("{} s, the leeway of tokens", limit.as_secs()),
        _ => format!("{} s, the duration of the Lease", limit.as_secs()),
    };
    let message = format!("this machine is {off} s {direction} {of} (limit: {limit}): {effect}");
    let whose = if is_ours { "this machine" } else { "both machines" };
    let advice = format!(
        "synchronize the clock of {whose} by NTP (`chronyc tracking`, `timedatectl timesync-status`)"
    );
    S.finding(severity, subject, message).advise(advice).see(links::CLOCKS)
}

#[cfg(test)]
mod tests {
    use time::ext::NumericalDuration;

    use super::*;
    use crate::doctor::Severity;

    fn reading(of: &'static str, ahead: f64) -> Reading {
        let time = OffsetDateTime::UNIX_EPOCH;
        Reading { of, time, here: time + ahead.seconds(), uncertainty: Duration::from_secs(1) }
    }

    #[test]
    fn skew_is_judged_by_the_lease_and_the_leeway_of_tokens() {
        let severity = |ahead| findings(&[reading("NATS", ahead)], &[])[0].severity;
        assert_eq!(severity(0.2), Severity::Ok);
        assert_eq!(severity(-10.9), Severity::Ok, "within the uncertainty");
        assert_eq!(severity(12.0), Severity::Warning);
        assert_eq!(severity(-12.0), Severity::Warning);
        assert_eq!(severity(62.0), Severity::Error);
        assert_eq!(severity(-3600.0), Severity::Error);
    }

    #[test]
    fn clock_that_differs_from_all_others_is_the_wrong_one() {
        let advice = |readings: &[Reading]| findings(readings, &[])[0].advice.clone().unwrap();
        let both = advice(&[reading("the API server", 3600.0), reading("NATS", 3600.0)]);
        assert!(both.contains("the clock of this machine by NTP"), "{both}");
        let one = advice(&[reading("the API server", 3600.0), reading("NATS", 0.0)]);
        assert!(one.contains("the clock of both machines"), "{one}");
    }

    #[test]
    fn message_names_the_direction_and_the_limit() {
        let found = findings(&[reading("NATS", -3601.0)], &["the API server"]);
        assert!(found[0].message.starts_with("this machine is 3600 s behind NATS (limit: 60 s"), "{found:?}");
        assert_eq!(found[1].severity, Severity::Skipped);
        assert_eq!(found[1].subject, "clock of the API server");
    }
}
