//! Starts what tests need and ends it when stdin closes, which the end of the test causes in any
//! case.
//!
//! ```text
//! testbed kubernetes [OPTIONS]     a Kubernetes; OPTIONS is JSON, see `dispatcher_tests::Options`
//! testbed docker                   a container engine
//! testbed nats PORT                a NATS server in a container, on this port
//! testbed run PROGRAM              a program; JSON, see `dispatcher_tests::helper::Program`
//! ```
//!
//! It prints a JSON object when it is ready or has failed. Each line on stdin is a command with a
//! name (`kill`, `term`, `stop`, `cont`, `start`, `wait`, ...), answered by a JSON object.
#![allow(clippy::indexing_slicing, reason = "indexing a JSON value never panics")]

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
            ["docker"] => guard::docker().await,
            ["docker-inside", folder, bridge] => docker::serve(folder, bridge).await,
            ["nats", port] => nats::serve(port).await,
            ["run", program] => run::serve(program).await,
            _ => {
                eprintln!("usage: testbed kubernetes [OPTIONS] | docker | nats PORT | run PROGRAM");
                ExitCode::from(2)
            }
        }
    });
    // A thread of the runtime may block on stdin; do not wait for it.
    runtime.shutdown_background();
    code
}
