//! The credentials of a server: its certificate, and the token of its only user.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use pem::Pem;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use uuid::Uuid;

/// A secret that a client proves its permission with.
#[derive(Clone)]
pub(crate) struct Token(Arc<str>);

impl Token {
    /// A new token of 244 random bits.
    pub(crate) fn generate() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).into())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// Compares in constant time. The length is no secret.
    pub(crate) fn equals(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

/// The credentials of one server, which end with it.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) token: Token,
    pub(crate) acceptor: TlsAcceptor,
    certificate: CertificateDer<'static>,
}

impl Credentials {
    /// Generates a token, and a certificate for the names of this machine.
    ///
    /// # Errors
    /// The random number generator of the system fails.
    pub fn generate() -> io::Result<Self> {
        let names = ["127.0.0.1", "localhost", "::1"].map(str::to_owned);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).map_err(io::Error::other)?;
        let certificate = cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .map_err(io::Error::other)?;
        Ok(Self { token: Token::generate(), acceptor: TlsAcceptor::from(Arc::new(config)), certificate })
    }

    /// A kubeconfig for the server on this port. (JSON is YAML.)
    #[must_use]
    pub fn kubeconfig(&self, port: u16, namespace: &str) -> String {
        let certificate = pem::encode(&Pem::new("CERTIFICATE", self.certificate.as_ref()));
        let cluster = json!({
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": BASE64_STANDARD.encode(certificate),
        });
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "local",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "local", "user": {"token": self.token.text()}}],
            "contexts": [{"name": "local",
                "context": {"cluster": "local", "user": "local", "namespace": namespace}}],
        })
        .to_string()
    }

    /// Writes [`Self::kubeconfig`] to a file that only this user can read. The file is replaced in
    /// one step, so that no other user can open it before.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, port: u16, namespace: &str) -> io::Result<()> {
        let new = path.with_extension(format!("{}.new", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| file.write_all(self.kubeconfig(port, namespace).as_bytes()))
            .and_then(|()| std::fs::rename(&new, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn kubeconfig_replaces_a_readable_file_with_a_private_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let credentials = Credentials::generate().unwrap();
        credentials.write_kubeconfig(&path, 8001, "jobs").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), credentials.kubeconfig(8001, "jobs"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_server_has_its_own_token() {
        let [a, b] = [(); 2].map(|()| Token::generate());
        assert!(a.equals(a.text().as_bytes()) && !a.equals(b.text().as_bytes()));
        assert!(a.text().len() == 64 && !a.equals(b"") && !a.equals(&a.text().as_bytes()[1..]));
    }
}
