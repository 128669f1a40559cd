//! Answers the names that a sidecar needs, and answers again when something changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::request_rate::RequestRate,
    sidecar::{MAX_DIRECTORY_NAMES, MAX_NEW_NAMES_PER_SECOND},
    wire::mesh_lite::v1 as wire,
    wire::mesh_lite::v1::workload_directory_server::WorkloadDirectory,
    workload_directory::{Answer, MeshSettings, Name, Service},
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Sources, caller_of,
    conversation::{Conversation, Responses, start, wait_for_change},
    credential::bearer_token,
    stream_proof::StreamProof,
};
use crate::{
    certificate_authority::rotation::Trust, metrics::StreamKind, outbound_rules::OutboundRules,
    policy_index::PolicyIndex, workload_index::WorkloadIndex,
};

const KIND: StreamKind = StreamKind::Directory;
/// Deployments change many endpoints in a row; a sidecar hears of them together.
const COALESCE: Duration = Duration::from_millis(100);
/// Answers in one response. With the bound below a response stays under the message limit.
const MAX_ANSWERS: usize = 256;
/// Endpoints added or changed in one response, about 150 bytes each; more follow in the next.
const MAX_ENDPOINTS: usize = 2048;

pub(super) struct Directory {
    sources: Sources,
}

impl Directory {
    pub(super) fn new(sources: Sources) -> Self {
        Self { sources }
    }
}

#[tonic::async_trait]
impl WorkloadDirectory for Directory {
    type WatchStream = Responses<wire::DirectoryResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::DirectoryRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller_of(&request)?;
        let proof = StreamProof::of(&caller, bearer_token(&request)?, &self.sources).await?;
        let mut outbound = self.sources.outbound.clone();
        let settings = settings_of(proof.id(), &outbound.borrow_and_update());
        let workloads = self.sources.workloads.clone();
        let revision = workloads.borrow().revision();
        let conversation = DirectoryConversation {
            proof,
            outbound,
            settings,
            revision,
            workloads,
            policies: self.sources.policies.clone(),
            trust: self.sources.authority.watch(),
            node: None,
            greeted: false,
            settings_sent: false,
            sent: HashMap::new(),
            to_answer: BTreeSet::new(),
            // a sidecar that comes back names all it needs at once
            rate: RequestRate::new(
                MAX_NEW_NAMES_PER_SECOND,
                u32::try_from(MAX_DIRECTORY_NAMES).unwrap_or(u32::MAX),
            ),
            opened: Instant::now(),
            look_again_at: None,
        };
        let open = self.sources.metrics.stream(KIND);
        Ok(Response::new(start(
            request.into_inner(),
            conversation,
            caller,
            open,
        )))
    }
}

struct DirectoryConversation {
    proof: StreamProof,
    outbound: watch::Receiver<Arc<OutboundRules>>,
    settings: MeshSettings,
    /// Of the snapshot that names were last looked up in. Not the snapshot: a stream whose client
    /// takes nothing would hold it, with the whole cluster in it.
    revision: u64,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    policies: watch::Receiver<PolicyIndex>,
    trust: watch::Receiver<Arc<Trust>>,
    /// The caller's, once it is known.
    node: Option<Arc<str>>,
    greeted: bool,
    settings_sent: bool,
    /// Every name asked for, and the answer last sent.
    sent: HashMap<Name, Option<Arc<Answer>>>,
    to_answer: BTreeSet<Name>,
    rate: RequestRate,
    opened: Instant,
    look_again_at: Option<Instant>,
}

impl DirectoryConversation {
    fn subscribe(&mut self, names: &[wire::DirectoryName]) -> Result<(), Status> {
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        if !self.rate.take(count, self.opened.elapsed()) {
            return Err(Status::resource_exhausted(format!(
                "more than {MAX_NEW_NAMES_PER_SECOND} new names a second: \
                 does something in the pod scan addresses?"
            )));
        }
        for name in names {
            let name = parse(name)?;
            // Asked again means: the sidecar does not have the answer, whatever was sent.
            self.sent.insert(name.clone(), None);
            self.to_answer.insert(name);
            if self.sent.len() > MAX_DIRECTORY_NAMES {
                return Err(Status::resource_exhausted(format!(
                    "more than {MAX_DIRECTORY_NAMES} names on one stream: forget those not in use"
                )));
            }
        }
        Ok(())
    }

    fn forget(&mut self, names: &[wire::DirectoryName]) -> Result<(), Status> {
        for name in names {
            let name = parse(name)?;
            self.sent.remove(&name);
            self.to_answer.remove(&name);
        }
        Ok(())
    }

    /// What is answered of a name that nobody has rests on the settings too.
    fn take_settings(&mut self) {
        let settings = settings_of(self.proof.id(), &self.outbound.borrow_and_update());
        if settings != self.settings {
            self.settings = settings;
            self.settings_sent = false;
            self.to_answer.extend(self.sent.keys().cloned());
        }
    }

