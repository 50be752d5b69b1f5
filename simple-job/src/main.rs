//! The workload of the templates `simple` and `memory`. `simple-job --help` describes it.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use plan::Plan;
use signal_hook::consts::{SIGINT, SIGTERM};

mod memory;
mod plan;
mod quantity;

/// The exit code for invalid settings or missing memory. A requested failure exits with 1.
const USAGE: u8 = 2;

const HELP: &str = "\
The workload of the templates `simple` and `memory`: sleeps, prints one line, and exits with code 0.
Environment variables:

  FOO            text for the printed line
  FAIL           if not empty: prints the line to stderr and exits with code 1
  SLEEP_SECONDS  how long to sleep, in seconds; may have a fraction (default 15)
  ALLOC_BYTES    memory to allocate after the sleep, as a Kubernetes quantity: 64Mi, 1.5G, 100000.
                 All bytes are written, so that the memory is resident (default none)
  HOLD_SECONDS   how long to hold that memory, in seconds; may have a fraction (default 8)

Exit code 2: a variable is invalid, or the system has not enough memory.
";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some() {
        print!("{HELP}");
        return ExitCode::from(if std::env::args().nth(1).as_deref() == Some("--help") { 0 } else { USAGE });
    }
    exit_on_signals();
    let variable = |name: &str| std::env::var(name).ok();
    let result = Plan::from_env(variable).and_then(|plan| run(&plan).map(|()| plan));
    let plan = match result {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(USAGE);
        }
    };
    match plan.result() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

/// Sleeps, then allocates and holds the memory of the plan.
fn run(plan: &Plan) -> Result<(), String> {
    thread::sleep(plan.sleep);
    if let Some(load) = &plan.memory {
        // Printed first: after an OOM kill nothing can be printed.
        println!("{} takes {} bytes of memory.", plan.job(), load.bytes);
        let memory = memory::allocate(load.bytes)?;
        println!("{} holds them for {} s.", plan.job(), load.hold.as_secs_f64());
        thread::sleep(load.hold);
        drop(memory);
    }
    Ok(())
}

/// Exits on SIGTERM and SIGINT. In a container this process has PID 1, for which the kernel ignores
/// signals without a handler: a deleted pod would stay for its whole grace period.
fn exit_on_signals() {
    for signal in [SIGTERM, SIGINT] {
        let flag = Arc::new(AtomicBool::new(true));
        if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag) {
            eprintln!("cannot handle signal {signal}: {error}");
        }
    }
}
