//! The workload of the kinds `simple` and `memory`; `simple-job --help` tells what it does.

use std::process::ExitCode;
use std::thread;

use plan::Plan;
use signal_hook::consts::{SIGINT, SIGTERM};

mod memory;
mod plan;
mod quantity;

/// The exit code of a run that could not read its settings; not the 1 of a run that was told to fail.
const USAGE: u8 = 2;

const HELP: &str = "\
Sleeps, then prints one line and ends with exit code 0: the workload of the kinds `simple` and `memory`.
It is told what to do by environment variables:

  FOO            a text for the line that is printed
  FAIL           anything but nothing: the line goes to stderr, and the exit code is 1
  SLEEP_SECONDS  how long it sleeps, 15 unless set; may have a fraction
  ALLOC_BYTES    memory to take after the sleep, as a quantity of Kubernetes: 64Mi, 1.5G, 100000.
                 It is written to, so that it is resident
  HOLD_SECONDS   how long that memory is held, 8 unless set

Exit code 2: a variable is not what it should be, or the memory is refused.
";

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some() {
        print!("{HELP}");
        return ExitCode::from(if std::env::args().nth(1).as_deref() == Some("--help") { 0 } else { USAGE });
    }
    end_on_signals();
    let variable = |name: &str| std::env::var(name).ok();
    let done = Plan::read(variable).and_then(|plan| run(&plan).map(|()| plan));
    let plan = match done {
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

/// Sleeps, and takes and holds memory where the plan says so.
fn run(plan: &Plan) -> Result<(), String> {
    thread::sleep(plan.sleep);
    if let Some(load) = &plan.memory {
        // Said before, since nothing can be said after a kill.
        println!("{} takes {} bytes of memory.", plan.subject(), load.bytes);
        let held = memory::take(load.bytes)?;
        println!("{} holds them for {} s.", plan.subject(), load.hold.as_secs_f64());
        thread::sleep(load.hold);
        drop(held);
    }
    Ok(())
}

/// In a container this process is PID 1, for which the kernel ignores every signal that has no handler: without one a
/// deleted pod would hang around for its whole grace period.
fn end_on_signals() {
    for signal in [SIGTERM, SIGINT] {
        let flag = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag) {
            eprintln!("cannot handle signal {signal}: {error}");
        }
    }
}
