//! What is said once everything is ready: what to type next, ready to copy. Pure.

use std::time::Duration;

/// What there is to be told.
pub(super) struct Facts<'a> {
    /// From the start to readiness.
    pub(super) took: Duration,
    /// Port of NATS.
    pub(super) nats: u16,
    /// Whether the `nats` command finds NATS without being told.
    pub(super) is_default_nats: bool,
    /// Port of the API.
    pub(super) api: u16,
    /// Port of `/livez` and `/readyz`.
    pub(super) admin: u16,
    /// The process of the dispatcher.
    pub(super) pid: i32,
    /// The templates that there are.
    pub(super) templates: &'a [String],
    /// Where the streams are kept; `None` where they are not.
    pub(super) kept: Option<String>,
}

/// The column of the comments.
const COMMENTS: usize = 72;

/// The text, in lines of their own.
pub(super) fn next(facts: &Facts<'_>) -> String {
    let Facts { took, nats, api, admin, pid, .. } = facts;
    let server = if facts.is_default_nats { String::new() } else { format!(" --server 127.0.0.1:{nats}") };
    let kubectl = format!("kubectl --server http://127.0.0.1:{api} --namespace jobs");
    let simple = facts.templates.iter().find(|template| *template == "simple");
    let template = simple.or(facts.templates.first()).map_or("simple", String::as_str);
    let request = if template == "simple" { r#"{"foo":"x"}"# } else { "{}" };
    let lines = [
        (format!("nats{server} sub 'jobs.{template}.status.>'"), "all that happens from now on"),
        (format!("nats{server} req jobs.{template}.create '{request}'"), "request a Job"),
        (format!("nats{server} sub --stream JOB_STATUS --all"), "all that was said, then live"),
        (format!("{kubectl} get jobs -w"), ""),
        (format!("{kubectl} logs -f job/NAME"), ""),
        (format!("kill -9 {pid}"), "the dispatcher: it comes back, and nothing is lost"),
    ];
    let mut text = format!(
        "Ready after {:.1} s: NATS on nats://127.0.0.1:{nats}, a local cluster on http://127.0.0.1:{api},\n\
         the dispatcher on http://127.0.0.1:{admin}/readyz. Templates: {}.\n\n",
        took.as_secs_f64(),
        facts.templates.join(", "),
    );
    for (command, comment) in lines {
        let line = match comment {
            "" => format!("  {command}"),
            comment => format!("  {command:<COMMENTS$}  # {comment}"),
        };
        text += &line;
        text.push('\n');
    }
    text += &match &facts.kept {
        Some(folder) => format!(
            "\nThe streams are kept in {folder}; the Jobs are gone with this program.\nCtrl-C stops everything.\n"
        ),
        None => "\nNothing is kept. Ctrl-C stops everything.\n".to_owned(),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(templates: &[String]) -> Facts<'_> {
        Facts {
            took: Duration::from_millis(1234),
            nats: 4222,
            is_default_nats: true,
            api: 8001,
            admin: 8080,
            pid: 4711,
            templates,
            kept: Some("/data".to_owned()),
        }
    }

    #[test]
    fn what_to_type_next_is_ready_to_copy() {
        let text = next(&facts(&["other".to_owned(), "simple".to_owned()]));
        let wanted = "\
Ready after 1.2 s: NATS on nats://127.0.0.1:4222, a local cluster on http://127.0.0.1:8001,
the dispatcher on http://127.0.0.1:8080/readyz. Templates: other, simple.

  nats sub 'jobs.simple.status.>'                                           # all that happens from now on
  nats req jobs.simple.create '{\"foo\":\"x\"}'                                 # request a Job
  nats sub --stream JOB_STATUS --all                                        # all that was said, then live
  kubectl --server http://127.0.0.1:8001 --namespace jobs get jobs -w
  kubectl --server http://127.0.0.1:8001 --namespace jobs logs -f job/NAME
  kill -9 4711                                                              # the dispatcher: it comes back, and nothing is lost

The streams are kept in /data; the Jobs are gone with this program.
Ctrl-C stops everything.
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn another_server_is_named_in_every_command() {
        let templates = ["worker".to_owned()];
        let text = next(&Facts { nats: 5222, is_default_nats: false, kept: None, ..facts(&templates) });
        assert!(text.contains("nats --server 127.0.0.1:5222 sub 'jobs.worker.status.>'"), "{text}");
        assert!(text.contains("nats --server 127.0.0.1:5222 req jobs.worker.create '{}'"), "{text}");
        assert!(text.ends_with("\nNothing is kept. Ctrl-C stops everything.\n"), "{text}");
    }
}
