//! Mutates an input: its lines, JSON values in a line, and bytes.

use fastrand::Rng;
use serde_json::{Value, json};

/// Bytes and text that often break parsers.
const TOKENS: [&[u8]; 26] = [
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"\r\n",
    b"\t",
    b"\xff\xfe",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"-",
    b".",
    b"${foo}",
    b"$(A)",
    b"$$",
    b"null",
    b"1e999",
    b"18446744073709551616",
    b"\xf0\x9f\x98\x80",
];

pub(super) fn mutate(input: &[u8], other: &[u8], random: &mut Rng) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = split(input);
    let others = split(other);
    for _ in 0..random.u32(1..=4) {
        match random.u32(..10) {
            0..=2 => mutate_lines(&mut lines, &others, random),
            3..=7 => {
                let (line, from) = (pick(&lines, random), pick(&others, random));
                if let Some(line) = line {
                    mutate_json(&mut lines[line], from.map(|from| others[from].as_slice()), random);
                }
            }
            _ => {
                if let Some(line) = pick(&lines, random) {
                    mutate_bytes(&mut lines[line], random);
                }
            }
        }
    }
    lines.concat()
}

fn split(input: &[u8]) -> Vec<Vec<u8>> {
    input.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn pick<T>(of: &[T], random: &mut Rng) -> Option<usize> {
    (!of.is_empty()).then(|| random.usize(..of.len()))
}

fn mutate_lines(lines: &mut Vec<Vec<u8>>, others: &[Vec<u8>], random: &mut Rng) {
    let Some(at) = pick(lines, random) else { return lines.extend_from_slice(others) };
    match random.u32(..6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(random.usize(..=lines.len()), lines[at].clone()),
        2 => {
            let with = random.usize(..lines.len());
            lines.swap(at, with);
        }
        3 | 4 => {
            if let Some(from) = pick(others, random) {
                let to = random.usize(from..=others.len()).min(from + 8);
                drop(lines.splice(at..at, others[from..to].iter().cloned()));
            }
        }
        _ => lines.truncate(at + 1),
    }
}

fn mutate_bytes(line: &mut Vec<u8>, random: &mut Rng) {
    let at = random.usize(..=line.len());
    let to = (at + random.usize(..8)).min(line.len());
    match random.u32(..5) {
        0 if at < line.len() => line[at] ^= 1 << random.u32(..8),
        1 => drop(line.drain(at..to)),
        2 => drop(line.splice(at..at, (0..random.usize(..16)).map(|_| random.u8(..)).collect::<Vec<_>>())),
        3 => {
            let part = line[at..to].to_vec();
            let times = random.usize(..64);
            drop(line.splice(at..at, part.repeat(times)));
        }
        _ => drop(line.splice(at..to, random.choice(TOKENS).unwrap_or_default().iter().copied())),
    }
}

/// Changes one JSON value in the line; changes bytes if the line is not JSON.
fn mutate_json(line: &mut Vec<u8>, other: Option<&[u8]>, random: &mut Rng) {
    let Ok(mut value) = serde_json::from_slice::<Value>(line) else { return mutate_bytes(line, random) };
    let other = other.and_then(|other| serde_json::from_slice::<Value>(other).ok());
    mutate_value(&mut value, other, random);
    *line = value.to_string().into_bytes();
    line.push(b'\n');
}

fn mutate_value(value: &mut Value, other: Option<Value>, random: &mut Rng) {
    let descend = random.u32(..5) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let key = fields.keys().nth(random.usize(..fields.len())).cloned().unwrap_or_default();
            let found = fields.get_mut(&key);
            let counterpart = other.and_then(|other| Some(other.get(&key)?.clone()));
            match (descend, random.u32(..4)) {
                (true, _) => {
                    found.into_iter().for_each(|found| mutate_value(found, counterpart.clone(), random));
                }
                (false, 0) => drop(fields.remove(&key)),
                (false, 1) => {
                    let moved = fields.remove(&key).unwrap_or_default();
                    fields.insert(format!("{key}{}", text(random)), moved);
                }
                (false, 2) => drop(fields.insert(key, counterpart.unwrap_or_else(|| any(random)))),
                (false, _) => drop(fields.insert(text(random), any(random))),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = random.usize(..items.len());
            match (descend, random.u32(..3)) {
                (true, _) => {
                    mutate_value(&mut items[at], other.and_then(|other| Some(other.get(0)?.clone())), random);
                }
                (false, 0) => drop(items.remove(at)),
                (false, 1) => items.insert(at, items[at].clone()),
                (false, _) => items.insert(at, any(random)),
            }
        }
        Value::String(found) if random.u32(..4) > 0 => {
            let mut bytes = std::mem::take(found).into_bytes();
            mutate_bytes(&mut bytes, random);
            *found = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Number(number) if random.u32(..4) > 0 => {
            let near = number.as_i64().unwrap_or_default().saturating_add(random.i64(-2..=2));
            *value = near.into();
        }
        // The value at the same path in the other input.
        value => *value = other.filter(|_| random.bool()).unwrap_or_else(|| any(random)),
    }
}

fn any(random: &mut Rng) -> Value {
    match random.u32(..14) {
        0 => Value::Null,
        1 => random.bool().into(),
        2 => random.i64(-3..=300).into(),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(1.5e300),
        6 => json!(""),
        7 => json!("a".repeat(random.usize(..5000))),
        8 => json!([]),
        9 => json!({}),
        10 => (0..random.usize(..200)).fold(json!([]), |inside, _| json!([inside])),
        11 => json!("2026-01-01T00:00:00Z"),
        _ => text(random).into(),
    }
}

fn text(random: &mut Rng) -> String {
    let token = random.choice(TOKENS).unwrap_or_default();
    String::from_utf8_lossy(token).repeat(random.usize(..3))
}
