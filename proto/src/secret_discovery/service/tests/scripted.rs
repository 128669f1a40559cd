//! A service whose secrets, callers and refusals a test decides, and clients of it.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard},
};

use hyper_util::rt::TokioIo;
use tokio::sync::{
    mpsc::{self, UnboundedReceiver, UnboundedSender},
    watch,
};
use tonic::transport::{Channel, Endpoint, Server};

use super::*;
use crate::secret_discovery::tests::store::Store;

/// Ten times what any wait here should take at most.
const DEADLINE: Duration = Duration::from_secs(50);

pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// What a source was told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Wanted(Vec<String>),
    Accepted(Vec<NamedVersion>),
    Rejected {
        secrets: Vec<NamedVersion>,
        message: String,
        pair: Vec<NamedVersion>,
    },
    Unknown(String),
    Dropped,
}

#[derive(Clone)]
struct Script {
    store: Arc<Store>,
    changes: watch::Sender<()>,
    opening: Arc<Mutex<Option<Status>>>,
    right: Arc<Mutex<Option<Status>>>,
    events: UnboundedSender<Event>,
}

fn locked(status: &Mutex<Option<Status>>) -> MutexGuard<'_, Option<Status>> {
    status.lock().unwrap()
}

struct Source {
    script: Script,
    changes: watch::Receiver<()>,
}

impl Source {
    fn tell(&self, event: Event) {
        // a test that is over listens no more
        let _ = self.script.events.send(event);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.tell(Event::Dropped);
    }
}

impl Secrets for Source {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        self.script.store.secret(name, form)
    }

    fn is_being_made(&self, name: &str) -> bool {
        self.script.store.is_being_made(name)
    }
}

impl SecretSource for Source {
    fn wanted(&mut self, names: &[&str]) {
        self.tell(Event::Wanted(
            names.iter().map(ToString::to_string).collect(),
        ));
    }

    fn check(&mut self) -> Result<(), Status> {
        locked(&self.script.right).clone().map_or(Ok(()), Err)
    }

    async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    fn observe(&mut self, event: SecretEvent<'_>) {
        self.tell(match event {
            SecretEvent::Accepted(secrets) => Event::Accepted(secrets.to_vec()),
            SecretEvent::Rejected { rejection, pair } => Event::Rejected {
                secrets: rejection.secrets.clone(),
                message: rejection.message.clone(),
                pair: pair.to_vec(),
            },
            SecretEvent::Unknown(name) => Event::Unknown(name.to_owned()),
        });
    }
}

impl SecretSources for Script {
    type Source = Source;

    async fn open(&self, _opening: Request<()>) -> Result<Source, Status> {
        match locked(&self.opening).clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Source {
                script: self.clone(),
                changes: self.changes.subscribe(),
            }),
        }
    }

    async fn fetch(&self, request: Request<DiscoveryRequest>) -> Result<DiscoveryResponse, Status> {
        answer_once(&*self.store, request.get_ref()).ok_or_else(|| Status::not_found("none"))
    }
}

/// The service, and one connection to it.
pub(super) struct Served {
    pub(super) channel: Channel,
    pub(super) store: Arc<Store>,
    script: Script,
    events: UnboundedReceiver<Event>,
}

impl Served {
    pub(super) async fn with(names: &[&str]) -> Self {
        Self::with_window(names, 1024 * 1024).await
    }

