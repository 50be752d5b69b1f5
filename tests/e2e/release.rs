//! What `release/` builds: completions, man pages, archives and images whose bytes depend only on
//! their contents, release notes; and the workflows, which only GitHub can run.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use dispatcher_tests::{or_skip, paths};
use serde_json::Value;

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The output of a command that must succeed, as text.
fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn dispatcher(args: &[&str]) -> String {
    stdout(Command::new(paths::built("dispatcher").unwrap()).args(args))
}

fn pack() -> Command {
    let mut command = Command::new(paths::workspace().join("release/pack.py"));
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

#[test]
fn workflows_have_no_error_that_actionlint_finds() {
    let actionlint = or_skip!(paths::actionlint());
    let output = Command::new(&actionlint).arg("-no-color").current_dir(paths::workspace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // A workflow with an error, so that the check can fail.
    let mut lint =
        Command::new(&actionlint).arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let wrong = "on: push\njobs: {a: {runs-on: ubuntu-24.04, steps: [{run: 'echo ${{ github.nosuch }}'}]}}\n";
    std::io::Write::write_all(&mut lint.stdin.take().unwrap(), wrong.as_bytes()).unwrap();
    assert!(!lint.wait().unwrap().success());
}

#[test]
fn shells_parse_their_completions() {
    let folder = tempfile::tempdir().unwrap();
    for shell in SHELLS {
        let program = or_skip!(paths::program(shell));
        let script = folder.path().join(shell);
        fs::write(&script, dispatcher(&["completions", shell])).unwrap();
        stdout(Command::new(program).arg("-n").arg(&script));
    }
}

#[test]
fn bash_completes_subcommands_flags_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("dispatcher.bash");
    fs::write(&script, dispatcher(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let code = r#"source "$0"; COMP_WORDS=(dispatcher "$@"); COMP_CWORD=$#; _dispatcher dispatcher "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
        stdout(Command::new("bash").args(["-c", code]).arg(&script).args(words))
    };
    for (words, expected) in [
        (&["che"][..], "check"),
        (&["run", "--adm"], "--admin-addr"),
        (&["run", "--log-format", ""], "json"),
        (&["completions", "f"], "fish"),
    ] {
        let found = complete(words);
        assert!(found.lines().any(|line| line == expected), "{words:?}: {found}");
    }
}

#[test]
fn man_pages_render_without_warnings() {
    let groff = or_skip!(paths::program("groff"));
    let folder = tempfile::tempdir().unwrap();
    dispatcher(&["man", folder.path().to_str().unwrap()]);
    let mut pages = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let output =
            Command::new(&groff).args(["-man", "-Tascii", "-ww", "-P-cbou"]).arg(&path).output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}: {}",
            path.display(),
            stderr(&output)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("SYNOPSIS"), "{}", path.display());
        pages += 1;
    }
    assert!(pages > 5, "{pages} pages");
    let missing =
        Command::new(paths::built("dispatcher").unwrap()).args(["man", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).starts_with("dispatcher: man: /nowhere"), "{}", stderr(&missing));
}

/// Writes the files in the given order, with modes and times of their own.
fn tree(folder: &Path, names: &[&str], umask: u32, time: u64) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("the content of {name}\n")).unwrap();
        let mode = if name.ends_with("program") { 0o777 } else { 0o666 };
        fs::set_permissions(&path, Permissions::from_mode(mode & !umask)).unwrap();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(time);
        File::open(&path).unwrap().set_modified(modified).unwrap();
    }
}

#[test]
fn archives_and_images_depend_only_on_their_contents() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    tree(&at("first/tree"), &["program", "a/b/c", "z"], 0o022, 1_000_000_000);
    tree(&at("second/tree"), &["z", "a/b/c", "program"], 0o077, 1_600_000_000);
    fs::write(
        at("Dockerfile"),
        "# A comment\nFROM scratch\nCOPY z /etc/z\nCOPY program /bin/\nUSER 1:1\nCMD [\"run\"]\n",
    )
    .unwrap();
    for folder in ["first", "second"] {
        let folder = at(folder);
        stdout(pack().arg("archive").arg(folder.join("tree")).arg(folder.join("archive.tar.gz")));
        for architecture in ["amd64", "arm64"] {
            let out = folder.join(format!("{architecture}.tar"));
            let options = ["--tag", "example:1", "--label", "a=b=c", "--architecture", architecture];
            stdout(pack().arg("image").arg(at("Dockerfile")).arg(folder.join("tree")).arg(out).args(options));
        }
        let images = ["arm64.tar", "amd64.tar"].map(|name| folder.join(name));
        stdout(pack().arg("index").arg(folder.join("index.tar")).args(images));
    }
    for file in ["archive.tar.gz", "amd64.tar", "arm64.tar", "index.tar"] {
        let read = |folder: &str| fs::read(at(folder).join(file)).unwrap();
        assert!(read("first") == read("second"), "{file}");
    }
    assert!(fs::read(at("first/amd64.tar")).unwrap() != fs::read(at("first/arm64.tar")).unwrap());
    let files = stdout(pack().arg("files").arg(at("first/amd64.tar")));
    assert_eq!(files, "/etc/z 17\n/bin/program 23\n");
    let listed = stdout(Command::new("tar").args(["-tvzf"]).arg(at("first/archive.tar.gz")));
    assert!(listed.lines().all(|line| line.contains(" 0/0 ") && line.contains(" 2023-11-14 ")), "{listed}");
}

