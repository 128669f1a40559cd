//! Keeps the Secret, what is served, and the registration in step, whichever replica gets there
//! first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use mesh_lite_proto::kubernetes::INJECTOR_SERVING_SECRET;
use rustls::ServerConfig;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    Change, Generation, GenerationError, Generations, SETTLING, SecretData, ServerName, Step,
};
use crate::{
    clock::Clock,
    registration::{self, Registration},
};

/// Other replicas' changes to the Secret are noticed within this time: they become the certificate
/// in use only after [`SETTLING`], and what was used before stays trusted.
const POLL: Duration = Duration::from_secs(30);
/// Replicas that disagree must not patch each other's work in a loop.
const QUIET: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(30);
/// Replicas start together and make the Secret at the same time: one wins, the others read it.
const MAX_CONFLICTS: usize = 5;
/// No call to the API server takes longer when all is well.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How often the keeper looks and how long it waits. Tests are in more of a hurry.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub poll: Duration,
    pub settling: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: POLL,
            settling: SETTLING,
        }
    }
}

/// What the webhook serves with, and how that stands.
#[derive(Clone, Default)]
pub(crate) struct Serving {
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) generation: Option<Generation>,
    /// Whether the API server trusts what is served.
    pub(crate) registered: Registered,
}

/// How the registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Registered {
    #[default]
    Unknown,
    /// There is no registration: nobody calls.
    Absent,
    /// It does not carry our CAs yet.
    Behind,
    Current,
}

pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) name: ServerName,
    pub(crate) mesh_namespace: String,
    pub(crate) clock: Clock,
    pub(crate) pace: Pace,
    pub(crate) registration: watch::Receiver<Registration>,
    pub(crate) serving: watch::Sender<Serving>,
}

/// Since when the registration has carried these CAs.
struct Carried {
    ca_bundle: String,
    since: Instant,
}

impl Keeper {
    /// Runs until nobody serves any more.
    pub(crate) async fn run(mut self) {
        let mut carried = None;
        let mut back_off = QUIET;
        while !self.serving.is_closed() {
            let pause = match self.reconcile(&mut carried).await {
                Ok(()) => {
                    back_off = QUIET;
                    self.pace.poll
                }
                Err(error) => {
                    tracing::warn!(
                        error = %error.to_string().escape_debug(), ?back_off,
                        "the webhook's certificate could not be looked after; what was served still is"
                    );
                    let pause = back_off;
                    back_off = back_off.saturating_mul(2).min(LAST_BACK_OFF);
                    pause
                }
            };
            let quiet = QUIET.min(pause);
            time::sleep(quiet).await;
            let rest = time::sleep(pause.saturating_sub(quiet));
            tokio::select! {
                () = rest => {}
                Ok(()) = self.registration.changed() => {}
                () = self.serving.closed() => {}
            }
        }
    }

    async fn reconcile(&mut self, carried: &mut Option<Carried>) -> Result<(), KeeperError> {
        let mut conflicts = 0;
        let generations = loop {
            match self.advance(carried.as_ref()).await? {
                Some(generations) => break generations,
                // another replica was faster
                None if conflicts < MAX_CONFLICTS => conflicts += 1,
                None => return Err(KeeperError::Conflicts),
            }
        };
        self.serve(&generations)?;
        self.register(&generations, carried).await
    }

    /// Reads the Secret and writes what has to be written. `None`: another replica wrote it in
    /// between.
    async fn advance(&self, carried: Option<&Carried>) -> Result<Option<Generations>, KeeperError> {
        let now = (self.clock)();
        let (secrets, options) = (self.secrets(), PostParams::default());
        let Some(mut secret) = called(secrets.get_opt(INJECTOR_SERVING_SECRET)).await? else {
            let first = Generations::create(&self.name, now)?;
            let secret = self.first_secret(&first);
            let created = called(secrets.create(&options, &secret)).await;
            return written(created, first, Change::Created);
        };
        let data = secret.data.take().unwrap_or_default().into_iter();
        let data: SecretData = data.map(|(key, value)| (key, value.0)).collect();
        let (new, change) = match Generations::read(&data, &self.name) {
            Ok(generations) => {
                let settled = carried.is_some_and(|carried| {
                    carried.ca_bundle == generations.ca_bundle()
                        && carried.since.elapsed() >= self.pace.settling
                });
                match generations.step(&self.name, settled, now)? {
                    Step::Rest => return Ok(Some(generations)),
                    Step::Write(new, change) => (*new, change),
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = %error.to_string().escape_debug(),
                    "the Secret {}/{INJECTOR_SERVING_SECRET} can't be used and is made anew",
                    self.mesh_namespace
                );
                (Generations::create(&self.name, now)?, Change::Replaced)
            }
        };
        // its resourceVersion is that of what was read: nobody's later change is overwritten
        secret.data = Some(bytes_of(&new));
        secret.metadata.managed_fields = None;
        let replacing = secrets.replace(INJECTOR_SERVING_SECRET, &options, &secret);
        written(called(replacing).await, new, change)
    }

