//! Checks the promises on the streams and the cluster as they are: `checker --nats URL --kubeconfig FILE --namespace NS`.
//!
//! It has no record of what was requested, so it cannot tell a lost request. Violations go to stdout, one a line; the
//! exit code is 1 where there are any, 2 where it could not look.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dispatcher_tests::checker::{check, snapshot};
use dispatcher_tests::kubernetes::ready;

const USAGE: &str = "usage: checker --nats URL --kubeconfig FILE --namespace NAMESPACE";
/// What is only under way while the first look is taken is done at the second.
const PAUSE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match look().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("checker: {error}");
            ExitCode::from(2)
        }
    }
}

/// The number of violations, which are printed.
async fn look() -> Result<usize, String> {
    let [nats, kubeconfig, namespace] = arguments(std::env::args().skip(1))?;
    let nats = async_nats::connect(&nats).await.map_err(|error| format!("{nats}: {error}"))?;
    let kubernetes = ready::client(Path::new(&kubeconfig))?;
    let mut history = snapshot::read(&nats, &kubernetes, &namespace).await?;
    let mut found = check(&history);
    if !found.is_empty() {
        tokio::time::sleep(PAUSE).await;
        history = snapshot::read(&nats, &kubernetes, &namespace).await?;
        found = check(&history);
    }
    for violation in &found {
        println!("{violation}");
    }
    eprintln!("{} violations in {}", found.len(), history.summary());
    Ok(found.len())
}

/// The values of the options, each given once.
fn arguments(given: impl Iterator<Item = String>) -> Result<[String; 3], String> {
    let mut values = [const { None }; 3];
    let mut given = given;
    while let Some(option) = given.next() {
        let place = ["--nats", "--kubeconfig", "--namespace"].iter().position(|name| *name == option);
        let slot = place.and_then(|place| values.get_mut(place)).ok_or(USAGE)?;
        *slot = Some(given.next().ok_or(USAGE)?);
    }
    let [nats, kubeconfig, namespace] = values;
    nats.zip(kubeconfig)
        .zip(namespace)
        .map(|((nats, kubeconfig), namespace)| [nats, kubeconfig, namespace])
        .ok_or(USAGE.to_owned())
}
