use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{contract::headers::safe_value, testing::simple};

fn identity(message_id: Option<&str>) -> Identity {
    Identity::of(&envelope(message_id)).unwrap()
}

fn envelope(message_id: Option<&str>) -> Envelope<'_> {
    Envelope { payload: b"", message_id, stream: "JOBS 2026-01-01T00:00:00Z", sequence: 17, stored_nanos: 5 }
}

fn parse(payload: &Value) -> Result<Request, Rejection> {
    Request::parse(&simple(), identity(Some("id-1")), payload.to_string().as_bytes())
}

#[test]
fn request_without_a_name_gets_the_default_name() {
    let request = parse(&json!({"foo": "foo-15"})).unwrap();
    assert_eq!(request.name.as_ref(), "simple-job-foo-15");
    assert_eq!(request.values, BTreeMap::from([("foo".to_owned(), "foo-15".to_owned())]));
    assert_eq!(
        request.identity,
        Identity { id: "id-1".try_into().unwrap(), client_supplied: true, sequence: 17 }
    );
}

#[test]
fn x_truthy_parameter_is_true_if_truthy_in_javascript() {
    for truthy in
        [json!(true), json!(1), json!(-1.5), json!("false"), json!("0"), json!(" "), json!([]), json!({})]
    {
        assert_eq!(parse(&json!({"foo": "a", "fail": truthy})).unwrap().values["fail"], "true");
    }
    for falsy in [json!(false), json!(0), json!(-0.0), json!(0.0), json!(""), json!(null)] {
        assert!(!parse(&json!({"foo": "a", "fail": falsy})).unwrap().values.contains_key("fail"));
    }
}

