//! The submitter of a request: the NATS account and user, as the server reports them.
//!
//! The server adds `Nats-Request-Info` to a request that crosses accounts by a service import, and
//! replaces what the client wrote. `JetStream` removes the header, so `submit` stores the submitter
//! in the header `Job-Submitter`. Anyone who may publish on `jobs.<template>.create` can write that header
//! too; only a signature distinguishes the dispatcher's.

use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::contract::{
    headers::{JOB_SUBMITTER, JOB_SUBMITTER_SIGNATURE},
    hex::to_hex,
    names::{RequestId, TemplateName},
};

/// The longest account or user, in bytes.
const MAX_NAME: usize = 256;
/// The shortest key, in bytes: as long as the hash (RFC 2104, section 3).
const MIN_KEY: usize = 32;

/// Who submitted a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitter {
    /// The NATS account: its name, or its public key.
    pub account: String,
    /// The user of that account; absent unless the account's import shares it (`share: true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The fields of `Nats-Request-Info` that identify a client.
#[derive(Deserialize)]
struct RequestInfo {
    acc: String,
    #[serde(default)]
    user: Option<String>,
}

impl Submitter {
    /// The submitter in the values of `Nats-Request-Info`. The server writes exactly one; with
    /// several, the submitter is unknown.
    pub fn from_request_info<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut values = values.into_iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let RequestInfo { acc, user } = serde_json::from_str(value).ok()?;
        Self { account: acc, user: user.filter(|user| !user.is_empty()) }.checked()
    }

    /// Parses the value of the header or annotation.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str::<Self>(text).ok()?.checked()
    }

    /// The value of the header and annotation: JSON in ASCII, on one line.
    #[must_use]
    pub fn to_text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let escape = |c: char| match c.is_ascii() {
            true => String::from(c),
            false => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        };
        json.chars().map(escape).collect()
    }

    /// A name that is empty, too long, or could change how a line is shown is none.
    fn checked(self) -> Option<Self> {
        let is_valid = |name: &str| {
            !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(|c| c.is_control() || is_bidi(c))
        };
        let user = self.user.filter(|user| is_valid(user));
        is_valid(&self.account).then_some(Self { account: self.account, user })
    }
}

/// Whether a character changes the direction of the text around it (Unicode UAX #9).
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The key that signs submitters. All replicas have the same.
#[derive(Clone)]
pub struct SubmitterKey(Hmac<Sha256>);

impl SubmitterKey {
    /// A key of these bytes; surrounding white space is not part of it.
    ///
    /// # Errors
    /// The key is too short.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < MIN_KEY {
            return Err(format!("the key has {} bytes (allowed: at least {MIN_KEY})", bytes.len()));
        }
        Hmac::new_from_slice(bytes).map(Self).map_err(|e| e.to_string())
    }

    /// The signature of a request's submitter, in hex.
    #[must_use]
    pub fn sign(&self, request: &SignedRequest<'_>, submitter: &Submitter) -> String {
        to_hex(&self.code(request, submitter).finalize().into_bytes())
    }

    /// Whether the dispatcher signed this submitter of this request.
    #[must_use]
    pub fn verify(&self, request: &SignedRequest<'_>, submitter: &Submitter, signature: &str) -> bool {
        let bytes: Option<Vec<u8>> = (0..signature.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok())
            .collect();
        bytes.is_some_and(|bytes| self.code(request, submitter).verify_slice(&bytes).is_ok())
    }

    fn code(&self, request: &SignedRequest<'_>, submitter: &Submitter) -> Hmac<Sha256> {
        let SignedRequest { template, id, hash } = request;
        // JSON separates the parts without ambiguity.
        let text = serde_json::json!([template, id, hash, submitter]).to_string();
        self.0.clone().chain_update(text)
    }
}

/// What a signature is bound to. A copy of the headers on another request is not valid.
#[derive(Debug, Clone, Copy)]
pub struct SignedRequest<'a> {
    /// The template.
    pub template: &'a TemplateName,
    /// The request id.
    pub id: &'a RequestId,
    /// The hash of the request.
    pub hash: &'a str,
}

/// Writes submitters to stored requests, and reads them.
#[derive(Clone, Default)]
pub struct Submitters {
    /// Signs them. Without a key, every submitter in the header counts.
    pub key: Option<SubmitterKey>,
}

impl Submitters {
    /// The headers of a stored request.
    #[must_use]
    pub fn headers(&self, request: &SignedRequest<'_>, submitter: &Submitter) -> Vec<(&'static str, String)> {
        let mut headers = vec![(JOB_SUBMITTER, submitter.to_text())];
        headers.extend(self.key.as_ref().map(|key| (JOB_SUBMITTER_SIGNATURE, key.sign(request, submitter))));
        headers
    }

