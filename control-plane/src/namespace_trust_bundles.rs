//! A ConfigMap with the trust bundle in each namespace of the mesh: sidecars mount it.
//!
//! ```text
//! namespaces with the label ─┐
//! namespaces of meshed pods ─┼─▶ wanted ─┐
//! trust bundle ──────────────┘           ├─▶ what differs is applied (by the replica that leads)
//! ConfigMaps as they are ─── watch ──────┘
//! ```
//! That of the mesh's own namespace is the source of the bundle and is never written here. Where
//! the label goes away the ConfigMap stays: pods that were made before still mount it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use mesh_lite_proto::kubernetes::{TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY};
use serde_json::json;
use tokio::{
    pin,
    sync::watch,
    time::{self, Instant},
};

use crate::{
    certificate_authority::rotation::Trust,
    cluster::{Cluster, wait_until},
    cluster_objects::{Change, ClusterObjects, ObjectError, Place},
    condition::Part,
    source::kubernetes::namespaces::Namespaces,
    workload_index::WorkloadIndex,
};

/// Who applies the field, for `kubectl get --show-managed-fields`.
const MANAGER: &str = "mesh-lite-control-plane";
/// Pods come and go in a row; one look at the end of the row is enough.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Between two writes: 50 a second, so that a new root in 1,000 namespaces is written within 20 s and
/// the API server has room for others.
const BETWEEN_WRITES: Duration = Duration::from_millis(20);
/// What failed is tried again after this time, twice that after the second failure in a row, and so
/// on: whatever else changes meanwhile.
const RETRY: Duration = Duration::from_secs(5);
/// A pod that was made meanwhile waits for it.
const LONGEST_RETRY: Duration = Duration::from_secs(40);
/// A failure in each of many namespaces is one problem; a few show which.
const TOLD_FAILURES: usize = 5;

/// Runs for as long as the control plane does; acts while this replica leads.
pub(crate) async fn run(cluster: Cluster) {
    let mut leads = cluster.leads.clone();
    let mut known = cluster.known.clone();
    loop {
        wait_until(&mut leads, true).await;
        wait_until(&mut known, true).await;
        let mut publisher = Publisher::new(&cluster);
        tokio::select! {
            () = publisher.run() => {}
            () = wait_until(&mut leads, false) => {}
        }
        cluster.conditions.set(Part::TrustObjects, Vec::new());
    }
}

struct Publisher<'a> {
    cluster: &'a Cluster,
    objects: ClusterObjects,
    published: Published,
    failures: BTreeMap<String, Failed>,
    watch_failure: Option<String>,
}

/// A namespace whose ConfigMap can't be written.
struct Failed {
    error: ObjectError,
    in_a_row: u32,
    again_at: Instant,
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1);
    RETRY
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(LONGEST_RETRY)
}

impl<'a> Publisher<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            objects: ClusterObjects::new(cluster.client.clone()),
            published: Published::default(),
            failures: BTreeMap::new(),
            watch_failure: None,
        }
    }

    async fn run(&mut self) {
        let changes = config_maps(self.cluster);
        pin!(changes);
        let mut trust = self.cluster.trust.clone();
        let mut namespaces = self.cluster.namespaces.clone();
        let mut workloads = self.cluster.workloads.clone();
        loop {
            if self.published.is_complete {
                let wanted = wanted(
                    &namespaces.borrow_and_update(),
                    &workloads.borrow_and_update(),
                    &self.cluster.mesh_namespace,
                );
                let text = text_of(&mut trust);
                self.write(&wanted, &text).await;
            }
            self.tell();
            let again_at = self.failures.values().map(|failed| failed.again_at).min();
            tokio::select! {
                event = changes.next() => {
                    let Some(event) = event else { return };
                    self.heard(event);
                    // those that come with it
                    time::sleep(DEBOUNCE).await;
                    while let Some(Some(event)) = futures::FutureExt::now_or_never(changes.next()) {
                        self.heard(event);
                    }
                }
                Ok(()) = trust.changed() => {}
                Ok(()) = namespaces.changed() => {}
                Ok(()) = workloads.changed() => time::sleep(DEBOUNCE).await,
                () = time::sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
        }
    }

    fn heard(&mut self, event: Result<Event<ConfigMap>, watcher::Error>) {
        match event {
            Ok(event) => {
                self.watch_failure = None;
                self.published.heard(event);
            }
            Err(error) => {
                self.watch_failure = Some(format!(
                    "ConfigMaps {TRUST_BUNDLE_CONFIG_MAP} can't be watched: {}",
                    error.to_string().escape_debug()
                ));
            }
        }
    }

    async fn write(&mut self, wanted: &BTreeSet<String>, text: &Arc<str>) {
        self.failures
            .retain(|namespace, _| wanted.contains(namespace));
        for namespace in self.published.missing(wanted, text) {
            let failed = self.failures.get(&namespace);
            if failed.is_some_and(|failed| Instant::now() < failed.again_at) {
                continue;
            }
            let place = Place::config_map(&namespace, TRUST_BUNDLE_CONFIG_MAP);
            let body = body(&place, text);
            let change = Change::Apply { manager: MANAGER };
            match self.objects.change(&place, None, change, body).await {
                Ok(_) => {
                    self.failures.remove(&namespace);
                    self.published.wrote(namespace, Arc::clone(text));
                }
                Err(error) => {
                    self.failed(namespace, error);
                }
            }
            time::sleep(BETWEEN_WRITES).await;
        }
    }

    fn failed(&mut self, namespace: String, error: ObjectError) {
        let before = self.failures.get(&namespace);
        let in_a_row = before.map_or(1, |failed| failed.in_a_row.saturating_add(1));
        let now = Instant::now();
        let failed = Failed {
            error,
            in_a_row,
            again_at: now.checked_add(pause(in_a_row)).unwrap_or(now),
        };
        self.failures.insert(namespace, failed);
    }

    fn tell(&self) {
        let mut texts: Vec<String> = self
            .failures
            .values()
            .take(TOLD_FAILURES)
            .map(|failed| format!("{}; new pods there do not start", failed.error))
            .collect();
        let more = self.failures.len().saturating_sub(TOLD_FAILURES);
        if more > 0 {
            texts.push(format!(
                "the trust bundle can't be written in {more} more namespaces"
            ));
        }
        texts.extend(self.watch_failure.clone());
        self.cluster.conditions.set(Part::TrustObjects, texts);
    }
}

