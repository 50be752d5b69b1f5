use std::fs;

use dispatcher_core::testing::SIMPLE;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn check(&self, files: &[&str], render: Option<&str>) -> Report {
        let files = files.iter().map(|file| self.0.path().join(file)).collect();
        let render = render.map(str::to_owned);
        check(&Check { files, render, limits: crate::cli::Limits::default() })
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn valid_templates_are_listed_with_file_and_name() {
    let folder = Folder::with(&[
        ("a.yaml", SIMPLE),
        ("b.yml", &SIMPLE.replace("name: simple\nspec", "name: other\nspec")),
    ]);
    for files in [&["a.yaml", "b.yml"][..], &["."]] {
        let report = folder.check(files, None);
        assert_eq!(report.problems, [""; 0]);
        assert_eq!(report.lines.len(), 2);
        assert!(report.lines[0].ends_with("a.yaml (template simple)"), "{:?}", report.lines);
        assert!(report.lines[1].ends_with("b.yml (template other)"), "{:?}", report.lines);
    }
}

#[test]
fn all_problems_of_all_files_are_listed() {
    let two_problems =
        SIMPLE.replace("value: ${foo}", "value: ${bar}").replace("backoffLimit", "backofLimit");
    let files = [
        ("a.yaml", SIMPLE),
        ("b.yaml", &*two_problems),
        ("c.yaml", "kind: ["),
        ("d.yaml", SIMPLE),
        ("e.yaml", &SIMPLE.replace("Finished: 600", "Finished: 60")),
    ];
    let folder = Folder::with(&files);
    let report = folder.check(&["a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "none.yaml"], None);
    assert_eq!(report.lines.len(), 1);
    let expected = [
        (
            "b.yaml",
            "spec.job.spec.template.spec.containers[0].env[0].value: references undeclared parameter `bar`",
        ),
        ("c.yaml", "not valid YAML"),
        ("d.yaml", "metadata.name: another file defines the template `simple`"),
        (
            "e.yaml",
            "spec.job.spec.ttlSecondsAfterFinished: expected more than 60 (the consumer's ack_wait), found 60",
        ),
        ("e.yaml", "metadata.name: another file defines the template `simple`"),
        ("none.yaml", "cannot be read"),
    ];
    assert_eq!(report.problems.len(), expected.len(), "{:#?}", report.problems);
    for (problem, (file, message)) in report.problems.iter().zip(expected) {
        assert!(problem.starts_with(&format!("{}: {message}", folder.at(file))), "{problem}");
    }
}

#[test]
fn render_prints_the_job_as_it_would_be_created() {
    let folder = Folder::with(&[("a.yaml", SIMPLE)]);
    let report = folder.check(&["a.yaml"], Some(r#"{"foo":"x"}"#));
    assert_eq!(report.problems, [""; 0]);
    let job: Job = serde_json::from_str(&report.lines[0]).unwrap();
    assert_eq!(job.metadata.name.as_deref(), Some("simple-job-x"));
    assert_eq!(job.metadata.labels.unwrap()["natsjobs.dev/template"], "simple");
}

#[test]
fn render_reports_a_rejected_request() {
    let folder = Folder::with(&[
        ("a.yaml", SIMPLE),
        ("b.yaml", &SIMPLE.replace("name: simple\nspec", "name: other\nspec")),
    ]);
    let report = folder.check(&["a.yaml"], Some("{}"));
    assert_eq!(
        report.problems,
        ["the request is rejected: InvalidRequest: `foo`: required field is missing"]
    );
    let report = folder.check(&["a.yaml", "b.yaml"], Some("{}"));
    assert_eq!(report.problems, ["--render: expected one template, found 2"]);
    assert_eq!(report.lines, [""; 0]);
}
