//! TLS as this crate speaks it: TLS 1.2 and 1.3, the machine's certification authorities.
//!
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name others, as for openssl's users: the way to trust a registry of one's own.

use crate::error::{Error, Result};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The next step after a certificate that was not believed.
pub const HINT: &str = "SSL_CERT_FILE names a file of certificates to trust, in PEM; Debian's package \
                        ca-certificates brings those of the web";

pub fn config() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // None at all is no failure yet: a registry on this machine needs none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| Error::new(format!("set up TLS: {err}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