    /// The submitter of a stored request, from its headers. With a key, only a signed one.
    #[must_use]
    pub fn read(
        &self,
        request: &SignedRequest<'_>,
        submitter: Option<&str>,
        signature: Option<&str>,
    ) -> Option<Submitter> {
        let submitter = Submitter::parse(submitter?)?;
        let is_valid = match &self.key {
            None => true,
            Some(key) => key.verify(request, &submitter, signature?),
        };
        is_valid.then_some(submitter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn submitter(account: &str, user: Option<&str>) -> Submitter {
        Submitter { account: account.to_owned(), user: user.map(str::to_owned) }
    }

    #[test]
    fn account_and_user_come_from_the_request_info() {
        let info = r#"{"acc":"ACME","rtt":1,"user":"alice","svc":"DISPATCHER","lang":"go"}"#;
        assert_eq!(Submitter::from_request_info([info]), Some(submitter("ACME", Some("alice"))));
        let without_share = r#"{"acc":"ACME","rtt":1}"#;
        assert_eq!(Submitter::from_request_info([without_share]), Some(submitter("ACME", None)));
    }

    #[test]
    fn ambiguous_or_invalid_request_info_is_ignored() {
        assert_eq!(Submitter::from_request_info([r#"{"acc":"A"}"#, r#"{"acc":"B"}"#]), None);
        let long = format!(r#"{{"acc":"{}"}}"#, "x".repeat(257));
        for info in ["", "{}", "[]", r#"{"acc":""}"#, r#"{"acc":7}"#, r#"{"acc":"a\nb"}"#, &long] {
            assert_eq!(Submitter::from_request_info([info]), None, "{info}");
        }
        let reversed = r#"{"acc":"ACME","user":"a\u202eb"}"#;
        assert_eq!(Submitter::from_request_info([reversed]), Some(submitter("ACME", None)));
    }

    #[test]
    fn signature_is_bound_to_the_request_and_the_submitter() {
        let key = SubmitterKey::new(&[7; 32]).unwrap();
        let (simple, memory) =
            (TemplateName::try_from("simple").unwrap(), TemplateName::try_from("memory").unwrap());
        let (one, two) = (RequestId::try_from("1").unwrap(), RequestId::try_from("2").unwrap());
        let request = SignedRequest { template: &simple, id: &one, hash: "abc" };
        let acme = submitter("ACME", Some("alice"));
        let signature = key.sign(&request, &acme);
        assert!(key.verify(&request, &acme, &signature));
        for (request, submitter) in [
            (SignedRequest { template: &memory, ..request }, &acme),
            (SignedRequest { id: &two, ..request }, &acme),
            (SignedRequest { hash: "abd", ..request }, &acme),
            (request, &submitter("GLOBEX", Some("alice"))),
        ] {
            assert!(!key.verify(&request, submitter, &signature));
        }
        for forged in ["", "0", "zz", "é", &signature[2..]] {
            assert!(!key.verify(&request, &acme, forged), "{forged}");
        }
        assert!(!SubmitterKey::new(&[8; 32]).unwrap().verify(&request, &acme, &signature));
    }

    #[test]
    fn short_key_is_refused() {
        let error = SubmitterKey::new(b"secret\n").map(|_| ()).unwrap_err();
        assert_eq!(error, "the key has 6 bytes (allowed: at least 32)");
    }

    #[test]
    fn with_a_key_only_a_signed_submitter_counts() {
        let template = TemplateName::try_from("simple").unwrap();
        let id = RequestId::try_from("1").unwrap();
        let request = SignedRequest { template: &template, id: &id, hash: "abc" };
        let acme = submitter("ACME", Some("alice"));
        let (signing, unsigned) =
            (Submitters { key: SubmitterKey::new(&[7; 32]).ok() }, Submitters::default());
        let read = |submitters: &Submitters, headers: &[(&str, String)]| {
            let header = |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str());
            submitters.read(&request, header(JOB_SUBMITTER), header(JOB_SUBMITTER_SIGNATURE))
        };
        assert_eq!(read(&signing, &signing.headers(&request, &acme)), Some(acme.clone()));
        assert_eq!(read(&signing, &unsigned.headers(&request, &acme)), None, "written by a client");
        assert_eq!(read(&unsigned, &unsigned.headers(&request, &acme)), Some(acme));
    }

    proptest! {
        #[test]
        fn text_of_any_submitter_is_bounded_ascii_and_parses_again(
            account in "(?s).{1,300}", user in prop::option::of("(?s).{0,300}")
        ) {
            if let Some(submitter) = Submitter::parse(&serde_json::json!({"account": account, "user": user}).to_string()) {
                let text = submitter.to_text();
                prop_assert!(text.chars().all(|c| c.is_ascii() && !c.is_control()));
                prop_assert_eq!(Submitter::parse(&text), Some(submitter));
            }
        }
    }
}
