//! Renders the results of `make chaos` as tables between the two markers of `docs/fault-table.md`.

use std::path::Path;
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
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    let text = std::fs::read_to_string(&results).map_err(failed(&results))?;
    let runs = table::parse(&text).map_err(|error| format!("{}: {error}", results.display()))?;
    let document = paths::workspace().join("docs/fault-table.md");
    let old = std::fs::read_to_string(&document).map_err(failed(&document))?;
    let (before, after) = outside_of_markers(&old)
        .ok_or_else(|| format!("{}: the lines {BEGIN:?} and {END:?} are missing", document.display()))?;
    let new = format!("{before}{BEGIN}\n{}\n{END}{after}", table::render(&runs));
    std::fs::write(&document, new).map_err(failed(&document))
}

fn outside_of_markers(text: &str) -> Option<(&str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    Some((before, rest.split_once(END)?.1))
}
