//! The directory's stream: asks for names, takes answers and their changes, asks for everything
//! again on a new stream.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use mesh_lite_proto::{
    sidecar::{MAX_GRPC_MESSAGE, SCHEMA},
    wire::mesh_lite::v1::{self as wire, workload_directory_client::WorkloadDirectoryClient},
    workload_directory::{Answer, MeshSettings, Name},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::{
    Directory, DirectoryUnavailable, QUEUED_QUESTIONS, Question, Shared, saved,
    table::{Added, Learned, Table},
};
use crate::{
    control::status::Reporter, control_plane_client::subscription::Subscription, metrics::Metrics,
};

/// Names in one request: with 253 bytes for each half of a name, well under the message limit.
const NAMES_A_REQUEST: usize = 512;
/// Questions taken at once, so that many new names cost one request.
const QUESTIONS_AT_ONCE: usize = 256;
/// How often unused names are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// Connections that may wait for one name. Each waits at most 2 s.
const MAX_WAITING: usize = 1024;

type Reply = oneshot::Sender<Result<Arc<Answer>, DirectoryUnavailable>>;

pub(crate) struct DirectoryWatch {
    shared: Arc<Shared>,
    table: Table,
    questions: mpsc::Receiver<Question>,
    waiting: HashMap<Name, Vec<Reply>>,
    sweep: Interval,
    reporter: Reporter,
    metrics: Metrics,
}

impl DirectoryWatch {
    /// `saved` is what the state file had.
    pub(crate) fn new(
        saved: Option<&wire::DirectoryResponse>,
        reporter: Reporter,
        metrics: Metrics,
    ) -> (Self, Directory) {
        let (asker, questions) = mpsc::channel(QUEUED_QUESTIONS);
        let shared = Shared::new(saved.map(saved::settings).unwrap_or_default());
        let mut table = Table::new(Instant::now());
        for (name, answer) in saved.into_iter().flat_map(saved::answers) {
            table.restore(name, answer, 0);
        }
        let mut sweep = tokio::time::interval_at(Instant::now() + SWEEP, SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Self {
            shared,
            table,
            questions,
            waiting: HashMap::new(),
            sweep,
            reporter,
            metrics,
        };
        watch.publish();
        let directory = Directory {
            shared: Arc::clone(&watch.shared),
            questions: asker,
        };
        (watch, directory)
    }

    fn publish(&self) {
        self.shared.answers.store(Arc::new(self.table.publish()));
        self.metrics.directory_names(self.table.len());
        self.shared
            .revision
            .send_modify(|revision| *revision = revision.wrapping_add(1));
    }

    /// Returns the names to forget and the one to ask for, if the question needs the server.
    fn question(&mut self, question: Question) -> (Vec<Arc<Name>>, Option<Name>) {
        let Question { name, reply } = question;
        let added = self
            .table
            .add(&name, self.shared.milliseconds(), Instant::now());
        let (refusal, forget, ask) = match added {
            Added::Before => match self.table.answer(&name) {
                Some(answer) => {
                    // whoever asked may have gone: no matter
                    let _ = reply.send(Ok(Arc::clone(answer)));
                    return (Vec::new(), None);
                }
                None => (None, None, None),
            },
            Added::New { forgotten } => (None, forgotten, Some(name.clone())),
            Added::TooMany => {
                let name = name.clone();
                (
                    Some(DirectoryUnavailable::TooManyNames { name }),
                    None,
                    None,
                )
            }
            Added::TooFast => {
                let name = name.clone();
                (Some(DirectoryUnavailable::TooFast { name }), None, None)
            }
        };
        if let Some(refusal) = refusal {
            let _ = reply.send(Err(refusal));
        } else {
            let waiting = self.waiting.entry(name).or_default();
            waiting.retain(|reply| !reply.is_closed());
            if waiting.len() < MAX_WAITING {
                waiting.push(reply);
            }
        }
        if forget.is_some() {
            self.publish();
        }
        (forget.into_iter().collect(), ask)
    }

    fn sweep(&mut self) -> Vec<Arc<Name>> {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|reply| !reply.is_closed());
            !waiting.is_empty()
        });
        let forgotten = self.table.forget_idle(self.shared.milliseconds());
        if !forgotten.is_empty() {
            self.publish();
        }
        forgotten
    }

    /// Unreadable settings leave those before in force.
    fn take_settings(&self, settings: Option<&wire::MeshSettings>) {
        match settings.map(MeshSettings::try_from) {
            Some(Ok(settings)) => {
                self.shared.settings.store(Arc::new(settings));
                self.reporter.fine();
            }
            Some(Err(reason)) => {
                self.metrics.directory_answer_refused();
                self.reporter
                    .wrong(&format!("the mesh settings can't be used: {reason}"));
            }
            None => {}
        }
    }

    /// Returns whether the data path must see something new, and the name if it must be asked
    /// for anew.
    fn take_answer(&mut self, answer: &wire::DirectoryAnswer) -> (bool, Option<Name>) {
        let name = answer.name.as_ref().map(Name::try_from);
        let Some(Ok(name)) = name else {
            self.metrics.directory_answer_refused();
            return (false, None);
        };
        match self.table.learn(&name, answer) {
            Learned::Changed => (true, None),
            Learned::Same | Learned::NotAsked => (false, None),
            Learned::Refused {
                reason,
                changed,
                ask_again,
            } => {
                self.metrics.directory_answer_refused();
                tracing::warn!(%name, %reason, "the directory's answer can't be used");
                (changed, ask_again.then_some(name))
            }
        }
    }

    fn reply_to_waiting(&mut self) {
        let answered: Vec<Name> = self
            .waiting
            .keys()
            .filter(|name| self.table.answer(name).is_some())
            .cloned()
            .collect();
        for name in answered {
            let Some(answer) = self.table.answer(&name).cloned() else {
                continue;
            };
            for reply in self.waiting.remove(&name).unwrap_or_default() {
                let _ = reply.send(Ok(Arc::clone(&answer)));
            }
        }
    }
}

