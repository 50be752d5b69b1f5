//! The client examples of `docs/clients/`, run against a real dispatcher.

use std::{path::PathBuf, process::Output, time::Duration};

use dispatcher_tests::{or_skip, paths, skip, test_env::TestEnv};
use tokio::{process::Command, time::timeout};

const LANGUAGES: [&str; 4] = ["go", "python", "javascript", "rust"];

/// The first preparation downloads and compiles the clients' libraries.
const PREPARATION: Duration = Duration::from_secs(600);

/// The programs of every language whose tools are installed.
async fn prepare() -> Vec<(&'static str, PathBuf)> {
    let script = Command::new(paths::workspace().join("tests/clients")).kill_on_drop(true).output();
    let output = timeout(PREPARATION, script).await.expect("tests/clients ends in time").unwrap();
    assert!(output.status.success(), "tests/clients: {}", String::from_utf8_lossy(&output.stderr));
    let program = |language: &str| paths::workspace().join(format!("target/clients/{language}/client"));
    LANGUAGES
        .into_iter()
        .map(|language| (language, program(language)))
        .filter(|(language, program)| {
            if !program.exists() {
                skip::skip("clients", &format!("the tools of {language} are not installed"));
            }
            program.exists()
        })
        .collect()
}

async fn run(program: &PathBuf, env: &TestEnv, request: &str) -> Output {
    let client =
        Command::new(program).arg(request).env("NATS_URL", &env.nats.url).kill_on_drop(true).output();
    timeout(Duration::from_secs(90), client).await.expect("the client ends in time").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_example_prints_the_result_or_the_error() {
    let env = or_skip!(TestEnv::start().await);
    let _dispatcher = env.dispatcher().start().await;
    for (language, program) in prepare().await {
        let output = run(&program, &env, &format!(r#"{{"foo":"{language}"}}"#)).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Complete", "{language}: {output:?}");
        assert!(output.status.success(), "{language}: {output:?}");

        let output = run(&program, &env, "{}").await;
        assert_eq!(output.status.code(), Some(1), "{language}: {output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("`foo`"), "{language}: {error}");
    }
}
