use std::{net::IpAddr, time::Duration};

use mesh_lite_proto::authorization::{
    DefaultAction, Eviction, EvictionSubject, MutualTls, Policies, SourceRef,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;
use tokio::time::timeout;

use super::*;
use crate::{
    access_log::{ConnectionId, ConnectionIds},
    metrics::MetricsPrefix,
    tls::{
        fixture::{Authority, WEB, unix_now},
        peer_identity::{PeerIdentity, Role},
    },
};

mod cost;
mod dry_runs;
mod generated_edits;
mod many_connections;

struct Mesh {
    root: Authority,
    tls: watch::Sender<Option<Arc<TlsContext>>>,
    policy: watch::Sender<Option<Arc<PolicySnapshot>>>,
    enforcement: Enforcement,
    ids: ConnectionIds,
}

fn source() -> SourceRef {
    SourceRef {
        document: "shop/x".into(),
        file: "x.yaml".into(),
        line: 3,
    }
}

fn snapshot(default: DefaultAction) -> PolicySnapshot {
    PolicySnapshot {
        revision: 1,
        trust_domain: TrustDomain::new("a.test").unwrap(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Strict,
            ports: [(9090, MutualTlsMode::Permissive)].into(),
        },
        default_action: Some((default, source())),
        policies: Policies::default(),
        evictions: Vec::new(),
        broken: Vec::new(),
    }
}

impl Mesh {
    fn new(default: DefaultAction) -> Self {
        let root = Authority::root();
        let (tls, tls_receiver) = watch::channel(Some(root.context(WEB)));
        let (policy, policy_receiver) = watch::channel(Some(Arc::new(snapshot(default))));
        let metrics = Metrics::new(&MetricsPrefix::default(), 10);
        let enforcement = Enforcement::new(
            policy_receiver,
            tls_receiver,
            LiveConnections::default(),
            metrics,
            crate::clock::now,
        );
        Self {
            root,
            tls,
            policy,
            enforcement,
            ids: ConnectionIds::of_new_run(),
        }
    }

    fn peer(&self, uri: &str) -> Arc<PeerIdentity> {
        let (leaf, _) = self.root.leaf(uri, |_| ());
        let chain: [CertificateDer<'_>; 1] = [leaf];
        let now: UnixTime = unix_now();
        self.tls
            .borrow()
            .as_ref()
            .unwrap()
            .verifier()
            .verify(&chain, Role::Client, now)
            .unwrap()
    }

    fn register(
        &self,
        peer: Option<Arc<PeerIdentity>>,
        direction: Direction,
        port: u16,
    ) -> Registered {
        let id: ConnectionId = self.ids.next_id();
        self.enforcement.live().register(
            id,
            Subject {
                direction,
                peer,
                source: IpAddr::from([10, 0, 0, 1]),
                destination: ([10, 0, 0, 2], port).into(),
            },
        )
    }

    /// Enforcement is at work and waits for a change: what follows is seen as one.
    async fn hold(&self) {
        tokio::spawn(self.enforcement.clone().hold());
        yield_now().await;
    }

    fn change(&self, change: impl FnOnce(&mut PolicySnapshot)) {
        let mut next = (**self.policy.borrow().as_ref().unwrap()).clone();
        change(&mut next);
        self.policy.send_replace(Some(Arc::new(next)));
    }
}

fn evict(subject: EvictionSubject) -> Eviction {
    Eviction {
        source: source(),
        subject,
        until: None,
    }
}

async fn is_cut(registered: &Registered) -> bool {
    let cut = std::future::poll_fn(|context| registered.cut().poll_cut(context));
    timeout(Duration::from_secs(10), cut).await.is_ok()
}

#[test]
fn nobody_is_permitted_before_a_policy_has_come() {
    let mesh = Mesh::new(DefaultAction::Allow);
    mesh.policy.send_replace(None);
    let web = mesh.register(Some(mesh.peer(WEB)), Direction::Inbound, 8080);
    assert!(matches!(
        mesh.enforcement.permit(&web),
        Err(Denial::NoPolicy)
    ));
    assert!(matches!(
        mesh.enforcement.may_talk_to(&web),
        Err(Denial::NoPolicy)
    ));
}

#[test]
fn plaintext_to_a_strict_port_is_refused_whatever_policy_says() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let strict = mesh.register(None, Direction::Inbound, 8080);
    assert!(matches!(
        mesh.enforcement.permit(&strict),
        Err(Denial::PlaintextToStrict(8080))
    ));
    let permissive = mesh.register(None, Direction::Inbound, 9090);
    assert!(mesh.enforcement.permit(&permissive).is_ok());
}

#[test]
fn an_evicted_identity_or_serial_is_refused_in_both_directions() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let peer = mesh.peer(WEB);
    for subject in [
        EvictionSubject::Id(peer.id().clone()),
        EvictionSubject::Serial(peer.leaf.serial.clone()),
    ] {
        mesh.change(|snapshot| snapshot.evictions = vec![evict(subject)]);
        let inbound = mesh.register(Some(Arc::clone(&peer)), Direction::Inbound, 8080);
        assert!(matches!(
            mesh.enforcement.permit(&inbound),
            Err(Denial::Evicted(_))
        ));
        let outbound = mesh.register(Some(Arc::clone(&peer)), Direction::Outbound, 8080);
        assert!(matches!(
            mesh.enforcement.may_talk_to(&outbound),
            Err(Denial::Evicted(_))
        ));
    }
    mesh.change(|snapshot| snapshot.evictions.clear());
    let again = mesh.register(Some(peer), Direction::Inbound, 8080);
    assert!(mesh.enforcement.permit(&again).is_ok());
}

