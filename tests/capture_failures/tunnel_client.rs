//! A peer of the mesh that speaks the tunnel itself, with the SVID of a sidecar.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use mesh_lite_proto::identity::WorkloadId;
use mesh_lite_proto::svid::inspect_leaf;
use mesh_lite_proto::trust_bundle::TrustBundle;
use mesh_lite_proto::tunnel::{ALPN, Answer, Status};
use mesh_lite_proxy::identity::Identity;
use mesh_lite_proxy::identity::state_file::{SavedState, StateFile};
use mesh_lite_proxy::tls::context::client_config;
use mesh_lite_test_support::eventually::PATIENCE;
use mesh_lite_test_support::mesh::API_ID;
use mesh_lite_test_support::{Network, SIDECAR_UID, Sidecar, eventually};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// Has what a stolen key would give: a good identity, and freedom to say anything.
pub(crate) struct TunnelClient(Arc<ClientConfig>);

impl TunnelClient {
    pub(crate) fn of(sidecar: &Sidecar, network: &Network) -> Self {
        let saved = saved_identity(sidecar, network);
        let chain: Vec<CertificateDer<'static>> = saved
            .rest
            .chain
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let roots = saved
            .rest
            .trust_bundle
            .into_iter()
            .map(CertificateDer::from)
            .collect();
        let leaf = inspect_leaf(&chain[0]).unwrap();
        let trust_bundle =
            Arc::new(TrustBundle::new(leaf.id.trust_domain().clone(), roots).unwrap());
        let identity = Identity {
            revision: 1,
            leaf,
            chain,
            key: saved.key.unwrap(),
            trust_bundle: Arc::clone(&trust_bundle),
        };
        let expected: WorkloadId = API_ID.parse().unwrap();
        Self(client_config(&trust_bundle, Some(&identity), &expected, ALPN).unwrap())
    }

    /// Sends `bytes` as a header to pod b, from pod a; the answer and what followed it, until
    /// the end or until the server waits for more.
    pub(crate) fn ask(&self, network: &Network, bytes: &[u8]) -> Answered {
        let to = (network.b.v4, 15008);
        let socket = network
            .a
            .namespace
            .run(SIDECAR_UID, || TcpStream::connect(to).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::IpAddress(std::net::IpAddr::from(network.b.v4).into());
        let connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut tls = StreamOwned::new(connection, socket);
        tls.write_all(bytes).unwrap();
        tls.flush().unwrap();
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        // A refusal ends after its answer; a greeting ends with a line.
        while !answer.ends_with(b"\n") {
            match tls.read(&mut some) {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend(&some[..length]),
            }
        }
        let (said, taken) = Answer::decode(&answer)
            .unwrap()
            .expect("the server ended within its answer");
        Answered {
            status: said.status,
            decided_by: said.decided_by.map(|named| named.as_str().to_owned()),
            rest: answer[taken..].to_vec(),
        }
    }
}

/// Waits until the sidecar of pod a has its certificate on disk: its join token is spent then,
/// and not needed any more.
pub(crate) fn saved_identity(sidecar: &Sidecar, network: &Network) -> SavedState {
    let file = StateFile::in_directory(sidecar.data_dir());
    eventually("the sidecar has saved its identity", || {
        // Nobody else may read it.
        let read = network.a.namespace.run(SIDECAR_UID, || file.read());
        read.map_err(|error| error.to_string())?
            .filter(|saved| saved.key.is_some())
            .ok_or_else(|| "no key yet".to_owned())
    })
}

/// What pod b said.
pub(crate) struct Answered {
    pub(crate) status: Status,
    /// The policy that decided, as the answer names it.
    pub(crate) decided_by: Option<String>,
    pub(crate) rest: Vec<u8>,
}
