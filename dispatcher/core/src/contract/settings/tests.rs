use serde_json::json;

use super::*;

const MAX_PAYLOAD: u64 = 1024 * 1024;
const STREAMS: [Owner; 4] = [Owner::Requests, Owner::StatusEvents, Owner::DeadLetters, Owner::Cancellations];

/// A configuration as a server returns it for the shipped definition.
fn shipped(owner: Owner) -> Value {
    let (discard, subject, retention, age) = match owner {
        Owner::Requests => ("new", "jobs.simple.create", "workqueue", 0),
        Owner::StatusEvents => ("old", "dispatcher.event.*.*", "limits", 720 * HOUR),
        Owner::DeadLetters => ("old", "jobs.*.rejected.*", "limits", 720 * HOUR),
        Owner::Cancellations => ("new", "$KV.JOB_CANCELS.>", "limits", 0),
        Owner::Consumer => {
            return json!({
                "ack_policy": "explicit", "ack_wait": 60 * SECOND, "deliver_policy": "all",
                "durable_name": "dispatcher-simple", "filter_subject": "jobs.simple.create",
                "max_ack_pending": 10_000, "max_deliver": -1, "max_waiting": 512, "num_replicas": 0,
                "replay_policy": "instant",
            });
        }
    };
    json!({
        "name": "S", "subjects": [subject], "retention": retention, "storage": "file", "discard": discard,
        "discard_new_per_subject": owner == Owner::Requests, "max_age": age, "max_bytes": 1_i64 << 30,
        "max_consumers": -1, "max_msgs": if owner == Owner::DeadLetters { 200_000 } else { -1 },
        "max_msg_size": match owner {
            Owner::Requests => 65_536,
            Owner::StatusEvents => -1,
            Owner::DeadLetters => 16_384,
            _ => 4_096,
        },
        "max_msgs_per_subject": 1000, "num_replicas": 1, "duplicate_window": SHORTEST_DUPLICATE_WINDOW,
        "compression": "none", "allow_direct": true, "mirror_direct": false, "sealed": false,
        "deny_delete": false, "deny_purge": false, "allow_rollup_hdrs": owner == Owner::Cancellations,
        "consumer_limits": {}, "allow_msg_ttl": false, "metadata": {"_nats.ver": "2.15.1"},
        "republish": if owner == Owner::StatusEvents { json!({"src": "a", "dest": "b"}) } else { Value::Null },
    })
}

/// The findings after one field has changed.
fn with(owner: Owner, field: &str, value: Value) -> Vec<(Severity, String)> {
    let mut found = shipped(owner);
    found[field] = value;
    let found = findings(&NatsNames::default(), owner, &shipped(owner), &found, MAX_PAYLOAD);
    found.into_iter().map(|finding| (finding.severity, finding.to_string())).collect()
}

fn assert_harmful(owner: Owner, field: &str, value: &Value) {
    match &with(owner, field, value.clone())[..] {
        [(Severity::Harmful, text)] => {
            assert!(text.starts_with(&format!("{field}: found {value}, must be ")), "{text}");
        }
        other => panic!("{owner:?} {field}={value}: {other:?}"),
    }
}

fn assert_harmless(owner: Owner, field: &str, value: &Value) {
    assert_eq!(with(owner, field, value.clone()), [], "{owner:?} {field}={value}");
}

fn assert_warning(owner: Owner, field: &str, value: &Value) {
    let found = with(owner, field, value.clone());
    assert!(matches!(&found[..], [(Severity::Warning, _)]), "{owner:?} {field}={value}: {found:?}");
}

#[test]
fn shipped_settings_are_harmless() {
    for owner in STREAMS.into_iter().chain([Owner::Consumer]) {
        assert_eq!(
            findings(&NatsNames::default(), owner, &shipped(owner), &shipped(owner), MAX_PAYLOAD),
            [],
            "{owner:?}"
        );
    }
}

#[test]
fn settings_that_add_remove_or_hide_messages_are_harmful_in_every_stream() {
    for owner in STREAMS {
        for (field, value) in [
            ("allow_msg_ttl", json!(true)),
            ("subject_delete_marker_ttl", json!(HOUR)),
            ("allow_msg_schedules", json!(true)),
            ("allow_msg_counter", json!(true)),
            ("allow_atomic", json!(true)),
            ("allow_batched", json!(true)),
            ("sealed", json!(true)),
            ("no_ack", json!(true)),
            ("mirror", json!({"name": "OTHER"})),
            ("sources", json!([{"name": "OTHER"}])),
            ("subject_transform", json!({"src": ">", "dest": "x.>"})),
            ("republish", json!({"src": ">", "dest": "x.>"})),
            ("retention", json!("interest")),
            ("storage", json!("memory")),
            ("persist_mode", json!("async")),
            ("consumer_limits", json!({"max_ack_pending": 5})),
            ("max_consumers", json!(3)),
        ] {
            assert_harmful(owner, field, &value);
        }
    }
}

#[test]
fn rollup_is_harmful_except_in_the_bucket() {
    for owner in [Owner::Requests, Owner::StatusEvents, Owner::DeadLetters] {
        assert_harmful(owner, "allow_rollup_hdrs", &json!(true));
    }
    assert_harmless(Owner::Cancellations, "allow_rollup_hdrs", &json!(false));
}

