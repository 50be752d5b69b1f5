//! Payloads that are no request of the kind `simple`, in tables: for the unit test of the reader and for the end-to-end
//! test, which see each of them rejected.

/// A payload, and how it is rejected.
pub(crate) struct Bad {
    pub(crate) payload: Vec<u8>,
    /// The word of the rejection.
    pub(crate) reason: &'static str,
    /// What its message holds.
    pub(crate) told: String,
}

/// All of them.
pub(crate) fn bad_requests() -> Vec<Bad> {
    let tables = [
        not_json(),
        encodings(),
        numbers(),
        nested(),
        no_object(),
        types(),
        sizes(),
        names(),
        twice(),
        unknown(),
        missing(),
    ];
    tables.into_iter().flatten().collect()
}

fn bad(payload: impl Into<Vec<u8>>, reason: &'static str, told: impl Into<String>) -> Bad {
    Bad { payload: payload.into(), reason, told: told.into() }
}

/// `value` as the JSON text of a string.
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

fn not_json() -> Vec<Bad> {
    let nothing = ["", " ", "\n", "\t\r\n  "].map(|text| bad(text, "InvalidJson", "found nothing"));
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
    nothing.into_iter().chain(broken.map(|text| bad(text, "InvalidJson", "is not JSON"))).collect()
}

fn encodings() -> Vec<Bad> {
    let good = "{\"foo\":\"ab\"}";
    let utf_16 = |bytes: fn(u16) -> [u8; 2]| good.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let utf_32 = good.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect::<Vec<u8>>();
    let mut all = vec![
        // A byte order mark is valid UTF-8 and no JSON (RFC 8259, section 8.1); UTF-16 of ASCII is UTF-8 with NULs.
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
        bad([b"{\"foo\":\"", bytes, b"\"}"].concat(), "InvalidJson", "not UTF-8: the byte at offset 8")
    }));
    all
}

fn numbers() -> Vec<Bad> {
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

fn nested() -> Vec<Bad> {
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
        all.push(bad(arrays, "InvalidRequest", "found an array, allowed is a JSON object"));
    }
    all
}

fn no_object() -> Vec<Bad> {
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
    .map(|(text, found)| bad(text, "InvalidRequest", format!("found {found}, allowed is a JSON object")))
    .into()
}

