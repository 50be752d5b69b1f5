//! `rig run`: one program.

use std::process::ExitCode;

use serde_json::Value;

use crate::commands::{self, Obey};
use crate::service::Service;

struct Run(Service);

impl Obey for Run {
    async fn obey(&mut self, verb: &str, _name: &str) -> Result<Value, String> {
        self.0.obey(verb).await
    }

    async fn end(&mut self) {
        // An error says that it does not run.
        let _ = self.0.kill().await;
    }
}

pub(crate) async fn serve(program: &str) -> ExitCode {
    let mut run = Run(Service::new(serde_json::from_str(program).unwrap_or_default()));
    let started = run.0.obey("start").await;
    commands::serve(started, run).await
}
