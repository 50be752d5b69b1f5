//! Starts what tests need and ends it when its stdin is closed: by the end of the test, however that came.
//!
//! ```text
//! testbed kubernetes [OPTIONS]     a Kubernetes; OPTIONS as JSON, see `dispatcher_tests::Options`
//! testbed docker [-- COMMAND...]   a container engine; with a command: for as long as that runs
//! testbed nats PORT                a NATS server in a container, on that port of this machine
//! testbed run PROGRAM              any program; PROGRAM as JSON, see `dispatcher_tests::helper::Program`
//! ```
//!
//! When all is ready, or cannot be, one JSON object is printed. Then each line on stdin is a command, answered by one JSON
//! object: `kill`, `term`, `stop`, `cont`, `start`, `wait` and a name.
#![allow(clippy::indexing_slicing, reason = "JSON values, where indexing gives null")]

mod commands;
mod components;
mod control_groups;
mod control_plane;
mod docker;
mod guard;
mod init;
mod leftovers;
mod nats;
mod node;
mod run;
mod service;

use std::process::ExitCode;

use tokio::runtime::Builder;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["init", program, rest @ ..] = args.as_slice() {
        return init::run(program, rest);
    }
    let Ok(runtime) = Builder::new_multi_thread().worker_threads(1).enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(async {
        match args.as_slice() {
            ["kubernetes"] => guard::kubernetes("{\"node\":true}").await,
            ["kubernetes", options] => guard::kubernetes(options).await,
            ["kubernetes-inside", folder, options] => control_plane::serve(folder, options).await,
            ["docker"] => guard::docker(None).await,
            ["docker", "--", command @ ..] => guard::docker(Some(command)).await,
            ["docker-inside", folder, bridge] => docker::serve(folder, bridge).await,
            ["nats", port] => nats::serve(port).await,
            ["run", program] => run::serve(program).await,
            _ => {
                eprintln!(
                    "usage: testbed kubernetes [OPTIONS] | docker [-- COMMAND...] | nats PORT | run PROGRAM"
                );
                ExitCode::from(2)
            }
        }
    });
    // A read of stdin may be going on in a thread of the runtime; it is not waited for.
    runtime.shutdown_background();
    code
}