fn types() -> Vec<Bad> {
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
    let told = |field: &str, found: &str| format!("field `{field}`: found {found}, allowed is a string");
    let mut all = Vec::new();
    for (value, found) in values {
        all.push(bad(format!("{{\"foo\":{value}}}"), "InvalidRequest", told("foo", found)));
        let name = format!("{{\"foo\":\"a\",\"name\":{value}}}");
        all.push(bad(name, "InvalidName", told("name", found)));
        let prefix = format!("{{\"foo\":\"a\",\"generateName\":{value}}}");
        all.push(bad(prefix, "InvalidName", told("generateName", found)));
    }
    all.push(bad(r#"{"foo":"a\u0000","name":"b"}"#, "InvalidRequest", "`foo`: found a NUL"));
    all.push(bad(
        r#"{"foo":"a","name":"b","generateName":"c-"}"#,
        "InvalidName",
        "allowed is one of the two",
    ));
    all
}

fn sizes() -> Vec<Bad> {
    let with = |value: &str| format!("{{\"foo\":\"{value}\",\"name\":\"b\"}}");
    let many: Vec<_> = (0..3000).map(|i| format!("\"k{i:04}\":{i}")).collect();
    vec![
        bad(
            with(&"x".repeat(1025)),
            "InvalidRequest",
            "`foo`: found 1025 characters, allowed are at most 1024",
        ),
        bad(with(&"x".repeat(60_000)), "InvalidRequest", "`foo`: found 60000 characters"),
        bad(with(&"ä".repeat(1025)), "InvalidRequest", "`foo`: found 1025 characters"),
        bad(with(&"😀".repeat(10_000)), "InvalidRequest", "`foo`: found 10000 characters"),
        bad(with(&"\\u0041".repeat(1025)), "InvalidRequest", "`foo`: found 1025 characters"),
        bad(
            format!("{{\"foo\":\"a\",{}:1}}", string(&"k".repeat(50_000))),
            "InvalidRequest",
            "is no parameter",
        ),
        bad(format!("{{\"foo\":\"a\",{}}}", many.join(",")), "InvalidRequest", "\"k0000\": is no parameter"),
        bad(format!("{{\"foo\":{}", " ".repeat(60_000)), "InvalidJson", "is not JSON"),
    ]
}

/// What is no RFC 1123 label, wherever a name comes from.
fn names() -> Vec<Bad> {
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
        all.push(bad(format!("{{\"foo\":\"a\",\"name\":{text}}}"), "InvalidName", "field `name`: "));
        all.push(bad(
            format!("{{\"foo\":\"a\",\"generateName\":{text}}}"),
            "InvalidName",
            "field `generateName`: ",
        ));
        // After `simple-job-` a leading hyphen is none; and what is too long for `foo` is told as that.
        if !label.starts_with('-') || label == "-" {
            let (reason, told) = match label.len() {
                1025.. => ("InvalidRequest", "field `foo`: found 50000 characters"),
                _ => ("InvalidName", "made from field `foo`"),
            };
            all.push(bad(format!("{{\"foo\":{text}}}"), reason, told));
        }
    }
    // A NUL is no label either; in `foo` it is told as what it is.
    all.push(bad(r#"{"foo":"a","name":"a\u0000"}"#, "InvalidName", "field `name`: "));
    all.push(bad(r#"{"foo":"a\u0000"}"#, "InvalidRequest", "field `foo`: found a NUL"));
    // Good as a prefix, but not as a whole name, and the other way round.
    all.push(bad(r#"{"foo":"a","name":"a-"}"#, "InvalidName", "field `name`: "));
    all.push(bad(r#"{"foo":"a","name":""}"#, "InvalidName", "field `name`: "));
    all.push(bad(r#"{"foo":""}"#, "InvalidName", "made from field `foo`"));
    all.push(bad(r#"{"foo":"a-"}"#, "InvalidName", "made from field `foo`"));
    let prefix = "x".repeat(52);
    all.push(bad(
        format!("{{\"foo\":\"a\",\"generateName\":\"{prefix}\"}}"),
        "InvalidName",
        "1 to 51 characters",
    ));
    let text = "x".repeat(53);
    all.push(bad(format!("{{\"foo\":\"{text}\"}}"), "InvalidName", "made from field `foo`"));
    all
}

fn twice() -> Vec<Bad> {
    [
        (r#"{"foo":"a","foo":"a"}"#, "foo"),
        (r#"{"foo":"a","foo":"b"}"#, "foo"),
        (r#"{"foo":"a","f\u006fo":"b"}"#, "foo"),
        (r#"{"foo":"a","fail":1,"fail":0}"#, "fail"),
        (r#"{"name":"a","foo":"a","name":"b"}"#, "name"),
        (r#"{"x":1,"foo":"a","x":1}"#, "x"),
    ]
    .map(|(text, key)| bad(text, "InvalidRequest", format!("the field \"{key}\" is given twice")))
    .into()
}

fn unknown() -> Vec<Bad> {
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
    keys.map(|key| {
        bad(format!("{{\"foo\":\"a\",{}:\"b\"}}", string(key)), "InvalidRequest", "is no parameter")
    })
    .into()
}

fn missing() -> Vec<Bad> {
    [
        "{}",
        " { } ",
        r#"{"fail":true}"#,
        r#"{"name":"a"}"#,
        r#"{"generateName":"a-"}"#,
        r#"{"fail":{"foo":"a"}}"#,
    ]
    .map(|text| bad(text, "InvalidRequest", "field `foo`: is missing, but required"))
    .into()
}
