//! Reads certificates from the files that the settings name.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Returns all certificates in a file, at least one. Errors name `setting`.
///
/// # Errors
/// Fails when the file cannot be read or contains no certificate.
pub fn certificates(setting: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = file.display();
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{setting}: cannot read certificates in {name}"))?;
    ensure!(!chain.is_empty(), "{setting}: {name} holds no certificate in PEM form");
    Ok(chain)
}
