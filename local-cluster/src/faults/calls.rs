//! Faults of calls: which calls match, and how they fail.

use std::time::Duration;

use crate::call::Call;

/// Matches API calls. An unset criterion matches every call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    verb: Option<String>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Calls {
    /// Matches all calls.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Matches calls with this verb on this resource.
    ///
    /// The verb is one of `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` and
    /// `deletecollection`. The resource is a plural (`jobs`), or a subresource alone
    /// (`jobs/status`).
    #[must_use]
    pub fn of(verb: &str, resource: &str) -> Self {
        Self { verb: Some(verb.to_owned()), resource: Some(resource.to_owned()), ..Self::default() }
    }

    /// Matches calls with any verb on this resource.
    #[must_use]
    pub fn on(resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..Self::default() }
    }

    /// Restricts the match to this namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// Restricts the match to calls whose path names this object.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Whether `call` matches.
    #[must_use]
    pub fn matches(&self, call: &Call) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let subresource = format!("{}/{}", call.resource.plural, call.subresource);
        is(&self.verb, call.verb)
            && (is(&self.resource, call.resource.plural) || is(&self.resource, &subresource))
            && is(&self.namespace, &call.namespace)
            && is(&self.name, &call.name)
    }
}

/// How a call fails. The variants ending in `After` perform the call first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The call is not performed, and the response is a `Status` with this code.
    Code(u16),
    /// The call is performed, but the response is a `Status` with this code, typically 504.
    CodeAfter(u16),
    /// The call is not performed, and the connection breaks.
    Break,
    /// The call is performed, and the connection breaks before the response.
    BreakAfter,
    /// The call is performed, and the response is delayed.
    DelayAfter(Duration),
    /// A watch starts with 200 and sends one `ERROR` event with this code.
    ///
    /// Other calls fail as with [`Self::Code`].
    WatchError(u16),
}

/// A failure or a delay for a number of calls.
#[derive(Debug)]
pub(super) struct Rule {
    calls: Calls,
    remaining: u32,
    delay: Duration,
    failure: Option<Failure>,
}

impl Rule {
    pub(super) fn fail(calls: Calls, times: u32, failure: Failure) -> Self {
        Self { calls, remaining: times, delay: Duration::ZERO, failure: Some(failure) }
    }

    pub(super) fn delay(calls: Calls, times: u32, delay: Duration) -> Self {
        Self { calls, remaining: times, delay, failure: None }
    }

    pub(super) fn remaining(&self) -> u32 {
        self.remaining
    }
}

/// The delay and the failure of a call: the first matching rule of each type applies.
pub(super) fn evaluate(rules: &mut Vec<Rule>, call: &Call) -> (Duration, Option<Failure>) {
    let mut delay = None;
    let mut failure = None;
    for rule in rules.iter_mut().filter(|rule| rule.remaining > 0 && rule.calls.matches(call)) {
        let applies = match rule.failure {
            Some(found) => failure.is_none() && failure.replace(found).is_none(),
            None => delay.is_none() && delay.replace(rule.delay).is_none(),
        };
        rule.remaining -= u32::from(applies);
    }
    rules.retain(|rule| rule.remaining > 0);
    let failure = match failure {
        Some(Failure::WatchError(code)) if call.verb != "watch" => Some(Failure::Code(code)),
        failure => failure,
    };
    (delay.unwrap_or_default(), failure)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    fn call(path: &str) -> Call {
        Call::parse(&Method::GET, path, false).unwrap()
    }

    #[test]
    fn calls_match_by_verb_resource_namespace_and_name() {
        let call = call("/apis/batch/v1/namespaces/a/jobs/j/status");
        for calls in [
            Calls::all(),
            Calls::of("get", "jobs"),
            Calls::of("get", "jobs/status"),
            Calls::on("jobs").within("a").named("j"),
        ] {
            assert!(calls.matches(&call), "{calls:?}");
        }
        for calls in [
            Calls::of("list", "jobs"),
            Calls::on("pods"),
            Calls::on("jobs").within("b"),
            Calls::all().named("k"),
        ] {
            assert!(!calls.matches(&call), "{calls:?}");
        }
    }

    #[test]
    fn rule_applies_to_the_configured_number_of_calls() {
        let call = call("/api/v1/namespaces/a/pods");
        let mut rules = vec![
            Rule::delay(Calls::all(), 1, Duration::from_secs(1)),
            Rule::fail(Calls::on("jobs"), 1, Failure::Break),
            Rule::fail(Calls::on("pods"), 2, Failure::WatchError(410)),
            Rule::fail(Calls::all(), 1, Failure::CodeAfter(504)),
        ];
        let mut next = || evaluate(&mut rules, &call);
        assert_eq!(next(), (Duration::from_secs(1), Some(Failure::Code(410))));
        assert_eq!(next(), (Duration::ZERO, Some(Failure::Code(410))));
        assert_eq!(next(), (Duration::ZERO, Some(Failure::CodeAfter(504))));
        assert_eq!(next(), (Duration::ZERO, None));
        assert_eq!(rules.iter().map(Rule::remaining).sum::<u32>(), 1);
    }
}