fn text_of(trust: &mut watch::Receiver<Arc<Trust>>) -> Arc<str> {
    trust.borrow_and_update().bundle.to_pem().into()
}

/// Only those of our name: the role may list and watch no others.
fn config_maps(
    cluster: &Cluster,
) -> impl Stream<Item = Result<Event<ConfigMap>, watcher::Error>> + use<> {
    use kube::runtime::WatchStreamExt;
    let api: Api<ConfigMap> = Api::all(cluster.client.clone());
    let config =
        watcher::Config::default().fields(&format!("metadata.name={TRUST_BUNDLE_CONFIG_MAP}"));
    watcher(api, config).default_backoff()
}

fn body(place: &Place, text: &str) -> Vec<u8> {
    let mut object = place.header();
    if let Some(object) = object.as_object_mut() {
        object.insert("data".to_owned(), json!({ TRUST_BUNDLE_KEY: text }));
        if let Some(metadata) = object
            .get_mut("metadata")
            .and_then(serde_json::Value::as_object_mut)
        {
            let labels = json!({ "app.kubernetes.io/part-of": "mesh-lite" });
            metadata.insert("labels".to_owned(), labels);
        }
    }
    object.to_string().into_bytes()
}

/// Namespaces whose pods mount the trust bundle, or soon will.
fn wanted(
    namespaces: &Namespaces,
    workloads: &WorkloadIndex,
    mesh_namespace: &str,
) -> BTreeSet<String> {
    let labelled = namespaces
        .0
        .iter()
        .filter(|(_, namespace)| namespace.injected);
    let labelled = labelled.map(|(name, _)| name.as_str());
    // pods may be in the mesh by their own label, or from before their namespace lost its
    let meshed = workloads.workloads().filter(|it| it.tunnel_port.is_some());
    let meshed = meshed.map(|workload| workload.name.namespace.as_str());
    labelled
        .chain(meshed)
        .filter(|name| *name != mesh_namespace)
        .filter(|name| {
            !namespaces
                .0
                .get(*name)
                .is_some_and(|namespace| namespace.ending)
        })
        .map(ToOwned::to_owned)
        .collect()
}

/// What the ConfigMaps hold, by namespace.
#[derive(Default)]
struct Published {
    texts: BTreeMap<String, Arc<str>>,
    /// Those of a list that is being read.
    listed: BTreeMap<String, Arc<str>>,
    /// One list was read whole: who is missing now is missing.
    is_complete: bool,
    /// The text that most of them hold is kept once.
    last: Option<Arc<str>>,
}

impl Published {
    fn heard(&mut self, event: Event<ConfigMap>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(map) => {
                if let Some((namespace, text)) = self.read(map) {
                    self.listed.insert(namespace, text);
                }
            }
            Event::InitDone => {
                self.texts = std::mem::take(&mut self.listed);
                self.is_complete = true;
            }
            Event::Apply(map) => {
                if let Some((namespace, text)) = self.read(map) {
                    self.texts.insert(namespace, text);
                }
            }
            Event::Delete(map) => {
                self.texts
                    .remove(map.metadata.namespace.as_deref().unwrap_or_default());
            }
        }
    }

    fn read(&mut self, map: ConfigMap) -> Option<(String, Arc<str>)> {
        if map.metadata.name.as_deref() != Some(TRUST_BUNDLE_CONFIG_MAP) {
            return None;
        }
        let data = map.data.unwrap_or_default();
        let text = data.get(TRUST_BUNDLE_KEY).map_or("", String::as_str);
        let text = match &self.last {
            Some(last) if **last == *text => Arc::clone(last),
            _ => Arc::from(text),
        };
        self.last = Some(Arc::clone(&text));
        Some((map.metadata.namespace?, text))
    }

    fn wrote(&mut self, namespace: String, text: Arc<str>) {
        self.texts.insert(namespace, text);
    }

    fn missing(&self, wanted: &BTreeSet<String>, text: &str) -> Vec<String> {
        wanted
            .iter()
            .filter(|namespace| {
                self.texts
                    .get(*namespace)
                    .is_none_or(|there| **there != *text)
            })
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests;
