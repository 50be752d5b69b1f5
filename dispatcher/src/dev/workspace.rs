//! The ports and directories of one run, acquired before anything starts.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    cli::{ConsoleMode, DevSettings},
    dev::DevError,
};

/// The ports and directories of one run.
pub(super) struct Workspace {
    pub(super) nats_port: u16,
    pub(super) api_port: u16,
    pub(super) admin_port: u16,
    /// The directory of `JetStream`.
    pub(super) store: PathBuf,
    /// The kubeconfig of the local cluster. It is in the kept directory, unless nothing is kept.
    pub(super) kubeconfig: PathBuf,
    /// Whether the directory of `JetStream` is kept.
    pub(super) kept: bool,
    /// The token of a console that can write.
    pub(super) token: Option<Token>,
    /// Removed at the end.
    pub(super) temporary: TempDir,
    /// Locks the kept directory until the end.
    _lock: Option<File>,
}

/// A token, and the file that contains it.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) file: PathBuf,
}

impl Token {
    /// Generates a token, in a new file that only this user can read.
    fn generate(folder: &Path) -> io::Result<Self> {
        let text = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let file = folder.join("console-token");
        let mut open = OpenOptions::new();
        open.write(true).create_new(true).mode(0o600);
        open.open(&file)?.write_all(text.as_bytes())?;
        Ok(Self { text, file })
    }
}

impl Workspace {
    /// Acquires the ports and directories. The API's listener is returned, open from the start.
    ///
    /// # Errors
    /// One line for each port and directory that cannot be acquired.
    pub(super) fn acquire(settings: &DevSettings) -> Result<(Self, TcpListener), DevError> {
        let ports = [
            ("--nats-port", settings.nats_port),
            ("--api-port", settings.api_port),
            ("--admin-port", settings.admin_port),
        ];
        let ([nats, api, admin], mut errors) = listeners(ports);
        let directories = Directories::acquire(settings.temporary).map_err(|line| errors.push(line));
        let (Some(nats), Some(api), Some(admin), Ok(directories)) = (nats, api, admin, directories) else {
            return Err(DevError::Settings(errors));
        };
        let port = |listener: &TcpListener| match listener.local_addr() {
            Ok(address) => Ok(address.port()),
            Err(error) => Err(DevError::setting(format!("cannot read the number of a port: {error}"))),
        };
        let Directories { store, kubeconfig, temporary, lock } = directories;
        let token =
            match settings.console {
                ConsoleMode::Write => Some(Token::generate(temporary.path()).map_err(|error| {
                    DevError::setting(format!("--console: cannot write the token: {error}"))
                })?),
                ConsoleMode::Off | ConsoleMode::Read => None,
            };
        let workspace = Self {
            nats_port: port(&nats)?,
            api_port: port(&api)?,
            admin_port: port(&admin)?,
            store,
            kubeconfig,
            kept: !settings.temporary,
            token,
            temporary,
            _lock: lock,
        };
        Ok((workspace, api))
    }
}

/// Binds all ports together, so that they differ; and one line for each that cannot be bound.
fn listeners<const N: usize>(ports: [(&str, u16); N]) -> ([Option<TcpListener>; N], Vec<String>) {
    let mut errors = vec![];
    let listeners = ports.map(|(flag, port)| match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Some(listener),
        Err(error) => {
            errors.push(bind_error(flag, port, &error));
            None
        }
    });
    (listeners, errors)
}

fn bind_error(flag: &str, port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{flag}: port {port} is in use; choose another one, or 0 for any free port")
        }
        _ => format!("{flag}: port {port}: {error}"),
    }
}

struct Directories {
    store: PathBuf,
    kubeconfig: PathBuf,
    temporary: TempDir,
    lock: Option<File>,
}

impl Directories {
    fn acquire(is_temporary: bool) -> Result<Self, String> {
        let temporary = tempfile::Builder::new().prefix("dispatcher-dev-").tempdir();
        let temporary = temporary.map_err(|error| format!("cannot create a temporary directory: {error}"))?;
        if is_temporary {
            return Ok(Self::in_folder(temporary.path().to_owned(), temporary, None));
        }
        let kept = kept_directory(|name| std::env::var_os(name).map(PathBuf::from))
            .ok_or("cannot keep the streams: set XDG_DATA_HOME or HOME, or use --temporary")?;
        let lock = lock(&kept)?;
        Ok(Self::in_folder(kept, temporary, Some(lock)))
    }

    fn in_folder(folder: PathBuf, temporary: TempDir, lock: Option<File>) -> Self {
        Self { store: folder.join("jetstream"), kubeconfig: folder.join("kubeconfig"), temporary, lock }
    }
}

/// The kept directory (XDG Base Directory Specification, which ignores relative paths).
fn kept_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || Some(variable("HOME").filter(|path| path.is_absolute())?.join(".local/share"));
    Some(data.or_else(home)?.join("dispatcher/dev"))
}

/// Creates and locks the directory: two servers would corrupt one store.
fn lock(directory: &Path) -> Result<File, String> {
    let failed = |error: io::Error| format!("{}: {error}; --temporary does not need it", directory.display());
    std::fs::create_dir_all(directory).map_err(failed)?;
    let file = File::create(directory.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{}: another `dispatcher dev` uses this directory; --temporary does not need it",
            directory.display()
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let (listeners, errors) = listeners([("--a", port), ("--b", 0), ("--c", port)]);
        assert!(listeners[1].is_some());
        let line =
            |flag| format!("{flag}: port {port} is in use; choose another one, or 0 for any free port");
        assert_eq!(errors, [line("--a"), line("--c")]);
    }

    #[test]
    fn the_same_port_twice_is_an_error() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let (_, errors) = listeners([("--a", free), ("--b", free)]);
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("--b"), "{errors:?}");
    }

    #[test]
    fn kept_directory_follows_the_xdg_specification() {
        let at = |data: Option<&str>, home: Option<&str>| {
            kept_directory(|name| if name == "HOME" { home } else { data }.map(PathBuf::from))
        };
        assert_eq!(at(Some("/d"), Some("/h")), Some("/d/dispatcher/dev".into()));
        assert_eq!(at(None, Some("/h")), Some("/h/.local/share/dispatcher/dev".into()));
        assert_eq!(at(Some(""), Some("/h")), Some("/h/.local/share/dispatcher/dev".into()));
        assert_eq!(at(None, None), None);
    }

    #[test]
    fn every_token_is_new_and_private() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = folders.each_ref().map(|folder| Token::generate(folder.path()).unwrap());
        assert!(a.text.len() == 64 && a.text != b.text);
        assert_eq!(std::fs::read_to_string(&a.file).unwrap(), a.text);
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&a.file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn kept_directory_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).unwrap_err().contains("another `dispatcher dev`"));
        drop(first);
        lock(folder.path()).unwrap();
    }
}
