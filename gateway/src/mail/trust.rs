//! Decides which certificate of a mail server is trusted. The system's authorities or those in
//! `mail.ca` have signed it, or `mail.ca` contains exactly this certificate.
//!
//! A server with a self-signed certificate needs the second way. Such a certificate usually claims to
//! be an authority (`CA:TRUE`), and webpki refuses an authority's certificate as a server's own. Here
//! its bytes are compared instead, and then its names and dates are checked.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

/// `named` are the certificates in `mail.ca`.
///
/// # Errors
/// Fails when one of them cannot be read, or when none is given and the system has no authorities.
pub fn client_config(named: Vec<CertificateDer<'static>>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Named::new(named, provider.clone())?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(builder.with_no_client_auth())
}

#[derive(Debug)]
struct Named {
    usual: Verifier,
    named: Vec<CertificateDer<'static>>,
}

impl Named {
    fn new(named: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> anyhow::Result<Named> {
        let mut authorities = Vec::new();
        for certificate in &named {
            if may_sign(&parse(certificate).context("mail.ca")?) {
                authorities.push(certificate.clone());
            }
        }
        let usual = Verifier::new_with_extra_roots(authorities, provider).context(
            "mail over TLS cannot be set up: are the system's authorities installed (ca-certificates), or is \
             mail.ca right?",
        )?;
        Ok(Named { usual, named })
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.named.iter().any(|certificate| certificate.as_ref() == server.as_ref()) {
            return verify_itself(server, name, now);
        }
        let verified = self.usual.verify_server_cert(server, intermediates, name, ocsp, now);
        verified.map_err(|error| for_server(error, server))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Maps the error for a server that presents an authority's certificate, for which webpki has no name:
/// its issuer is unknown.
fn for_server(error: Error, server: &CertificateDer<'_>) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::Other(_)) if parse(server).is_ok_and(|s| s.is_ca()) => {
            Error::InvalidCertificate(CertificateError::UnknownIssuer)
        }
        other => other,
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let parsed = X509Certificate::from_der(certificate.as_ref());
    let (_, parsed) = parsed.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(parsed)
}

/// Whether it may sign others. The first version of X.509 had no field for that.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    certificate.is_ca() || certificate.version() == x509_parser::x509::X509Version::V1
}

/// Checks a certificate that is trusted for itself.
fn verify_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let parsed = parse(certificate)?;
    verify_dates(&parsed, now)?;
    let named = rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    match named {
        Err(_) if is_common_name(&parsed, name) => Ok(ServerCertVerified::assertion()),
        other => other.map(|()| ServerCertVerified::assertion()),
    }
}

fn verify_dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Error> {
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if seconds < validity.not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if seconds > validity.not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// Whether it has no alternative names at all and its common name matches: `openssl req -x509` creates
/// such certificates. Only the operator vouches for it, so its subject is as good as an alternative
/// name.
fn is_common_name(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> bool {
    if !matches!(certificate.subject_alternative_name(), Ok(None)) {
        return false;
    }
    let wanted = name.to_str();
    let mut names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    names.any(|name| name.eq_ignore_ascii_case(&wanted))
}
