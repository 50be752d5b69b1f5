//! Values that probably satisfy a parameter's schema. Whether one does is for the validator to decide.

use regex_syntax::hir::{Class, Hir, HirKind};
use serde_json::{Map, Number, Value};

use crate::template::{bounds, quantity};

/// The most alternatives (`anyOf`, `oneOf`) of a schema.
const MAX_ALTERNATIVES: usize = 16;
/// The deepest chain of `$ref`, `allOf`, `anyOf` and `oneOf`.
const MAX_DEPTH: usize = 8;
/// The longest text, in bytes.
const MAX_LENGTH: usize = 4096;
/// How many further repetitions a text of a pattern gets, to reach a `minLength`.
const REPETITIONS: [u32; 9] = [0, 1, 2, 3, 7, 15, 31, 63, 255];

/// Examples of the formats of JSON Schema and of quantities.
const FORMATS: [(&str, &str); 19] = [
    ("date", "2026-01-31"),
    ("date-time", "2026-01-31T12:00:00Z"),
    ("duration", "PT1H"),
    ("email", "x@example.com"),
    ("hostname", "x"),
    ("hostname", "x.example.com"),
    ("idn-email", "x@example.com"),
    ("idn-hostname", "x.example.com"),
    ("ipv4", "192.0.2.1"),
    ("ipv6", "2001:db8::1"),
    ("iri", "https://example.com/x"),
    ("json-pointer", "/x"),
    (quantity::FORMAT, "64Mi"),
    (quantity::FORMAT, "1"),
    ("regex", "x"),
    ("time", "12:00:00Z"),
    ("uri", "https://example.com/x"),
    ("uri-reference", "/x"),
    ("uuid", "018f3a1e-7c2b-7a10-9d3c-1a2b3c4d5e6f"),
];

/// Values for a schema, the preferred ones first. `root` is the document that `$ref` refers to.
pub(super) fn candidates(schema: &Value, root: &Value) -> Vec<Value> {
    let mut values = Vec::new();
    for conjunction in alternatives(schema, root, MAX_DEPTH) {
        values.extend(of_conjunction(&conjunction));
    }
    values
}

/// The alternatives of a schema, each as the list of schemas that all apply.
fn alternatives<'a>(schema: &'a Value, root: &'a Value, depth: usize) -> Vec<Vec<&'a Map<String, Value>>> {
    let Some(object) = schema.as_object().filter(|_| depth > 0) else { return vec![Vec::new()] };
    let mut all = vec![vec![object]];
    let target = object.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    let every = object.get("allOf").and_then(Value::as_array).into_iter().flatten();
    for schema in target.and_then(|pointer| root.pointer(pointer)).into_iter().chain(every) {
        all = product(&all, &alternatives(schema, root, depth - 1));
    }
    for keyword in ["anyOf", "oneOf"] {
        let Some(choices) = object.get(keyword).and_then(Value::as_array) else { continue };
        let choices: Vec<_> =
            choices.iter().flat_map(|choice| alternatives(choice, root, depth - 1)).collect();
        all = product(&all, &choices);
    }
    all
}

fn product<'a>(
    left: &[Vec<&'a Map<String, Value>>],
    right: &[Vec<&'a Map<String, Value>>],
) -> Vec<Vec<&'a Map<String, Value>>> {
    let pairs = left.iter().flat_map(|left| right.iter().map(move |right| [&left[..], right].concat()));
    pairs.take(MAX_ALTERNATIVES).collect()
}

fn of_conjunction(schemas: &[&Map<String, Value>]) -> Vec<Value> {
    let get = |keyword: &str| schemas.iter().filter_map(|schema| schema.get(keyword)).collect::<Vec<_>>();
    let mut values: Vec<Value> = Vec::new();
    values.extend(get("default").into_iter().cloned());
    for list in ["examples", "enum"] {
        values.extend(get(list).into_iter().filter_map(Value::as_array).flatten().cloned());
    }
    values.extend(get("const").into_iter().cloned());
    if get("x-truthy").contains(&&Value::Bool(true)) {
        values.push(true.into());
    }
    let mut types: Vec<&str> = Vec::new();
    for kind in get("type") {
        types.extend(kind.as_str());
        types.extend(kind.as_array().into_iter().flatten().filter_map(Value::as_str));
    }
    if types.is_empty() {
        types = vec!["string", "integer", "boolean"];
    }
    for kind in types {
        match kind {
            "string" => values.extend(texts(&get).into_iter().map(Value::from)),
            "integer" | "number" => values.extend(numbers(&get)),
            "boolean" => values.extend([true.into(), false.into()]),
            _ => {}
        }
    }
    values
}

