//! Where everything is to be: ports and folders, looked at before anything starts.

use std::{
    fs::{File, TryLockError},
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::dev::{DevError, settings::Settings};

/// The ports and folders of one run.
pub(super) struct Place {
    /// NATS is to listen here.
    pub(super) nats: u16,
    /// The local cluster's API.
    pub(super) api: u16,
    /// The dispatcher's `/livez` and `/readyz`.
    pub(super) admin: u16,
    /// The folder of JetStream.
    pub(super) store: PathBuf,
    /// Whether the folder of JetStream stays.
    pub(super) kept: bool,
    /// DeletionCheck at the end.
    pub(super) folder: TempDir,
    /// Held to the end: the kept folder is this run's.
    _lock: Option<File>,
}

impl Place {
    /// Takes the ports and the folders; the listener is that of the API, held from the start.
    ///
    /// # Errors
    /// All that is taken or cannot be, a line for each.
    pub(super) fn take(settings: &Settings) -> Result<(Self, TcpListener), DevError> {
        let ports = [
            ("--nats-port", settings.nats_port),
            ("--api-port", settings.api_port),
            ("--admin-port", settings.admin_port),
        ];
        let ([nats, api, admin], mut wrong) = listeners(ports);
        let folders = Folders::take(settings.temporary).map_err(|line| wrong.push(line));
        let (Some(nats), Some(api), Some(admin), Ok(folders)) = (nats, api, admin, folders) else {
            return Err(DevError::Settings(wrong));
        };
        let port = |listener: &TcpListener| match listener.local_addr() {
            Ok(address) => Ok(address.port()),
            Err(error) => Err(DevError::setting(format!("a port has no number: {error}"))),
        };
        let Folders { store, folder, lock } = folders;
        let (nats, admin, kept) = (port(&nats)?, port(&admin)?, !settings.temporary);
        Ok((Self { nats, api: port(&api)?, admin, store, kept, folder, _lock: lock }, api))
    }
}

/// A listener for each of these ports, all at once, so that no two of them are the same; and a line for each that there is
/// none for.
fn listeners<const N: usize>(ports: [(&str, u16); N]) -> ([Option<TcpListener>; N], Vec<String>) {
    let mut wrong = vec![];
    let listeners = ports.map(|(flag, port)| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            wrong.push(taken(flag, port, &error));
            None
        }
    });
    (listeners, wrong)
}

fn taken(flag: &str, port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{flag}: port {port} is taken; name another one, or 0 for any that is free")
        }
        _ => format!("{flag}: port {port}: {error}"),
    }
}

struct Folders {
    store: PathBuf,
    folder: TempDir,
    lock: Option<File>,
}

impl Folders {
    fn take(temporary: bool) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("dispatcher-dev-").tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        if temporary {
            return Ok(Self { store: folder.path().join("jetstream"), folder, lock: None });
        }
        let kept = kept(|name| std::env::var_os(name).map(PathBuf::from))
            .ok_or("neither XDG_DATA_HOME nor HOME is set, so nothing can be kept: use --temporary")?;
        let lock = lock(&kept)?;
        Ok(Self { store: kept.join("jetstream"), folder, lock: Some(lock) })
    }
}

/// The kept folder, as the XDG Base Directory Specification says: a relative path there is none.
fn kept(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || Some(variable("HOME").filter(|path| path.is_absolute())?.join(".local/share"));
    Some(data.or_else(home)?.join("dispatcher/dev"))
}

/// Makes the folder and takes it for this process: two servers on one store would spoil it.
fn lock(folder: &Path) -> Result<File, String> {
    let failed = |error: io::Error| format!("{}: {error}; --temporary does without it", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    let file = File::create(folder.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{}: another `dispatcher dev` keeps its streams there; --temporary does without it",
            folder.display()
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let (listeners, wrong) = listeners([("--a", port), ("--b", 0), ("--c", port)]);
        assert!(listeners[1].is_some());
        let line =
            |flag| format!("{flag}: port {port} is taken; name another one, or 0 for any that is free");
        assert_eq!(wrong, [line("--a"), line("--c")]);
    }

    #[test]
    fn the_same_port_twice_is_taken() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (_, wrong) = listeners([("--a", free), ("--b", free)]);
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].starts_with("--b"), "{wrong:?}");
    }

    #[test]
    fn what_is_kept_is_where_data_of_users_is() {
        let at = |data: Option<&str>, home: Option<&str>| {
            kept(|name| if name == "HOME" { home } else { data }.map(PathBuf::from))
        };
        assert_eq!(at(Some("/d"), Some("/h")), Some("/d/dispatcher/dev".into()));
        assert_eq!(at(None, Some("/h")), Some("/h/.local/share/dispatcher/dev".into()));
        assert_eq!(at(Some(""), Some("/h")), Some("/h/.local/share/dispatcher/dev".into()));
        assert_eq!(at(None, None), None);
    }

    #[test]
    fn a_kept_folder_is_for_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap_err().contains("another `dispatcher dev`"));
        drop(first);
        lock(folder.path()).unwrap();
    }
}
