//! Shell completions and man pages, from the definition of the command line.

use std::io;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The script that completes the subcommands, flags and values of a command line in a shell.
#[must_use]
pub fn completions(shell: Shell, mut command: Command) -> String {
    let mut script = vec![];
    clap_complete::generate(shell, &mut command, "dispatcher", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The man pages by file name: `dispatcher.1`, and `dispatcher-run.1` for the subcommand `run`.
///
/// # Errors
/// If a page cannot be rendered.
pub fn man_pages(command: Command) -> io::Result<Vec<(String, String)>> {
    let mut command = command.disable_help_subcommand(true);
    // Sets the names of the subcommands' pages.
    command.build();
    let mut pages = vec![];
    render(&command, &mut pages)?;
    Ok(pages)
}

fn render(command: &Command, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let man = Man::new(command.clone()).source(concat!("dispatcher ", env!("CARGO_PKG_VERSION")));
    let mut page = vec![];
    man.render(&mut page)?;
    pages.push((man.get_filename(), String::from_utf8_lossy(&page).into_owned()));
    command.get_subcommands().filter(|command| !command.is_hide_set()).try_for_each(|c| render(c, pages))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    /// The text of a page without the escapes of roff.
    fn text(page: &str) -> String {
        page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")
    }

    #[test]
    fn every_subcommand_has_a_man_page_with_all_its_flags_and_variables() {
        let pages = man_pages(Cli::command()).unwrap();
        let command = Cli::command();
        let main = text(&pages[0].1);
        assert_eq!(pages[0].0, "dispatcher.1");
        assert_eq!(pages.len(), 1 + command.get_subcommands().count());
        for subcommand in command.get_subcommands() {
            let name = format!("dispatcher-{}.1", subcommand.get_name());
            let (_, page) = pages.iter().find(|page| page.0 == name).unwrap_or_else(|| panic!("{name}"));
            assert!(main.contains(&format!("dispatcher-{}(1)", subcommand.get_name())), "{main}");
            let page = text(page);
            let flags = subcommand.get_opts().filter_map(|flag| Some(format!("--{}", flag.get_long()?)));
            let variables = subcommand.get_arguments().filter_map(clap::Arg::get_env);
            let variables = variables.map(|name| name.to_string_lossy().into_owned());
            for expected in flags.chain(variables) {
                assert!(page.contains(&expected), "{name}: no {expected}: {page}");
            }
        }
    }

    /// The pages of a release must not depend on the settings of the machine that builds it.
    #[test]
    fn man_pages_contain_no_value_of_the_environment() {
        let Ok(path) = std::env::var("PATH") else { return };
        assert!(man_pages(Cli::command()).unwrap().iter().all(|(_, page)| !text(page).contains(&path)));
        assert_eq!(man_pages(Cli::command()).unwrap(), man_pages(Cli::command()).unwrap());
    }

    #[test]
    fn completions_of_every_shell_contain_every_subcommand_and_flag() {
        for shell in Shell::value_variants() {
            let script = completions(*shell, Cli::command());
            for subcommand in Cli::command().get_subcommands() {
                assert!(script.contains(subcommand.get_name()), "{shell}: {}", subcommand.get_name());
                let flags = subcommand.get_opts().filter_map(clap::Arg::get_long);
                flags.for_each(|flag| assert!(script.contains(flag), "{shell}: --{flag}"));
            }
        }
    }
}