    /// Some services are answered by the node that the caller is on, which is not known before its
    /// pod is.
    fn take_node(&mut self, index: &WorkloadIndex) {
        let workload = self.proof.workload_in(index).ok().flatten();
        let node = workload.and_then(|workload| workload.node.clone());
        if node != self.node {
            self.node = node;
            self.to_answer.extend(self.sent.keys().cloned());
        }
    }

    /// Moves on to the newest snapshot; the names it changed are to be answered again.
    fn catch_up(&mut self, newest: &WorkloadIndex) {
        self.take_settings();
        self.take_node(newest);
        if newest.revision() == self.revision {
            return;
        }
        let changes = newest.changes_since(self.revision);
        let concerned = self
            .sent
            .keys()
            .filter(|name| changes.concern(name))
            .cloned();
        self.to_answer.extend(concerned);
        self.revision = newest.revision();
    }

    fn answers(&mut self, index: &WorkloadIndex) -> Vec<wire::DirectoryAnswer> {
        let mut answers = Vec::new();
        let mut endpoints = MAX_ENDPOINTS;
        while answers.len() < MAX_ANSWERS && endpoints > 0 {
            let Some(name) = self.to_answer.pop_first() else {
                break;
            };
            let Some(before) = self.sent.get(&name).cloned() else {
                continue;
            };
            let node = self.node.as_deref();
            let target = index.answer_on_node(&name, &self.settings, node);
            let before = before.as_deref();
            if before == Some(&*target) {
                continue;
            }
            let (next, taken) = step_towards(&target, before, endpoints);
            endpoints = endpoints.saturating_sub(taken);
            answers.push(next.to_wire_after(&name, before));
            if next != target {
                self.to_answer.insert(name.clone());
            }
            self.sent.insert(name, Some(next));
        }
        answers
    }
}

impl Conversation for DirectoryConversation {
    type Request = wire::DirectoryRequest;
    type Response = wire::DirectoryResponse;

    fn receive(&mut self, request: wire::DirectoryRequest) -> Result<(), Status> {
        if !self.greeted {
            self.greeted = true;
            let id = self.proof.id();
            tracing::debug!(peer.id = %id, schema = request.schema, "the directory is watched");
        }
        self.forget(&request.forget)?;
        self.subscribe(&request.subscribe)
    }

    fn check(&mut self) -> Result<(), Status> {
        self.proof.check()
    }

    fn owed(&mut self) -> Result<Option<wire::DirectoryResponse>, Status> {
        if !self.greeted {
            return Ok(None);
        }
        let newest = Arc::clone(&self.workloads.borrow());
        self.catch_up(&newest);
        let answers = self.answers(&newest);
        let mesh = (!self.settings_sent).then(|| (&self.settings).into());
        if answers.is_empty() && mesh.is_none() {
            return Ok(None);
        }
        self.settings_sent = true;
        Ok(Some(wire::DirectoryResponse {
            revision: self.revision,
            mesh,
            answers,
        }))
    }

    async fn changed(&mut self) {
        if self.look_again_at.is_none() {
            tokio::select! {
                () = wait_for_change(&mut self.workloads) => {}
                () = wait_for_change(&mut self.policies) => {}
                () = wait_for_change(&mut self.outbound) => {}
                () = wait_for_change(&mut self.trust) => {}
                () = self.proof.changed() => {}
            }
        }
        let at = *self.look_again_at.get_or_insert_with(|| {
            let now = Instant::now();
            now.checked_add(COALESCE).unwrap_or(now)
        });
        time::sleep_until(at).await;
        self.look_again_at = None;
    }
}

fn settings_of(id: &WorkloadId, outbound: &OutboundRules) -> MeshSettings {
    outbound.settings_for(id.namespace().unwrap_or_default())
}

fn parse(name: &wire::DirectoryName) -> Result<Name, Status> {
    Name::try_from(name).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// The answer to send next on the way to `target`, and how many endpoints it adds or changes: a
/// service with very many of them is sent in several parts, each a correct if incomplete answer.
fn step_towards(
    target: &Arc<Answer>,
    before: Option<&Answer>,
    room: usize,
) -> (Arc<Answer>, usize) {
    let Answer::Service(service) = &**target else {
        return (Arc::clone(target), 1);
    };
    let known = match before {
        Some(Answer::Service(before)) => &before.endpoints,
        _ => &BTreeMap::new(),
    };
    let (unchanged, changed): (Vec<_>, Vec<_>) = service
        .endpoints
        .iter()
        .partition(|(address, endpoint)| known.get(*address) == Some(endpoint));
    if changed.len() <= room {
        return (Arc::clone(target), changed.len().max(1));
    }
    let endpoints = unchanged
        .into_iter()
        .chain(changed.into_iter().take(room))
        .map(|(address, endpoint)| (*address, endpoint.clone()))
        .collect();
    (
        Arc::new(Answer::Service(Service {
            endpoints,
            ..service.clone()
        })),
        room,
    )
}

#[cfg(test)]
mod tests;
