//! Puts the results of the fault campaign (`make chaos`) as tables into `docs/fault-table.md`, between its two markers.

use std::process::ExitCode;

use dispatcher_tests::chaos::{results, table};
use dispatcher_tests::paths;

const BEGIN: &str = "<!-- results of `make chaos`, written by `make chaos-table` -->\n";
const END: &str = "<!-- end of the results -->\n";

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos-table: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write() -> Result<(), String> {
    let results = results::file();
    let failed = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let text = std::fs::read_to_string(&results).map_err(failed(&results))?;
    let runs = table::parse(&text).map_err(|error| format!("{}: {error}", results.display()))?;
    let document = paths::workspace().join("docs/fault-table.md");
    let old = std::fs::read_to_string(&document).map_err(failed(&document))?;
    let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("{}: no markers", document.display()))?;
    let new = format!("{before}{BEGIN}\n{}\n{END}{after}", table::render(&runs));
    std::fs::write(&document, new).map_err(failed(&document))
}
