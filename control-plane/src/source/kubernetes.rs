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
mod pace;
mod policies;
mod policy_object;
mod state;
mod watching;

use kinds::WatchedKind;
use namespaces::Namespaces;
use object_status::Verdict;
use pace::Pace;
use policies::Portion;
use state::{Object, State};
use watching::Seen;

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
    /// Of all but the directory.
    quick: Pace,
    /// They are among that too, and don't wait for how long policies take.
    evictions: Pace,
    directory: Pace,
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
            quick: Pace::default(),
            evictions: Pace::default(),
            directory: Pace::default(),
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
        loop {
            let due = self.next_publication();
            tokio::select! {
                // what is due is not put off by what comes
                biased;
                () = time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    if !self.publish().await {
                        return;
                    }
                }
                () = self.published.workloads.closed() => return,
                _ = tick.tick() => self.say_how_stale(),
                event = events.recv() => match event {
                    Some((kind, seen)) => self.take(kind, seen),
                    None => return,
                },
            }
        }
    }

    fn take(&mut self, kind: WatchedKind, seen: Seen<Object>) {
        let now = Instant::now();
        self.state.take(kind, seen);
        self.quick.changed(now);
        if self.state.changed.evictions {
            self.evictions.changed(now);
        }
        if self.state.changed.directory || self.state.changed.networks {
            self.directory.changed(now);
        }
    }

    fn next_publication(&self) -> Option<Instant> {
        let paces = [&self.quick, &self.evictions, &self.directory];
        paces.map(Pace::due).into_iter().flatten().min()
    }

    /// Answers whether there is more to come.
    async fn publish(&mut self) -> bool {
        let begun = Instant::now();
        let is_whole = self.state.is_whole();
        // the first time all of it together
        let all = is_whole && !*self.known.borrow();
        let quick = all || self.quick.is_due(begun);
        if quick {
            let troubles = self.state.troubles();
            self.published.conditions.set(Part::ApiServer, troubles);
            self.say_how_stale();
        }
        let portion = match (all, quick, self.evictions.is_due(begun)) {
            (true, ..) => Some(Portion::Everything),
            (false, true, _) => Some(Portion::InTurn),
            (false, false, true) => Some(Portion::Evictions),
            (false, false, false) => None,
        };
        if let Some(portion) = portion {
            if is_whole && !self.publish_policies(portion).await {
                return false;
            }
            self.pace_after(portion, begun);
        }
        let begun = Instant::now();
        if all || self.directory.is_due(begun) {
            if is_whole {
                self.publish_directory();
            }
            self.directory.published(begun, Instant::now());
        }
        true
    }

    fn pace_after(&mut self, portion: Portion, begun: Instant) {
        let now = Instant::now();
        let pace = match portion {
            Portion::Everything | Portion::InTurn => {
                self.evictions.taken_along();
                &mut self.quick
            }
            Portion::Evictions => &mut self.evictions,
        };
        pace.published(begun, now);
        if self.state.policies.has_unread(portion) {
            self.state.changed.policies = true;
            pace.changed(now);
        }
        if self.state.policies.has_unread(Portion::Evictions) {
            self.state.changed.evictions = true;
            self.evictions.changed(now);
        }
    }

    /// Policies and evictions never wait for how long a directory takes. Whoever looks at policies
    /// meanwhile sees those of before. Answers false if it ended.
    async fn publish_policies(&mut self, portion: Portion) -> bool {
        let changed = &mut self.state.changed;
        let evictions = std::mem::take(&mut changed.evictions);
        let policies = match portion {
            Portion::Everything | Portion::InTurn => std::mem::take(&mut changed.policies),
            Portion::Evictions => evictions,
        };
        let verdicts = std::mem::take(&mut changed.verdicts);
        let namespaces = std::mem::take(&mut changed.namespaces);
        if policies && !self.read_policies(portion).await {
            return false;
        }
        if policies || verdicts {
            let verdicts = self.state.policies.verdicts();
            self.verdicts.send_replace(Arc::new(verdicts));
        }
        if namespaces {
            self.publish_namespaces();
        }
        if policies || namespaces {
            self.say_problems();
        }
        true
    }

    /// Reading takes a while, and other tasks want the thread.
    async fn read_policies(&mut self, portion: Portion) -> bool {
        let mut policies = std::mem::take(&mut self.state.policies);
        let (current, dialect) = (self.published.policies.subscribe(), self.dialect.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let mut index = current.borrow().clone();
            policies.publish(portion, policies::MAX_READING, &dialect, &mut index);
            (policies, index)
        });
        let Ok((policies, index)) = reading.await else {
            return false;
        };
        self.state.policies = policies;
        self.published.policies.send_replace(index);
        true
    }

    fn publish_directory(&mut self) {
        let changed = &mut self.state.changed;
        let directory = std::mem::take(&mut changed.directory);
        if std::mem::take(&mut changed.networks) {
            self.publish_namespaces();
        }
        if directory {
            let facts = self.state.facts();
            let before = Arc::clone(&self.published.workloads.borrow());
            let next = Arc::new(before.successor_of(facts));
            // no news of policies; who is woken by the workloads finds them there
            self.published.policies.send_if_modified(|policies| {
                policies.set_workloads(Arc::clone(&next));
                false
            });
            self.published.workloads.send_replace(next);
            self.say_problems();
        }
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

#[cfg(test)]
mod tests;
