//! A pair of Envoys between two applications, fed by the SDS server of this process.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_lite_test_support::applications::{Client, MARKER, Server};
use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::credulous_tls::{TlsClient, client_config};
use mesh_lite_test_support::envoy::Envoy;
use mesh_lite_test_support::eventually;
use mesh_lite_test_support::eventually::eventually_within;
use mesh_lite_test_support::peer_certificates::TRUST_DOMAIN;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

use crate::secret_server::SecretServer;

/// Who dials.
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
/// Who is dialled.
pub(crate) const API: &str = "spiffe://cluster.local/ns/shop/sa/api";
/// Whom nobody lets in.
pub(crate) const GUEST: &str = "spiffe://cluster.local/ns/shop/sa/guest";

/// Envoy comes back to a server that was away after half a second to half a minute, at random.
pub(crate) const RECONNECTS: Duration = Duration::from_secs(100);

/// An SDS server, an application that greets, and room for Envoys.
pub(crate) struct Scene {
    // in the order in which they must go
    pub(crate) server: SecretServer,
    pub(crate) application: Server,
    pub(crate) directory: TempDir,
    program: PathBuf,
}

impl Scene {
    pub(crate) fn new(program: PathBuf) -> Self {
        let directory = TempDir::new().unwrap();
        Self {
            server: SecretServer::start(directory.path()),
            application: application(),
            directory,
            program,
        }
    }

    /// With one root, whose bundle is served, and SVIDs of web and api under their names.
    pub(crate) fn with_root(program: PathBuf) -> (Self, Authority) {
        let scene = Self::new(program);
        let root = Authority::root(TRUST_DOMAIN);
        scene.server.set_bundles(&[(TRUST_DOMAIN, &[&root])]);
        for id in [WEB, API] {
            scene.server.set_svid(id, &root.leaf(id, |_| ()));
        }
        (scene, root)
    }

    /// An inbound Envoy in front of the application that lets web in. `values` come before what a
    /// template finds by itself.
    pub(crate) fn inbound(&self, template: &str, name: &str, values: &[(&str, &str)]) -> Envoy {
        let port = self.application.address().port().to_string();
        let own = [
            ("SECRETS", self.server.socket()),
            ("APPLICATION", &port),
            ("ALLOWED", WEB),
        ];
        let values: Vec<_> = values.iter().copied().chain(own).collect();
        Envoy::start(
            &self.program,
            template,
            name,
            &values,
            self.directory.path(),
        )
    }

    /// The inbound Envoy of api and the outbound Envoy of web in front of it, ready.
    pub(crate) fn pair(&self, values: &[(&str, &str)]) -> Pair {
        let with_svid = |id| -> Vec<_> {
            let own = [("SVID", id)];
            own.into_iter().chain(values.iter().copied()).collect()
        };
        let mut inbound = self.inbound("inbound", "inbound", &with_svid(API));
        let port = inbound.listener().port().to_string();
        let mut values = with_svid(WEB);
        values.extend([
            ("SECRETS", self.server.socket()),
            ("PEER_PORT", &port),
            ("PEER", API),
        ]);
        let directory = self.directory.path();
        let mut outbound = Envoy::start(&self.program, "outbound", "outbound", &values, directory);
        inbound.wait_ready();
        outbound.wait_ready();
        Pair { inbound, outbound }
    }
}

pub(crate) struct Pair {
    pub(crate) inbound: Envoy,
    pub(crate) outbound: Envoy,
}

impl Pair {
    pub(crate) fn rejected(&self) -> u64 {
        self.inbound.rejected() + self.outbound.rejected()
    }
}

pub(crate) fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

/// One plaintext connection, from an application to its outbound Envoy: greeting and echo.
pub(crate) fn converse(to: SocketAddr) -> io::Result<()> {
    let mut client = Client::here(to)?;
    greeted(&client.line()?)?;
    let echoed = client.echo("are you there")?;
    if echoed == "are you there" {
        return Ok(());
    }
    Err(io::Error::other(format!("echoed {echoed:?}")))
}

fn greeted(line: &str) -> io::Result<()> {
    if line.starts_with(MARKER) {
        return Ok(());
    }
    Err(io::Error::other(format!("greeted with {line:?}")))
}

/// What a TLS client that shows its certificate gets from an inbound Envoy: the chain that it was
/// shown, once the application has greeted it. With TLS 1.3 a client's half of the handshake may
/// succeed before it is refused, so only the greeting counts; a refusal is an alert, a reset or
/// an end, at random.
pub(crate) fn call(to: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Chain> {
    let mut client = TlsClient::connect(to, config)?;
    greeted(&client.line()?)?;
    Ok(client.server_chain())
}

/// Leaf first.
pub(crate) type Chain = Vec<CertificateDer<'static>>;

/// Whether the application greeted. Silence fails the test.
pub(crate) fn is_let_in(to: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    match call(to, config) {
        Ok(_) => true,
        Err(error) => {
            let silent = matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            );
            assert!(!silent, "neither let in nor refused: {error}");
            false
        }
    }
}

/// Waits until an inbound Envoy shows this leaf.
pub(crate) fn wait_shown(to: SocketAddr, config: &Arc<ClientConfig>, leaf: &CertificateDer<'_>) {
    eventually("the new leaf is shown", || match call(to, config) {
        Ok(shown) if shown.first() == Some(leaf) => Ok(()),
        Ok(_) => Err("it shows another leaf".to_owned()),
        Err(error) => Err(error.to_string()),
    });
}

/// Waits until an inbound Envoy shows another leaf than that of `before`; what it shows.
pub(crate) fn wait_changed(to: SocketAddr, config: &Arc<ClientConfig>, before: &Chain) -> Chain {
    eventually_within(RECONNECTS, "another leaf is shown", || {
        match call(to, config) {
            Ok(shown) if shown.first() != before.first() => Ok(shown),
            Ok(_) => Err("it shows the same leaf".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// A client of the mesh with a certificate of its own.
pub(crate) fn client(root: &Authority, id: &str) -> Arc<ClientConfig> {
    client_config(Some(&root.leaf(id, |_| ())), &[])
}

/// A new content for a file, whole, as an operator would.
pub(crate) fn replace(path: &Path, text: &str) {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text).unwrap();
    fs::rename(unfinished, path).unwrap();
}
