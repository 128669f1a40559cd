//! What the admin pages show.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_lite_proto::authorization::PolicySnapshot;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use crate::{
    admin::{LargePage, Page, Pages, health_pages, readyz},
    clock::{self, unix},
    control::{
        ControlHandles,
        status::{Condition, ControlStatus},
    },
    decisions::Decisions,
    identity::{renewal_state::RenewalState, report::IdentityReport},
    live_connections::LiveConnections,
    metrics::Metrics,
    readiness::Readiness,
    tls::context::TlsContext,
};

/// A page of connections is for people; programs have the metrics.
const MAX_CONNECTIONS_SHOWN: usize = 1000;
/// Anybody may ask for metrics, and making them takes the thread that also renews and enforces.
const METRICS_AGE: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Shown {
    pub(super) readiness: Readiness,
    pub(super) metrics: Metrics,
    pub(super) tls: watch::Receiver<Option<Arc<TlsContext>>>,
    pub(super) policy: PolicyInForce,
    pub(super) status: watch::Receiver<ControlStatus>,
    pub(super) renewal: watch::Receiver<RenewalState>,
    pub(super) live: LiveConnections,
    pub(super) decisions: Decisions,
}

impl Shown {
    pub(super) fn of(
        handles: &ControlHandles,
        readiness: &Readiness,
        metrics: &Metrics,
        tls: &watch::Receiver<Option<Arc<TlsContext>>>,
        (live, decisions): (&LiveConnections, &Decisions),
    ) -> Self {
        Self {
            readiness: readiness.clone(),
            metrics: metrics.clone(),
            tls: tls.clone(),
            policy: handles.policy.clone(),
            status: handles.status.clone(),
            renewal: handles.renewal.clone(),
            live: live.clone(),
            decisions: decisions.clone(),
        }
    }

    pub(super) fn health_pages(&self) -> Pages {
        health_pages(&self.readiness)
    }

    pub(super) fn metrics_pages(&self) -> Pages {
        let metrics = self.metrics.clone();
        let cached: Mutex<Option<(Instant, String)>> = Mutex::default();
        Pages::default().with("/metrics", "for Prometheus", move || {
            let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = cached
                .take()
                .filter(|(made, _)| made.elapsed() < METRICS_AGE);
            let (made, body) =
                fresh.unwrap_or_else(|| (Instant::now(), metrics.encode(clock::now())));
            Page::metrics(cached.insert((made, body)).1.clone())
        })
    }

    pub(super) fn admin_pages(&self) -> Pages {
        let (tls, renewal, status, live) = (
            self.tls.clone(),
            self.renewal.clone(),
            self.status.clone(),
            self.live.clone(),
        );
        self.policy_pages(self.metrics_pages())
            .with("/readyz", "ready, or why not", readyz(&self.readiness))
            .with(
                "/identity",
                "whose certificate, until when, renewed when",
                move || {
                    let context = tls.borrow().clone();
                    let identity = context.as_ref().map(|context| &**context.identity());
                    Page::json(&IdentityReport::new(
                        identity,
                        &renewal.borrow(),
                        clock::now(),
                    ))
                },
            )
            .with("/control-plane", "how the streams are doing", move || {
                Page::json(&conditions(&status.borrow()))
            })
            .with("/connections", "what is open now", move || {
                Page::json(&connections(&live))
            })
            .with_contents()
    }

    /// What is in force, and what was decided by it: all of it may be large.
    fn policy_pages(&self, pages: Pages) -> Pages {
        let (tls, live, decisions) = (self.tls.clone(), self.live.clone(), self.decisions.clone());
        let decisions = LargePage::new(move || {
            let context = tls.borrow().clone();
            let own = context.as_ref().map(|context| &context.identity().leaf);
            Page::json_lines(decisions.recording(own, &live, clock::now()).to_lines())
        });
        let summary = self.page_of_policy(|snapshot| Page::json(&summary(snapshot)));
        let whole = self.page_of_policy(|snapshot| match snapshot {
            Some(snapshot) => Page::json_line(&snapshot.shown_as_json()),
            None => Page::text("no policy has arrived yet\n".to_owned()).failed(),
        });
        pages
            .with_large("/policy", "the policy snapshot in force", summary)
            .with_large("/policy/snapshot", "all of it, for tools", whole)
            .with_large(
                "/decisions",
                "who was let through or not, and why",
                decisions,
            )
    }

    /// Made again only when the policy has changed.
    fn page_of_policy(
        &self,
        page: impl Fn(Option<&PolicySnapshot>) -> Page + Send + Sync + 'static,
    ) -> LargePage {
        let policy = Arc::new(Mutex::new(self.policy.clone()));
        let shown = Arc::clone(&policy);
        let shown = LargePage::new(move || {
            // neither lock is held while the page is made
            let snapshot = seen(&shown).borrow_and_update().clone();
            page(snapshot.as_deref())
        });
        shown.shared_while(move || !seen(&policy).has_changed().unwrap_or(false))
    }
}

type PolicyInForce = watch::Receiver<Option<Arc<PolicySnapshot>>>;

fn seen(policy: &Mutex<PolicyInForce>) -> MutexGuard<'_, PolicyInForce> {
    policy.lock().unwrap_or_else(PoisonError::into_inner)
}

fn summary(snapshot: Option<&PolicySnapshot>) -> Value {
    let Some(snapshot) = snapshot else {
        return json!({"policy": null});
    };
    let policies: Vec<_> = snapshot
        .policies
        .iter()
        .map(|policy| {
            json!({
                "source": policy.source.to_string(),
                "action": format!("{:?}", policy.action).to_uppercase(),
                "dry_run": policy.dry_run,
                "rules": policy.rules.len(),
            })
        })
        .collect();
    let broken: Vec<_> = snapshot
        .broken
        .iter()
        .map(|broken| json!({"source": broken.source.to_string(), "reason": &*broken.reason}))
        .collect();
    json!({
        "revision": snapshot.revision,
        "mutual_tls": format!("{:?}", snapshot.mutual_tls.mode).to_uppercase(),
        "default_action": snapshot
            .default_action
            .as_ref()
            .map(|(action, source)| format!("{action:?} by {source}").to_uppercase()),
        "policies": policies,
        "evictions": snapshot.evictions.len(),
        "broken": broken,
    })
}

fn conditions(status: &ControlStatus) -> Value {
    let condition = |condition: &Condition| {
        json!({
            "connected": condition.connected,
            "last_contact": condition.last_contact.map(unix),
            "error": condition.error,
        })
    };
    json!({
        "issuing": condition(&status.issuing),
        "trust_bundle": condition(&status.trust),
        "directory": condition(&status.directory),
        "policy": condition(&status.policy),
    })
}

fn connections(live: &LiveConnections) -> Value {
    let all = live.all();
    let shown: Vec<_> = all
        .iter()
        .take(MAX_CONNECTIONS_SHOWN)
        .map(|live| {
            json!({
                "conn_id": live.id.to_string(),
                "direction": live.subject.direction.as_str(),
                "source": live.subject.source.to_string(),
                "destination": live.subject.destination.to_string(),
                "peer": live.subject.peer.as_ref().map(|peer| peer.id().as_str()),
                "peer_serial": live.subject.peer.as_ref().map(|peer| peer.leaf.serial.to_string()),
            })
        })
        .collect();
    json!({"open": all.len(), "connections": shown})
}
