use std::{
    cell::OnceCell,
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use mesh_lite_proto::{
    identity::WorkloadId,
    wire::envoy::{
        config::core::v3::data_source::Specifier,
        extensions::transport_sockets::tls::v3::{Secret, secret},
    },
};
use prost::Message as _;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::pem::PemObject as _;
use spiffe::TrustDomain;

use super::*;
use crate::{
    certificate_authority::{
        CertificateAuthority,
        authority::IssuingAuthority,
        certificate_request::PublicKey,
        root::Root,
        rotation::{Found, Rotation},
    },
    clock::from_unix_seconds,
    issuance::{Refusal, turns::NoTurn},
    workload_index::WorkloadName,
};

const LIFE: Duration = Duration::from_secs(1_000);
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

thread_local! {
    static START: OnceCell<Instant> = const { OnceCell::new() };
}

/// The wall clock goes with tokio's, which stands still but for timers.
fn clock() -> SystemTime {
    let start = START.with(|start| *start.get_or_init(Instant::now));
    from_unix_seconds(1_800_000_000) + start.elapsed()
}

fn trust_domain() -> TrustDomain {
    "mesh.test".parse().unwrap()
}

fn root() -> Root {
    Root::create(&trust_domain(), 365 * DAY, clock()).unwrap()
}

/// These roots are trusted, the first one's issuing CA signs.
fn trust(roots: &[&Root]) -> Arc<Trust> {
    let new = roots[0].sign_issuing_authority(90 * DAY, clock()).unwrap();
    let authority = IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap();
    let roots = roots.iter().map(|root| root.certificate().clone());
    let bundle = TrustBundle::new(trust_domain(), roots.collect()).unwrap();
    let found = Found { bundle, authority };
    Rotation::start(found, LIFE, clock()).unwrap().trust()
}

#[derive(Debug, Clone, Copy)]
enum Step {
    OtherKey,
    Short(Duration),
    /// Made, and handed over so much later.
    Late(Duration),
    Refused,
    Busy,
    /// Never done.
    Hangs,
}

/// Makes good SVIDs but for the steps that the script names, first to last.
#[derive(Clone)]
struct Scripted {
    trust: watch::Receiver<Arc<Trust>>,
    script: Arc<Mutex<VecDeque<Step>>>,
    asked: Arc<Mutex<Vec<(Instant, Urgency)>>>,
}

impl Maker for Scripted {
    fn make(
        &self,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Made, NotIssued>> + Send + 'static {
        lock(&self.asked).push((Instant::now(), urgency));
        let step = lock(&self.script).pop_front();
        let trust = self.trust.clone();
        async move {
            let life = match step {
                Some(Step::Refused) => {
                    let web: WorkloadName = "shop/web".parse().unwrap();
                    return Err(Refusal::TooOften(web).into());
                }
                Some(Step::Busy) => return Err(NoTurn.into()),
                Some(Step::Hangs) => std::future::pending().await,
                Some(Step::Short(life)) => life,
                Some(Step::OtherKey | Step::Late(_)) | None => LIFE,
            };
            let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
            let public = PublicKey::from_der(&key.subject_public_key_info()).unwrap();
            let id: WorkloadId = WEB.parse().unwrap();
            let issued = CertificateAuthority::new(trust, life)
                .issue(id, Some("web".to_owned()), public, clock())
                .unwrap();
            let key = if matches!(step, Some(Step::OtherKey)) {
                other
            } else {
                key
            };
            if let Some(Step::Late(by)) = step {
                time::sleep(by).await;
            }
            Ok(Made {
                chain: issued.chain,
                key: Zeroizing::new(key.serialize_der()),
                issuer_key_id: issued.issuer_key_id,
            })
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Fixture {
    svid: RemoteSvid<Scripted>,
    maker: Scripted,
    trust: watch::Sender<Arc<Trust>>,
    metrics: Metrics,
}

fn fixture_with(first: Arc<Trust>, script: &[Step]) -> Fixture {
    let (trust, seen) = watch::channel(first);
    let maker = Scripted {
        trust: seen.clone(),
        script: Arc::new(Mutex::new(script.iter().copied().collect())),
        asked: Arc::default(),
    };
    let metrics = Metrics::new();
    Fixture {
        svid: RemoteSvid::new(maker.clone(), seen, clock, metrics.clone()),
        maker,
        trust,
        metrics,
    }
}

fn fixture(script: &[Step]) -> Fixture {
    fixture_with(trust(&[&root()]), script)
}

impl Fixture {
    async fn next(&mut self) -> Sent {
        self.svid.changed().await;
        self.sent().unwrap()
    }

    fn sent(&self) -> Option<Sent> {
        let versioned = self.svid.secret("default")?;
        let secret = Secret::decode(&*versioned.to_any().value).unwrap();
        assert_eq!(secret.name, "default");
        let Some(secret::Type::TlsCertificate(pair)) = secret.r#type else {
            panic!("no certificate")
        };
        let text = |source: Option<_>| match source.unwrap() {
            mesh_lite_proto::wire::envoy::config::core::v3::DataSource {
                specifier: Some(Specifier::InlineBytes(bytes)),
            } => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?}"),
        };
        Some(Sent {
            version: versioned.version,
            chain: text(pair.certificate_chain),
            key: text(pair.private_key),
        })
    }

    fn times_asked(&self) -> usize {
        lock(&self.maker.asked).len()
    }

    fn alarms(&self) -> bool {
        let text = self.metrics.encode().unwrap();
        !text.contains("mesh_lite_control_plane_broken_secrets_total 0")
    }
}

#[derive(Debug, PartialEq)]
struct Sent {
    version: String,
    chain: String,
    key: String,
}

impl Sent {
    fn check(&self, bundle: &TrustBundle) -> LeafFacts {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.chain.as_bytes())
            .map(Result::unwrap)
            .collect();
        assert!(self.key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let key = KeyPair::from_pem(&self.key).unwrap();
        check_svid(&chain, &key.serialize_der(), bundle, clock()).unwrap()
    }
}

/// SDS-S28, S30: PKCS#8 in PEM, beside the chain that it belongs to.
#[tokio::test(start_paused = true)]
async fn makes_a_key_and_its_certificate_when_they_are_first_wanted() {
    let mut fixture = fixture(&[]);
    assert_eq!(fixture.times_asked(), 0);
    assert!(!fixture.svid.is_being_made() && fixture.sent().is_none());
    fixture.svid.want(true);
    assert!(fixture.svid.is_being_made() && fixture.sent().is_none());
    let sent = fixture.next().await;
    assert!(!fixture.svid.is_being_made());
    let bundle = Arc::clone(&fixture.trust.borrow().bundle);
    assert_eq!(sent.check(&bundle).id.as_str(), WEB);
    // asked for again and again, it stays the same
    fixture.svid.want(true);
    assert_eq!(fixture.sent().unwrap(), sent);
    assert_eq!(fixture.times_asked(), 1);
}

/// SDS-S19, S30
#[tokio::test(start_paused = true)]
async fn makes_a_new_key_at_half_of_the_life_give_or_take_a_tenth() {
    let mut fixture = fixture(&[]);
    fixture.svid.want(true);
    let mut sent = vec![fixture.next().await];
    for _ in 0..20 {
        let before = Instant::now();
        sent.push(fixture.next().await);
        let passed = before.elapsed();
        // certificates end at whole seconds, so that a life is up to one shorter
        let shortest = LIFE - Duration::from_secs(1);
        assert!(passed >= shortest * 45 / 100, "{passed:?}");
        assert!(
            passed <= LIFE * 55 / 100 + Duration::from_secs(1),
            "{passed:?}"
        );
    }
    for (place, one) in sent.iter().enumerate() {
        for other in &sent[..place] {
            assert!(one.key != other.key && one.chain != other.chain);
            assert_ne!(one.version, other.version);
        }
    }
    let urgencies: Vec<Urgency> = lock(&fixture.maker.asked)
        .iter()
        .map(|(_, how)| *how)
        .collect();
    assert_eq!(urgencies[0], Urgency::First);
    assert!(urgencies[1..].iter().all(|how| *how == Urgency::Renewal));
}

/// SDS-S18: at first there is nothing, later the last good one stays.
#[tokio::test(start_paused = true)]
async fn never_sends_a_broken_one_and_tries_again() {
    let mut fixture = fixture(&[Step::OtherKey, Step::OtherKey]);
    fixture.svid.want(true);
    assert!(!fixture.alarms());
    let early = time::timeout(Duration::from_millis(1_400), fixture.svid.changed()).await;
    assert!(early.is_err() && fixture.alarms());
    assert!(fixture.sent().is_none() && fixture.svid.is_being_made());
    let good = fixture.next().await;
    lock(&fixture.maker.script).extend([Step::OtherKey]);
    let asked = fixture.times_asked();
    // the next one is broken, the one after that is good; nothing else was ever there to be sent
    while fixture.times_asked() == asked {
        let changed = time::timeout(Duration::from_millis(500), fixture.svid.changed()).await;
        assert!(changed.is_err());
    }
    assert_eq!(fixture.sent().unwrap(), good);
    assert_ne!(fixture.next().await, good);
}

/// SDS-S18
#[tokio::test(start_paused = true)]
async fn never_sends_one_that_is_over_when_it_is_made() {
    let mut fixture = fixture(&[Step::Late(LIFE)]);
    fixture.svid.want(true);
    fixture.next().await;
    assert!(fixture.alarms());
    assert_eq!(fixture.times_asked(), 2);
}

/// SDS-S19: with less than a tenth left it is sent to nobody, however long the next one takes.
#[tokio::test(start_paused = true)]
async fn sends_nothing_that_is_about_to_end() {
    let mut fixture = fixture(&[Step::Short(Duration::from_secs(100)), Step::Hangs]);
    fixture.svid.want(true);
    fixture.next().await;
    let wait = async |fixture: &mut Fixture, seconds| {
        let changed = fixture.svid.changed();
        assert!(
            time::timeout(Duration::from_secs(seconds), changed)
                .await
                .is_err()
        );
    };
    wait(&mut fixture, 85).await;
    assert!(fixture.sent().is_some());
    wait(&mut fixture, 10).await;
    assert!(fixture.sent().is_none() && fixture.svid.is_being_made());
    assert_eq!(fixture.times_asked(), 2);
}

/// One second, two, four, or down to half of that: never faster, never more than a minute apart,
/// and not in step with the others.
#[tokio::test(start_paused = true)]
async fn backs_off_while_it_is_refused() {
    let script: Vec<Step> = [Step::Refused, Step::Busy]
        .into_iter()
        .cycle()
        .take(10)
        .collect();
    let mut of_all = Vec::new();
    for _ in 0..2 {
        let mut fixture = fixture(&script);
        fixture.svid.want(true);
        fixture.next().await;
        assert!(!fixture.alarms());
        let asked = lock(&fixture.maker.asked).clone();
        let pauses: Vec<Duration> = asked
            .windows(2)
            .map(|pair| pair[1].0.duration_since(pair[0].0))
            .collect();
        let most = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60].map(Duration::from_secs);
        assert_eq!(pauses.len(), most.len());
        // a timer fires a millisecond late at most
        for (pause, most) in pauses.iter().zip(most) {
            let late = Duration::from_millis(1);
            assert!(*pause >= most / 2 && *pause <= most + late, "{pauses:?}");
        }
        of_all.push(pauses);
    }
    assert_ne!(of_all[0], of_all[1]);
}

/// What is held is of the issuing CA that signs now.
fn is_current(fixture: &Fixture) -> bool {
    let held = fixture.svid.held.as_ref().unwrap();
    held.made.issuer_key_id == trust_of(fixture).authority.facts().key_id
}

/// SDS-S16: soon, and not all streams of the mesh in one moment.
#[tokio::test(start_paused = true)]
async fn makes_a_new_one_soon_when_another_issuing_ca_signs_each_at_its_own_moment() {
    let root = root();
    let mut waited = Vec::new();
    for _ in 0..8 {
        let mut fixture = fixture_with(trust(&[&root]), &[]);
        fixture.svid.want(true);
        let first = fixture.next().await;
        fixture.trust.send_replace(trust(&[&root]));
        let changed_at = Instant::now();
        // the old one is good until the new one is here
        assert_eq!(fixture.next().await, first);
        assert!(!is_current(&fixture));
        let second = fixture.next().await;
        assert!(second != first && is_current(&fixture));
        let bundle = Arc::clone(&fixture.trust.borrow().bundle);
        second.check(&bundle);
        let asked = lock(&fixture.maker.asked)[1].0;
        waited.push(asked.duration_since(changed_at));
    }
    let late = Duration::from_millis(1);
    assert!(
        waited
            .iter()
            .all(|waited| *waited <= REPLACED_WITHIN + late)
    );
    waited.sort();
    waited.dedup();
    assert!(waited.len() > 1, "{waited:?}");
}

/// SDS-S16: the look at the change found nothing that could be replaced.
#[tokio::test(start_paused = true)]
async fn replaces_what_was_being_made_while_another_issuing_ca_took_over() {
    let root = root();
    let late = Step::Late(Duration::from_secs(5));
    for held_before in [false, true] {
        let script: &[Step] = if held_before {
            &[Step::Short(Duration::from_secs(100)), late]
        } else {
            &[late]
        };
        let mut fixture = fixture_with(trust(&[&root]), script);
        fixture.svid.want(true);
        let wait = async |fixture: &mut Fixture| {
            let second = Duration::from_secs(1);
            let _ = time::timeout(second, fixture.svid.changed()).await;
        };
        while fixture.times_asked() < script.len() {
            wait(&mut fixture).await;
        }
        // signed by now, and on its way
        wait(&mut fixture).await;
        fixture.trust.send_replace(trust(&[&root]));
        let changed_at = Instant::now();
        let of_the_old = lock(&fixture.maker.asked).len();
        while fixture.times_asked() == of_the_old || !is_current(&fixture) {
            fixture.svid.changed().await;
            assert!(changed_at.elapsed() < Duration::from_secs(20));
        }
    }
}

/// SDS-S18: not even between the change of the bundle and the look at it.
#[tokio::test(start_paused = true)]
async fn sends_nothing_that_the_served_bundle_does_not_vouch_for() {
    let (old, new) = (root(), root());
    let mut fixture = fixture_with(trust(&[&old]), &[]);
    fixture.svid.want(true);
    fixture.next().await;
    fixture.trust.send_replace(trust(&[&new]));
    assert!(fixture.sent().is_none() && fixture.svid.is_being_made());
    fixture.svid.changed().await;
    assert!(fixture.sent().is_none());
    let second = fixture.next().await;
    second.check(&trust_of(&fixture).bundle);
    assert!(!fixture.alarms(), "that a root goes is no defect");
}

fn trust_of(fixture: &Fixture) -> Arc<Trust> {
    Arc::clone(&fixture.trust.borrow())
}

/// A new root that is only announced changes nothing for a leaf of the old one.
#[tokio::test(start_paused = true)]
async fn keeps_what_it_has_while_a_root_is_only_announced() {
    let (old, new) = (root(), root());
    let first = trust(&[&old]);
    let mut fixture = fixture_with(Arc::clone(&first), &[]);
    fixture.svid.want(true);
    let sent = fixture.next().await;
    let roots = vec![old.certificate().clone(), new.certificate().clone()];
    fixture.trust.send_replace(Arc::new(Trust {
        bundle: Arc::new(TrustBundle::new(trust_domain(), roots).unwrap()),
        authority: Arc::clone(&first.authority),
    }));
    assert_eq!(fixture.next().await, sent);
    assert_eq!(fixture.times_asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn keeps_no_key_that_nobody_asks_for_any_more() {
    let mut fixture = fixture(&[]);
    fixture.svid.want(true);
    let first = fixture.next().await;
    fixture.svid.want(false);
    assert!(fixture.sent().is_none() && !fixture.svid.is_being_made());
    let changed = time::timeout(DAY, fixture.svid.changed()).await;
    assert!(changed.is_err() && fixture.times_asked() == 1);
    fixture.svid.want(true);
    assert_ne!(fixture.next().await.key, first.key);
}

/// Dropping the name and asking for it again is no way around a pause.
#[tokio::test(start_paused = true)]
async fn goes_on_with_its_pauses_when_the_name_is_dropped_and_asked_for_again() {
    let mut fixture = fixture(&[Step::Refused; 4]);
    let began = Instant::now();
    while fixture.times_asked() < 5 && began.elapsed() < LAST_BACK_OFF {
        // a failure that nobody saw counts for nothing, but the second between two
        if fixture.svid.making.is_empty() {
            fixture.svid.want(false);
            fixture.svid.want(true);
        }
        let _ = time::timeout(Duration::from_millis(10), fixture.svid.changed()).await;
    }
    let asked = lock(&fixture.maker.asked).clone();
    assert_eq!(asked.len(), 5);
    for (pair, most) in asked.windows(2).zip([1, 2, 4, 8]) {
        let pause = pair[1].0.duration_since(pair[0].0);
        let least = BEGUN_AT_MOST_EVERY.max(Duration::from_secs(most) / 2);
        assert!(pause >= least, "{pause:?} of {most}");
    }
}

/// Nor to one key after the other.
#[tokio::test(start_paused = true)]
async fn makes_at_most_one_a_second_for_a_client_that_asks_again_and_again() {
    let mut fixture = fixture(&[]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        fixture.svid.want(true);
        let _ = time::timeout(Duration::from_millis(10), fixture.svid.changed()).await;
        fixture.svid.want(false);
    }
    let asked = fixture.times_asked();
    assert!((9..=11).contains(&asked), "{asked}");
}

/// A stream drops this future at every request of its client.
#[tokio::test(start_paused = true)]
async fn loses_nothing_when_the_wait_is_dropped_again_and_again() {
    let mut fixture = fixture(&[]);
    fixture.svid.want(true);
    while fixture.sent().is_none() {
        let _ = futures::poll!(Box::pin(fixture.svid.changed()));
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.times_asked(), 1);
}

/// SDS-S29
#[tokio::test(start_paused = true)]
async fn shows_no_key_in_debug_output() {
    let mut fixture = fixture(&[]);
    fixture.svid.want(true);
    let sent = fixture.next().await;
    let shown = format!("{:?}", fixture.svid.secret("default").unwrap());
    for line in sent.key.lines().filter(|line| !line.starts_with("-----")) {
        assert!(!shown.contains(line));
    }
    assert!(!shown.contains("PRIVATE"));
}
