//! The text that is printed once everything is ready: addresses, and commands to copy. No I/O.

use std::{fmt::Write as _, path::Path, time::Duration};

/// The facts that the text shows.
pub(super) struct Facts<'a> {
    /// The time from the start to readiness.
    pub(super) took: Duration,
    pub(super) nats_port: u16,
    /// Whether the `nats` command uses this NATS by default.
    pub(super) is_default_nats: bool,
    pub(super) api_port: u16,
    /// The file with the credentials for the API.
    pub(super) kubeconfig: &'a Path,
    pub(super) admin_port: u16,
    pub(super) has_console: bool,
    /// The token of a console that can write.
    pub(super) token: Option<&'a str>,
    /// The process id of the dispatcher.
    pub(super) pid: i32,
    pub(super) templates: &'a [String],
    /// A valid request of the [`shown_template`], as JSON; `None` if none was found.
    pub(super) request: Option<&'a str>,
    /// The directory of the streams; `None` if it is temporary.
    pub(super) kept: Option<String>,
}

/// The column of the comments.
const COMMENTS: usize = 72;

/// The text, ending with a newline.
pub(super) fn text(facts: &Facts<'_>) -> String {
    let Facts { took, nats_port, api_port, admin_port, templates, .. } = facts;
    let mut text = format!(
        "Ready after {:.1} s: NATS on nats://127.0.0.1:{nats_port}, the Kubernetes API on \
         https://127.0.0.1:{api_port},\nthe dispatcher on http://127.0.0.1:{admin_port}/readyz. \
         Templates: {}.\nKubeconfig: {}\n",
        took.as_secs_f64(),
        templates.join(", "),
        facts.kubeconfig.display(),
    );
    if let Some(line) = console(facts) {
        text += &line;
    }
    text.push('\n');
    for (command, comment) in commands(facts) {
        // Writing to a `String` cannot fail.
        let _ = match comment {
            "" => writeln!(text, "  {command}"),
            comment => writeln!(text, "  {command:<COMMENTS$}  # {comment}"),
        };
    }
    text += &match &facts.kept {
        Some(directory) => format!(
            "\nThe streams are kept in {directory}; the Jobs are not kept.\nCtrl-C stops everything.\n"
        ),
        None => "\nNothing is kept. Ctrl-C stops everything.\n".to_owned(),
    };
    text
}

/// The address of the console. The page keeps the token, and no server gets the part after `#`.
fn console(facts: &Facts<'_>) -> Option<String> {
    let address = format!("http://127.0.0.1:{}/console/", facts.admin_port);
    let token = facts.token.map(|token| format!("#token={token}")).unwrap_or_default();
    facts.has_console.then(|| format!("Console: {address}{token}\n"))
}

/// The template of the shown commands.
pub(super) fn shown_template(templates: &[String]) -> &str {
    let simple = templates.iter().find(|template| *template == "simple");
    simple.or(templates.first()).map_or("simple", String::as_str)
}

/// Commands, with comments.
fn commands(facts: &Facts<'_>) -> [(String, &'static str); 6] {
    let Facts { nats_port, kubeconfig, pid, templates, .. } = facts;
    let server =
        if facts.is_default_nats { String::new() } else { format!(" --server 127.0.0.1:{nats_port}") };
    let kubectl = format!("kubectl --kubeconfig {}", quoted(kubeconfig));
    let template = shown_template(templates);
    let (request, comment) = match facts.request {
        Some(request) => (request.replace('\'', r"'\''"), "request a Job"),
        None => ("{}".to_owned(), "request a Job: add the parameters of the template"),
    };
    [
        (format!("nats{server} sub 'jobs.{template}.status.>'"), "new status events"),
        (format!("nats{server} req jobs.{template}.create '{request}'"), comment),
        (format!("nats{server} sub --stream JOB_STATUS --all"), "stored status events, then new ones"),
        (format!("{kubectl} get jobs -w"), ""),
        (format!("{kubectl} logs -f job/NAME"), ""),
        (format!("kill -9 {pid}"), "crash the dispatcher: it restarts, and nothing is lost"),
    ]
}

/// The path as one word of a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-".contains(character);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(templates: &[String]) -> Facts<'_> {
        Facts {
            took: Duration::from_millis(1234),
            nats_port: 4222,
            is_default_nats: true,
            api_port: 8001,
            kubeconfig: Path::new("/data/kubeconfig"),
            admin_port: 8080,
            has_console: true,
            token: None,
            pid: 4711,
            templates,
            request: Some(r#"{"foo":"x"}"#),
            kept: Some("/data".to_owned()),
        }
    }

    #[test]
    fn commands_can_be_copied() {
        let text = text(&facts(&["other".to_owned(), "simple".to_owned()]));
        let expected = "\
Ready after 1.2 s: NATS on nats://127.0.0.1:4222, the Kubernetes API on https://127.0.0.1:8001,
the dispatcher on http://127.0.0.1:8080/readyz. Templates: other, simple.
Kubeconfig: /data/kubeconfig
Console: http://127.0.0.1:8080/console/

  nats sub 'jobs.simple.status.>'                                           # new status events
  nats req jobs.simple.create '{\"foo\":\"x\"}'                                 # request a Job
  nats sub --stream JOB_STATUS --all                                        # stored status events, then new ones
  kubectl --kubeconfig /data/kubeconfig get jobs -w
  kubectl --kubeconfig /data/kubeconfig logs -f job/NAME
  kill -9 4711                                                              # crash the dispatcher: it restarts, and nothing is lost

The streams are kept in /data; the Jobs are not kept.
Ctrl-C stops everything.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn address_of_a_console_that_can_write_has_the_token() {
        let templates = ["simple".to_owned()];
        let text = text(&Facts { token: Some("secret"), ..facts(&templates) });
        assert!(text.contains("\nConsole: http://127.0.0.1:8080/console/#token=secret\n"), "{text}");
        let text = super::text(&Facts { has_console: false, ..facts(&templates) });
        assert!(!text.contains("Console"), "{text}");
    }

    #[test]
    fn request_is_quoted_for_the_shell() {
        let templates = ["worker".to_owned()];
        let text = text(&Facts { request: Some(r#"{"who":"it's"}"#), ..facts(&templates) });
        assert!(text.contains(r#"create '{"who":"it'\''s"}'"#), "{text}");
        let text = super::text(&Facts { request: None, ..facts(&templates) });
        assert!(text.contains("create '{}'") && text.contains("add the parameters"), "{text}");
    }

    #[test]
    fn commands_name_a_server_that_is_not_the_default() {
        let templates = ["worker".to_owned()];
        let text = text(&Facts { nats_port: 5222, is_default_nats: false, kept: None, ..facts(&templates) });
        assert!(text.contains("nats --server 127.0.0.1:5222 sub 'jobs.worker.status.>'"), "{text}");
        assert!(
            text.contains("nats --server 127.0.0.1:5222 req jobs.worker.create '{\"foo\":\"x\"}'"),
            "{text}"
        );
        assert!(text.ends_with("\nNothing is kept. Ctrl-C stops everything.\n"), "{text}");
    }

    #[test]
    fn path_with_special_characters_is_quoted() {
        assert_eq!(quoted(Path::new("/a/b-1.c_d")), "/a/b-1.c_d");
        assert_eq!(quoted(Path::new("/a b/$(c)")), "'/a b/$(c)'");
        assert_eq!(quoted(Path::new("/a'b")), r"'/a'\''b'");
    }
}
