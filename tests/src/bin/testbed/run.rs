//! `testbed run`: runs one program.

use std::path::PathBuf;
use std::process::ExitCode;

use dispatcher_tests::helper::Program;
use serde_json::Value;

use crate::commands::{self, Commands};
use crate::service::Service;

struct Run {
    service: Service,
    folder: Option<PathBuf>,
}

impl Commands for Run {
    async fn execute(&mut self, verb: &str, _name: &str) -> Result<Value, String> {
        self.service.execute(verb).await
    }

    async fn end(&mut self) {
        // An error if it is not running.
        let _ = self.service.kill().await;
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

pub(crate) async fn serve(program: &str) -> ExitCode {
    let program: Program = serde_json::from_str(program).unwrap_or_default();
    let mut run = Run { folder: program.folder.clone(), service: Service::new(program) };
    let started = run.service.execute("start").await;
    commands::serve(started, run).await
}
