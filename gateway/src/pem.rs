//! Certificates in files that settings name.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// All certificates in a file, of which there is at least one. `setting` is named in errors.
///
/// # Errors
/// When the file cannot be read or holds none.
pub fn certificates(setting: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = file.display();
    let chain: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("{setting}: cannot read certificates in {name}"))?;
    ensure!(!chain.is_empty(), "{setting}: {name} holds no certificate in PEM form");
    Ok(chain)
}
