//! A control plane that does what a test says: real TLS, real gRPC, nothing decided.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_lite_proto::{
    secret_discovery::{self, BundleForm, VersionedSecret, node_metadata},
    sidecar::CSR_METADATA_KEY,
    svid::inspect_leaf,
    trust_bundle::{TrustBundle, pem},
    wire::{
        envoy::{
            extensions::transport_sockets::tls::v3::Secret,
            service::{
                discovery::v3::{
                    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
                    DiscoveryResponse,
                },
                secret::v3::secret_discovery_service_server::SecretDiscoveryService,
            },
        },
        mesh_lite::v1::{
            self as wire, authorization_policies_server::AuthorizationPolicies,
            workload_directory_server::WorkloadDirectory,
        },
    },
    workload_directory::{Answer, MeshSettings, Name},
};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use time::OffsetDateTime;
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::tls::fixture::Authority;

mod connection;

use connection::{Shown, serve};

pub(crate) const CONTROL_PLANE: &str =
    "spiffe://a.test/ns/mesh-lite-system/sa/mesh-lite-control-plane";
pub(crate) const TOKEN: &str = "the-join-token";

/// What a client did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    IssuedByToken,
    /// The serial of the certificate that was shown.
    IssuedBySvid(String),
    IssueRefused,
    /// A stream, by the serial of the certificate that was shown.
    Opened(String),
    Secrets {
        accepted: bool,
        words: String,
    },
    Policy(wire::policy_request::Request),
    Subscribed(Vec<Name>),
    Forgot(Vec<Name>),
}

/// What the control plane says. Changed at any time with [`ScriptedControlPlane::say`].
#[derive(Clone)]
pub(crate) struct Script {
    /// Whose leaf is issued.
    pub(crate) workload: String,
    pub(crate) leaf_life: Duration,
    /// Added to the clock when validity is decided.
    pub(crate) clock_ahead: Duration,
    pub(crate) refuse: Option<Status>,
    /// The next certificate is issued, but its answer does not arrive.
    pub(crate) lose_answer: bool,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) policy: Option<wire::PolicySnapshot>,
    pub(crate) settings: MeshSettings,
    pub(crate) answers: HashMap<Name, Answer>,
}

impl Script {
    pub(crate) fn bundle(&mut self, bundle: &TrustBundle) {
        self.secrets
            .retain(|secret| secret.name != secret_discovery::OWN_BUNDLE);
        self.secrets.push(secret_discovery::bundle_secret(
            secret_discovery::OWN_BUNDLE,
            &[bundle],
            BundleForm::TrustedCa,
        ));
    }

    pub(crate) fn active_authority(&mut self, key_id: &str) {
        self.secrets
            .retain(|secret| secret.name != secret_discovery::ACTIVE_AUTHORITY);
        self.secrets
            .push(secret_discovery::active_authority_secret(key_id));
    }
}

/// The authorities behind it; issuing and serving may use different ones.
#[derive(Clone)]
pub(crate) struct Authorities {
    pub(crate) root: Arc<Authority>,
    pub(crate) issuing: Arc<Mutex<Arc<Authority>>>,
}

impl Authorities {
    pub(crate) fn new() -> Self {
        let root = Authority::root();
        let issuing = Arc::new(root.intermediate(|_| ()));
        Self {
            root: Arc::new(root),
            issuing: Arc::new(Mutex::new(issuing)),
        }
    }

    pub(crate) fn issuing(&self) -> Arc<Authority> {
        Arc::clone(&self.issuing.lock().unwrap())
    }

    pub(crate) fn rotate(&self) {
        *self.issuing.lock().unwrap() = Arc::new(self.root.intermediate(|_| ()));
    }
}

pub(crate) struct ScriptedControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) authorities: Authorities,
    state: Shared,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<watch::Sender<Script>>,
    events: Arc<Mutex<Vec<Event>>>,
    /// The CSR that the join token was redeemed with: no other may use it.
    redeemed: Arc<Mutex<Option<String>>>,
    authorities: Authorities,
}

impl ScriptedControlPlane {
    pub(crate) fn start() -> Self {
        Self::start_as(Authorities::new(), CONTROL_PLANE)
    }

