//! Errors of the command line in one line: `DISPATCHER_CONCURRENCY=abc: expected a whole number from
//! 1 to 1024`.

use std::error::Error as _;

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The longest value that an error repeats, in characters.
const MAX_VALUE: usize = 100;

/// One line about a setting with a wrong value; `None` for other errors, which clap explains.
/// `command` defines the settings, and `environment` returns the value of a variable.
#[must_use]
pub fn describe(
    error: &clap::Error,
    command: &Command,
    environment: impl Fn(&str) -> Option<String>,
) -> Option<String> {
    let find = |name: &str| find(command, name);
    let variable = |name: &String| variable(find(name).as_ref(), name);
    let names = texts(error, ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8 => {
            let setting = names.first().and_then(|name| find(name))?;
            let value = texts(error, ContextKind::InvalidValue).into_iter().next();
            Some(format!("{}: {}", with_value(&setting, value, &environment), reason(error)))
        }
        ErrorKind::ArgumentConflict => {
            let others = texts(error, ContextKind::PriorArg);
            let all: Vec<_> = names.iter().chain(&others).map(variable).collect();
            Some(format!("{}: cannot be set together; set one of them", all.join(", ")))
        }
        ErrorKind::MissingRequiredArgument => {
            let all: Vec<_> = names.iter().map(variable).collect();
            Some(format!("{}: must be set, because a setting that requires it is set", all.join(", ")))
        }
        _ => None,
    }
    .filter(|_| names.iter().any(|name| find(name).is_some_and(|setting| setting.get_env().is_some())))
}

/// The variables of the settings that the error names.
#[must_use]
pub fn variables(error: &clap::Error, command: &Command) -> Vec<String> {
    let names = [ContextKind::InvalidArg, ContextKind::PriorArg].map(|kind| texts(error, kind));
    let settings = names.iter().flatten().filter_map(|name| find(command, name));
    settings.filter_map(|setting| Some(setting.get_env()?.to_string_lossy().into_owned())).collect()
}

/// Why the value is wrong.
fn reason(error: &clap::Error) -> String {
    let allowed = texts(error, ContextKind::ValidValue);
    match error.source() {
        Some(reason) => reason.to_string(),
        None if error.kind() == ErrorKind::InvalidUtf8 => "expected text in UTF-8".to_owned(),
        None if allowed.is_empty() => "expected a value, found none".to_owned(),
        None => format!("expected one of: {}", allowed.join(", ")),
    }
}

/// The setting and its value as the operator wrote them. A secret is not repeated.
fn with_value(setting: &Arg, value: Option<String>, environment: &impl Fn(&str) -> Option<String>) -> String {
    let flag = setting.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let name = setting.get_env().map(|name| name.to_string_lossy().into_owned());
    // A flag has precedence over the variable.
    let from_environment = name.filter(|name| {
        let found = environment(name);
        found.is_some_and(|found| value.as_ref().is_none_or(|value| found.contains(value.as_str())))
    });
    let name = from_environment.unwrap_or(flag);
    match value.filter(|_| !setting.is_hide_env_values_set()) {
        None => name,
        Some(value) => {
            let shown: String = value.chars().take(MAX_VALUE).flat_map(char::escape_debug).collect();
            format!("{name}={shown}")
        }
    }
}

/// The environment variable of an argument, or its flag.
fn variable(setting: Option<&Arg>, name: &str) -> String {
    let variable = setting.and_then(|setting| Some(setting.get_env()?.to_string_lossy().into_owned()));
    variable.unwrap_or_else(|| name.to_owned())
}

/// The definition of an argument that clap calls `--name <VALUE>`.
fn find(command: &Command, name: &str) -> Option<Arg> {
    let long = name.strip_prefix("--")?.split([' ', '[', '=']).next()?;
    let mut arguments = command.get_subcommands().flat_map(clap::Command::get_arguments);
    arguments.find(|argument| argument.get_long() == Some(long)).cloned()
}

