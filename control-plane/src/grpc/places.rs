//! Connections of callers that have proved who they are, counted by workload: one of them must
//! not take the places of all others, nor its memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use super::byte_budget::ByteBudget;
use crate::{
    caller::Peer, certificate_authority::certificate_request::KeyPrint,
    workload_index::WorkloadName,
};

/// A sidecar has one connection, two while it changes over; Envoy's google_grpc has one for each
/// of its subscriptions, a handful, twice as many while they change over.
const MAX_PER_KEY: usize = 32;
/// Replicas under one Workload document, each with a key of its own, or with one reusable token.
const MAX_PER_WORKLOAD: usize = 64;
/// Of all streams of a workload. Envoy repeats a node of 61 KB in each request: that is five
/// hundred of its streams, or two thousand of sidecars.
const BYTES_PER_WORKLOAD: usize = 32 * 1024 * 1024;
/// One place of so many is kept for callers without a certificate: whoever has none can get one
/// however many peers there are.
const KEPT_FOR_STRANGERS: usize = 8;

/// Who takes a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Holder {
    Key(KeyPrint),
    Workload(WorkloadName),
    /// Of a certificate that names no workload.
    Identity(String),
}

struct Taken {
    connections: usize,
    bytes: ByteBudget,
}

#[derive(Default)]
struct State {
    taken: HashMap<Holder, Taken>,
    all: usize,
}

#[derive(Clone)]
pub(crate) struct Places {
    state: Arc<Mutex<State>>,
    max: usize,
}

/// One connection, counted until dropped.
pub(super) struct Place {
    places: Places,
    holders: Vec<Holder>,
    pub(super) bytes: ByteBudget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    #[error(
        "{MAX_PER_KEY} connections are open with this certificate's key: close those not in use"
    )]
    Key,
    #[error("{MAX_PER_WORKLOAD} connections of this workload are open: close those not in use")]
    Workload,
    #[error(
        "there are as many connections as this control plane takes: it may open more files, or run twice"
    )]
    All,
}

impl Places {
    /// Of a listener that takes so many connections.
    pub(super) fn new(max_connections: usize) -> Self {
        let kept = max_connections / KEPT_FOR_STRANGERS;
        Self {
            state: Arc::default(),
            max: max_connections.saturating_sub(kept),
        }
    }

    pub(super) fn of_peer(&self, peer: &Peer) -> Result<Place, NoPlace> {
        let leaf = &peer.leaf;
        let workload = match (leaf.id.namespace(), leaf.common_name.as_deref()) {
            (Some(namespace), Some(name)) => Holder::Workload(WorkloadName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            _ => Holder::Identity(leaf.id.to_string()),
        };
        self.take(vec![workload, Holder::Key(peer.key)])
    }

    /// Of a caller that proved itself by a reusable token.
    pub(super) fn of_workload(&self, workload: &WorkloadName) -> Result<Place, NoPlace> {
        self.take(vec![Holder::Workload(workload.clone())])
    }

    fn take(&self, holders: Vec<Holder>) -> Result<Place, NoPlace> {
        // A poisoned lock means a panic in here; the counts are whole all the same.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.all >= self.max {
            return Err(NoPlace::All);
        }
        for holder in &holders {
            let taken = state.taken.get(holder);
            if taken.is_some_and(|taken| taken.connections >= holder.most()) {
                return Err(holder.refusal());
            }
        }
        let mut bytes = None;
        for holder in &holders {
            let taken = state.taken.entry(holder.clone()).or_insert_with(|| Taken {
                connections: 0,
                bytes: ByteBudget::new(BYTES_PER_WORKLOAD),
            });
            taken.connections = taken.connections.saturating_add(1);
            // the first is the workload
            bytes.get_or_insert_with(|| taken.bytes.clone());
        }
        state.all = state.all.saturating_add(1);
        drop(state);
        Ok(Place {
            places: self.clone(),
            holders,
            bytes: bytes.unwrap_or_else(|| ByteBudget::new(BYTES_PER_WORKLOAD)),
        })
    }
}

impl Holder {
    fn most(&self) -> usize {
        match self {
            Self::Key(_) => MAX_PER_KEY,
            Self::Workload(_) | Self::Identity(_) => MAX_PER_WORKLOAD,
        }
    }

    fn refusal(&self) -> NoPlace {
        match self {
            Self::Key(_) => NoPlace::Key,
            Self::Workload(_) | Self::Identity(_) => NoPlace::Workload,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self
            .places
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.all = state.all.saturating_sub(1);
        for holder in self.holders.drain(..) {
            if let Entry::Occupied(mut taken) = state.taken.entry(holder) {
                let left = taken.get().connections.saturating_sub(1);
                taken.get_mut().connections = left;
                if left == 0 {
                    taken.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
