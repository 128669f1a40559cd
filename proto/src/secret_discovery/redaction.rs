//! Messages that may hold a private key, shown without it: whatever prints a response or an error
//! with one in it prints no key (SDS-S29).

use std::fmt;

use crate::wire::envoy::{
    extensions::transport_sockets::tls::v3::TlsCertificate,
    service::discovery::v3::{DiscoveryResponse, Resource},
};

impl fmt::Debug for TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.private_key.as_ref().map(|_| "[redacted]");
        f.debug_struct("TlsCertificate")
            .field("certificate_chain", &self.certificate_chain)
            .field("private_key", &key)
            .finish()
    }
}

impl fmt::Debug for DiscoveryResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoveryResponse")
            .field("version_info", &self.version_info)
            .field("resources", &self.resources.len())
            .field("type_url", &self.type_url)
            .field("nonce", &self.nonce)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
