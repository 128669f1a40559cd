//! The one crypto provider of the sidecar, passed explicitly wherever TLS is set up.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};

/// One provider for every connection of the sidecar: AES-128-GCM first (the fastest where the
/// CPU has AES instructions), the post-quantum hybrid first among the key exchanges.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
                provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
                provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![
                provider::kx_group::X25519MLKEM768,
                provider::kx_group::X25519,
                provider::kx_group::SECP256R1,
            ],
            ..provider::default_provider()
        })
    });
    Arc::clone(&PROVIDER)
}
