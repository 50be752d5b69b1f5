//! What a run is to do, out of environment variables.

use std::time::Duration;

use crate::quantity;

/// The sleep where `SLEEP_SECONDS` is absent or empty.
const DEFAULT_SLEEP: Duration = Duration::from_secs(15);
/// How long memory is held where `HOLD_SECONDS` is absent or empty.
const DEFAULT_HOLD: Duration = Duration::from_secs(8);

/// What a run is to do.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    foo: String,
    fail: bool,
    /// How long to sleep before anything else.
    pub(crate) sleep: Duration,
    /// What to do after the sleep, for a memory Job.
    pub(crate) memory: Option<Load>,
}

/// Memory to take.
#[derive(Debug, PartialEq)]
pub(crate) struct Load {
    /// How much.
    pub(crate) bytes: u64,
    /// For how long.
    pub(crate) hold: Duration,
}

impl Plan {
    /// Reads the plan by `variable`, which looks up an environment variable.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let time = |name: &str, default| given(name).map_or(Ok(default), |text| seconds(name, &text));
        let hold = time("HOLD_SECONDS", DEFAULT_HOLD)?;
        let memory = given("ALLOC_BYTES").map(|text| load(&text, hold)).transpose()?;
        Ok(Self {
            foo: variable("FOO").unwrap_or_default(),
            fail: given("FAIL").is_some(),
            sleep: time("SLEEP_SECONDS", DEFAULT_SLEEP)?,
            memory,
        })
    }

    /// The line to print at the end: on stdout after success, on stderr after failure.
    pub(crate) fn result(&self) -> Result<String, String> {
        match self.fail {
            false => Ok(format!("{} is done.", self.subject())),
            true => Err(format!("{} failed, as FAIL asked for.", self.subject())),
        }
    }

    /// Who says a line.
    pub(crate) fn subject(&self) -> String {
        let kind = if self.memory.is_some() { "Memory" } else { "Simple" };
        format!("{kind} Job with foo=\"{}\"", self.foo)
    }
}

fn load(text: &str, hold: Duration) -> Result<Load, String> {
    let wrong = || format!("ALLOC_BYTES is {text:?}, not a quantity of bytes from 0 on, such as 64Mi");
    Ok(Load { bytes: quantity::bytes(text.trim()).ok_or_else(wrong)?, hold })
}

/// Parses a number of seconds, which may have a fraction.
fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    let wrong = || format!("{name} is {text:?}, not a number of seconds from 0 on");
    let number: f64 = text.trim().parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Result<Plan, String> {
        Plan::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_plan_without_settings_sleeps_fifteen_seconds_and_succeeds() {
        let plan = plan(&[]).unwrap();
        let sleep = Duration::from_secs(15);
        assert_eq!(plan, Plan { foo: String::new(), fail: false, sleep, memory: None });
        assert_eq!(plan.result().unwrap(), "Simple Job with foo=\"\" is done.");
    }

    #[test]
    fn foo_is_in_the_line_that_is_printed() {
        assert_eq!(
            plan(&[("FOO", "a \"b\"")]).unwrap().result().unwrap(),
            "Simple Job with foo=\"a \"b\"\" is done."
        );
    }

    #[test]
    fn any_fail_but_the_empty_one_fails() {
        for fail in ["1", "true", "0", "false", " "] {
            assert!(plan(&[("FAIL", fail)]).unwrap().result().is_err(), "{fail:?}");
        }
        assert!(plan(&[("FAIL", "")]).unwrap().result().is_ok());
    }

    #[test]
    fn a_plan_with_memory_holds_it() {
        let memory = |variables: &[(&str, &str)]| plan(variables).unwrap().memory;
        let load = |bytes, seconds| Some(Load { bytes, hold: Duration::from_secs(seconds) });
        assert_eq!(memory(&[("ALLOC_BYTES", "64Mi")]), load(64 << 20, 8));
        assert_eq!(memory(&[("ALLOC_BYTES", "1e3"), ("HOLD_SECONDS", "1")]), load(1000, 1));
        assert_eq!(memory(&[("ALLOC_BYTES", "")]), None);
        let plan = plan(&[("ALLOC_BYTES", "1"), ("FOO", "a")]).unwrap();
        assert_eq!(plan.result().unwrap(), "Memory Job with foo=\"a\" is done.");
    }

    #[test]
    fn the_sleep_may_have_a_fraction() {
        let sleep = |text| plan(&[("SLEEP_SECONDS", text)]).map(|plan| plan.sleep);
        assert_eq!(sleep("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(sleep("0"), Ok(Duration::ZERO));
        assert_eq!(sleep(" 3 "), Ok(Duration::from_secs(3)));
        assert_eq!(sleep(""), Ok(DEFAULT_SLEEP));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_it() {
        for (name, texts) in [
            ("SLEEP_SECONDS", ["x", "-1", "inf", "NaN", "1e300"]),
            ("HOLD_SECONDS", ["x", "-1", "inf", "NaN", "1e300"]),
            ("ALLOC_BYTES", ["x", "-1", "64MB", "NaN", "99E"]),
        ] {
            for text in texts {
                let error = plan(&[(name, text)]).unwrap_err();
                assert!(error.contains(name) && error.contains(text), "{error}");
            }
        }
    }
}
