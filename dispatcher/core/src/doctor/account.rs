//! The limits of the NATS account, compared with what the streams reserve.

use serde_json::Value;

use crate::doctor::{Finding, Section, links};

const S: Section = Section::Nats;
const SUBJECT: &str = "account";
/// A share of a limit from which on it is nearly reached.
pub(super) const NEARLY_FULL: f64 = 0.8;
/// A scan of a stream needs a consumer for a moment.
const MIN_CONSUMERS: u64 = 100;

/// The account, as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// The server answered.
    Known(Limits),
    /// The user may not ask. The shipped role does not permit it.
    Denied,
    /// No answer.
    Unknown(String),
}

/// Usage and limits; `None` for no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in files.
    pub storage: u64,
    /// Bytes that the streams reserve.
    pub reserved: u64,
    /// The most bytes in files.
    pub max_storage: Option<u64>,
    /// The most bytes of one stream.
    pub max_stream_bytes: Option<u64>,
    /// The number of streams.
    pub streams: u64,
    /// The most streams.
    pub max_streams: Option<u64>,
    /// The most consumers of a stream.
    pub max_consumers: Option<u64>,
}

impl Limits {
    /// The limits in the answer to `$JS.API.INFO`, for streams with this number of replicas.
    #[must_use]
    pub fn of(info: &Value, replicas: u64) -> Self {
        let tier = info.get("tiers").and_then(|tiers| tiers.get(format!("R{replicas}")));
        let usage = tier.unwrap_or(info);
        let number = |field: &str| usage.get(field).and_then(Value::as_u64).unwrap_or_default();
        // Negative: unlimited. Zero: unlimited too, except for the storage.
        let limit = |field: &str| usage.get("limits").and_then(|limits| limits.get(field)?.as_u64());
        Self {
            storage: number("storage"),
            reserved: number("reserved_storage"),
            max_storage: limit("max_storage"),
            max_stream_bytes: limit("storage_max_stream_bytes").filter(|bytes| *bytes > 0),
            streams: number("streams"),
            max_streams: limit("max_streams").filter(|streams| *streams > 0),
            max_consumers: limit("max_consumers").filter(|consumers| *consumers > 0),
        }
    }
}

/// A stream that does not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingStream {
    /// Its name.
    pub name: String,
    /// The bytes that it reserves.
    pub max_bytes: u64,
}

/// The findings about the account, whose streams `missing` are still to be created.
#[must_use]
pub fn findings(account: &Account, missing: &[MissingStream], templates: usize) -> Vec<Finding> {
    let limits = match account {
        Account::Known(limits) => limits,
        Account::Denied => {
            let reason = "its limits are not readable: the role of the dispatcher does not permit \
                          $JS.API.INFO. An administrator sees them with `nats account info`";
            return vec![S.skipped(SUBJECT, reason)];
        }
        Account::Unknown(error) => {
            return vec![S.skipped(SUBJECT, format!("its limits are unknown: {error}"))];
        }
    };
    let found = [
        storage(limits),
        space(limits, missing),
        stream_size(limits, missing),
        streams(limits, missing),
        consumers(limits, templates),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    let mut found = if found.is_empty() { vec![S.ok(SUBJECT, summary(limits))] } else { found };
    if limits.max_storage.is_none() && !missing.is_empty() {
        let reason = format!(
            "clients cannot see max_file_store, and the missing streams reserve {}",
            bytes(missing.iter().map(|stream| stream.max_bytes).sum())
        );
        found.push(S.skipped("store of the server", reason));
    }
    found
}

fn summary(limits: &Limits) -> String {
    let of = |max: Option<u64>| max.map_or("no limit".to_owned(), |max| format!("limit {max}"));
    let Limits { storage, max_storage, streams, max_streams, .. } = limits;
    let storage_limit = max_storage.map_or("no limit".to_owned(), |max| format!("limit {}", bytes(max)));
    format!("{} stored ({storage_limit}), {streams} streams ({})", bytes(*storage), of(*max_streams))
}

/// The number of bytes in a readable unit.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.into_iter().find(|(size, _)| count >= *size);
    unit.map_or(format!("{count} B"), |(size, unit)| format!("{:.1} {unit}", count as f64 / size as f64))
}

fn storage(limits: &Limits) -> Option<Finding> {
    let max = limits.max_storage?;
    if max == 0 {
        let advice = "give the account a limit for file storage: `max_file` in its `jetstream` block";
        return Some(S.error(SUBJECT, "file storage is not allowed").advise(advice).see(links::STORE));
    }
    let share = limits.storage as f64 / max as f64;
    if share < NEARLY_FULL {
        return None;
    }
    let message = format!("{} of {} are stored", bytes(limits.storage), bytes(max));
    let found = if share < 1.0 { S.warning(SUBJECT, message) } else { S.error(SUBJECT, message) };
    Some(found.advise("raise max_file of the account, or lower max_bytes of a stream").see(links::STORE))
}

fn space(limits: &Limits, missing: &[MissingStream]) -> Option<Finding> {
    let left = limits.max_storage.filter(|max| *max > 0)?.saturating_sub(limits.reserved.max(limits.storage));
    let needed: u64 = missing.iter().map(|stream| stream.max_bytes).sum();
    (needed > left).then(|| {
        let names: Vec<_> = missing.iter().map(|stream| stream.name.as_str()).collect();
        let message = format!(
            "{} are left, and the missing streams reserve {} ({})",
            bytes(left),
            bytes(needed),
            names.join(", ")
        );
        let advice = "raise max_file of the account, or create the streams with a smaller max_bytes before \
                      the first start";
        S.error(SUBJECT, message).advise(advice).see(links::STORE)
    })
}