fn texts(error: &clap::Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::cli::Cli;

    /// The error of a value that `variable` has. Clap reads the process' environment, so the test
    /// passes the value as the flag.
    fn error_of(variable: &str, value: &str) -> Option<String> {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        let argument = run.get_arguments().find(|a| a.get_env().is_some_and(|env| env == variable)).unwrap();
        let flag = format!("--{}={value}", argument.get_long().unwrap());
        let error = Cli::try_parse_from(["dispatcher", "run", &flag]).err()?;
        let environment = |name: &str| (name == variable).then(|| value.to_owned());
        Some(describe(&error, &command, environment).unwrap_or_else(|| panic!("{variable}={value}: {error}")))
    }

    #[test]
    fn error_names_the_variable_the_value_and_what_is_allowed() {
        for (variable, value, expected) in [
            ("DISPATCHER_CONCURRENCY", "abc", "a whole number from 1 to 1024"),
            ("DISPATCHER_CONCURRENCY", "0", "a whole number from 1 to 1024"),
            ("DISPATCHER_CONCURRENCY", "1025", "a whole number from 1 to 1024"),
            ("DISPATCHER_CONCURRENCY", "", "a whole number from 1 to 1024"),
            ("DISPATCHER_MAX_WAITERS", "-1", "a whole number from 1 to 65535"),
            ("DISPATCHER_MAX_WAIT", "1h", "a whole number from 1 to 86400"),
            ("DISPATCHER_DEFAULT_ACTIVE_DEADLINE_SECONDS", "0", "a whole number from 1 to"),
            ("DISPATCHER_ADMIN_ADDR", "8080", "an IP address and a port"),
            ("DISPATCHER_LOG_FORMAT", "xml", "one of: text, json"),
            ("DISPATCHER_NAMESPACE", "Jobs", "1 to 63 characters"),
            ("DISPATCHER_LEASE_NAME", "a.b", "1 to 63 characters"),
            ("DISPATCHER_LEASE_NAMESPACE", "a_b", "1 to 63 characters"),
            ("DISPATCHER_CANCEL_OWN_ACCOUNT_ONLY", "maybe", "boolean"),
            ("DISPATCHER_PREFIX", "a.b", "at most 32 characters"),
            ("NATS_INBOX_PREFIX", "a b", "a subject without wildcards"),
        ] {
            let error = error_of(variable, value).expect(variable);
            assert!(error.starts_with(&format!("{variable}={value}: ")), "{error}");
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    /// Every setting with a restricted value has an error in this form.
    #[test]
    fn every_refused_value_is_described() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for argument in run.get_arguments().filter_map(|argument| argument.get_env()) {
            let variable = argument.to_string_lossy();
            for value in ["", " ", "*", "-1", "é"] {
                // `None` for accepted values: paths, names and passwords are free.
                let Some(error) = error_of(&variable, value) else { continue };
                let requires_another = error.contains(": must be set, ");
                assert!(requires_another || error.starts_with(&*variable), "{error}");
            }
        }
    }

    #[test]
    fn flag_is_named_if_it_has_the_value() {
        let error = Cli::try_parse_from(["dispatcher", "run", "--concurrency", "abc"]).unwrap_err();
        let described = describe(&error, &Cli::command(), |_| None).unwrap();
        assert!(described.starts_with("--concurrency=abc: expected"), "{described}");
    }

    #[test]
    fn conflicting_and_missing_settings_are_named() {
        let describe = |args: &[&str]| {
            let error = Cli::try_parse_from([&["dispatcher", "run"], args].concat()).unwrap_err();
            describe(&error, &Cli::command(), |_| None).unwrap()
        };
        let conflict = describe(&["--nats-token=a", "--nats-creds=b"]);
        assert!(conflict.contains("NATS_TOKEN") && conflict.contains("NATS_CREDS"), "{conflict}");
        assert!(describe(&["--nats-cert=a"]).contains("NATS_KEY: must be set"));
    }
}
