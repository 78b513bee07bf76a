//! Certificates, made by the `openssl` that PostgreSQL's package brings.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{chown, run};

/// Whoever vouches for a server, and what the server shows.
#[derive(Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// An authority, and a server's certificate for `localhost` alone.
    pub fn make(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        let authority = file("authority.pem");
        let ask = |arguments: &[&str]| {
            let mut line = Command::new("openssl");
            line.current_dir(dir).args(arguments);
            run(line)
        };
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ];
        let mut own = vec!["req", "-x509", "-days", "30", "-subj", "/CN=authority"];
        own.extend(key);
        own.extend(["-keyout", "authority.key", "-out", "authority.pem"]);
        ask(&own);
        let mut server = vec!["req", "-subj", "/CN=server"];
        server.extend(key);
        server.extend(["-keyout", "server.key", "-out", "server.csr"]);
        ask(&server);
        fs::write(
            file("server.ext"),
            "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n",
        )
        .expect("it is ours");
        ask(&[
            "x509",
            "-req",
            "-days",
            "30",
            "-in",
            "server.csr",
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-extfile",
            "server.ext",
            "-out",
            "server.pem",
        ]);
        let (certificate, key) = (file("server.pem"), file("server.key"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
        chown(&key);
        chown(&certificate);
        Self {
            authority,
            certificate,
            key,
        }
    }
}
