//! Checks the guarantees on existing streams and Jobs.
//!
//! `checker --nats URL --kubeconfig FILE --namespace NAMESPACE`. Without a record of the requests
//! it cannot detect lost ones. Prints one violation per line; exits with 1 if there are any, with 2 if
//! it cannot read the streams or the Jobs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dispatcher_tests::checker::{check, snapshot};
use dispatcher_tests::kubernetes::ready;

const USAGE: &str = "usage: checker --nats URL --kubeconfig FILE --namespace NAMESPACE";
/// After this time, work that was in flight during the first read has finished.
const RECHECK_DELAY: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("checker: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints the violations and returns their number.
async fn run() -> Result<usize, String> {
    let [nats, kubeconfig, namespace] = arguments(std::env::args().skip(1))?;
    let nats = async_nats::connect(&nats).await.map_err(|error| format!("{nats}: {error}"))?;
    let kubernetes = ready::client(Path::new(&kubeconfig))?;
    let mut history = snapshot::read(&nats, &kubernetes, &namespace).await?;
    let mut found = check(&history);
    if !found.is_empty() {
        tokio::time::sleep(RECHECK_DELAY).await;
        history = snapshot::read(&nats, &kubernetes, &namespace).await?;
        found = check(&history);
    }
    for violation in &found {
        println!("{violation}");
    }
    eprintln!("{} violations in {}", found.len(), history.summary());
    Ok(found.len())
}

/// The values of the three options.
fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<[String; 3], String> {
    let mut values = [const { None }; 3];
    while let Some(option) = arguments.next() {
        let index = ["--nats", "--kubeconfig", "--namespace"].iter().position(|name| *name == option);
        let value = index.and_then(|index| values.get_mut(index)).ok_or(USAGE)?;
        *value = Some(arguments.next().ok_or(USAGE)?);
    }
    let [nats, kubeconfig, namespace] = values;
    nats.zip(kubeconfig)
        .zip(namespace)
        .map(|((nats, kubeconfig), namespace)| [nats, kubeconfig, namespace])
        .ok_or(USAGE.to_owned())
}
