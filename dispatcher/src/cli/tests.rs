use super::*;

#[test]
fn command_line_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn absent_limit_allows_everything_and_an_empty_one_is_refused() {
    let limits = |args: &[&str]| match Cli::parse_from([&["dispatcher", "run"], args].concat()).command {
        Command::Run(config) => config.limits,
        other => panic!("{other:?}"),
    };
    assert_eq!(limits(&[]).images, None);
    let images = limits(&["--allowed-images", "a:*,b/c:1"]).images.unwrap();
    assert_eq!(images.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:*", "b/c:1"]);
    assert!(Cli::try_parse_from(["dispatcher", "run", "--allowed-images", ""]).is_err());
    assert!(Cli::try_parse_from(["dispatcher", "run", "--default-active-deadline-seconds", "0"]).is_err());
}

#[test]
fn misspelled_environment_variable_is_refused_with_the_known_ones() {
    let check = |name: &str| check_environment([name.to_owned()]);
    let error = check("DISPATCHER_NAMESPASE").unwrap_err().to_string();
    assert!(error.starts_with("DISPATCHER_NAMESPASE: unknown setting"), "{error}");
    assert!(error.contains("DISPATCHER_NAMESPACE"), "{error}");
    for accepted in [
        "DISPATCHER_NAMESPACE",
        "DISPATCHER_MAX_WAIT",
        "NAMESPACE",
        "DISPATCHER_SERVICE_HOST",
        "DISPATCHER_SERVICE_PORT_HTTP",
        "DISPATCHER_PORT",
        "DISPATCHER_PORT_8080_TCP_ADDR",
        "DISPATCHER_METRICS_SERVICE_HOST",
    ] {
        assert_eq!(check(accepted), Ok(()), "{accepted}");
    }
}

/// Flags without a clap default describe it in their help text.
#[test]
fn help_shows_the_default_of_every_flag() {
    let command = Cli::command();
    for subcommand in command.get_subcommands() {
        for flag in subcommand.get_opts() {
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let shown = !flag.get_default_values().is_empty() || help.contains("Default: ");
            assert!(shown, "{} --{:?}: {help}", subcommand.get_name(), flag.get_long());
        }
    }
}
