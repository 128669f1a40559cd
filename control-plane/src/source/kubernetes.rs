//! `--kubernetes`: pods, services and policy as the cluster's API server has them.
//!
//! ```text
//! watching (a task for each kind) ──▶ state ──▶ directory ──────▶ workload_index
//!                                        ├────▶ policy_object ──▶ policy_index ──▶ object_status
//!                                        └────▶ namespaces, outbound rules
//! ```
//! While the API server is away all of it stays as it was last known.

use std::{sync::Arc, time::Duration};

use kube::Client;
use mesh_lite_proto::document::Dialect;
use spiffe::TrustDomain;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{self, Instant},
};

use super::directory_of_files::Published;
use crate::{condition::Part, metrics::Metrics, outbound_rules::OutboundRules};

mod as_documents;
pub(crate) mod cluster_documents;
mod directory;
pub(crate) mod kinds;
pub(crate) mod namespaces;
pub(crate) mod object_status;
mod objects;
mod policies;
mod policy_object;
mod state;
mod watching;

use kinds::WatchedKind;
use namespaces::Namespaces;
use object_status::Verdict;
use state::{Object, State};
use watching::Seen;

/// Rollouts change many objects in a row; they are taken in together.
const COALESCE: Duration = Duration::from_millis(100);
/// In a very large cluster taking them in takes long: it may use a tenth of one core.
const PAUSE_PER_WORK: u32 = 10;
/// Events on their way from the watches; beyond, the watches wait.
const EVENTS: usize = 1024;
/// How often it is said for how long the API server has been away.
const TICK: Duration = Duration::from_secs(1);

/// Follows the objects of a cluster and publishes what they say; their one writer.
pub(crate) struct KubernetesObjects {
    client: Client,
    state: State,
    dialect: Dialect,
    /// As the operator set them; what namespaces say and where pods live is added.
    stated: OutboundRules,
    published: Published,
    namespaces: watch::Sender<Arc<Namespaces>>,
    outbound: watch::Sender<Arc<OutboundRules>>,
    verdicts: watch::Sender<Arc<Vec<Verdict>>>,
    known: watch::Sender<bool>,
    metrics: Metrics,
}

impl KubernetesObjects {
    pub(crate) fn new(
        client: Client,
        trust_domain: TrustDomain,
        outbound: OutboundRules,
        published: Published,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            state: State::new(trust_domain, outbound.mesh_cidrs.clone()),
            dialect: Dialect::default(),
            stated: outbound.clone(),
            published,
            namespaces: watch::Sender::default(),
            outbound: watch::Sender::new(Arc::new(outbound)),
            verdicts: watch::Sender::default(),
            known: watch::Sender::new(false),
            metrics,
        }
    }

    pub(crate) fn namespaces(&self) -> watch::Receiver<Arc<Namespaces>> {
        self.namespaces.subscribe()
    }

    pub(crate) fn outbound(&self) -> watch::Receiver<Arc<OutboundRules>> {
        self.outbound.subscribe()
    }

    /// What each policy's status should say.
    pub(crate) fn verdicts(&self) -> watch::Receiver<Arc<Vec<Verdict>>> {
        self.verdicts.subscribe()
    }

    /// True once every kind was read once.
    pub(crate) fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// Until nobody listens.
    pub(crate) async fn follow(mut self) {
        let (seen, mut events) = mpsc::channel(EVENTS);
        // dropped, it ends the watches
        let mut watches = JoinSet::new();
        for kind in WatchedKind::ALL {
            let (client, seen) = (self.client.clone(), seen.clone());
            watches.spawn(watching::follow(client, kind, state::reader(kind), seen));
        }
        drop(seen);
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut pause = COALESCE;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some((kind, seen)) => self.state.take(kind, seen),
                    None => return,
                },
                _ = tick.tick() => {
                    self.say_how_stale();
                    continue;
                }
                () = self.published.workloads.closed() => return,
            }
            let until = time::sleep(pause);
            take_more(&mut self.state, &mut events, until).await;
            let begun = Instant::now();
            self.publish();
            let work = begun.elapsed().saturating_mul(PAUSE_PER_WORK);
            pause = COALESCE.max(work);
        }
    }

    fn publish(&mut self) {
        let troubles = self.state.troubles();
        self.published.conditions.set(Part::ApiServer, troubles);
        self.say_how_stale();
        if !self.state.is_whole() {
            return;
        }
        let changed = self.state.changed();
        if changed.namespaces || changed.networks {
            self.publish_namespaces();
        }
        if changed.directory {
            let facts = self.state.facts();
            let next = self.published.workloads.borrow().successor_of(facts);
            self.published.workloads.send_replace(Arc::new(next));
        }
        if changed.policies {
            let (policies, dialect) = (&mut self.state.policies, &self.dialect);
            self.published
                .policies
                .send_modify(|index| policies.publish(dialect, index));
        }
        if changed.policies || changed.verdicts {
            let verdicts = self.state.policies.verdicts();
            self.verdicts.send_replace(Arc::new(verdicts));
        }
        self.say_problems();
        if !self.known.send_replace(true) {
            tracing::info!(counts = %self.state.counts(), "the objects of the cluster are known");
        }
    }

    fn publish_namespaces(&self) {
        let namespaces = self.state.namespaces();
        let mut outbound = self.stated.clone();
        outbound.mesh_cidrs = self.state.networks().mesh_cidrs();
        let own = namespaces.0.iter();
        let own = own.filter_map(|(name, of)| Some((name.clone(), of.outbound_unmeshed?)));
        outbound.unmeshed_by_namespace.extend(own);
        self.outbound.send_if_modified(|current| {
            let changed = **current != outbound;
            if changed {
                *current = Arc::new(outbound);
            }
            changed
        });
        self.namespaces.send_replace(Arc::new(namespaces));
    }

    fn say_problems(&self) {
        let mut texts = self.state.problems();
        let workloads = Arc::clone(&self.published.workloads.borrow());
        texts.extend(workloads.conflicts().iter().cloned());
        texts.extend(self.state.policies.problems());
        self.published.conditions.set(Part::Documents, texts);
    }

    fn say_how_stale(&self) {
        for kind in WatchedKind::ALL {
            let seconds = self.state.stale_for(kind, Instant::now()).as_secs_f64();
            self.metrics.stale(kind.plural(), seconds);
        }
    }
}

/// What comes until then.
async fn take_more(
    state: &mut State,
    events: &mut mpsc::Receiver<(WatchedKind, Seen<Object>)>,
    until: time::Sleep,
) {
    let mut until = std::pin::pin!(until);
    loop {
        tokio::select! {
            biased;
            () = &mut until => return,
            event = events.recv() => match event {
                Some((kind, seen)) => state.take(kind, seen),
                None => return,
            },
        }
    }
}

#[cfg(test)]
mod tests;
