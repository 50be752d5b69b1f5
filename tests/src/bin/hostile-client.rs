//! The hostile clients of the hostile-client suite: attacks until its standard input ends, and prints
//! how many messages it sent.

#![allow(clippy::unwrap_used, reason = "a program of the tests")]

use dispatcher_tests::attacks::{Attacks, run};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

fn main() {
    let attacks: Attacks = serde_json::from_str(&std::env::args().nth(1).unwrap()).unwrap();
    let sent = Runtime::new().unwrap().block_on(async {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let attacking = tokio::spawn(run(attacks, stop));
        tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
        stopped.cancel();
        attacking.await.unwrap()
    });
    println!("{}", serde_json::to_string(&sent).unwrap());
}