    /// From now on new connections get this certificate.
    fn serve(&self, generations: &Generations) -> Result<(), KeeperError> {
        let active = generations.active();
        if self.serving.borrow().generation.as_ref() == Some(active) {
            return Ok(());
        }
        let tls = Some(active.server_config()?);
        self.serving.send_modify(|serving| {
            serving.tls = tls;
            serving.generation = Some(active.clone());
        });
        Ok(())
    }

    async fn register(
        &mut self,
        generations: &Generations,
        carried: &mut Option<Carried>,
    ) -> Result<(), KeeperError> {
        let ca_bundle = generations.ca_bundle();
        let registration = self.registration.borrow_and_update().clone();
        let registered = match &registration {
            Registration::Unknown => Registered::Unknown,
            Registration::Absent => Registered::Absent,
            Registration::Present(_) if registration.carries(&ca_bundle) => Registered::Current,
            Registration::Present(_) => Registered::Behind,
        };
        self.serving.send_if_modified(|serving| {
            std::mem::replace(&mut serving.registered, registered) != registered
        });
        if registered == Registered::Current {
            if carried
                .as_ref()
                .is_none_or(|carried| carried.ca_bundle != ca_bundle)
            {
                *carried = Some(Carried {
                    ca_bundle,
                    since: Instant::now(),
                });
            }
            return Ok(());
        }
        *carried = None;
        if let Some(patch) = registration.repair(&ca_bundle) {
            called(registration::patch(self.client.clone(), patch)).await?;
            tracing::info!("the API server was told to trust the webhook's certificate");
        }
        Ok(())
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.mesh_namespace)
    }

    fn first_secret(&self, generations: &Generations) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(INJECTOR_SERVING_SECRET.to_owned()),
                namespace: Some(self.mesh_namespace.clone()),
                ..ObjectMeta::default()
            },
            data: Some(bytes_of(generations)),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        }
    }
}

fn bytes_of(generations: &Generations) -> BTreeMap<String, ByteString> {
    let data = generations.write().into_iter();
    data.map(|(key, value)| (key, ByteString(value))).collect()
}

async fn called<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, KeeperError> {
    time::timeout(CALL_DEADLINE, call)
        .await
        .map_err(|_| KeeperError::Deadline)?
        .map_err(KeeperError::from)
}

fn written(
    answer: Result<Secret, KeeperError>,
    generations: Generations,
    change: Change,
) -> Result<Option<Generations>, KeeperError> {
    match answer {
        Ok(_) => {
            tracing::info!(?change, "the webhook's certificate was renewed");
            Ok(Some(generations))
        }
        Err(KeeperError::Api(error)) if is_conflict(&error, change) => Ok(None),
        Err(error) => Err(error),
    }
}

/// 409, or 404 where the Secret was taken away between reading and writing. Where it is created, a
/// 404 says that the namespace is not there.
fn is_conflict(error: &kube::Error, change: Change) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.code == 409 || status.code == 404 && change != Change::Created
        }
        _ => false,
    }
}

#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error("{0}")]
    Api(Box<kube::Error>),
    #[error("the API server did not answer within {CALL_DEADLINE:?}")]
    Deadline,
    #[error("other writers change the Secret {INJECTOR_SERVING_SECRET} all the time")]
    Conflicts,
}

impl From<kube::Error> for KeeperError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}
