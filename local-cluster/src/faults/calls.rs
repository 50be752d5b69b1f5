//! Which calls, and what becomes of them.

use std::time::Duration;

use super::Verdict;
use crate::http::Call;

/// Which calls are meant. What is left open matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    verb: Option<String>,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Calls {
    /// All calls.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Calls with this verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`) on this
    /// resource (`jobs`, `pods`, ..., and `jobs/status` for the subresource alone).
    #[must_use]
    pub fn of(verb: &str, resource: &str) -> Self {
        Self { verb: Some(verb.to_owned()), resource: Some(resource.to_owned()), ..Self::default() }
    }

    /// Calls with any verb on this resource.
    #[must_use]
    pub fn on(resource: &str) -> Self {
        Self { resource: Some(resource.to_owned()), ..Self::default() }
    }

    /// Of those, the ones in this namespace.
    #[must_use]
    pub fn within(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self }
    }

    /// Of those, the ones that name this object in their path.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    /// Whether this call is among them.
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

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing is done, and the answer is a `Status` with this code.
    Code(u16),
    /// It is done, and the answer says otherwise: 504 above all.
    CodeAfter(u16),
    /// Nothing is done, and the connection breaks.
    Break,
    /// It is done, and the connection breaks before the answer.
    BreakAfter,
    /// It is done, and answered so much later.
    LateAfter(Duration),
    /// A watch starts with 200 and its only event is an `ERROR` with this code. Other calls fail as with [`Self::Code`].
    Event(u16),
}

/// A failure or a delay, and for how many calls more.
#[derive(Debug)]
pub(super) struct Rule {
    calls: Calls,
    left: u32,
    delay: Duration,
    failure: Option<Failure>,
}

impl Rule {
    pub(super) fn fail(calls: Calls, times: u32, failure: Failure) -> Self {
        Self { calls, left: times, delay: Duration::ZERO, failure: Some(failure) }
    }

    pub(super) fn delay(calls: Calls, times: u32, delay: Duration) -> Self {
        Self { calls, left: times, delay, failure: None }
    }

    pub(super) fn left(&self) -> u32 {
        self.left
    }
}

/// How long a call is to wait, and what it meets then: of each sort the first rule that matches.
pub(super) fn meet(rules: &mut Vec<Rule>, call: &Call) -> (Duration, Verdict) {
    let mut delay = None;
    let mut failure = None;
    for rule in rules.iter_mut().filter(|rule| rule.left > 0 && rule.calls.matches(call)) {
        let is_met = match rule.failure {
            Some(found) => failure.is_none() && failure.replace(found).is_none(),
            None => delay.is_none() && delay.replace(rule.delay).is_none(),
        };
        rule.left -= u32::from(is_met);
    }
    rules.retain(|rule| rule.left > 0);
    let verdict = match failure {
        None => Verdict::Proceed,
        Some(Failure::Code(code)) => Verdict::Fail(code),
        Some(Failure::CodeAfter(code)) => Verdict::FailAfter(code),
        Some(Failure::Break) => Verdict::Break,
        Some(Failure::BreakAfter) => Verdict::BreakAfter,
        Some(Failure::LateAfter(delay)) => Verdict::LateAfter(delay),
        Some(Failure::Event(code)) if call.verb == "watch" => Verdict::Event(code),
        Some(Failure::Event(code)) => Verdict::Fail(code),
    };
    (delay.unwrap_or_default(), verdict)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    fn call(path: &str) -> Call {
        Call::parse(&Method::GET, path, false).unwrap()
    }

    #[test]
    fn calls_are_told_apart() {
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
    fn a_rule_strikes_as_often_as_it_says() {
        let call = call("/api/v1/namespaces/a/pods");
        let mut rules = vec![
            Rule::delay(Calls::all(), 1, Duration::from_secs(1)),
            Rule::fail(Calls::on("jobs"), 1, Failure::Break),
            Rule::fail(Calls::on("pods"), 2, Failure::Event(410)),
            Rule::fail(Calls::all(), 1, Failure::CodeAfter(504)),
        ];
        let mut next = || meet(&mut rules, &call);
        assert_eq!(next(), (Duration::from_secs(1), Verdict::Fail(410)));
        assert_eq!(next(), (Duration::ZERO, Verdict::Fail(410)));
        assert_eq!(next(), (Duration::ZERO, Verdict::FailAfter(504)));
        assert_eq!(next(), (Duration::ZERO, Verdict::Proceed));
        assert_eq!(rules.iter().map(Rule::left).sum::<u32>(), 1);
    }
}
