//! Payloads that are not requests of the template `simple`, in tables. The unit test of the parser
//! and an end-to-end test check that each of them is rejected.

/// An invalid payload, and how it is rejected.
pub struct BadRequest {
    /// The payload.
    pub payload: Vec<u8>,
    /// The reason of the rejection.
    pub reason: &'static str,
    /// A part of the rejection's message.
    pub message: String,
}

/// All payloads.
pub fn bad_requests() -> Vec<BadRequest> {
    let tables = [
        not_json(),
        encodings(),
        numbers(),
        nested(),
        not_an_object(),
        types(),
        sizes(),
        names(),
        duplicate_fields(),
        unknown_fields(),
        missing_fields(),
    ];
    tables.into_iter().flatten().collect()
}

fn bad(payload: impl Into<Vec<u8>>, reason: &'static str, message: impl Into<String>) -> BadRequest {
    BadRequest { payload: payload.into(), reason, message: message.into() }
}

/// A JSON string with this value.
fn string(value: &str) -> String {
    let escaped: String = value
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

fn not_json() -> Vec<BadRequest> {
    let empty = ["", " ", "\n", "\t\r\n  "].map(|text| bad(text, "InvalidJson", "the payload is empty"));
    let broken = [
        "{",
        "}",
        "{]",
        "\"",
        "{\"",
        "{\"foo",
        "{\"foo\"",
        "{\"foo\":",
        "{\"foo\":\"",
        "{\"foo\":\"a\"",
        "{\"foo\":\"a\",",
        "{\"foo\"}",
        "{\"foo\":}",
        "{:\"a\"}",
        "{,}",
        "{foo:\"a\"}",
        "{'foo':'a'}",
        "{\"foo\":'a'}",
        "{\"foo\":a}",
        "{\"foo\":\"a\",}",
        "{\"foo\":\"a\"}{}",
        "{\"foo\":\"a\"} x",
        "{\"foo\":\"a\"},",
        "{\"foo\":\"a\"}\n{\"foo\":\"b\"}",
        "{\"foo\" \"a\"}",
        "{\"foo\":\"a\" \"fail\":1}",
        "{\"foo\"=\"a\"}",
        "{\"foo\":\"a\";}",
        "// a\n{\"foo\":\"a\"}",
        "{/**/\"foo\":\"a\"}",
        "# a\n{}",
        "{\"foo\":\"a\\x\"}",
        "{\"foo\":\"a\\u12\"}",
        "{\"foo\":\"a\\u12G4\"}",
        "{\"foo\":\"a\\\"}",
        "{\"foo\":\"\\ud800\"}",
        "{\"foo\":\"\\udc00\"}",
        "{\"foo\":\"\\ud800\\u0041\"}",
        "{\"foo\":\"\\ud800\\ud800\"}",
        "{\"foo\":\"a\nb\"}",
        "{\"foo\":\"a\tb\"}",
        "{\"foo\":\"a\rb\"}",
        "{\"foo\":\"a\u{0}b\"}",
        "{\"foo\":\"a\u{1}b\"}",
        "{\"foo\":\"a\u{1f}b\"}",
        "{\"foo\":\"a\"}\u{0}",
        "\u{0}{\"foo\":\"a\"}",
        "foo",
        "foo=a&fail=1",
        "foo: a",
        "---\nfoo: a\n",
        "<foo>a</foo>",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "NaN",
        "undefined",
        "None",
        "True",
        "TRUE",
        "nul",
        "tru",
        "{\"foo\":True}",
        "{\"foo\":None}",
        "{\"foo\":undefined}",
        "${foo}",
        "{{foo}}",
    ];
    empty.into_iter().chain(broken.map(|text| bad(text, "InvalidJson", "is not JSON"))).collect()
}

fn encodings() -> Vec<BadRequest> {
    let good = "{\"foo\":\"ab\"}";
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let utf_32 = good.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<u8>>();
    let mut all = vec![
        // A byte order mark is valid UTF-8 but not JSON (RFC 8259, section 8.1). ASCII as UTF-16 is
        // valid UTF-8 with NULs.
        bad([b"\xef\xbb\xbf", good.as_bytes()].concat(), "InvalidJson", "is not JSON"),
        bad(utf_16(u16::to_le_bytes), "InvalidJson", "is not JSON"),
        bad(utf_16(u16::to_be_bytes), "InvalidJson", "is not JSON"),
        bad(utf_32, "InvalidJson", "is not JSON"),
        bad([b"\xff\xfe".to_vec(), utf_16(u16::to_le_bytes)].concat(), "InvalidJson", "offset 0"),
        bad([b"\xfe\xff".to_vec(), utf_16(u16::to_be_bytes)].concat(), "InvalidJson", "offset 0"),
        bad(*b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "InvalidJson", "offset 1"),
        bad(*b"\x81\xa3foo\xa1a", "InvalidJson", "offset 0"),
        bad(*b"\x0a\x01a", "InvalidJson", "is not JSON"),
        bad(*b"{\"f\xf6o\":\"a\"}", "InvalidJson", "offset 3"),
    ];
    let broken: [&[u8]; 18] = [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xb0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xe4",
        b"\xc3\x28",
        b"\xe2\x28\xa1",
    ];
    all.extend(broken.map(|bytes| {
        bad([b"{\"foo\":\"", bytes, b"\"}"].concat(), "InvalidJson", "not UTF-8: invalid byte at offset 8")
    }));
    all
}

fn numbers() -> Vec<BadRequest> {
    let broken = [
        "+1",
        "01",
        "-01",
        ".5",
        "1.",
        "-",
        "1e",
        "1e+",
        "0x10",
        "0b1",
        "1_000",
        "1,5",
        "--1",
        "Infinity",
        "-Infinity",
        "NaN",
    ];
    let huge = ["1e400", "-1e400", "1e999999999"];
    let broken = broken.into_iter().chain(huge);
    broken
        .map(|number| bad(format!("{{\"foo\":\"a\",\"fail\":{number}}}"), "InvalidJson", "is not JSON"))
        .collect()
}

fn nested() -> Vec<BadRequest> {
    let mut all = Vec::new();
    for depth in [128, 1000, 20_000] {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", "{\"a\":".repeat(depth.min(5000)), "}".repeat(depth.min(5000)));
        all.push(bad(format!("{{\"foo\":\"a\",\"fail\":{arrays}}}"), "InvalidJson", "recursion limit"));
        all.push(bad(format!("{{\"foo\":\"a\",\"fail\":{objects}}}"), "InvalidJson", "recursion limit"));
        all.push(bad(
            format!("{{\"foo\":\"a\",\"fail\":{}", "[".repeat(depth)),
            "InvalidJson",
            "is not JSON",
        ));
        all.push(bad(arrays, "InvalidRequest", "expected a JSON object, found an array"));
    }
    all
}

fn not_an_object() -> Vec<BadRequest> {
    let long = format!("\"{}\"", "x".repeat(60_000));
    [
        ("null", "null"),
        ("true", "a boolean"),
        ("false", "a boolean"),
        ("0", "a number"),
        ("-1.5e3", "a number"),
        ("\"\"", "a string"),
        ("\"foo\"", "a string"),
        ("\"{}\"", "a string"),
        (&long, "a string"),
        ("[]", "an array"),
        ("[{\"foo\":\"a\"}]", "an array"),
        (" \n[1, 2]", "an array"),
    ]
    .map(|(text, found)| bad(text, "InvalidRequest", format!("expected a JSON object, found {found}")))
    .into()
}

fn types() -> Vec<BadRequest> {
    let values = [
        ("null", "null"),
        ("true", "a boolean"),
        ("false", "a boolean"),
        ("0", "a number"),
        ("15", "a number"),
        ("-1", "a number"),
        ("1.5", "a number"),
        ("1e300", "a number"),
        ("18446744073709551616", "a number"),
        ("[]", "an array"),
        ("[\"a\"]", "an array"),
        ("{}", "an object"),
        ("{\"foo\":\"a\"}", "an object"),
    ];
    let message = |field: &str, found: &str| format!("`{field}`: expected a string, found {found}");
    let mut all = Vec::new();
    for (value, found) in values {
        all.push(bad(format!("{{\"foo\":{value}}}"), "InvalidRequest", message("foo", found)));
        let name = format!("{{\"foo\":\"a\",\"name\":{value}}}");
        all.push(bad(name, "InvalidName", message("name", found)));
        let prefix = format!("{{\"foo\":\"a\",\"generateName\":{value}}}");
        all.push(bad(prefix, "InvalidName", message("generateName", found)));
    }
    all.push(bad(r#"{"foo":"a\u0000","name":"b"}"#, "InvalidRequest", "`foo`: contains a NUL"));
    all.push(bad(
        r#"{"foo":"a","name":"b","generateName":"c-"}"#,
        "InvalidName",
        "not allowed together with `name`",
    ));
    all
}

fn sizes() -> Vec<BadRequest> {
    let with = |value: &str| format!("{{\"foo\":\"{value}\",\"name\":\"b\"}}");
    let many: Vec<_> = (0..3000).map(|i| format!("\"k{i:04}\":{i}")).collect();
    vec![
        bad(with(&"x".repeat(1025)), "InvalidRequest", "`foo`: expected at most 1024 characters, found 1025"),
        bad(
            with(&"x".repeat(60_000)),
            "InvalidRequest",
            "`foo`: expected at most 1024 characters, found 60000",
        ),
        bad(with(&"ä".repeat(1025)), "InvalidRequest", "`foo`: expected at most 1024 characters, found 1025"),
        bad(
            with(&"😀".repeat(10_000)),
            "InvalidRequest",
            "`foo`: expected at most 1024 characters, found 10000",
        ),
        bad(
            with(&"\\u0041".repeat(1025)),
            "InvalidRequest",
            "`foo`: expected at most 1024 characters, found 1025",
        ),
        bad(
            format!("{{\"foo\":\"a\",{}:1}}", string(&"k".repeat(50_000))),
            "InvalidRequest",
            "unknown field",
        ),
        bad(format!("{{\"foo\":\"a\",{}}}", many.join(",")), "InvalidRequest", "unknown field \"k0000\""),
        bad(format!("{{\"foo\":{}", " ".repeat(60_000)), "InvalidJson", "is not JSON"),
    ]
}

/// Names that are not RFC 1123 labels, given or derived.
fn names() -> Vec<BadRequest> {
    let long = "x".repeat(64);
    let longer = "x".repeat(50_000);
    let labels = [
        "A",
        "Upper",
        "aB",
        "a.b",
        "a.",
        ".a",
        "a/b",
        "../a",
        "/",
        "a b",
        " a",
        "a ",
        "a_b",
        "_rejected",
        "*",
        "a.*",
        ">",
        "a.>",
        "a*",
        "$JS",
        "${foo}",
        "$(FOO)",
        "a:b",
        "a@b",
        "a,b",
        "a;b",
        "a\"b",
        "a\\b",
        "a'b",
        "a%2e",
        "é",
        "ä-1",
        "ı",
        "а",
        "１",
        "😀",
        "a\u{301}",
        "a\u{200b}",
        "\u{202e}a",
        "\u{feff}a",
        "a\n",
        "\na",
        "a\r\nJob-Error: x",
        "a\r\n\r\nNATS/1.0",
        "a\tb",
        "a\u{7f}",
        "a\u{85}b",
        "a\u{2028}b",
        "-a",
        "-",
        &long,
        &longer,
    ];
    let mut all = Vec::new();
    for label in labels {
        let text = string(label);
        all.push(bad(format!("{{\"foo\":\"a\",\"name\":{text}}}"), "InvalidName", "`name`: "));
        all.push(bad(
            format!("{{\"foo\":\"a\",\"generateName\":{text}}}"),
            "InvalidName",
            "`generateName`: ",
        ));
        // The default name starts with `simple-job-`, so a leading hyphen is valid in `foo`.
        if !label.starts_with('-') || label == "-" {
            let (reason, message) = match label.len() {
                1025.. => ("InvalidRequest", "`foo`: expected at most 1024 characters, found 50000"),
                _ => ("InvalidName", "derived from `foo`"),
            };
            all.push(bad(format!("{{\"foo\":{text}}}"), reason, message));
        }
    }
    // A NUL is not part of a label, and no value can contain it.
    all.push(bad(r#"{"foo":"a","name":"a\u0000"}"#, "InvalidName", "`name`: "));
    all.push(bad(r#"{"foo":"a\u0000"}"#, "InvalidRequest", "`foo`: contains a NUL"));
    // Valid as a prefix but not as a name, and valid as a name but not as a prefix.
    all.push(bad(r#"{"foo":"a","name":"a-"}"#, "InvalidName", "`name`: "));
    all.push(bad(r#"{"foo":"a","name":""}"#, "InvalidName", "`name`: "));
    all.push(bad(r#"{"foo":""}"#, "InvalidName", "derived from `foo`"));
    all.push(bad(r#"{"foo":"a-"}"#, "InvalidName", "derived from `foo`"));
    let prefix = "x".repeat(52);
    all.push(bad(
        format!("{{\"foo\":\"a\",\"generateName\":\"{prefix}\"}}"),
        "InvalidName",
        "1 to 51 characters",
    ));
    let text = "x".repeat(53);
    all.push(bad(format!("{{\"foo\":\"{text}\"}}"), "InvalidName", "derived from `foo`"));
    all
}

fn duplicate_fields() -> Vec<BadRequest> {
    [
        (r#"{"foo":"a","foo":"a"}"#, "foo"),
        (r#"{"foo":"a","foo":"b"}"#, "foo"),
        (r#"{"foo":"a","f\u006fo":"b"}"#, "foo"),
        (r#"{"foo":"a","fail":1,"fail":0}"#, "fail"),
        (r#"{"name":"a","foo":"a","name":"b"}"#, "name"),
        (r#"{"x":1,"foo":"a","x":1}"#, "x"),
    ]
    .map(|(text, key)| bad(text, "InvalidRequest", format!("duplicate field \"{key}\"")))
    .into()
}

fn unknown_fields() -> Vec<BadRequest> {
    let keys = [
        "image",
        "command",
        "args",
        "env",
        "spec",
        "metadata",
        "job",
        "kind",
        "apiVersion",
        "namespace",
        "Foo",
        "FOO",
        "foo ",
        " foo",
        "",
        "f",
        "fooo",
        "foo\u{0}",
        "foo\n",
        "\r\nJob-Error: x",
        "foo.bar",
        "foo[0]",
        "/foo",
        "$ref",
        "$schema",
        "__proto__",
        "constructor",
        "generatename",
        "Name",
        "x-truthy",
        "${foo}",
        "fоo",
        "\u{202e}oof",
        "😀",
    ];
    keys.map(|key| bad(format!("{{\"foo\":\"a\",{}:\"b\"}}", string(key)), "InvalidRequest", "unknown field"))
        .into()
}

fn missing_fields() -> Vec<BadRequest> {
    [
        "{}",
        " { } ",
        r#"{"fail":true}"#,
        r#"{"name":"a"}"#,
        r#"{"generateName":"a-"}"#,
        r#"{"fail":{"foo":"a"}}"#,
    ]
    .map(|text| bad(text, "InvalidRequest", "`foo`: required field is missing"))
    .into()
}
