//! Creates certificates with `openssl`: a certificate authority, a local server, and a client.

use std::process::Command;

use super::config_folder::ConfigFolder;

/// Creates `<authority>.pem`, and for each of `names` a `<name>.pem` signed by it and a
/// `<name>.key`.
pub(super) fn create(config: &ConfigFolder, authority: &str, names: &[&str]) {
    let files = |name: &str| (config.text(&format!("{name}.key")), config.text(&format!("{name}.pem")));
    let (authority_key, authority_certificate) = files(authority);
    let generate = |name: &str, extra: &[&str]| {
        let (key, certificate) = files(name);
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-days",
            "2",
        ]);
        openssl.args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate]).args(extra);
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    generate(authority, &[]);
    for name in names {
        let signed = ["-CA", &authority_certificate, "-CAkey", &authority_key];
        let names = [
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:nats.example.com",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        generate(name, &[signed, names].concat());
    }
}
