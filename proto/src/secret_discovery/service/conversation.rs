//! How a stream runs: requests are taken as they come, what is owed to the client is made from
//! the newest secrets at the moment the client can take it. So a slow client costs one pending
//! message, and never holds up anybody else (SDS-S20).

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{SecretEvent, SecretSource, status_of};
use crate::{
    secret_discovery::{
        BundleForm, DEFAULT_SVID, DeltaStream, NamedVersion, OWN_BUNDLE, Received, SecretStream,
        Secrets, Violation,
    },
    wire::envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
};

pub(super) type Responses<T> = ReceiverStream<Result<T, Status>>;

/// What one method of the API makes of requests and secrets.
pub(super) trait Machine: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn receive(
        &mut self,
        request: &Self::Request,
        since_open: Duration,
    ) -> Result<Received, Violation>;
    fn respond(&mut self, secrets: &impl Secrets) -> Option<Self::Response>;
    fn names(&self) -> Vec<&str>;
    fn form(&self) -> BundleForm;
}

impl Machine for SecretStream {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn receive(
        &mut self,
        request: &DiscoveryRequest,
        since_open: Duration,
    ) -> Result<Received, Violation> {
        Self::receive(self, request, since_open)
    }

    fn respond(&mut self, secrets: &impl Secrets) -> Option<DiscoveryResponse> {
        Self::respond(self, secrets)
    }

    fn names(&self) -> Vec<&str> {
        Self::names(self).collect()
    }

    fn form(&self) -> BundleForm {
        Self::form(self)
    }
}

impl Machine for DeltaStream {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn receive(
        &mut self,
        request: &DeltaDiscoveryRequest,
        since_open: Duration,
    ) -> Result<Received, Violation> {
        Self::receive(self, request, since_open)
    }

    fn respond(&mut self, secrets: &impl Secrets) -> Option<DeltaDiscoveryResponse> {
        Self::respond(self, secrets)
    }

    fn names(&self) -> Vec<&str> {
        Self::names(self).collect()
    }

    fn form(&self) -> BundleForm {
        Self::form(self)
    }
}

/// Runs the stream in a task of its own until either side ends it.
pub(super) fn start<M: Machine, S: SecretSource>(
    requests: Streaming<M::Request>,
    machine: M,
    source: S,
) -> Responses<M::Response> {
    // One message that waits for the client; the next is made when it has left.
    let (responses, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(status) = run(requests, machine, source, &responses).await {
            // gone already is the client's right
            let _ = responses.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn run<M: Machine, S: SecretSource>(
    mut requests: Streaming<M::Request>,
    mut machine: M,
    mut source: S,
    responses: &mpsc::Sender<Result<M::Response, Status>>,
) -> Result<(), Status> {
    let opened = Instant::now();
    let (mut asks, mut maybe_owed) = (true, false);
    // one that asks no more is answered still, as a tool in a terminal expects
    while asks || maybe_owed || awaits(&machine, &source) {
        tokio::select! {
            biased;
            () = responses.closed() => return Ok(()),
            () = source.changed() => {
                source.check()?;
                maybe_owed = true;
            }
            request = requests.message(), if asks => match request.map_err(unreadable)? {
                Some(request) => {
                    let received = machine
                        .receive(&request, opened.elapsed())
                        .map_err(|violation| status_of(&violation))?;
                    source.wanted(&machine.names());
                    observe(&received, machine.form(), &mut source);
                    maybe_owed = true;
                }
                None => asks = false,
            },
            permit = responses.reserve(), if maybe_owed => {
                let Ok(permit) = permit else { return Ok(()) };
                source.check()?;
                match machine.respond(&source) {
                    Some(response) => permit.send(Ok(response)),
                    None => maybe_owed = false,
                }
            }
        }
    }
    Ok(())
}

/// Something that was asked for is on its way.
fn awaits(machine: &impl Machine, source: &impl SecretSource) -> bool {
    let names = machine.names();
    names.into_iter().any(|name| source.is_being_made(name))
}

/// What can't be decoded is the caller's fault, which tonic calls INTERNAL (SDS-S23).
fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::Internal => {
            Status::invalid_argument(format!("the request can't be read: {}", status.message()))
        }
        _ => status,
    }
}

fn observe(received: &Received, form: BundleForm, source: &mut impl SecretSource) {
    if !received.accepted.is_empty() {
        source.observe(SecretEvent::Accepted(&received.accepted));
    }
    if let Some(rejection) = &received.rejected {
        let pair: Vec<NamedVersion> = [DEFAULT_SVID, OWN_BUNDLE]
            .into_iter()
            .filter_map(|name| {
                let version = source.secret(name, form)?.version;
                let name = name.to_owned();
                Some(NamedVersion { name, version })
            })
            .collect();
        source.observe(SecretEvent::Rejected {
            rejection,
            pair: &pair,
        });
    }
    for name in &received.added {
        if !source.is_being_made(name) && source.secret(name, form).is_none() {
            source.observe(SecretEvent::Unknown(name));
        }
    }
}
