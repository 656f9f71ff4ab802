//! A webhook: one POST of the notice as JSON, signed where a secret is given. Only a 2xx answer is a success.

use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Error};

use super::{Body, PATIENCE, Untold};

/// For the connection, the name included.
const CONNECT: Duration = Duration::from_secs(10);

/// Where trust comes from, for whoever is refused.
const TRUSTED: &str = "trusted is what the package ca-certificates and update-ca-certificates(8) keep, or else SSL_CERT_FILE of taskd";

/// So much of a refusal is shown, in bytes.
const SHOWN: usize = 300;

/// Posts the notice.
pub(super) fn tell(url: &str, secret: Option<&str>, body: &Body, id: &str) -> Result<String, Untold> {
    if !url.starts_with("http://") && !url.starts_with("https://") {
        // The whole address may be a credential, which nobody could check before.
        return Err(Untold::Never("its address is no http or https address".to_owned()));
    }
    let agent = if url.starts_with("https://") { secure()? } else { agent(None) };
    let text = body.json();
    let mut request = agent
        .post(url)
        .header("Content-Type", "application/json")
        .header("X-Taskd-Notice", body.kind.name())
        .header("X-Taskd-Notice-Id", id);
    if let Some(secret) = secret {
        request = request.header("X-Taskd-Signature", signature(secret.as_bytes(), &text));
    }
    let mut answer = request.send(&text[..]).map_err(|e| unsent(&e))?;
    let status = answer.status().as_u16();
    if answer.status().is_success() {
        return Ok(format!("answered {status}"));
    }
    let said = answer.body_mut().with_config().limit(64 << 10).read_to_string().unwrap_or_default();
    Err(refused(status, &said))
}

/// For https. It trusts the machine's own certificates: whom those are of is its administrator's to say, who may
/// name others in SSL_CERT_FILE and SSL_CERT_DIR.
fn secure() -> Result<Agent, Untold> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(Untold::Later(format!("no certificates are there to be trusted ({TRUSTED}){why}")));
    }
    let roots = found.certs.iter().map(|c| Certificate::from_der(c).to_owned());
    Ok(agent(Some(
        TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots.collect())))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build(),
    )))
}

fn agent(tls: Option<TlsConfig>) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(PATIENCE / 2))
        .timeout_connect(Some(CONNECT))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("taskd/", env!("CARGO_PKG_VERSION")));
    match tls {
        Some(tls) => config.tls_config(tls).build().into(),
        None => config.build().into(),
    }
}

/// `sha256=` and the HMAC-SHA256 of the body in hexadecimal.
fn signature(secret: &[u8], body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// An answer that is no success: an address that is wrong does not get better, a server that is overloaded does.
fn refused(status: u16, said: &str) -> Untold {
    let mut said = crate::cli::output::clean(said.trim());
    said.truncate(said.floor_char_boundary(SHOWN));
    let said = if said.is_empty() { said } else { format!(": {said}") };
    let why = format!("its server answered {status}{said}");
    match status {
        408 | 425 | 429 | 500.. => Untold::Later(why),
        300..400 => Untold::Never(format!("{why} (redirects are not followed: give the address itself)")),
        _ => Untold::Never(why),
    }
}

/// No answer came.
fn unsent(error: &Error) -> Untold {
    match error {
        Error::BadUri(_) | Error::Http(_) => Untold::Never(error.to_string()),
        // A certificate is renewed, and a list of those that are trusted is completed, without a word to taskd.
        _ => Untold::Later(distrust(error).unwrap_or_else(|| error.to_string())),
    }
}

/// What is wrong with the server's certificate, if that is it, and what to do.
fn distrust(error: &Error) -> Option<String> {
    let tls = match error {
        Error::Rustls(tls) => tls,
        Error::Io(io) => io.get_ref()?.downcast_ref::<rustls::Error>()?,
        _ => return None,
    };
    let rustls::Error::InvalidCertificate(fault) = tls else { return None };
    use rustls::CertificateError as E;
    Some(match fault {
        // The second: of one who has the name of somebody trusted, and another key.
        E::UnknownIssuer | E::BadSignature => {
            format!("the certificate of its server is from nobody who is trusted here ({TRUSTED})")
        }
        other => format!("the certificate of its server is refused: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        assert_eq!(
            signature(b"Jefe", b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            signature(&[0x0b; 20], b"Hi There"),
            "sha256=b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }

    #[test]
    fn what_may_work_later_is_tried_again() {
        for later in [408, 429, 500, 502, 503, 599] {
            assert!(matches!(refused(later, ""), Untold::Later(_)), "{later}");
        }
        for never in [301, 302, 400, 401, 404, 410, 422] {
            assert!(matches!(refused(never, ""), Untold::Never(_)), "{never}");
        }
        assert_eq!(
            refused(404, " no\x1b such\n"),
            Untold::Never("its server answered 404: no\\u{1b} such".to_owned())
        );
    }
}
