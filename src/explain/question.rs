//! `--from --to --port`: what would become of a call that nobody has made.

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use anyhow::{bail, ensure};
use mesh_lite_control_plane::{
    WorkloadName,
    policy_review::{Documents, ReviewedWorkload},
};
use mesh_lite_proto::{authorization::PolicySnapshot, identity::WorkloadId, sidecar};

use super::{
    Basis, Explanation,
    caller::CallerName,
    judged::{Call, Judged, asks_for_addresses},
    read_documents::ReadDocuments,
};

/// What a person asks.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) from: &'a CallerName,
    pub(super) from_address: Option<IpAddr>,
    pub(super) to: &'a WorkloadName,
    pub(super) port: u16,
}

impl Question<'_> {
    /// By the documents that a control plane would read.
    ///
    /// # Errors
    /// If a workload is not in the documents, or the answer hangs on something that is not said.
    pub(super) fn by_documents(
        &self,
        read: &Arc<ReadDocuments>,
        now: SystemTime,
    ) -> anyhow::Result<Explanation> {
        self.check_port()?;
        let documents = &read.documents;
        let destination = named(documents, self.to)?;
        ensure!(
            destination.meshed,
            "{} is outside the mesh (meshed: false, {}:{}): no sidecar decides who may connect to it",
            self.to,
            destination.file,
            destination.line
        );
        let snapshot = documents.snapshot_for(destination, now);
        let (name, caller, addresses) = match self.from {
            CallerName::Workload(name) => {
                let workload = named(documents, name)?;
                let id = workload.meshed.then(|| workload.id.clone());
                (Some(name.to_string()), id, workload.addresses.clone())
            }
            CallerName::Identity(id) => {
                let mut of_id = documents.workloads().iter().filter(|one| one.id == *id);
                let (first, others) = (of_id.next(), of_id);
                let addresses = first.into_iter().chain(others);
                let addresses = addresses.flat_map(|one| one.addresses.clone()).collect();
                (None, Some(id.clone()), addresses)
            }
            CallerName::Plaintext => (None, None, Vec::new()),
        };
        let answer = self.judge((name, caller, addresses), &snapshot, read.basis(), now)?;
        let Explanation { call, judged, .. } = &answer;
        Ok(Explanation {
            rests_on_shipped: read.rests_on_shipped(call, judged, destination, now),
            service_port: documents.service_port(destination, self.port),
            ..answer
        })
    }

    /// By what a running sidecar enforces.
    ///
    /// # Errors
    /// If a caller is named that only documents know, or the answer hangs on something that is
    /// not said.
    pub(super) fn by_sidecar(
        &self,
        snapshot: &PolicySnapshot,
        what: String,
        now: SystemTime,
    ) -> anyhow::Result<Explanation> {
        self.check_port()?;
        let caller = match self.from {
            CallerName::Workload(name) => bail!(
                "a sidecar does not know which identity {name} has: name its principal, such as \
                 {}/ns/{}/sa/{}, or ask by --config-dir",
                snapshot.trust_domain,
                name.namespace,
                name.name
            ),
            CallerName::Identity(id) => Some(id.clone()),
            CallerName::Plaintext => None,
        };
        let basis = Basis {
            what,
            documents: None,
        };
        self.judge((None, caller, Vec::new()), snapshot, basis, now)
    }

    /// A call to one of them never comes to policy.
    fn check_port(&self) -> anyhow::Result<()> {
        let own = sidecar::OWN_PORTS.contains(&self.port) && self.port != sidecar::METRICS_PORT;
        ensure!(
            !own,
            "port {} is one of the sidecar's own, and refused to everybody before policy is asked",
            self.port
        );
        Ok(())
    }

    fn judge(
        &self,
        (caller_name, caller, addresses): (Option<String>, Option<WorkloadId>, Vec<IpAddr>),
        snapshot: &PolicySnapshot,
        basis: Basis,
        now: SystemTime,
    ) -> anyhow::Result<Explanation> {
        let call = |source| Call {
            caller: caller.clone(),
            caller_name: caller_name.clone(),
            source,
            destination: self.to.to_string(),
            port: self.port,
        };
        let candidates = match (self.from_address, asks_for_addresses(snapshot)) {
            (Some(address), _) => vec![Some(address)],
            (None, false) => vec![addresses.first().copied()],
            (None, true) if addresses.is_empty() => bail!(
                "policy of {} looks at where callers come from (ipBlocks), and no document says \
                 where this one does: name it with --from-address",
                self.to
            ),
            (None, true) => addresses.into_iter().map(Some).collect(),
        };
        let mut judged = candidates.into_iter().map(|source| {
            let call = call(source);
            let judged = Judged::of(&call, snapshot, now);
            (call, judged)
        });
        let Some((call, first)) = judged.next() else {
            bail!("no address of the caller is known: name one with --from-address");
        };
        if judged.any(|(_, other)| other.is_allowed() != first.is_allowed()) {
            bail!(
                "the caller has several addresses, and the answer is not the same for all of them: \
                 name one with --from-address"
            );
        }
        Ok(Explanation {
            call,
            judged: first,
            basis,
            rests_on_shipped: false,
            service_port: None,
        })
    }
}

/// # Errors
/// If no document has this name; the one that is spelt most alike is named.
pub(super) fn named<'a>(
    documents: &'a Documents,
    name: &WorkloadName,
) -> anyhow::Result<&'a ReviewedWorkload> {
    if let Some(found) = documents.workload(name) {
        return Ok(found);
    }
    let all = documents.workloads();
    let known: Vec<String> = all
        .iter()
        .map(|one| one.name.to_string())
        .take(10)
        .collect();
    let more = all.len().saturating_sub(known.len());
    let more = match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    bail!(
        "no Workload document that can be loaded is called {name}; there are {}{more}",
        if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        }
    )
}
