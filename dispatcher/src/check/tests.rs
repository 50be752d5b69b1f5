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
        check(&Check { files, render, strict: false, limits: crate::cli::Limits::default() })
    }

    fn check_strictly(&self, file: &str) -> Report {
        let limits = crate::cli::Limits::default();
        check(&Check { files: vec![self.0.path().join(file)], render: None, strict: true, limits })
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
    let two_problems = SIMPLE.replace("value: ${foo}", "value: ${bar}").replace(
        "SLEEP_SECONDS\n                  value: \"15\"",
        "SLEEP_SECONDS\n                  value: ${foo",
    );
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
        ("b.yaml", "spec.job.spec.template.spec.containers[0].env[2].value: `${` has no closing `}`"),
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

/// Templates that a newer Kubernetes accepts.
#[test]
fn field_that_only_the_cluster_knows_is_a_warning_and_strictly_an_error() {
    let folder = Folder::with(&[
        (
            "a.yaml",
            &SIMPLE.replace(
                "          restartPolicy: Never\n",
                "          restartPolicy: Never\n          hostnameOverride: h\n",
            ),
        ),
        ("b.yaml", &SIMPLE.replace("restartPolicy: Never", "restartPolicy: Nver")),
    ]);
    let field = "spec.job.spec.template.spec.hostnameOverride";
    let expected =
        format!("{}: {field}: unknown field of a batch/v1 Job, passed through", folder.at("a.yaml"));
    let report = folder.check(&["a.yaml"], Some(r#"{"foo":"x"}"#));
    assert_eq!((report.problems, report.warnings), (vec![], vec![expected.clone()]));
    let job: serde_json::Value = serde_json::from_str(&report.lines[0]).unwrap();
    assert_eq!(job["spec"]["template"]["spec"]["hostnameOverride"], "h");
    let report = folder.check_strictly("a.yaml");
    assert_eq!((report.problems, report.warnings), (vec![expected], vec![]));
    let report = folder.check(&["b.yaml"], None);
    assert!(report.problems[0].contains("did you mean `Never`?"), "{:?}", report.problems);
}

#[test]
fn templates_whose_jobs_could_have_the_same_names_are_reported() {
    let with_prefix = |name: &str, prefix: &str| {
        SIMPLE.replace("name: simple\n", &format!("name: {name}\n")).replace(
            "jobName: simple-job-${foo}\n",
            &format!("jobName: {prefix}${{foo}}\n  namePrefix: {prefix}\n"),
        )
    };
    let folder = Folder::with(&[
        ("a.yaml", &with_prefix("a", "a-")),
        ("b.yaml", &with_prefix("b", "b-")),
        ("c.yaml", &with_prefix("c", "a-c-")),
    ]);
    assert_eq!(folder.check(&["a.yaml", "b.yaml"], None).problems, [""; 0]);
    let problems = folder.check(&["."], None).problems;
    let expected = format!(
        "{}: spec.namePrefix: `a-c-` and `a-`, the prefix of the template `a`, can start the same name",
        folder.at("./c.yaml")
    );
    assert_eq!(problems, [expected]);
    let report = folder.check(&["a.yaml"], Some(r#"{"foo":"x","name":"b-x"}"#));
    let expected = "the request is rejected: InvalidName: `name`: expected a name that starts with `a-`, the template's prefix";
    assert_eq!(report.problems, [expected]);
}

#[test]
fn render_prints_the_job_as_it_would_be_created() {
    let folder = Folder::with(&[("a.yaml", SIMPLE)]);
    let report = folder.check(&["a.yaml"], Some(r#"{"foo":"x"}"#));
    assert_eq!(report.problems, [""; 0]);
    let job: k8s_openapi::api::batch::v1::Job = serde_json::from_str(&report.lines[0]).unwrap();
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
