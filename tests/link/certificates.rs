//! Certificates of an authority of a test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = a test\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\n\
    [here]\nsubjectAltName = IP:127.0.0.1, DNS:localhost\n[elsewhere]\nsubjectAltName = DNS:elsewhere.example\n\
    [client]\nextendedKeyUsage = clientAuth\n";

/// An authority in a directory.
pub struct Authority(pub PathBuf);

impl Authority {
    /// Makes it, as `ca.pem`.
    pub fn new(dir: &Path) -> Self {
        std::fs::write(dir.join("openssl.cnf"), CONFIG).unwrap();
        let made = Self(dir.to_owned());
        made.openssl(
            "req -x509 -config openssl.cnf -extensions authority -subj /CN=ca -newkey rsa:2048 -nodes -days 2 \
             -keyout ca.key -out ca.pem",
        );
        made
    }

    fn openssl(&self, arguments: &str) {
        let words = arguments.split_whitespace();
        let out = Command::new("openssl").args(words).current_dir(&self.0).output().expect("openssl");
        assert!(out.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A certificate and its key, as NAME.pem and NAME.key: the path without either.
    pub fn certify(&self, name: &str, extensions: &str) -> PathBuf {
        self.openssl(&format!(
            "req -new -config openssl.cnf -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile openssl.cnf \
             -extensions {extensions} -out {name}.pem"
        ));
        self.0.join(name)
    }

    /// Its own certificate.
    pub fn file(&self) -> PathBuf {
        self.0.join("ca.pem")
    }
}