fn texts<'a>(get: &impl Fn(&str) -> Vec<&'a Value>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for pattern in get("pattern").into_iter().filter_map(Value::as_str) {
        texts.extend(matches(pattern));
    }
    for bound in [bounds::MINIMUM, bounds::MAXIMUM] {
        let limits = get(bound).into_iter();
        texts.extend(limits.filter_map(|limit| {
            limit.as_str().map_or_else(|| Some(limit.to_string()), |it| Some(it.to_owned()))
        }));
    }
    for format in get("format").into_iter().filter_map(Value::as_str) {
        texts.extend(FORMATS.iter().filter(|(name, _)| *name == format).map(|(_, text)| (*text).to_owned()));
    }
    let least = get("minLength").into_iter().filter_map(Value::as_u64).max().unwrap_or(1).max(1);
    texts.push("x".repeat(usize::try_from(least).unwrap_or(MAX_LENGTH).min(MAX_LENGTH)));
    texts
}

fn numbers<'a>(get: &impl Fn(&str) -> Vec<&'a Value>) -> Vec<Value> {
    let of = |keyword: &str| get(keyword).into_iter().filter_map(Value::as_f64).collect::<Vec<_>>();
    let mut numbers = vec![1.0];
    for limit in of("minimum").into_iter().chain(of("exclusiveMinimum")) {
        numbers.extend([limit, limit + 1.0, limit.ceil(), limit + 0.001]);
    }
    for limit in of("maximum").into_iter().chain(of("exclusiveMaximum")) {
        numbers.extend([limit, limit - 1.0, limit.floor(), limit - 0.001]);
    }
    for step in of("multipleOf") {
        let multiples: Vec<f64> = numbers.iter().map(|number| (number / step).ceil() * step).collect();
        numbers.extend(multiples);
    }
    numbers.push(0.0);
    numbers.into_iter().filter_map(number).collect()
}

/// A JSON number, a whole one without a fraction.
fn number(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        return format!("{number:.0}").parse::<i64>().ok().map(Value::from);
    }
    Number::from_f64(number).map(Value::Number)
}

/// Texts that match the pattern, from short to long.
fn matches(pattern: &str) -> Vec<String> {
    let Ok(hir) = regex_syntax::parse(pattern) else { return Vec::new() };
    let mut texts: Vec<String> = Vec::new();
    for choice in 0..4 {
        for more in REPETITIONS {
            let mut text = String::new();
            if extend(&mut text, &hir, more, choice) && !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    texts
}

/// Appends a match, with `more` repetitions than needed and the alternative `choice`; `false` if the
/// text becomes too long or nothing matches.
fn extend(text: &mut String, hir: &Hir, more: u32, choice: usize) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(literal) => {
                text.push_str(literal);
                text.len() <= MAX_LENGTH
            }
            Err(_) => false,
        },
        HirKind::Class(class) => char_of(class).is_some_and(|char| {
            text.push(char);
            text.len() <= MAX_LENGTH
        }),
        HirKind::Repetition(repetition) => {
            let count = repetition.min.saturating_add(more).min(repetition.max.unwrap_or(u32::MAX));
            (0..count).all(|_| extend(text, &repetition.sub, more, choice))
        }
        HirKind::Capture(capture) => extend(text, &capture.sub, more, choice),
        HirKind::Concat(parts) => parts.iter().all(|part| extend(text, part, more, choice)),
        HirKind::Alternation(choices) => choices
            .get(choice.min(choices.len().saturating_sub(1)))
            .is_some_and(|it| extend(text, it, more, choice)),
    }
}

/// A character of the class: a readable one, if there is one.
fn char_of(class: &Class) -> Option<char> {
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.ranges().iter().map(|range| (range.start(), range.end())).collect(),
        Class::Bytes(class) => {
            class.ranges().iter().map(|range| (char::from(range.start()), char::from(range.end()))).collect()
        }
    };
    let has = |char: &char| ranges.iter().any(|(start, end)| (start..=end).contains(&char));
    let readable = "x1".chars().chain('a'..='z').chain('0'..='9').chain('A'..='Z').chain("-_./: ".chars());
    readable.into_iter().find(has).or_else(|| ranges.first().map(|(start, _)| *start))
}
