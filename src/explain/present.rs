//! What judges a recorded connection by the policy of now: of the workload that was called, by
//! whichever side it was recorded.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use mesh_lite_control_plane::policy_review::{Documents, ReviewedWorkload};
use mesh_lite_proto::{
    authorization::PolicySnapshot,
    decision_record::{DecisionRecord, Direction, Endpoint, Outcome, Recording},
};

use super::{
    Basis, Explanation,
    judged::{Call, Judged},
    read_documents::ReadDocuments,
    recorded::{is_evicted, recorder},
    snapshot_of,
};
use crate::recordings::NamedRecording;

/// Why there is no answer of now.
type Why = String;

/// Documents, if they are named; else what running sidecars enforce.
pub(super) struct Present<'a> {
    pub(super) documents: Option<Arc<ReadDocuments>>,
    /// Everything that was named.
    pub(super) recordings: &'a [NamedRecording],
    pub(super) now: SystemTime,
}

impl Present<'_> {
    /// `None`: policy has nothing to say here, or that of another workload has, and nothing of
    /// that one is named.
    pub(super) fn judged(
        &self,
        named: &NamedRecording,
        record: &DecisionRecord,
    ) -> Option<Result<Explanation, Why>> {
        let destination = record.destination.as_ref();
        match (record.direction, destination) {
            (Direction::Inbound, Some(destination))
                if record.facts().is_some() || is_evicted(record) =>
            {
                Some(self.here(named, record, destination))
            }
            (Direction::Outbound, Some(destination)) if is_of_peer(record) => {
                self.there(record, destination)
            }
            _ => self.documents.as_ref().map(|_| {
                Err("the documents have no say in this: no rule of policy decided on it".to_owned())
            }),
        }
    }

    fn here(
        &self,
        named: &NamedRecording,
        record: &DecisionRecord,
        destination: &Endpoint,
    ) -> Result<Explanation, Why> {
        let name = recorder(&named.recording);
        let call = |name| call(record, destination, name);
        if let Some(read) = &self.documents {
            let workload = workload(&read.documents, &named.recording, destination)?;
            return Ok(read.judge(call(name), workload, self.now));
        }
        let admin = named.admin.ok_or(
            "files do not say what policy is now: name --config-dir, or ask the sidecar by --admin",
        )?;
        self.by_sidecar(call(name), admin)
    }

    /// By the other side, which decided.
    fn there(
        &self,
        record: &DecisionRecord,
        destination: &Endpoint,
    ) -> Option<Result<Explanation, Why>> {
        let call = |name| call(record, destination, name);
        if let Some(read) = &self.documents {
            let workload = called(&read.documents, destination);
            return Some(
                workload.map(|workload| {
                    read.judge(call(workload.name.to_string()), workload, self.now)
                }),
            );
        }
        let its = self.sidecar_of(destination)?;
        let admin = its.admin?;
        Some(self.by_sidecar(call(recorder(&its.recording)), admin))
    }

    /// The running one at this address, else the only one of this identity.
    fn sidecar_of(&self, destination: &Endpoint) -> Option<&NamedRecording> {
        let identity = destination.identity.as_ref();
        let running = self.recordings.iter().filter(|one| one.admin.is_some());
        let its: Vec<_> = running
            .filter(|one| identity.is_some() && one.recording.identity.as_ref() == identity)
            .collect();
        let at_it = its
            .iter()
            .find(|one| was_called_at(one, destination.address));
        match (at_it, &its[..]) {
            (Some(found), _) | (None, [found]) => Some(found),
            _ => None,
        }
    }

    fn by_sidecar(&self, call: Call, admin: SocketAddr) -> Result<Explanation, Why> {
        let (snapshot, what): (PolicySnapshot, String) =
            snapshot_of(admin).map_err(|error| format!("{error:#}"))?;
        Ok(Explanation {
            judged: Judged::of(&call, &snapshot, self.now),
            call,
            basis: Basis {
                what,
                documents: None,
            },
            rests_on_shipped: false,
            service_port: None,
        })
    }
}

/// The other side's policy decided on it.
pub(super) fn is_of_peer(record: &DecisionRecord) -> bool {
    record.decided_by_peer && matches!(record.outcome, Outcome::Allow | Outcome::Deny)
}

fn call(record: &DecisionRecord, destination: &Endpoint, name: String) -> Call {
    Call {
        caller: record.source.identity.clone(),
        caller_name: None,
        source: Some(record.source.address.ip()),
        destination: name,
        port: destination.address.port(),
    }
}

fn was_called_at(named: &NamedRecording, address: SocketAddr) -> bool {
    let own = |record: &DecisionRecord| match record.direction {
        Direction::Inbound => record.destination.as_ref().map(|own| own.address.ip()),
        Direction::Outbound => None,
    };
    let records = named.recording.records.iter();
    records.filter_map(own).any(|ip| ip == address.ip())
}

/// The workload whose sidecar made the recording.
fn workload<'a>(
    documents: &'a Documents,
    recording: &Recording,
    destination: &Endpoint,
) -> Result<&'a ReviewedWorkload, Why> {
    if let Some(name) = &recording.workload {
        let found = name.parse().ok().and_then(|name| documents.workload(&name));
        return found.ok_or_else(|| format!("no Workload document is called {name}"));
    }
    if let Some(found) = documents.workload_at(destination.address.ip()) {
        return Ok(found);
    }
    let all = documents.workloads().iter();
    let mut same = all.filter(|one| Some(&one.id) == recording.identity.as_ref());
    match (same.next(), same.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(
            "the documents do not say which workload recorded this: no Workload document has \
                  its address, or several its identity"
                .to_owned(),
        ),
    }
}

/// The workload that was called, as the caller's side knows it: by address, and it must be the one
/// that answered there.
fn called<'a>(
    documents: &'a Documents,
    destination: &Endpoint,
) -> Result<&'a ReviewedWorkload, Why> {
    let address = destination.address.ip();
    let Some(found) = documents.workload_at(address) else {
        return Err(format!(
            "the documents do not say which workload is at {address}: no Workload document has \
             that address, or several have"
        ));
    };
    match &destination.identity {
        Some(id) if *id != found.id => Err(format!(
            "at {address} the documents have {} ({}), and it was {id} that answered there: they \
             are of another time, or of another mesh",
            found.name, found.id
        )),
        _ if !found.meshed => Err(format!(
            "{} at {address} is outside the mesh (meshed: false, {}:{}) by the documents, and a \
             sidecar answered there: they are of another time",
            found.name, found.file, found.line
        )),
        _ => Ok(found),
    }
}
