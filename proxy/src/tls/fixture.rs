//! Authorities, identities and tunnels made at run time, for tests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    svid::inspect_leaf,
    trust_bundle::TrustBundle,
    tunnel::{Header, TraceId},
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;
use tokio::{net::TcpStream, time::Instant};

use super::{acceptor, connector, context::TlsContext};
use crate::{
    identity::{Identity, PrivateKey},
    tunnel::Tunnel,
};

pub(crate) const WEB: &str = "spiffe://a.test/ns/shop/sa/web";
pub(crate) const API: &str = "spiffe://a.test/ns/shop/sa/api";

pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn root() -> Self {
        let key = KeyPair::generate().unwrap();
        let params = Self::params();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = Self::params();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let name = format!("authority {}", params.serial_number.is_some());
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params
    }

    pub(crate) fn bundle(&self) -> Arc<TrustBundle> {
        let domain = TrustDomain::new("a.test").unwrap();
        Arc::new(TrustBundle::new(domain, vec![self.certificate.clone()]).unwrap())
    }

    /// A leaf as mesh-lite issues it, changed as the test wants.
    pub(crate) fn leaf(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        (
            params.signed_by(&key, &self.issuer).unwrap().der().clone(),
            key,
        )
    }

    pub(crate) fn identity(&self, uri: &str) -> Arc<Identity> {
        let (leaf, key) = self.leaf(uri, |_| ());
        Arc::new(Identity {
            revision: 1,
            leaf: inspect_leaf(&leaf).unwrap(),
            chain: vec![leaf],
            key: PrivateKey::from_pkcs8(key.serialize_der()),
            trust_bundle: self.bundle(),
        })
    }

    pub(crate) fn context(&self, uri: &str) -> Arc<TlsContext> {
        Arc::new(TlsContext::build(self.identity(uri), None).unwrap())
    }
}

pub(crate) fn unix_now() -> UnixTime {
    let now = crate::clock::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    UnixTime::since_unix_epoch(now)
}

/// Two workloads of one mesh.
pub(crate) struct Pair {
    pub(crate) web: Arc<TlsContext>,
    pub(crate) api: Arc<TlsContext>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let root = Authority::root();
        Self {
            web: root.context(WEB),
            api: root.context(API),
        }
    }

    /// An established tunnel from web to api over two joined sockets, its header read.
    pub(crate) async fn tunnels(&self, sockets: (TcpStream, TcpStream)) -> (Tunnel, Tunnel) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let header = Header {
            port: 8080,
            original_destination: [10, 0, 0, 1].into(),
            trace_id: TraceId::NONE,
        };
        let (dialled, accepted) = sockets;
        let address = dialled.peer_addr().unwrap();
        let expected = API.parse().unwrap();
        let encoded = header.encode();
        let (client, server) = tokio::join!(
            connector::connect(
                dialled,
                address,
                &self.web,
                &expected,
                &encoded,
                deadline,
                unix_now()
            ),
            acceptor::authenticate(accepted, &self.api, deadline, unix_now()),
        );
        let mut server = server.unwrap().tunnel;
        assert_eq!(server.read_header(deadline).await.unwrap().header, header);
        (client.unwrap().tunnel, server)
    }
}
