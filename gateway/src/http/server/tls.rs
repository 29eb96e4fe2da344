//! TLS on the API's listener. Certificate and key are read once, at the start.

use std::io;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;
use crate::config::pem;
use crate::data_dir::secret_file;

/// The protocol names of ALPN, the preferred one first.
const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Cheap to clone. It shows nothing of its key.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// # Errors
    /// Names the file that is missing, is not PEM, is readable by others, or does not match the other file.
    pub fn open(files: &TlsFiles) -> anyhow::Result<Tls> {
        let (cert, key) = (files.cert.display(), files.key.display());
        let chain = pem::certificates("tls_cert", &files.cert)?;
        let text = secret_file::read_given(&files.key).context("tls_key")?;
        let secret = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .with_context(|| format!("tls_key: {key} holds no private key in PEM form"))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .with_context(|| format!("tls_key {key} does not belong to tls_cert {cert}"))?;
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// Returns the stream, and whether HTTP/2 was negotiated.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let stream = self.0.accept(stream).await?;
        let two = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
        Ok((stream, two))
    }
}