    /// `window`: bytes of a stream that are on their way before its reader takes some.
    pub(super) async fn with_window(names: &[&str], window: u32) -> Self {
        let (events, told) = mpsc::unbounded_channel();
        let store = Arc::new(Store::with(names));
        let script = Script {
            store: Arc::clone(&store),
            changes: watch::Sender::new(()),
            opening: Arc::default(),
            right: Arc::default(),
            events,
        };
        let service = SecretService::new(script.clone());
        let router = Server::builder()
            .add_service(service.secret_discovery())
            .add_service(service.aggregated_discovery());
        let (client, server) = tokio::io::duplex(64 * 1024);
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(server));
        let incoming = incoming.chain(tokio_stream::pending());
        tokio::spawn(router.serve_with_incoming(incoming));
        let mut client = Some(client);
        let dial = tower::service_fn(move |_| {
            let client = client
                .take()
                .ok_or_else(|| std::io::Error::other("one connection only"));
            async move { client.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://secrets").initial_stream_window_size(window);
        let channel = endpoint.connect_with_connector(dial).await.unwrap();
        Self {
            channel,
            store,
            script,
            events: told,
        }
    }

    pub(super) fn set(&self, name: &str, content: &str) {
        self.store.set(name, content);
        self.script.changes.send_replace(());
    }

    pub(super) fn set_secret(&self, name: &str, secret: VersionedSecret) {
        self.store.set_secret(name, secret);
        self.script.changes.send_replace(());
    }

    pub(super) fn secret(&self, name: &str) -> VersionedSecret {
        self.store.secret(name, BundleForm::default()).unwrap()
    }

    pub(super) fn refuse_to_open(&self, status: Status) {
        *locked(&self.script.opening) = Some(status);
    }

    pub(super) fn lose_the_right_unheard(&self, status: Status) {
        *locked(&self.script.right) = Some(status);
    }

    pub(super) fn lose_the_right_and_set(&self, status: Status, name: &str, content: &str) {
        self.lose_the_right_unheard(status);
        self.set(name, content);
    }

    pub(super) async fn event(&mut self) -> Event {
        in_time("an event", self.events.recv()).await.unwrap()
    }
}

/// Both ends of a stream of states of the world.
pub(super) struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    pub(super) responses: Streaming<DiscoveryResponse>,
    pub(super) last: Option<prost_types::Any>,
}

impl Stream {
    pub(super) async fn open(served: &Served, aggregated: bool, first: DiscoveryRequest) -> Self {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let (channel, receiver) = (served.channel.clone(), ReceiverStream::new(receiver));
        let opened = if aggregated {
            let mut client = AggregatedDiscoveryServiceClient::new(channel);
            in_time("it opens", client.stream_aggregated_resources(receiver)).await
        } else {
            let mut client = SecretDiscoveryServiceClient::new(channel);
            in_time("it opens", client.stream_secrets(receiver)).await
        };
        Self {
            requests,
            responses: opened.unwrap().into_inner(),
            last: None,
        }
    }

    pub(super) async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let response = in_time("a response", self.responses.message()).await?;
        let response = response.expect("the stream ended without a status");
        self.last = response.resources.last().cloned();
        Ok(response)
    }

    pub(super) async fn send(&self, request: DiscoveryRequest) {
        // a stream that the server ended takes no more; what it said comes from `next`
        let _ = self.requests.send(request).await;
    }
}

/// Both ends of a delta stream.
pub(super) struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    pub(super) async fn open(
        served: &Served,
        aggregated: bool,
        first: DeltaDiscoveryRequest,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let (channel, receiver) = (served.channel.clone(), ReceiverStream::new(receiver));
        let opened = if aggregated {
            let mut client = AggregatedDiscoveryServiceClient::new(channel);
            in_time("it opens", client.delta_aggregated_resources(receiver)).await
        } else {
            let mut client = SecretDiscoveryServiceClient::new(channel);
            in_time("it opens", client.delta_secrets(receiver)).await
        };
        Self {
            requests,
            responses: opened.unwrap().into_inner(),
        }
    }

    pub(super) async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let response = in_time("a response", self.responses.message()).await?;
        Ok(response.expect("the stream ended without a status"))
    }

    pub(super) async fn send(&self, request: DeltaDiscoveryRequest) {
        let _ = self.requests.send(request).await;
    }

    pub(super) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.send(DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..subscribe(&[])
        })
        .await;
    }
}
