//! Certificates that `openssl` makes: an authority, and a server that it vouches for.

use std::fs;
use std::path::Path;
use std::process::Command;

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Makes `ca.pem`, and `server.pem` and `server.key` for 127.0.0.1.
pub fn make(folder: &Path) {
    make_authority(folder, "authority");
    make_server(folder);
}

/// The certificate of the authority in a folder.
pub fn authority(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("ca.pem")).unwrap()
}

/// The certificate of an authority that vouches for nobody.
pub fn stranger() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    make_authority(dir.path(), "stranger");
    authority(dir.path())
}

fn make_authority(folder: &Path, name: &str) {
    let name = format!("-subj /CN={name} -days 2");
    openssl(
        folder,
        &format!("req -x509 {KEY} {name} -keyout ca.key -out ca.pem"),
    );
}

fn make_server(folder: &Path) {
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        &format!("req {KEY} -subj /CN=server -keyout server.key -out server.csr"),
    );
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
         -extfile names -out server.pem",
    );
}

fn openssl(folder: &Path, arguments: &str) {
    let ran = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl is installed (make test-install)");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments}: {said}");
}
