//! The permissions of the shipped roles (`nats-config/roles/`), for an installation with a prefix.
//!
//! Pure. Rewrites each quoted subject of the files; comments and the rest stay.

use dispatcher_core::contract::nats_names::NatsNames;

/// The files that contain subjects and streams of the dispatcher.
const ROLES: [(&str, &str); 6] = [
    ("dispatcher.conf", include_str!("../../../nats-config/roles/dispatcher.conf")),
    ("dispatcher-no-provision.conf", include_str!("../../../nats-config/roles/dispatcher-no-provision.conf")),
    ("reader.conf", include_str!("../../../nats-config/roles/reader.conf")),
    ("reader-imports.conf", include_str!("../../../nats-config/roles/reader-imports.conf")),
    ("submitter.conf", include_str!("../../../nats-config/roles/submitter.conf")),
    ("submitter-imports.conf", include_str!("../../../nats-config/roles/submitter-imports.conf")),
];

/// The name and content of each file of the roles.
#[must_use]
pub fn files(names: &NatsNames) -> Vec<(&'static str, String)> {
    ROLES.iter().map(|(name, text)| (*name, with_names(names, text))).collect()
}

fn with_names(names: &NatsNames, text: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.trim_start().starts_with('#') {
            return line.to_owned();
        }
        // Every second part is between quotes.
        let parts = line.split('"').enumerate();
        let parts: Vec<_> =
            parts.map(|(n, part)| if n % 2 == 1 { subject(names, part) } else { part.to_owned() }).collect();
        parts.join("\"")
    });
    lines.map(|line| line + "\n").collect()
}

/// A subject of the files with the names of the installation.
fn subject(names: &NatsNames, subject: &str) -> String {
    let plain = NatsNames::default();
    let bucket = (plain.cancels_bucket(), names.cancels_bucket());
    let renamed: Vec<_> = plain.streams().into_iter().zip(names.streams()).chain([bucket]).collect();
    let is_ours = subject.starts_with("jobs.") || subject.starts_with("dispatcher.");
    let tokens = subject.split('.').map(|token| match renamed.iter().find(|(from, _)| token == *from) {
        Some((_, to)) => to,
        // The service in `$SRV.*.dispatcher`, and the inboxes in `_INBOX.dispatcher.>`.
        None if !is_ours && token == plain.service() => names.service(),
        None => token,
    });
    let prefix = names.prefix().filter(|_| is_ours);
    prefix.into_iter().chain(tokens).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_prefix_the_files_are_the_shipped_ones() {
        for ((name, text), (_, shipped)) in files(&NatsNames::default()).iter().zip(ROLES) {
            assert_eq!(text, shipped, "{name}");
        }
    }

    #[test]
    fn every_subject_and_stream_has_the_prefix() {
        let names = NatsNames::with_prefix("blue").unwrap();
        for (plain, expected) in [
            ("jobs.*.create", "blue.jobs.*.create"),
            ("dispatcher.event.*.*", "blue.dispatcher.event.*.*"),
            ("$JS.API.STREAM.INFO.JOBS", "$JS.API.STREAM.INFO.blue_JOBS"),
            ("$JS.API.CONSUMER.MSG.NEXT.JOB_STATUS.*", "$JS.API.CONSUMER.MSG.NEXT.blue_JOB_STATUS.*"),
            (
                "JS.DISPATCHER.API.DIRECT.GET.JOB_REJECTED.>",
                "JS.DISPATCHER.API.DIRECT.GET.blue_JOB_REJECTED.>",
            ),
            ("$JS.API.STREAM.PURGE.KV_JOB_CANCELS", "$JS.API.STREAM.PURGE.KV_blue_JOB_CANCELS"),
            ("$KV.JOB_CANCELS.>", "$KV.blue_JOB_CANCELS.>"),
            ("$SRV.*.dispatcher.*", "$SRV.*.blue_dispatcher.*"),
            ("_INBOX.dispatcher.>", "_INBOX.blue_dispatcher.>"),
            ("$JS.API.STREAM.NAMES", "$JS.API.STREAM.NAMES"),
            ("_INBOX.submitter.>", "_INBOX.submitter.>"),
        ] {
            assert_eq!(subject(&names, plain), expected);
        }
    }
}
