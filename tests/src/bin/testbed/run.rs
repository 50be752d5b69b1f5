//! `testbed run`: one program.

use std::path::PathBuf;
use std::process::ExitCode;

use dispatcher_tests::helper::Program;
use serde_json::Value;

use crate::commands::{self, Obey};
use crate::service::Service;

struct Run {
    service: Service,
    folder: Option<PathBuf>,
}

impl Obey for Run {
    async fn obey(&mut self, verb: &str, _name: &str) -> Result<Value, String> {
        self.service.obey(verb).await
    }

    async fn end(&mut self) {
        // An error says that it does not run.
        let _ = self.service.kill().await;
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

pub(crate) async fn serve(program: &str) -> ExitCode {
    let program: Program = serde_json::from_str(program).unwrap_or_default();
    let mut run = Run { folder: program.folder.clone(), service: Service::new(program) };
    let started = run.service.obey("start").await;
    commands::serve(started, run).await
}
