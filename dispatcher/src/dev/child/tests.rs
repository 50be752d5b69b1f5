use std::{path::Path, sync::mpsc};

use super::*;

const PATIENCE: Duration = Duration::from_secs(240);

/// A keeper of a shell script, and what it tells.
fn keeper(script: &str, folder: &Path) -> (Supervised<impl FnMut(Change) + use<>>, mpsc::Receiver<Change>) {
    let (sender, told) = mpsc::channel();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(folder);
    let guard = Guard::start(&folder.join("none")).unwrap();
    let tell = move |change| drop(sender.send(change));
    (Supervised { command, restart_delay: Duration::ZERO, grace: PATIENCE, guard, tell }, told)
}

fn lines_of(told: &mpsc::Receiver<Change>) -> Vec<String> {
    let line = |change| if let Change::Line(line) = change { Some(line) } else { None };
    told.try_iter().filter_map(line).collect()
}

#[test]
fn the_wait_doubles() {
    let waits: Vec<u64> = (1..DEATHS).map(|deaths| delay(Duration::from_secs(1), deaths).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16]);
}

#[tokio::test]
async fn one_that_dies_is_started_again_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, told) = keeper("echo out; echo err >&2; kill -KILL $$", folder.path());
    let error = keeper.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error, "was killed by signal 9");
    let told: Vec<_> = told.try_iter().collect();
    let count = |wanted: fn(&Change) -> bool| told.iter().filter(|change| wanted(change)).count();
    assert_eq!(count(|change| matches!(change, Change::Started { again: false, .. })), 1);
    assert_eq!(count(|change| matches!(change, Change::Started { again: true, .. })), DEATHS as usize - 1);
    assert_eq!(count(|change| matches!(change, Change::Died { .. })), DEATHS as usize - 1);
    assert_eq!(count(|change| matches!(change, Change::Line(_))), 2 * DEATHS as usize);
}

#[tokio::test]
async fn a_wrong_setting_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, told) = keeper("echo 'dispatcher: TEMPLATES: none' >&2; exit 2", folder.path());
    let error = keeper.run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error, "has ended with exit code 2");
    assert_eq!(lines_of(&told), ["dispatcher: TEMPLATES: none"]);
}

#[tokio::test]
async fn it_is_asked_to_end_and_its_last_words_are_heard() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let (keeper, told) = keeper(script, folder.path());
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(stop.clone()));
    let told = tokio::task::spawn_blocking(move || {
        while told.recv_timeout(PATIENCE).unwrap() != Change::Line("ready".to_owned()) {}
        told
    });
    let told = told.await.unwrap();
    stop.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    assert_eq!(lines_of(&told), ["bye"]);
}

#[tokio::test]
async fn one_that_does_not_end_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keeper, told) = keeper("trap '' TERM; echo ready; exec sleep 1000", folder.path());
    keeper.grace = Duration::ZERO;
    let stop = CancellationToken::new();
    let running = tokio::spawn(keeper.run(stop.clone()));
    tokio::task::spawn_blocking(move || {
        while told.recv_timeout(PATIENCE).unwrap() != Change::Line("ready".to_owned()) {}
        stop.cancel();
        while told.recv_timeout(PATIENCE).is_ok() {}
    })
    .await
    .unwrap();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}
