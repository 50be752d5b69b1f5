//! Finds the programs to run: nats-server, and a program for each image.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use local_cluster::kubelet::Program;

use crate::cli::{DevSettings, Image};

/// The image of the shipped workload.
const SIMPLE_JOB: &str = concat!("simple-job:", env!("CARGO_PKG_VERSION"));

/// The nats-server on the `PATH`, or the newest one that `make setup` has put into the cache.
///
/// # Errors
/// No nats-server was found; the message explains how to install it.
pub(super) fn nats_server(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, String> {
    let path = variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    let cached = || newest(&cache?.join("dispatcher"));
    on_path.into_iter().find(|file| file.is_file()).or_else(cached).ok_or_else(|| {
        "no nats-server on the PATH: install it (https://docs.nats.io/running-a-nats-service), or run \
         `make dev` in a checkout, which downloads it"
            .to_owned()
    })
}

fn newest(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    entries.filter_map(|path| Some((version(&path)?, path))).max().map(|(_, path)| path)
}

/// The version in the name of a cached `nats-server-2.15.1`.
fn version(path: &Path) -> Option<Vec<u32>> {
    let text = path.file_name()?.to_str()?.strip_prefix("nats-server-")?;
    text.split('.').map(|part| part.parse().ok()).collect()
}

/// The program of each image.
pub(super) struct Images {
    /// The programs by image name.
    pub(super) programs: BTreeMap<String, Program>,
    /// A warning that does not prevent the start.
    pub(super) warning: Option<String>,
}

/// The programs of the settings, and the `simple-job` in the directory of this program (`own`).
///
/// # Errors
/// One line for each program that does not exist.
pub(super) fn images(settings: &DevSettings, own: &Path) -> Result<Images, Vec<String>> {
    let (found, missing): (Vec<_>, Vec<_>) = settings.images.iter().map(program).partition(Result::is_ok);
    if !missing.is_empty() {
        return Err(missing.into_iter().filter_map(Result::err).collect());
    }
    let shipped = own.with_file_name("simple-job");
    let mut programs = BTreeMap::new();
    if shipped.is_file() {
        programs.insert(SIMPLE_JOB.to_owned(), Program::new(shipped));
    }
    programs.extend(found.into_iter().filter_map(Result::ok));
    let warning = match programs.remove(SIMPLE_JOB) {
        Some(program) => {
            let sleep = settings.sleep_seconds.as_secs_f64().to_string();
            let program = program.with_variable("SLEEP_SECONDS", sleep.clone());
            programs.insert(SIMPLE_JOB.to_owned(), program.with_variable("HOLD_SECONDS", sleep));
            None
        }
        None => Some(format!(
            "no program `simple-job` in the directory of {}: Jobs of the template `simple` cannot start; \
             set one with --image {SIMPLE_JOB}=PROGRAM",
            own.display()
        )),
    };
    Ok(Images { programs, warning })
}

fn program(image: &Image) -> Result<(String, Program), String> {
    let path = std::path::absolute(&image.program).unwrap_or_else(|_| image.program.clone());
    if path.is_file() {
        Ok((image.name.clone(), Program::new(path)))
    } else {
        Err(format!("--image {}: no file {}", image.name, path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(folder: &Path, names: &[&str]) {
        std::fs::create_dir_all(folder).unwrap();
        names.iter().for_each(|name| std::fs::write(folder.join(name), "").unwrap());
    }

    #[test]
    fn nats_server_on_the_path_precedes_the_newest_cached_one() {
        let folder = tempfile::tempdir().unwrap();
        let (bin, cache) = (folder.path().join("bin"), folder.path().join(".cache/dispatcher"));
        make(&cache, &["nats-server-2.9.30", "nats-server-2.15.1", "nats-server-2.15.0", "nats-server-x"]);
        let found = || {
            nats_server(|name| match name {
                "PATH" => Some(bin.clone().into()),
                "HOME" => Some(folder.path().into()),
                _ => None,
            })
        };
        assert_eq!(found(), Ok(cache.join("nats-server-2.15.1")));
        make(&bin, &["nats-server"]);
        assert_eq!(found(), Ok(bin.join("nats-server")));
        assert!(nats_server(|_| None).unwrap_err().contains("make dev"));
    }

    fn settings(images: &[(&str, PathBuf)]) -> DevSettings {
        let images = images.iter().map(|(name, program)| format!("--image={name}={}", program.display()));
        let args = ["dispatcher".to_owned(), "dev".to_owned(), "--sleep-seconds=0.5".to_owned()];
        let cli = clap::Parser::parse_from(args.into_iter().chain(images));
        let crate::cli::Cli { command: crate::cli::Command::Dev(settings) } = cli else { panic!("dev") };
        *settings
    }

    #[test]
    fn simple_job_is_found_in_the_directory_of_this_program() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("dispatcher");
        let none = images(&settings(&[]), &own).unwrap();
        assert!(none.programs.is_empty());
        assert!(none.warning.unwrap().contains("--image simple-job:"));

        make(folder.path(), &["simple-job", "worker"]);
        let worker = folder.path().join("worker");
        let Images { programs, warning } = images(&settings(&[("worker:1", worker.clone())]), &own).unwrap();
        assert_eq!(warning, None);
        assert_eq!(programs["worker:1"], Program::new(worker));
        let simple = Program::new(folder.path().join("simple-job"))
            .with_variable("SLEEP_SECONDS", "0.5")
            .with_variable("HOLD_SECONDS", "0.5");
        assert_eq!(programs[SIMPLE_JOB], simple);
    }

    #[test]
    fn missing_programs_are_named() {
        let nowhere = Path::new("/nowhere").to_owned();
        let missing = images(&settings(&[("a:1", nowhere.join("a")), ("b:1", nowhere.join("b"))]), &nowhere);
        assert_eq!(
            missing.err().unwrap(),
            ["--image a:1: no file /nowhere/a", "--image b:1: no file /nowhere/b"]
        );
    }
}