#[test]
fn image_has_the_settings_of_its_dockerfile() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("program"), "").unwrap();
    let file = |path: &str| {
        let all = stdout(Command::new("tar").args(["-xOf"]).arg(root.path().join("image.tar")).arg(path));
        serde_json::from_str::<Value>(&all).unwrap()
    };
    let text = "FROM scratch\nCOPY program /program\nUSER 65532:65532\nEXPOSE 4222\nENTRYPOINT [\"/program\"]\nCMD [\"a\", \"b\"]";
    fs::write(root.path().join("Dockerfile"), text).unwrap();
    let arguments = [root.path().join("Dockerfile"), root.path().to_owned(), root.path().join("image.tar")];
    stdout(pack().arg("image").args(&arguments).args(["--tag", "registry.example.org:5000/a/b:1.2"]));

    let docker = file("manifest.json");
    assert_eq!(docker[0]["RepoTags"][0], "registry.example.org:5000/a/b:1.2");
    let settings = file(docker[0]["Config"].as_str().unwrap());
    assert_eq!(settings["config"]["User"], "65532:65532");
    assert_eq!(settings["config"]["ExposedPorts"], serde_json::json!({"4222/tcp": {}}));
    assert_eq!(settings["config"]["Entrypoint"], serde_json::json!(["/program"]));
    assert_eq!(settings["config"]["Cmd"], serde_json::json!(["a", "b"]));
    assert_eq!(settings["created"], "2023-11-14T22:13:20Z");
    let names = &file("index.json")["manifests"][0]["annotations"];
    assert_eq!(names["io.containerd.image.name"], "registry.example.org:5000/a/b:1.2");
    assert_eq!(names["org.opencontainers.image.ref.name"], "1.2");
}

#[test]
fn unsupported_dockerfile_is_refused_with_the_line() {
    let root = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("FROM debian\n", "expected FROM scratch in the first line"),
        ("FROM scratch\nRUN true\n", "Dockerfile:2: RUN true: expected COPY,"),
        ("FROM scratch\n\nCOPY a b c\n", "Dockerfile:3: COPY a b c:"),
        ("FROM scratch\nCOPY a b\n", "Dockerfile:2: COPY a b: the destination is no absolute path"),
        ("FROM scratch\nCMD /program run\n", "Dockerfile:2: CMD /program run:"),
        ("FROM scratch\nCOPY missing /missing\n", "No such file or directory"),
    ] {
        fs::write(root.path().join("Dockerfile"), text).unwrap();
        let arguments =
            [root.path().join("Dockerfile"), root.path().to_owned(), root.path().join("image.tar")];
        let output = pack().arg("image").args(&arguments).args(["--tag", "a:1"]).output().unwrap();
        assert!(
            !output.status.success() && stderr(&output).contains(expected),
            "{text}: {}",
            stderr(&output)
        );
        assert!(!root.path().join("image.tar").exists(), "{text}");
    }
}

#[test]
fn image_of_the_dispatcher_has_the_public_ca_certificates() {
    let image = or_skip!(paths::image("dispatcher"));
    let files = stdout(pack().arg("files").arg(image));
    let size = |path: &str| {
        let found =
            files.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(' ')?.parse::<u64>().ok());
        found.unwrap_or_else(|| panic!("no {path}: {files}"))
    };
    // More than 100 certificates have more than 100 KiB.
    assert!(size("/etc/ssl/certs/ca-certificates.crt") > 100 * 1024);
    assert!(size("/dispatcher") > 1024 * 1024);
}

/// A repository with the files that `release/build` reads.
struct Repository(tempfile::TempDir);

