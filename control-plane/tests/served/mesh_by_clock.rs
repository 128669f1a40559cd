//! A control plane, its clients and their timers by one clock, which the test moves: tokio's.
//! For tests that begin with it paused.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use mesh_lite_control_plane::root_commands::RootMode;
use mesh_lite_proto::{
    secret_discovery::OWN_BUNDLE, sidecar::VALIDATOR_METADATA_KEY, trust_bundle::TrustBundle,
};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::time::Instant;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    client::{Svid, csr, fetch_request, node, request_for},
    running::{Directories, Running},
    secret_streams::bundle_of,
};

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Half of a leaf's life by default: when sidecars renew.
pub(super) const STEP: Duration = Duration::from_secs(12 * 3600);
/// Longer than any look at the data directory takes to come, shorter than any step.
pub(super) const A_WHILE: Duration = Duration::from_secs(30);

/// Far from the clock on the wall: whoever reads that one is found out.
const BEGIN: Duration = Duration::from_secs(3_000_000_000);

/// Tokio's clock, as a date.
pub(super) fn clock() -> SystemTime {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    SystemTime::UNIX_EPOCH + BEGIN + (Instant::now() - start)
}

pub(super) async fn start(mode: RootMode) -> Running {
    let directories = Directories::made(mode, clock);
    let mut settings = directories.settings();
    settings.leaf_lifetime = mesh_lite_control_plane::settings::LEAF_LIFETIME;
    Running::start_with(directories, settings).await
}

/// One sidecar: its certificate, and the roots that it was told of.
pub(super) struct Sidecar {
    pub(super) svid: Svid,
    pub(super) bundle: TrustBundle,
}

impl Sidecar {
    pub(super) async fn new(running: &Running, workload: &str) -> Self {
        let svid = running.issue(workload).await;
        let given = running.directories.trust_bundle();
        let bundle = bundle_as_told(running, &given, &svid).await;
        Self { svid, bundle }
    }

    /// Renews by mutual TLS, with a new key; then learns the trust bundle anew.
    pub(super) async fn renew(&mut self, running: &Running) -> Svid {
        let channel = running
            .connect_trusting(&self.bundle, Some(&self.svid))
            .await
            .unwrap();
        let key = KeyPair::generate().unwrap();
        let response = running
            .fetch(channel, fetch_request(&csr(&key, &[])))
            .await
            .unwrap();
        let before = std::mem::replace(&mut self.svid, Svid::new(&response, key));
        self.bundle = bundle_as_told(running, &self.bundle, &self.svid).await;
        before
    }
}

pub(super) async fn bundle_as_told(
    running: &Running,
    trusting: &TrustBundle,
    svid: &Svid,
) -> TrustBundle {
    let channel = running
        .connect_trusting(trusting, Some(svid))
        .await
        .unwrap();
    let mut request = request_for(&[OWN_BUNDLE]);
    request.node = Some(node(&[(VALIDATOR_METADATA_KEY, "trusted_ca")]));
    bundle_of(&running.fetch(channel, request).await.unwrap())
}

/// As a peer of ours judges it, as client and as server.
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
) -> Result<(), webpki::Error> {
    let anchors: Vec<_> = bundle
        .authorities()
        .iter()
        .map(|root| anchor_from_trusted_cert(root).unwrap())
        .collect();
    let now = clock().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let leaf = EndEntityCert::try_from(&chain[0])?;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &chain[1..],
            UnixTime::since_unix_epoch(now),
            usage,
            None,
            None,
        )?;
    }
    Ok(())
}

pub(super) async fn readiness(running: &Running) -> String {
    running.get("/readyz").await.1
}

pub(super) async fn days_to_breakage(running: &Running, cause: &str) -> f64 {
    let series = format!("mesh_lite_control_plane_time_to_breakage_seconds{{cause=\"{cause}\"}}");
    running.metric(&series).await / DAY.as_secs_f64()
}