impl Subscription for DirectoryWatch {
    type Request = wire::DirectoryRequest;
    type Response = wire::DirectoryResponse;

    async fn open(
        channel: Channel,
        requests: Request<ReceiverStream<wire::DirectoryRequest>>,
    ) -> Result<Response<Streaming<wire::DirectoryResponse>>, Status> {
        let mut client =
            WorkloadDirectoryClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE);
        client.watch(requests).await
    }

    fn first_requests(&mut self) -> Vec<wire::DirectoryRequest> {
        let names: Vec<wire::DirectoryName> = self
            .table
            .names()
            .map(|name| name.as_ref().into())
            .collect();
        // also without names: it says who we are and brings the mesh's settings
        let mut requests = vec![wire::DirectoryRequest {
            schema: SCHEMA,
            ..Default::default()
        }];
        for (index, chunk) in names.chunks(NAMES_A_REQUEST).enumerate() {
            let subscribe = chunk.to_vec();
            match requests.get_mut(index) {
                Some(first) => first.subscribe = subscribe,
                None => requests.push(wire::DirectoryRequest {
                    subscribe,
                    ..Default::default()
                }),
            }
        }
        requests
    }

    fn received(&mut self, response: wire::DirectoryResponse) -> Vec<wire::DirectoryRequest> {
        self.reporter.contact();
        self.take_settings(response.mesh.as_ref());
        let mut publish = response.mesh.is_some();
        let mut again: Vec<wire::DirectoryName> = Vec::new();
        for answer in &response.answers {
            let (changed, ask_again) = self.take_answer(answer);
            publish |= changed;
            again.extend(ask_again.as_ref().map(wire::DirectoryName::from));
        }
        if publish {
            self.publish();
        }
        self.reply_to_waiting();
        if again.is_empty() {
            return Vec::new();
        }
        let forget = wire::DirectoryRequest {
            forget: again.clone(),
            ..Default::default()
        };
        vec![
            forget,
            wire::DirectoryRequest {
                subscribe: again,
                ..Default::default()
            },
        ]
    }

    async fn next_requests(&mut self) -> Vec<wire::DirectoryRequest> {
        let mut asked = Vec::new();
        tokio::select! {
            _ = self.sweep.tick() => {
                let forget = self.sweep().iter().map(|name| name.as_ref().into()).collect();
                return request(Vec::new(), forget);
            }
            count = self.questions.recv_many(&mut asked, QUESTIONS_AT_ONCE) => if count == 0 {
                // every handle is gone: the sidecar ends
                return std::future::pending().await;
            },
        }
        let (mut subscribe, mut forget) = (Vec::new(), Vec::new());
        for question in mem::take(&mut asked) {
            let (forgotten, ask) = self.question(question);
            forget.extend(
                forgotten
                    .iter()
                    .map(|name| wire::DirectoryName::from(name.as_ref())),
            );
            subscribe.extend(ask.as_ref().map(wire::DirectoryName::from));
        }
        request(subscribe, forget)
    }

    fn connected(&mut self) {
        self.reporter.fine();
    }

    fn disconnected(&mut self, reason: &str) {
        self.reporter.disconnected(reason);
    }
}

fn request(
    subscribe: Vec<wire::DirectoryName>,
    forget: Vec<wire::DirectoryName>,
) -> Vec<wire::DirectoryRequest> {
    if subscribe.is_empty() && forget.is_empty() {
        return Vec::new();
    }
    vec![wire::DirectoryRequest {
        subscribe,
        forget,
        ..Default::default()
    }]
}

/// Reads the directory for the state file.
#[derive(Clone)]
pub(crate) struct DirectoryChanges(Arc<Shared>);

impl Directory {
    pub(crate) fn changes(&self) -> (DirectoryChanges, watch::Receiver<u64>) {
        (
            DirectoryChanges(Arc::clone(&self.shared)),
            self.shared.revision.subscribe(),
        )
    }
}

impl DirectoryChanges {
    /// Everything known, as one message.
    pub(crate) fn to_wire(&self) -> wire::DirectoryResponse {
        saved::to_wire(&self.0)
    }
}

#[cfg(test)]
mod tests;