#[test]
fn setting_of_a_newer_server_is_harmful_unless_empty() {
    for owner in STREAMS.into_iter().chain([Owner::Consumer]) {
        for value in [json!(true), json!(1), json!("on"), json!(["x"]), json!({"a": {"b": 1}})] {
            assert_harmful(owner, "allow_time_travel", &value);
        }
        for value in [json!(null), json!(false), json!(0), json!(""), json!([]), json!({"a": {"b": false}})] {
            assert_harmless(owner, "allow_time_travel", &value);
        }
    }
}

#[test]
fn settings_of_the_operator_are_harmless() {
    for owner in STREAMS {
        for (field, value) in [
            ("num_replicas", json!(3)),
            ("placement", json!({"cluster": "c", "tags": ["ssd"]})),
            ("description", json!("ours")),
            ("metadata", json!({"team": "a"})),
            ("compression", json!("s2")),
            ("max_bytes", json!(1_i64 << 40)),
            ("deny_delete", json!(true)),
            ("allow_direct", json!(false)),
            ("persist_mode", json!("default")),
        ] {
            assert_harmless(owner, field, &value);
        }
    }
    for (field, value) in [
        ("max_batch", json!(10)),
        ("max_expires", json!(SECOND)),
        ("max_bytes", json!(100_000)),
        ("num_replicas", json!(3)),
        ("max_ack_pending", json!(-1)),
        ("inactive_threshold", json!(3600 * SECOND)),
        ("ack_wait", json!(90 * SECOND)),
    ] {
        assert_harmless(Owner::Consumer, field, &value);
    }
}

#[test]
fn ages_and_sizes_that_break_a_guarantee_are_harmful() {
    assert_harmful(Owner::Requests, "max_age", &json!(HOUR));
    assert_harmful(Owner::Cancellations, "max_age", &json!(HOUR));
    for owner in [Owner::StatusEvents, Owner::DeadLetters] {
        assert_harmful(owner, "max_age", &json!(6 * SECOND));
        assert_harmless(owner, "max_age", &json!(0));
        assert_harmless(owner, "max_age", &json!(24 * HOUR));
    }
    for (owner, least) in
        [(Owner::DeadLetters, 16_384), (Owner::Cancellations, 4096), (Owner::StatusEvents, MAX_PAYLOAD)]
    {
        assert_harmful(owner, "max_msg_size", &json!(least - 1));
        assert_harmless(owner, "max_msg_size", &json!(least));
        assert_harmless(owner, "max_msg_size", &json!(-1));
    }
    assert_harmful(Owner::StatusEvents, "max_msgs", &json!(1));
    assert_harmful(Owner::Cancellations, "deny_purge", &json!(true));
    assert_harmless(Owner::Requests, "deny_purge", &json!(true));
}

#[test]
fn what_lets_one_client_harm_another_is_a_warning() {
    for owner in STREAMS {
        assert_warning(owner, "max_bytes", &json!(-1));
    }
    assert_warning(Owner::Requests, "duplicate_window", &json!(120 * SECOND));
    assert_warning(Owner::Requests, "max_msg_size", &json!(-1));
    assert_warning(Owner::DeadLetters, "max_msgs", &json!(-1));
    assert_warning(Owner::StatusEvents, "max_msgs_per_subject", &json!(-1));
    assert_warning(Owner::StatusEvents, "max_msgs_per_subject", &json!(1_000_000));
}

#[test]
fn only_subjects_of_templates_are_harmless_in_the_request_stream() {
    assert_harmless(Owner::Requests, "subjects", &json!(["jobs.simple.create", "jobs.old.create"]));
    for subject in ["jobs.*.create", "jobs.>", "other", "jobs.Simple.create", "jobs.a.create.b"] {
        assert_harmful(Owner::Requests, "subjects", &json!(["jobs.simple.create", subject]));
    }
}

#[test]
fn consumer_settings_that_hide_or_delay_requests_are_harmful() {
    for (field, value) in [
        ("headers_only", json!(true)),
        ("ack_policy", json!("none")),
        ("deliver_policy", json!("new")),
        ("filter_subject", json!("jobs.other.create")),
        ("filter_subjects", json!(["jobs.simple.create", "jobs.other.create"])),
        ("max_deliver", json!(5)),
        ("replay_policy", json!("original")),
        ("backoff", json!([SECOND])),
        ("priority_groups", json!(["a"])),
        ("priority_policy", json!("overflow")),
        ("mem_storage", json!(true)),
        ("deliver_subject", json!("push")),
        ("max_waiting", json!(1)),
        ("max_ack_pending", json!(1)),
        ("inactive_threshold", json!(SECOND)),
    ] {
        assert_harmful(Owner::Consumer, field, &value);
    }
}

#[test]
fn field_that_the_server_leaves_out_differs_from_the_shipped_one() {
    let mut found = shipped(Owner::StatusEvents);
    found.as_object_mut().unwrap().remove("republish");
    let found = findings(
        &NatsNames::default(),
        Owner::StatusEvents,
        &shipped(Owner::StatusEvents),
        &found,
        MAX_PAYLOAD,
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].to_string().starts_with("republish: found null, must be {"), "{}", found[0]);
}
