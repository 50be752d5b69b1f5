//! Certificates for a test, made with `openssl`: an authority, a server of this machine, a client.

use std::process::Command;

use super::place::Place;

/// Makes the files `<authority>.pem`, and for each of `names` `<name>.pem` and `<name>.key`, signed by it.
pub(super) fn make(place: &Place, authority: &str, names: &[&str]) {
    let of = |name: &str| (place.text(&format!("{name}.key")), place.text(&format!("{name}.pem")));
    let (authority_key, authority_certificate) = of(authority);
    let new = |name: &str, extra: &[&str]| {
        let (key, certificate) = of(name);
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
        let made = openssl.output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    new(authority, &[]);
    for name in names {
        let signed = ["-CA", &authority_certificate, "-CAkey", &authority_key];
        let names = [
            "-addext",
            "subjectAltName=IP:127.0.0.1,DNS:nats.example.com",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ];
        new(name, &[signed, names].concat());
    }
}