    pub(crate) fn start_as(authorities: Authorities, server: &str) -> Self {
        let mut script = Script {
            workload: crate::tls::fixture::WEB.to_owned(),
            leaf_life: Duration::from_secs(3600),
            clock_ahead: Duration::ZERO,
            refuse: None,
            lose_answer: false,
            secrets: Vec::new(),
            policy: None,
            settings: MeshSettings::default(),
            answers: HashMap::new(),
        };
        script.bundle(&authorities.root.bundle());
        let state = Shared {
            script: Arc::new(watch::Sender::new(script)),
            events: Arc::default(),
            redeemed: Arc::default(),
            authorities: authorities.clone(),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = serve(listener, state.clone(), server);
        Self {
            address,
            authorities,
            state,
            runtime: Some(runtime),
        }
    }

    /// Gone, with every connection.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// Back at the same address.
    pub(crate) async fn revive(&mut self) {
        let listener = loop {
            match std::net::TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.runtime = Some(serve(listener, self.state.clone(), CONTROL_PLANE));
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Script)) {
        self.state.script.send_modify(change);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state.events.lock().unwrap().clone()
    }

    /// As if the operator had made a new token and put it into the old one's place.
    pub(crate) fn renew_token(&self) {
        *self.state.redeemed.lock().unwrap() = None;
    }

    pub(crate) fn forget_events(&self) {
        self.state.events.lock().unwrap().clear();
    }

    pub(crate) fn trust_bundle_file(&self, directory: &tempfile::TempDir) -> PathBuf {
        let path = directory.path().join("trust-bundle.pem");
        std::fs::write(&path, self.authorities.root.bundle().to_pem()).unwrap();
        path
    }
}

impl Drop for ScriptedControlPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn authenticated<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match request.extensions().get::<Shown>() {
            Some(Shown(Some(leaf))) => {
                self.note(Event::Opened(
                    inspect_leaf(leaf).unwrap().serial.to_string(),
                ));
                Ok(())
            }
            _ => Err(Status::unauthenticated("show your certificate")),
        }
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn script(&self) -> Script {
        self.script.borrow().clone()
    }

