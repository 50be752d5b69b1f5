use std::{path::Path, sync::mpsc};

use super::*;

const PATIENCE: Duration = Duration::from_secs(240);

/// A supervised shell script, and its changes.
fn script(
    script: &str,
    directory: &Path,
) -> (Supervised<impl FnMut(Change) + use<>>, mpsc::Receiver<Change>) {
    let (sender, changes) = mpsc::channel();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(directory);
    let guard = Guard::start(&directory.join("none")).unwrap();
    let notify = move |change| drop(sender.send(change));
    (Supervised { command, restart_delay: Duration::ZERO, grace: PATIENCE, guard, notify }, changes)
}

fn lines_of(changes: &mpsc::Receiver<Change>) -> Vec<String> {
    let line = |change| if let Change::Line(line) = change { Some(line) } else { None };
    changes.try_iter().filter_map(line).collect()
}

#[test]
fn restart_delay_doubles() {
    let delays = (1..MAX_CRASHES).map(|crashes| restart_delay(Duration::from_secs(1), crashes).as_secs());
    assert_eq!(delays.collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
}

#[tokio::test]
async fn crashed_program_is_restarted_up_to_the_limit() {
    let directory = tempfile::tempdir().unwrap();
    let (program, changes) = script("echo out; echo err >&2; kill -KILL $$", directory.path());
    let error = program.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error, "was killed by signal 9");
    let changes: Vec<_> = changes.try_iter().collect();
    let count = |matches: fn(&Change) -> bool| changes.iter().filter(|change| matches(change)).count();
    let restarts = MAX_CRASHES as usize - 1;
    assert_eq!(count(|change| matches!(change, Change::Started { restarted: false, .. })), 1);
    assert_eq!(count(|change| matches!(change, Change::Started { restarted: true, .. })), restarts);
    assert_eq!(count(|change| matches!(change, Change::Crashed { .. })), restarts);
    assert_eq!(count(|change| matches!(change, Change::Line(_))), 2 * MAX_CRASHES as usize);
}

#[tokio::test]
async fn wrong_setting_is_an_error_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let line = "dispatcher: DISPATCHER_TEMPLATES: none";
    let (program, changes) = script(&format!("echo '{line}' >&2; exit 2"), directory.path());
    let error = program.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error, "exited with code 2");
    assert_eq!(lines_of(&changes), [line]);
}

#[tokio::test]
async fn stopped_program_ends_by_sigterm_and_its_last_output_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let text = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let (program, changes) = script(text, directory.path());
    let stop = CancellationToken::new();
    let running = tokio::spawn(program.run(stop.clone()));
    let changes = tokio::task::spawn_blocking(move || {
        while changes.recv_timeout(PATIENCE).unwrap() != Change::Line("ready".to_owned()) {}
        changes
    });
    let changes = changes.await.unwrap();
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!(lines_of(&changes), ["bye"]);
}

#[tokio::test]
async fn program_that_ignores_sigterm_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut program, changes) = script("trap '' TERM; echo ready; exec sleep 1000", directory.path());
    program.grace = Duration::ZERO;
    let stop = CancellationToken::new();
    let running = tokio::spawn(program.run(stop.clone()));
    tokio::task::spawn_blocking(move || {
        while changes.recv_timeout(PATIENCE).unwrap() != Change::Line("ready".to_owned()) {}
        stop.cancel();
        while changes.recv_timeout(PATIENCE).is_ok() {}
    })
    .await
    .unwrap();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}
