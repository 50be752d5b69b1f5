//! Wrong environment variables. Each is a finding, and the other settings are still checked.

use std::ffi::OsString;

use clap::{
    Command as ClapCommand, CommandFactory, FromArgMatches,
    builder::{OsStr, Resettable},
};

use crate::cli::{Cli, Command, DoctorSettings, StartError, check_environment, describe, variables};

/// The settings of a command line for which clap has returned an error, without the variables that are
/// wrong. `None` if the error is not about variables of `dispatcher doctor`.
#[must_use]
pub fn without_wrong_variables(args: &[OsString]) -> Option<DoctorSettings> {
    let mut command = Cli::command();
    let (mut problems, mut ignored) = (Vec::new(), Vec::<String>::new());
    loop {
        let error = match command.clone().try_get_matches_from(args) {
            Err(error) => error,
            Ok(matches) => match Cli::from_arg_matches(&matches).ok()?.command {
                Command::Doctor(settings) => return Some(DoctorSettings { problems, ..*settings }),
                _ => return None,
            },
        };
        let line = describe(&error, &command, |name| std::env::var(name).ok())?;
        let (setting, message) = line.split_once(": ")?;
        let wrong = variables(&error, &Cli::command());
        let is_new = |name: &String| std::env::var_os(name).is_some() && !ignored.contains(name);
        // Otherwise a flag is wrong.
        if !wrong.iter().any(is_new) {
            return None;
        }
        problems.push(StartError::new(setting, message));
        ignored.extend(wrong.iter().cloned());
        command = without(command, &wrong);
    }
}

/// The command, whose subcommand `doctor` does not read these variables. The variables of NATS
/// require each other: if one is wrong, all are ignored.
fn without(command: ClapCommand, variables: &[String]) -> ClapCommand {
    const NATS: &str = "NATS_";
    let is_nats = variables.iter().any(|name| name.starts_with(NATS));
    command.mut_subcommand("doctor", |doctor| {
        doctor.mut_args(|argument| {
            let name = argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match variables.contains(&name) || (is_nats && name.starts_with(NATS)) {
                true => argument.env(Resettable::<OsStr>::Reset),
                false => argument,
            }
        })
    })
}

/// The variables with the dispatcher's prefix that are no settings.
pub(super) fn unknown(names: impl IntoIterator<Item = String>) -> Vec<StartError> {
    names.into_iter().filter_map(|name| check_environment([name]).err()).collect()
}
