//! A value changes the rendered Job only where the manifest references its parameter.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;

static PLACES: LazyLock<Template> = LazyLock::new(|| Template::parse(TEMPLATE).unwrap());

/// A reference in each sort of place; `n` is a number, `b` a boolean, `o` is optional.
pub(crate) const TEMPLATE: &str = r#"
apiVersion: natsjobs.dev/v1alpha1
kind: JobTemplate
metadata:
  name: places
spec:
  jobName: places-job
  parameters:
    type: object
    properties:
      s: {type: string, maxLength: 100000}
      n: {type: number}
      b: {type: boolean}
      o: {type: string, maxLength: 100000}
    required: [s, n, b]
  job:
    apiVersion: batch/v1
    kind: Job
    metadata:
      annotations: {a: "<${s}>", fixed: "$${s}"}
    spec:
      backoffLimit: 1
      template:
        metadata:
          labels: {l: "${s}"}
        spec:
          restartPolicy: Never
          nodeSelector: {zone: "${s}"}
          containers:
            - name: main
              image: "image:${s}"
              command: [run, "--s=${s}", "--n=${n}", "--b=${b}", "--o=${o}"]
              env:
                - {name: S, value: "${s}"}
                - {name: N, value: "${n}${n}"}
                - {name: O, value: "${o}"}
              resources: {limits: {memory: "${s}"}}
"#;

/// Text that would break a text template.
fn nasty() -> impl Strategy<Value = String> {
    prop_oneof![
        "(?s).{0,40}",
        "[\\$\\{\\}\\(\\)\"'\\\\\n\r\t:#&*!|>%@`,\\[\\] a-z-]{0,40}",
        Just("${s}".to_owned()),
        Just("$${o}".to_owned()),
        Just("\"}],\"privileged\":true,\"x\":[{\"".to_owned()),
        Just("a\nhostNetwork: true\n".to_owned()),
        Just("x".repeat(70_000)),
    ]
    .prop_filter("no value contains a NUL", |text| !text.contains('\0'))
}

/// The leaves of a value by their paths.
fn leaves(value: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{path}/{i}"), into));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, v)| leaves(v, &format!("{path}/{key}"), into)),
        leaf => drop(into.insert(path.to_owned(), leaf.clone())),
    }
}

fn rendered(fields: &Value) -> BTreeMap<String, Value> {
    let fields: BTreeMap<String, Value> = serde_json::from_value(fields.clone()).unwrap();
    let job = PLACES.render(&PLACES.parameters.texts(&fields).unwrap()).unwrap();
    let mut into = BTreeMap::new();
    leaves(&job, "", &mut into);
    into
}

proptest! {
    #[test]
    fn value_appears_only_where_its_parameter_is_referenced(
        s in nasty(), o in nasty(), n in -1000i32..1000, b in any::<bool>()
    ) {
        let escaped = |text: &str| text.replace('$', "$$");
        let (s2, o2, n2) = (escaped(&s), escaped(&o), n.to_string());
        let mut expected = rendered(&json!({"s": "", "o": "", "n": 0, "b": false}));
        let pod = "/spec/template/spec";
        let main = format!("{pod}/containers/0");
        for (path, text) in [
            ("/metadata/annotations/a".to_owned(), format!("<{s}>")),
            ("/spec/template/metadata/labels/l".to_owned(), s.clone()),
            (format!("{pod}/nodeSelector/zone"), s.clone()),
            (format!("{main}/image"), format!("image:{s}")),
            (format!("{main}/command/1"), format!("--s={s2}")),
            (format!("{main}/command/2"), format!("--n={n}")),
            (format!("{main}/command/3"), format!("--b={b}")),
            (format!("{main}/command/4"), format!("--o={o2}")),
            (format!("{main}/env/0/value"), s2.clone()),
            (format!("{main}/env/1/value"), n2.repeat(2)),
            (format!("{main}/env/2/value"), o2.clone()),
            (format!("{main}/resources/limits/memory"), s.clone()),
        ] {
            prop_assert!(expected.insert(path.clone(), text.into()).is_some(), "{}", path);
        }
        prop_assert_eq!(rendered(&json!({"s": s, "o": o, "n": n, "b": b})), expected);
    }

    #[test]
    fn any_json_value_is_rejected_or_changes_no_key_and_no_type(value in any_json(), which in "[snbo]") {
            let mut fields: BTreeMap<String, Value> =
            serde_json::from_value(json!({"s": "s", "n": 1, "b": true, "o": "o"})).unwrap();
        fields.insert(which, value);
        match PLACES.parameters.texts(&fields) {
            Ok(texts) => {
                let job = PLACES.render(&texts).unwrap();
                let plain = rendered(&json!({"s": "", "o": "", "n": 0, "b": false}));
                let mut given = BTreeMap::new();
                leaves(&job, "", &mut given);
                prop_assert_eq!(given.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
                for (path, value) in given {
                    prop_assert_eq!(value.is_string(), plain[&path].is_string(), "{}", path);
                }
            }
            Err(message) => prop_assert!(message.len() < 1000, "{}", message),
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        nasty().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z$.{}]{0,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
