//! Reads certificates from the files that the settings name.

use std::path::Path;

use anyhow::{Context as _, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::bounded_file;

/// Returns all certificates in a file, at least one. Errors name `setting`.
///
/// # Errors
/// Fails when the file cannot be read or contains no certificate.
pub fn certificates(setting: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = file.display();
    let unreadable = || format!("{setting}: cannot read certificates in {name}");
    let text = bounded_file::regular(file).with_context(unreadable)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().with_context(unreadable)?;
    ensure!(!chain.is_empty(), "{setting}: {name} holds no certificate in PEM form");
    Ok(chain)
}