#[tokio::test]
async fn only_connections_whose_verdict_flipped_are_cut() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let web = mesh.register(Some(mesh.peer(WEB)), Direction::Inbound, 8080);
    let other = mesh.register(
        Some(mesh.peer("spiffe://a.test/ns/shop/sa/other")),
        Direction::Inbound,
        8080,
    );
    mesh.hold().await;
    let evicted = WEB.parse().unwrap();
    mesh.change(|snapshot| snapshot.evictions = vec![evict(EvictionSubject::Id(evicted))]);
    assert!(is_cut(&web).await);
    assert!(matches!(web.cut().reason(), Some(CutReason::Evicted(_))));
    assert!(other.cut().reason().is_none());
}

#[tokio::test]
async fn a_policy_that_denies_now_cuts_inbound_and_leaves_outbound_to_the_other_side() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let inbound = mesh.register(Some(mesh.peer(WEB)), Direction::Inbound, 8080);
    let outbound = mesh.register(Some(mesh.peer(WEB)), Direction::Outbound, 8080);
    assert!(mesh.enforcement.permit(&inbound).is_ok());
    mesh.hold().await;
    mesh.change(|snapshot| snapshot.default_action = Some((DefaultAction::Deny, source())));
    assert!(is_cut(&inbound).await);
    assert!(matches!(inbound.cut().reason(), Some(CutReason::Policy(_))));
    assert!(outbound.cut().reason().is_none());
}

#[tokio::test]
async fn a_root_that_leaves_the_bundle_cuts_who_was_proved_by_it() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let outbound = mesh.register(Some(mesh.peer(WEB)), Direction::Outbound, 8080);
    mesh.hold().await;
    mesh.tls.send_replace(Some(Authority::root().context(WEB)));
    assert!(is_cut(&outbound).await);
    assert!(matches!(
        outbound.cut().reason(),
        Some(CutReason::TrustChanged)
    ));
}

#[tokio::test]
async fn the_end_of_our_own_certificate_cuts_nothing_that_is_open() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let web = mesh.register(Some(mesh.peer(WEB)), Direction::Inbound, 8080);
    let evicted = mesh.register(
        Some(mesh.peer("spiffe://a.test/ns/shop/sa/other")),
        Direction::Inbound,
        8080,
    );
    mesh.hold().await;
    mesh.tls.send_replace(None);
    let other = "spiffe://a.test/ns/shop/sa/other".parse().unwrap();
    mesh.change(|snapshot| snapshot.evictions = vec![evict(EvictionSubject::Id(other))]);
    assert!(is_cut(&evicted).await, "judging goes on");
    assert!(web.cut().reason().is_none());
    assert!(
        matches!(mesh.enforcement.permit(&web), Err(Denial::Untrusted)),
        "nothing new"
    );
}

#[tokio::test]
async fn a_port_that_becomes_strict_cuts_its_plaintext() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let plaintext = mesh.register(None, Direction::Inbound, 9090);
    assert!(mesh.enforcement.permit(&plaintext).is_ok());
    mesh.hold().await;
    mesh.change(|snapshot| snapshot.mutual_tls.ports.clear());
    assert!(is_cut(&plaintext).await);
    assert!(matches!(
        plaintext.cut().reason(),
        Some(CutReason::PlaintextToStrict)
    ));
}
