//! TLS of a connection: whom it trusts, and as whom it comes. The files are read at each connection, so renewed
//! certificates need no restart.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::fault::{Fault, Reason};
use crate::config::redis::{Tls, Verify};

/// The client's half of a TLS session with this host.
///
/// # Errors
/// A file that cannot be read or holds no certificate or key, or a host that no certificate can name.
pub(super) fn session(tls: &Tls, host: &str) -> Result<ClientConnection, Fault> {
    let wrong = |said: String| Fault::new(Reason::Tls, said);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?;
    let verifier: Arc<dyn ServerCertVerifier> = match tls.verify {
        Verify::Nothing => Arc::new(Trusting(provider)),
        Verify::Host | Verify::Authority => {
            let roots = Arc::new(trusted(tls.authorities.as_deref())?);
            let strict = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|e| wrong(e.to_string()))?;
            if tls.verify == Verify::Host { strict } else { Arc::new(AnyName(strict)) }
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let config = match &tls.own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let bad = |e: &dyn std::fmt::Display| wrong(format!("ssl_keyfile {}: {e}", key.display()));
            let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| bad(&e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| bad(&e))?
        }
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong(format!("no certificate can be of the host {host:?}")))?;
    ClientConnection::new(Arc::new(config), name).map_err(|e| wrong(e.to_string()))
}

/// The system's authorities, and those of a file.
fn trusted(file: Option<&Path>) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    // A certificate of the system that cannot be read is no reason to trust nobody.
    let found = rustls_native_certs::load_native_certs();
    let (count, _) = roots.add_parsable_certificates(found.certs);
    if let Some(file) = file {
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|e| {
                Fault::new(Reason::Certificate, format!("ssl_ca_certs {}: {e}", file.display()))
            })?;
        }
    } else if count == 0 {
        return Err(Fault::new(
            Reason::Certificate,
            "the system trusts nobody (is ca-certificates installed?), and ssl_ca_certs is not set",
        ));
    }
    Ok(roots)
}

fn read(file: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(file).map_err(|e| Fault::new(Reason::Tls, format!("{}: {e}", file.display())))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let text = read(file)?;
    let bad = |said: String| Fault::new(Reason::Certificate, format!("{}: {said}", file.display()));
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|e| bad(e.to_string()))?;
    if found.is_empty() { Err(bad("there is no certificate in it".to_owned())) } else { Ok(found) }
}

/// `ssl_cert_reqs=none`: whoever answers is trusted, as long as it has the key of what it shows.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `ssl_check_hostname=false`: of a trusted authority, for whatever host.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end, between, name, ocsp, now) {
            // The name is looked at last: all else was in order.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
