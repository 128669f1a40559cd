//! That others accept what we issue, and refuse what was tampered with: OpenSSL in its strictest
//! mode, the `spiffe` crate, and TLS by `spiffe-rustls`, which is neither our verifier nor ours.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use mesh_lite_proto::trust_bundle::{TrustBundle, pem};
use mesh_lite_test_support::requirements::program;
use rcgen::KeyPair;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};
use spiffe::{TrustDomain, X509Bundle, X509Source, X509Svid};
use spiffe_rustls::{authorizer, mtls_client, mtls_server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{
    client::Svid,
    leaf_profile::{issue, kinds},
    running::{Directories, Running, in_time},
    workload_api::{WorkloadApi, joined},
};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";
const API: &str = "spiffe://mesh.test/ns/shop/sa/api";
const CONTROL_PLANE: &str = "spiffe://mesh.test/ns/mesh-lite-system/sa/mesh-lite-control-plane";

/// Its signature no longer fits.
fn tampered(svid: Svid) -> Svid {
    let mut chain = svid.chain;
    let mut leaf = chain[0].to_vec();
    *leaf.last_mut().unwrap() ^= 1;
    chain[0] = leaf.into();
    Svid { chain, ..svid }
}

/// `None`, and the test on record as not run: there is no openssl on this machine.
pub(super) fn openssl_verify(
    test: &str,
    directory: &Path,
    purpose: &str,
    chain: &[CertificateDer<'_>],
    roots: &TrustBundle,
) -> Option<Output> {
    if !program(test, "openssl") {
        return None;
    }
    let write = |name: &str, text: String| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = |certificate: &CertificateDer<'_>| pem("CERTIFICATE", certificate);
    let leaf = write("leaf.pem", certificate(&chain[0]));
    let above = write("above.pem", chain[1..].iter().map(certificate).collect());
    let roots = write("roots.pem", roots.to_pem());
    let verified = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
        .arg(roots)
        .arg("-untrusted")
        .arg(above)
        .arg(leaf)
        .output();
    Some(verified.unwrap())
}

#[tokio::test]
async fn openssl_verifies_our_chains_strictly_and_no_others() {
    let test = "openssl_verifies_our_chains_strictly_and_no_others";
    let running = Running::start().await;
    let (roots, data) = (
        running.directories.trust_bundle(),
        &running.directories.data,
    );
    let strangers = Directories::new().trust_bundle();
    for kind in kinds() {
        let svid = issue(&running, kind).await;
        for purpose in ["sslclient", "sslserver"] {
            let Some(output) = openssl_verify(test, data, purpose, &svid.chain, &roots) else {
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{kind:?}: {said}");
            let other = openssl_verify(test, data, purpose, &svid.chain, &strangers).unwrap();
            assert!(!other.status.success(), "under another mesh's root");
        }
    }
    let broken = tampered(running.issue("shop/web").await);
    let output = openssl_verify(test, data, "sslclient", &broken.chain, &roots).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("certificate signature failure"), "{said}");
}

/// SPIFFE-A1, SPIFFE-L1, SPIFFE-L3, SPIFFE-L4: as that crate reads them.
#[tokio::test]
async fn the_spiffe_crate_reads_our_svids_and_bundles() {
    let running = Running::start().await;
    let svid = running.issue("shop/web").await;
    let key = svid.key.serialize_der();
    let parsed = X509Svid::parse_from_der(&joined(&svid.chain), &key).unwrap();
    assert_eq!(parsed.spiffe_id().to_string(), WEB);
    assert_eq!(parsed.cert_chain().len(), 2);

    let roots = running.directories.trust_bundle();
    let trust_domain = TrustDomain::new("mesh.test").unwrap();
    let bundle = X509Bundle::parse_from_der(trust_domain, &joined(roots.authorities())).unwrap();
    assert_eq!(bundle.authorities().len(), 1);

    let cut = &joined(&svid.chain)[1..];
    assert!(X509Svid::parse_from_der(cut, &key).is_err());
    assert!(X509Svid::parse_from_der(&joined(&svid.chain), b"no key").is_err());
    // a CA in place of a leaf (SPIFFE-A7), a leaf in place of a CA
    assert!(X509Svid::parse_from_der(&svid.chain[1], &key).is_err());
    let leaf_as_issuer = [svid.chain[0].as_ref(), svid.chain[0].as_ref()].concat();
    assert!(X509Svid::parse_from_der(&leaf_as_issuer, &key).is_err());
}

/// A workload that has its certificate from us and its TLS from `spiffe-rustls`.
struct Foreign {
    source: X509Source,
    _agent: WorkloadApi,
}

impl Foreign {
    async fn new(svid: &Svid, roots: &TrustBundle) -> Self {
        let agent = WorkloadApi::serve(svid, roots);
        let source = spiffe::X509SourceBuilder::new().endpoint(agent.endpoint());
        let source = in_time("the agent answers", source.build()).await.unwrap();
        Self {
            source,
            _agent: agent,
        }
    }

    fn client(&self, of: &str) -> ClientConfig {
        mtls_client(self.source.clone())
            .authorize(authorizer::exact([of]).unwrap())
            .with_alpn_protocols([b"h2"])
            .build()
            .unwrap()
    }

    fn server(&self, to: &str) -> ServerConfig {
        mtls_server(self.source.clone())
            .authorize(authorizer::exact([to]).unwrap())
            .with_alpn_protocols([b"h2"])
            .build()
            .unwrap()
    }
}

/// One byte each way, so that both sides have judged each other.
async fn talk(client: ClientConfig, server: ServerConfig) -> Result<(), std::io::Error> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("mesh.test").unwrap();
    let ask = async {
        let connector = TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await
    };
    let answer = async {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    let (asked, answered) = in_time("they talk", async { tokio::join!(ask, answer) }).await;
    asked?;
    answered
}

#[tokio::test]
async fn spiffe_rustls_talks_with_our_svids_and_refuses_all_others() {
    let running = Running::start().await;
    let roots = running.directories.trust_bundle();
    let (web, api) = (
        running.issue("shop/web").await,
        running.issue("shop/api").await,
    );
    let (client, server) = (
        Foreign::new(&web, &roots).await,
        Foreign::new(&api, &roots).await,
    );
    talk(client.client(API), server.server(WEB)).await.unwrap();
    // the right chain of the wrong workload
    assert!(talk(client.client(WEB), server.server(WEB)).await.is_err());
    assert!(talk(client.client(API), server.server(API)).await.is_err());
    // another mesh of the same name
    let others = Running::start().await;
    let stranger = others.issue("shop/web").await;
    let stranger = Foreign::new(&stranger, &roots).await;
    let refused = talk(stranger.client(API), server.server(WEB)).await;
    assert!(refused.is_err());
    // the same leaf, one bit of its signature turned
    let broken = Foreign::new(&tampered(web), &roots).await;
    let refused = talk(broken.client(API), server.server(WEB)).await;
    assert!(refused.is_err());
}

/// Both directions at once: it judges our serving certificate, we judge the client's.
#[tokio::test]
async fn spiffe_rustls_connects_to_the_control_plane() {
    let running = Running::start().await;
    let roots = running.directories.trust_bundle();
    let svid = running.issue("shop/web").await;
    let foreign = Foreign::new(&svid, &roots).await;
    let connect = |config| super::client::connect(running.bound.grpc, config);
    let channel = connect(foreign.client(CONTROL_PLANE)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let request = super::client::fetch_request(&super::client::csr(&key, &[]));
    let response = running.fetch(channel, request).await.unwrap();
    assert_eq!(Svid::new(&response, key).facts.id.as_str(), WEB);
    assert!(connect(foreign.client(API)).await.is_err());
}