    fn issue(&self, csr: &str) -> String {
        let script = self.script();
        let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        request.verify_signature().unwrap();
        let key =
            SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
                .unwrap();
        let now = OffsetDateTime::from(crate::clock::now() + script.clock_ahead);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(script.workload.as_str().try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now;
        params.not_after = now + script.leaf_life;
        let issuing = self.authorities.issuing();
        let leaf = params.signed_by(&key, &issuing.issuer).unwrap();
        pem("CERTIFICATE", leaf.der()) + &pem("CERTIFICATE", &issuing.certificate)
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Shared {
    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        if let Some(status) = self.script().refuse {
            self.note(Event::IssueRefused);
            return Err(status);
        }
        let token = request
            .metadata()
            .get("authorization")
            .map(|value| value.to_str().unwrap());
        let shown = request
            .extensions()
            .get::<Shown>()
            .and_then(|shown| shown.0.clone());
        let by_token = match (token, &shown) {
            (Some(token), _) if token == format!("Bearer {TOKEN}") => true,
            (Some(_), _) => return Err(Status::unauthenticated("no such token")),
            (None, Some(_)) => false,
            (None, None) => return Err(Status::unauthenticated("no credential")),
        };
        let request = request.into_inner();
        let csr = node_metadata(request.node.as_ref().unwrap(), CSR_METADATA_KEY).unwrap();
        if by_token {
            let mut redeemed = self.redeemed.lock().unwrap();
            if redeemed.get_or_insert(csr.to_owned()) != csr {
                return Err(Status::unauthenticated(
                    "the token was used with another key",
                ));
            }
        }
        if self.script().lose_answer {
            self.script.send_modify(|script| script.lose_answer = false);
            return Err(Status::unavailable("the answer got lost"));
        }
        let secret = secret_discovery::chain_secret("default", &self.issue(csr));
        self.note(match shown {
            Some(leaf) if !by_token => {
                Event::IssuedBySvid(inspect_leaf(&leaf).unwrap().serial.to_string())
            }
            _ => Event::IssuedByToken,
        });
        Ok(Response::new(secret_discovery::stream::single_response(&[
            VersionedSecret::new(secret),
        ])))
    }

    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.authenticated(&request)?;
        let (sender, responses) = mpsc::channel(8);
        let (shared, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut script = shared.script.subscribe();
            let mut sent = Vec::new();
            for nonce in 1.. {
                let changed: Vec<VersionedSecret> = script
                    .borrow_and_update()
                    .secrets
                    .iter()
                    .filter(|secret| !sent.contains(*secret))
                    .cloned()
                    .map(VersionedSecret::new)
                    .collect();
                if !changed.is_empty() {
                    sent = script.borrow().secrets.clone();
                    let mut response = secret_discovery::stream::single_response(&changed);
                    response.nonce = format!("{nonce}");
                    if sender.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                loop {
                    tokio::select! {
                        changed = script.changed() => if changed.is_ok() { break } else { return },
                        request = requests.next() => match request {
                            Some(Ok(request)) if !request.response_nonce.is_empty() => {
                                let words = request.error_detail.map(|error| error.message);
                                shared.note(Event::Secrets {
                                    accepted: words.is_none(),
                                    words: words.unwrap_or_default(),
                                });
                            }
                            Some(Ok(_)) => {}
                            _ => return,
                        },
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("no sidecar asks for deltas"))
    }
}

#[tonic::async_trait]
impl AuthorizationPolicies for Shared {
    type WatchStream = ReceiverStream<Result<wire::PolicySnapshot, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::PolicyRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.authenticated(&request)?;
        let (sender, responses) = mpsc::channel(8);
        let (shared, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut script = shared.script.subscribe();
            let mut sent = None;
            loop {
                let policy = script.borrow_and_update().policy.clone();
                if policy != sent
                    && let Some(policy) = policy.clone()
                    && sender.send(Ok(policy)).await.is_err()
                {
                    return;
                }
                sent = policy;
                tokio::select! {
                    changed = script.changed() => if changed.is_err() { return },
                    request = requests.next() => match request {
                        Some(Ok(request)) => shared.note(Event::Policy(request.request.unwrap())),
                        _ => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl WorkloadDirectory for Shared {
    type WatchStream = ReceiverStream<Result<wire::DirectoryResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::DirectoryRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.authenticated(&request)?;
        let (sender, responses) = mpsc::channel(8);
        let (shared, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut script = shared.script.subscribe();
            let mut sent: HashMap<Name, Option<Answer>> = HashMap::new();
            let mut settings = None;
            loop {
                let response = next_answers(&script.borrow_and_update(), &mut sent, &mut settings);
                if (response.mesh.is_some() || !response.answers.is_empty())
                    && sender.send(Ok(response)).await.is_err()
                {
                    return;
                }
                tokio::select! {
                    changed = script.changed() => if changed.is_err() { return },
                    request = requests.next() => match request {
                        Some(Ok(request)) => {
                            for name in names(&request.forget) {
                                sent.remove(&name);
                            }
                            for name in names(&request.subscribe) {
                                sent.insert(name, None);
                            }
                            shared.note_names(&request);
                        }
                        _ => return,
                    },
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl Shared {
    fn note_names(&self, request: &wire::DirectoryRequest) {
        if !request.subscribe.is_empty() {
            self.note(Event::Subscribed(names(&request.subscribe)));
        }
        if !request.forget.is_empty() {
            self.note(Event::Forgot(names(&request.forget)));
        }
    }
}

fn names(names: &[wire::DirectoryName]) -> Vec<Name> {
    names
        .iter()
        .map(|name| Name::try_from(name).unwrap())
        .collect()
}

fn next_answers(
    script: &Script,
    sent: &mut HashMap<Name, Option<Answer>>,
    settings: &mut Option<MeshSettings>,
) -> wire::DirectoryResponse {
    let mut response = wire::DirectoryResponse::default();
    if settings.as_ref() != Some(&script.settings) {
        response.mesh = Some((&script.settings).into());
        *settings = Some(script.settings.clone());
    }
    for (name, before) in sent {
        if let Some(answer) = script.answers.get(name)
            && before.as_ref() != Some(answer)
        {
            response
                .answers
                .push(answer.to_wire_after(name, before.as_ref()));
            *before = Some(answer.clone());
        }
    }
    response
}