#[test]
fn invalid_request_is_rejected_with_the_field_and_the_rule() {
    use Reason::{InvalidJson, InvalidName, InvalidRequest};
    let long = "x".repeat(1025);
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (payload, reason, parts) in [
        ("", InvalidJson, ["empty", "JSON object"]),
        ("{\"foo\":", InvalidJson, ["EOF", "JSON object"]),
        (deep.as_str(), InvalidRequest, ["", "JSON object"]),
        ("[1]", InvalidRequest, ["found an array", "JSON object"]),
        ("\"foo\"", InvalidRequest, ["found a string", "JSON object"]),
        ("{}", InvalidRequest, ["`foo`", "required"]),
        (r#"{"foo":15}"#, InvalidRequest, ["`foo`: expected a string", "found a number"]),
        (r#"{"foo":null}"#, InvalidRequest, ["`foo`: expected a string", "found null"]),
        (r#"{"foo":"a","foo":"b"}"#, InvalidRequest, ["\"foo\"", "duplicate field"]),
        (
            r#"{"foo":"a","image":"x"}"#,
            InvalidRequest,
            ["unknown field \"image\"", "fail, foo, generateName, name"],
        ),
        (r#"{"foo":"a\u0000","name":"b"}"#, InvalidRequest, ["`foo`", "NUL"]),
        (
            &format!(r#"{{"foo":"{long}","name":"b"}}"#),
            InvalidRequest,
            ["at most 1024 characters", "found 1025"],
        ),
        (r#"{"foo":"Not_A_Label"}"#, InvalidName, ["`foo`", "\"simple-job-Not_A_Label\""]),
        (r#"{"foo":"a","name":"x.y"}"#, InvalidName, ["`name`: \"x.y\"", "RFC 1123"]),
        (r#"{"foo":"a","name":7}"#, InvalidName, ["`name`: expected a string", "found a number"]),
        (r#"{"foo":"a","generateName":"-x"}"#, InvalidName, ["`generateName`: \"-x\"", "1 to 51"]),
        (
            r#"{"foo":"a","generateName":[]}"#,
            InvalidName,
            ["`generateName`: expected a string", "found an array"],
        ),
        (
            r#"{"foo":"a","name":"b","generateName":"c"}"#,
            InvalidName,
            ["`generateName`", "together with `name`"],
        ),
    ] {
        let rejection = Request::parse(&simple(), identity(None), payload.as_bytes()).unwrap_err();
        assert_eq!(rejection.reason, reason, "{payload}: {rejection}");
        for part in parts {
            assert!(rejection.message.contains(part), "{payload}: {} lacks {part}", rejection.message);
        }
    }
}

#[test]
fn every_payload_of_the_corpus_is_rejected() {
    let corpus = crate::testing::bad_requests();
    assert!(corpus.len() >= 200, "{}", corpus.len());
    for bad in corpus {
        let shown: String = String::from_utf8_lossy(&bad.payload).chars().take(200).collect();
        let result = Request::parse(&simple(), identity(None), &bad.payload);
        let Err(rejection) = result else { panic!("not rejected: {shown:?}") };
        assert_eq!(rejection.reason.as_str(), bad.reason, "{shown:?}: {rejection}");
        assert!(rejection.message.contains(&bad.message), "{shown:?}: {rejection}");
        // Long values are truncated, so that a header holds the whole message.
        assert!(rejection.message.len() <= 1000, "{shown:?}: {rejection}");
        assert_eq!(safe_value(&rejection.message), rejection.message, "{shown:?}");
    }
}

#[test]
fn invalid_utf_8_is_rejected_with_its_offset() {
    let rejection = Request::parse(&simple(), identity(None), b"{\"foo\":\"\xff\"}").unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidJson);
    assert!(rejection.message.contains("offset 8"), "{rejection}");
}

#[test]
fn too_deeply_nested_json_is_rejected() {
    let deep = format!(r#"{{"foo":"a","fail":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let rejection = Request::parse(&simple(), identity(None), deep.as_bytes()).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidJson);
    assert!(rejection.message.contains("recursion limit"), "{rejection}");
}

#[test]
fn rejection_has_the_name_if_it_is_valid() {
    assert_eq!(parse(&json!({"name": "a"})).unwrap_err().name, Some("a".try_into().unwrap()));
    let unknown = parse(&json!({"foo": "a", "image": "x"})).unwrap_err();
    assert_eq!(unknown.name, Some("simple-job-a".try_into().unwrap()), "the default name");
    // An earlier version of the template may have allowed a number.
    assert_eq!(parse(&json!({"foo": 15})).unwrap_err().name, Some("simple-job-15".try_into().unwrap()));
    assert_eq!(parse(&json!({})).unwrap_err().name, None);
}

#[test]
fn generate_name_depends_only_on_the_request_id() {
    let name = |id: &str| {
        let payload = br#"{"foo":"a","generateName":"nightly-"}"#;
        Request::parse(&simple(), identity(Some(id)), payload).unwrap().name
    };
    assert_eq!(name("a"), name("a"));
    assert_ne!(name("a"), name("b"));
    assert!(name("a").as_ref().starts_with("nightly-") && name("a").as_ref().len() == 8 + 12);
}

#[test]
fn message_without_an_id_gets_one_from_its_position_and_time() {
    let base = envelope(None);
    let id = |e: Envelope<'_>| Identity::of(&e).unwrap().id;
    assert_eq!(id(base), id(base));
    assert!(!Identity::of(&base).unwrap().client_supplied);
    assert_ne!(id(base), id(Envelope { sequence: 18, ..base }));
    assert_ne!(id(base), id(Envelope { stored_nanos: 6, ..base }));
    assert_ne!(
        id(base),
        id(Envelope { stream: "JOBS 2027-01-01T00:00:00Z", ..base }),
        "the stream was recreated"
    );
}

#[test]
fn invalid_id_is_rejected_with_the_derived_one() {
    let long = "x".repeat(300);
    let (identity, rejection) = Identity::of(&envelope(Some(&long))).unwrap_err();
    assert_eq!(rejection.reason, Reason::InvalidRequestId);
    assert_eq!(identity.id, Identity::of(&envelope(None)).unwrap().id);
}

#[test]
fn hash_depends_on_the_values_and_not_on_the_formatting() {
    let hash = |payload: &str| Request::parse(&simple(), identity(None), payload.as_bytes()).unwrap().hash;
    assert_eq!(hash(r#"{"foo":"a","fail":1}"#), hash(" {\"fail\": 1,\n \"foo\": \"a\"} "));
    assert_ne!(hash(r#"{"foo":"a","name":"n"}"#), hash(r#"{"foo":"b","name":"n"}"#));
    assert_ne!(hash(r#"{"foo":"a"}"#), hash(r#"{"foo":"a","fail":false}"#));
}

/// Jobs and events of earlier versions contain the hash.
#[test]
fn hash_is_the_one_of_earlier_versions() {
    for (payload, hash) in [
        (r#"{"foo":"a","fail":1}"#, "2e88f723e8ec484df17ffab604b6f3b3aa4780b366454bf8a041485280442727"),
        (r#"{"foo":"\n\"\u00e9"}"#, "b6cdc8de3981aa72f74fbaa6ba875507bb0c913483dafa88de2a05659897b8d0"),
    ] {
        assert_eq!(Request::hash_of(&simple().name, payload.as_bytes()).as_deref(), Some(hash), "{payload}");
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_request_or_a_rejection(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&simple(), identity(None), &payload);
    }

    #[test]
    fn any_text_reaches_only_its_own_variable(foo in "\\PC{0,60}", fail in any::<bool>()) {
        let payload = json!({"foo": foo, "fail": fail, "name": "n"});
        let request = parse(&payload).unwrap();
        prop_assert_eq!(&request.values["foo"], &foo);
        let job = simple().render(&request.values).unwrap();
        let plain = parse(&json!({"foo": "x", "fail": fail, "name": "n"})).unwrap();
        let mut expected = simple().render(&plain.values).unwrap();
        let env = expected.pointer_mut("/spec/template/spec/containers/0/env").unwrap().as_array_mut().unwrap();
        env.iter_mut().find(|e| e["name"] == "FOO").unwrap()["value"] = foo.replace('$', "$$").into();
        prop_assert_eq!(job, expected);
    }
}
