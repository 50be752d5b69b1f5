//! The settings of a run, from environment variables.

use std::time::Duration;

use crate::quantity;

/// The sleep if `SLEEP_SECONDS` is absent or empty.
const DEFAULT_SLEEP: Duration = Duration::from_secs(15);
/// How long to hold the memory if `HOLD_SECONDS` is absent or empty.
const DEFAULT_HOLD: Duration = Duration::from_secs(8);

/// The settings of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    foo: String,
    fail: bool,
    /// How long to sleep first.
    pub(crate) sleep: Duration,
    /// The memory to allocate after the sleep.
    pub(crate) memory: Option<Load>,
}

/// Memory to allocate.
#[derive(Debug, PartialEq)]
pub(crate) struct Load {
    /// The number of bytes.
    pub(crate) bytes: u64,
    /// How long to hold it.
    pub(crate) hold: Duration,
}

impl Plan {
    /// Parses the plan. `variable` looks up an environment variable.
    ///
    /// # Errors
    /// If a variable is invalid.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
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

    /// The line to print at the end: `Ok` for stdout, `Err` for stderr.
    ///
    /// # Errors
    /// If the run must fail.
    pub(crate) fn result(&self) -> Result<String, String> {
        if self.fail {
            Err(format!("{} failed because FAIL is set.", self.job()))
        } else {
            Ok(format!("{} is done.", self.job()))
        }
    }

    /// The start of each line.
    pub(crate) fn job(&self) -> String {
        let template = if self.memory.is_some() { "Memory" } else { "Simple" };
        format!("{template} Job with foo=\"{}\"", self.foo)
    }
}

fn load(text: &str, hold: Duration) -> Result<Load, String> {
    let invalid = || format!("ALLOC_BYTES: expected a number of bytes such as 64Mi, found {text:?}");
    Ok(Load { bytes: quantity::bytes(text.trim()).ok_or_else(invalid)?, hold })
}

/// Parses a number of seconds, which may have a fraction.
fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    let invalid = || format!("{name}: expected a non-negative number of seconds, found {text:?}");
    let number: f64 = text.trim().parse().map_err(|_| invalid())?;
    Duration::try_from_secs_f64(number).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(variables: &[(&str, &str)]) -> Result<Plan, String> {
        Plan::from_env(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn run_without_settings_sleeps_fifteen_seconds_and_succeeds() {
        let plan = plan(&[]).unwrap();
        let sleep = Duration::from_secs(15);
        assert_eq!(plan, Plan { foo: String::new(), fail: false, sleep, memory: None });
        assert_eq!(plan.result().unwrap(), "Simple Job with foo=\"\" is done.");
    }

    #[test]
    fn printed_line_contains_foo() {
        assert_eq!(
            plan(&[("FOO", "a \"b\"")]).unwrap().result().unwrap(),
            "Simple Job with foo=\"a \"b\"\" is done."
        );
    }

    #[test]
    fn non_empty_fail_fails() {
        for fail in ["1", "true", "0", "false", " "] {
            assert!(plan(&[("FAIL", fail)]).unwrap().result().is_err(), "{fail:?}");
        }
        assert!(plan(&[("FAIL", "")]).unwrap().result().is_ok());
    }

    #[test]
    fn memory_is_held_for_the_given_time() {
        let memory = |variables: &[(&str, &str)]| plan(variables).unwrap().memory;
        let load = |bytes, seconds| Some(Load { bytes, hold: Duration::from_secs(seconds) });
        assert_eq!(memory(&[("ALLOC_BYTES", "64Mi")]), load(64 << 20, 8));
        assert_eq!(memory(&[("ALLOC_BYTES", "1e3"), ("HOLD_SECONDS", "1")]), load(1000, 1));
        assert_eq!(memory(&[("ALLOC_BYTES", "")]), None);
        let plan = plan(&[("ALLOC_BYTES", "1"), ("FOO", "a")]).unwrap();
        assert_eq!(plan.result().unwrap(), "Memory Job with foo=\"a\" is done.");
    }

    #[test]
    fn sleep_may_have_a_fraction() {
        let sleep = |text| plan(&[("SLEEP_SECONDS", text)]).map(|plan| plan.sleep);
        assert_eq!(sleep("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(sleep("0"), Ok(Duration::ZERO));
        assert_eq!(sleep(" 3 "), Ok(Duration::from_secs(3)));
        assert_eq!(sleep(""), Ok(DEFAULT_SLEEP));
    }

    #[test]
    fn invalid_variable_is_reported_by_name() {
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