impl Repository {
    fn new(changelog: &str, chart: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("release")).unwrap();
        fs::create_dir_all(root.path().join("deploy/chart")).unwrap();
        fs::copy(paths::workspace().join("release/build"), root.path().join("release/build")).unwrap();
        fs::write(root.path().join("Cargo.toml"), "[workspace.package]\nversion = \"1.2.3\"\n").unwrap();
        fs::write(root.path().join("CHANGELOG.md"), changelog).unwrap();
        fs::write(root.path().join("deploy/chart/Chart.yaml"), chart).unwrap();
        for args in [
            &["init", "--quiet"][..],
            &["add", "."],
            &["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message=a"],
        ] {
            stdout(Command::new("git").arg("-C").arg(root.path()).args(args));
        }
        Self(root)
    }

    fn build(&self, step: &str, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new(self.0.path().join("release/build"));
        command.env_remove("GITHUB_REPOSITORY").env_remove("RELEASE_TAG");
        command.arg(step).envs(variables.iter().copied()).output().unwrap()
    }

    fn notes(&self, variables: &[(&str, &str)]) -> String {
        let output = self.build("notes", variables);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read_to_string(self.0.path().join("target/artifacts/notes.md")).unwrap()
    }
}

const CHANGELOG: &str = "# Changelog\n\n## Unreleased\n\n- Next.\n\n## 1.2.3 (2026-12-01)\n\n### Added\n\n- A [guide](docs/a.md#b), \
                         [policy](SECURITY.md) and [site](https://example.org/docs/).\n\n## 1.2.30\n\n- Old.\n";
const CHART: &str = "name: dispatcher\nversion: 1.2.3\nappVersion: \"1.2.3\"\n";

#[test]
fn release_is_refused_unless_tag_chart_and_changelog_have_its_version() {
    let check = |changelog: &str, chart: &str, tag: &str| {
        let output = Repository::new(changelog, chart).build("check", &[("RELEASE_TAG", tag)]);
        (output.status.success(), stderr(&output))
    };
    assert_eq!(check(CHANGELOG, CHART, "v1.2.3"), (true, String::new()));
    for (changelog, chart, tag, expected) in [
        (CHANGELOG, CHART, "v1.2.4", "the tag is v1.2.4, but Cargo.toml has version 1.2.3"),
        (CHANGELOG, CHART, "1.2.3", "expected the tag v1.2.3"),
        ("## Unreleased\n\n- Next.\n", CHART, "v1.2.3", "CHANGELOG.md has no section \"## 1.2.3\""),
        ("## 1.2.3\n\n## 1.2.2\n\n- Old.\n", CHART, "v1.2.3", "CHANGELOG.md has no section"),
        (CHANGELOG, "version: 1.2.2\nappVersion: 1.2.3\n", "v1.2.3", "has version 1.2.2; expected 1.2.3"),
        (
            CHANGELOG,
            "version: 1.2.3\nappVersion: \"1.2.2\"\n",
            "v1.2.3",
            "has appVersion 1.2.2; expected 1.2.3",
        ),
        (CHANGELOG, "version: 1.2.3\n", "v1.2.3", "has appVersion ; expected 1.2.3"),
    ] {
        let (passed, error) = check(changelog, chart, tag);
        assert!(!passed && error.contains(expected), "{tag}: {error}");
    }
}

#[test]
fn notes_are_the_section_of_the_version() {
    let repository = Repository::new(CHANGELOG, CHART);
    let notes = repository.notes(&[]);
    assert!(notes.contains("### Added") && notes.contains("(docs/a.md#b)"), "{notes}");
    assert!(!notes.contains("Next") && !notes.contains("Old") && !notes.contains("# Changelog"), "{notes}");
    assert!(notes.contains("Built from commit ") && notes.contains(" with rustc "), "{notes}");

    let notes = repository.notes(&[("GITHUB_REPOSITORY", "team/dispatcher")]);
    let base = "https://github.com/team/dispatcher/blob/v1.2.3";
    for link in
        [&format!("({base}/docs/a.md#b)"), &format!("({base}/SECURITY.md)"), "(https://example.org/docs/)"]
    {
        assert!(notes.contains(link), "{link}: {notes}");
    }

    let unreleased = Repository::new("## Unreleased\n\n- Next.\n\n## 1.2.2\n\n- Old.\n", CHART).notes(&[]);
    assert!(unreleased.contains("- Next.") && !unreleased.contains("Old"), "{unreleased}");
    let long = format!("## 1.2.3\n\n{}\n", "- A change.\n".repeat(12_000));
    let output = Repository::new(&long, CHART).build("notes", &[]);
    assert!(
        !output.status.success() && stderr(&output).contains("more than 125000 bytes"),
        "{}",
        stderr(&output)
    );
}
