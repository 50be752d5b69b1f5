//! The workload of the kind `simple`.
//!
//! In: the environment variables `FOO`, `FAIL` and `SLEEP_SECONDS`. Out: after the sleep one line on stdout and exit code
//! 0, or one line on stderr and exit code 1 where `FAIL` is set and not empty.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

/// The sleep where `SLEEP_SECONDS` is absent or empty.
const DEFAULT_SLEEP: Duration = Duration::from_secs(15);
/// The exit code of a run that could not read its settings; not the 1 of a run that was told to fail.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    end_on_signals();
    let variable = |name: &str| std::env::var(name).ok();
    let plan = match Plan::read(variable) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    thread::sleep(plan.sleep);
    match plan.result() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// In a container this process is PID 1, for which the kernel ignores every signal that has no handler: without one a
/// deleted pod would hang around for its whole grace period.
fn end_on_signals() {
    for signal in [SIGTERM, SIGINT] {
        let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag) {
            eprintln!("cannot handle signal {signal}: {error}");
        }
    }
}

/// What a run is to do.
#[derive(Debug, PartialEq)]
struct Plan {
    foo: String,
    fail: bool,
    sleep: Duration,
}

impl Plan {
    /// Reads the plan by `variable`, which looks up an environment variable.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        Ok(Self {
            foo: variable("FOO").unwrap_or_default(),
            fail: variable("FAIL").is_some_and(|value| !value.is_empty()),
            sleep: match variable("SLEEP_SECONDS").as_deref() {
                None | Some("") => DEFAULT_SLEEP,
                Some(text) => seconds(text)?,
            },
        })
    }

    /// The line to print at the end: on stdout after success, on stderr after failure.
    fn result(&self) -> Result<String, String> {
        match self.fail {
            false => Ok(format!("Simple Job with foo=\"{}\" is done.", self.foo)),
            true => Err(format!("Simple Job with foo=\"{}\" failed, as FAIL asked for.", self.foo)),
        }
    }
}

/// Parses a number of seconds, which may have a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("SLEEP_SECONDS is {text:?}, not a number of seconds from 0 on");
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
        assert_eq!(plan, Plan { foo: String::new(), fail: false, sleep: Duration::from_secs(15) });
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
    fn the_sleep_may_have_a_fraction() {
        let sleep = |text| plan(&[("SLEEP_SECONDS", text)]).map(|plan| plan.sleep);
        assert_eq!(sleep("0.25"), Ok(Duration::from_millis(250)));
        assert_eq!(sleep("0"), Ok(Duration::ZERO));
        assert_eq!(sleep(" 3 "), Ok(Duration::from_secs(3)));
        assert_eq!(sleep(""), Ok(DEFAULT_SLEEP));
    }

    #[test]
    fn a_sleep_that_is_no_time_is_an_error_that_names_it() {
        for text in ["x", "-1", "inf", "NaN", "1e300"] {
            let error = plan(&[("SLEEP_SECONDS", text)]).unwrap_err();
            assert!(error.contains("SLEEP_SECONDS") && error.contains(text), "{error}");
        }
    }
}