fn stream_size(limits: &Limits, missing: &[MissingStream]) -> Option<Finding> {
    let most = limits.max_stream_bytes?;
    let large = missing.iter().find(|stream| stream.max_bytes > most)?;
    let message =
        format!("a stream may have {}, and {} reserves {}", bytes(most), large.name, bytes(large.max_bytes));
    let advice = "raise the account's limit of a stream, or create the stream with a smaller max_bytes";
    Some(S.error(SUBJECT, message).advise(advice).see(links::STORE))
}

fn streams(limits: &Limits, missing: &[MissingStream]) -> Option<Finding> {
    let most = limits.max_streams?;
    let needed = u64::try_from(missing.len()).unwrap_or(u64::MAX);
    (needed > most.saturating_sub(limits.streams)).then(|| {
        let message = format!("{} of {most} streams exist, and {needed} are missing", limits.streams);
        S.error(SUBJECT, message).advise("raise max_streams of the account").see(links::STREAMS)
    })
}

fn consumers(limits: &Limits, templates: usize) -> Option<Finding> {
    let most = limits.max_consumers?;
    let needed = u64::try_from(templates).unwrap_or(u64::MAX);
    let message = format!("max_consumers is {most}, and each of the {needed} templates needs one");
    let found = match most {
        _ if most < needed => S.error(SUBJECT, message),
        ..MIN_CONSUMERS => S.warning(SUBJECT, format!("{message}, and each scan of a stream one more")),
        _ => return None,
    };
    let least = needed + MIN_CONSUMERS;
    Some(found.advise(format!("raise max_consumers of the account to {least}")).see(links::STREAMS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Severity;

    const GIB: u64 = 1 << 30;

    fn missing() -> Vec<MissingStream> {
        vec![MissingStream { name: "JOBS".to_owned(), max_bytes: 2 * GIB }]
    }

    fn only(limits: Limits, missing: &[MissingStream]) -> Finding {
        let mut found = findings(&Account::Known(limits), missing, 2);
        found.retain(|finding| finding.severity != Severity::Skipped);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn limits_of_the_tier_of_the_streams_count() {
        let limits = json!({"max_storage": 10, "max_streams": 3, "max_consumers": -1});
        let info = json!({"storage": 1, "streams": 1, "limits": {"max_storage": -1},
            "tiers": {"R3": {"storage": 2, "reserved_storage": 4, "streams": 2, "limits": limits}}});
        let (one, three) = (Limits::of(&info, 1), Limits::of(&info, 3));
        assert_eq!((one.storage, one.max_storage), (1, None));
        assert_eq!((three.storage, three.reserved, three.max_storage), (2, 4, Some(10)));
        assert_eq!((three.max_streams, three.max_consumers), (Some(3), None));
    }

    #[test]
    fn account_without_limits_is_fine() {
        assert_eq!(only(Limits::default(), &[]).severity, Severity::Ok);
    }

    #[test]
    fn store_of_the_server_is_not_visible_to_clients() {
        let found = findings(&Account::Known(Limits::default()), &missing(), 2);
        assert_eq!(
            (found[1].severity, found[1].subject.as_str()),
            (Severity::Skipped, "store of the server")
        );
        assert!(found[1].message.ends_with("reserve 2.0 GiB"), "{found:?}");
    }

    #[test]
    fn missing_streams_must_fit_into_what_is_not_reserved() {
        let limits = Limits { max_storage: Some(4 * GIB), reserved: 3 * GIB, ..Limits::default() };
        let found = only(limits.clone(), &missing());
        assert_eq!(found.severity, Severity::Error);
        assert_eq!(found.message, "1.0 GiB are left, and the missing streams reserve 2.0 GiB (JOBS)");
        assert!(found.advice.unwrap().contains("raise max_file"));
        assert_eq!(only(limits, &[]).severity, Severity::Ok, "they exist");
    }

    #[test]
    fn full_storage_is_an_error_and_a_nearly_full_one_a_warning() {
        let severity =
            |storage| only(Limits { storage, max_storage: Some(100), ..Limits::default() }, &[]).severity;
        assert_eq!([79, 80, 100].map(severity), [Severity::Ok, Severity::Warning, Severity::Error]);
        let none = only(Limits { max_storage: Some(0), ..Limits::default() }, &[]);
        assert!(none.message.contains("not allowed"), "{none:?}");
    }

    #[test]
    fn numbers_of_streams_and_consumers_are_limits_too() {
        let of = |limits, missing: &[MissingStream]| only(limits, missing).message;
        let streams = Limits { max_streams: Some(1), streams: 1, ..Limits::default() };
        assert!(of(streams, &missing()).contains("1 of 1 streams exist, and 1 are missing"));
        let size = Limits { max_stream_bytes: Some(GIB), ..Limits::default() };
        assert!(of(size, &missing()).contains("JOBS reserves 2.0 GiB"));
        let consumers = |max| only(Limits { max_consumers: Some(max), ..Limits::default() }, &[]).severity;
        assert_eq!([1, 2, 100].map(consumers), [Severity::Error, Severity::Warning, Severity::Ok]);
    }

    #[test]
    fn limits_that_the_role_hides_are_skipped_with_the_way_to_see_them() {
        let found = findings(&Account::Denied, &missing(), 1);
        assert_eq!(found[0].severity, Severity::Skipped);
        assert!(found[0].message.contains("nats account info"));
    }
}
