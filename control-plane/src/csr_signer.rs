//! The signer `mesh-lite.io/spiffe` of CertificateSigningRequests: X509-SVIDs for pods that ask
//! the API server instead of us. The API server says who asks (it fills in spec.username and
//! spec.extra); what is asked must be exactly that identity.
//!
//! ```text
//! watch ─▶ standing (whose turn is it?) ─▶ judgement (may it?) ─┬─▶ Denied, in words
//!                                                               └─▶ Approved ─▶ sign ─▶ certificate
//! ```
//! Only the replica that leads acts, on one request after another. One that fails is set aside and
//! tried again later; the others go on.

use std::time::{Duration, SystemTime};

use futures::StreamExt;
use kube::{
    Api,
    core::{ApiResource, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use mesh_lite_proto::{kubernetes::SIGNER, trust_bundle::base64};
use serde_json::{Value, json};
use tokio::{pin, time};

use crate::{
    certificate_authority::{IssuedSvid, svid_template::Subject},
    clock::readable,
    cluster::{Cluster, wait_until},
    cluster_objects::{Change, ClusterObjects, Failure, ObjectError, Place, parse},
    condition::Part,
    issuance::AUDIT,
};

mod judgement;
mod set_aside;
mod standing;

use judgement::{Accepted, Refused, judge};
use set_aside::{Due, SetAside};
use standing::{SigningRequest, Standing};

/// Between two requests: 20 a second. Who makes them faster waits, and so do others: the API
/// server's own limits are the place to stop such a user.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(50);
/// What was lost sight of is found again by a new list, this often.
const LIST_AGAIN: Duration = Duration::from_secs(600);

/// Runs for as long as the control plane does; acts while this replica leads.
pub(crate) async fn run(cluster: Cluster) {
    let mut leads = cluster.leads.clone();
    let mut known = cluster.known.clone();
    loop {
        wait_until(&mut leads, true).await;
        // policy says who is evicted: without it nobody is signed for
        wait_until(&mut known, true).await;
        let signer = Signer::new(&cluster);
        tokio::select! {
            () = signer.follow() => {}
            () = wait_until(&mut leads, false) => {}
        }
        cluster.conditions.set(Part::SigningRequests, Vec::new());
    }
}

struct Signer<'a> {
    cluster: &'a Cluster,
    objects: ClusterObjects,
}

impl<'a> Signer<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            objects: ClusterObjects::new(cluster.client.clone()),
        }
    }

    /// Ends after a while, to be begun anew by a list.
    async fn follow(&self) {
        let kind = GroupVersionKind::gvk("certificates.k8s.io", "v1", "CertificateSigningRequest");
        let kind = ApiResource::from_gvk_with_plural(&kind, "certificatesigningrequests");
        let api: Api<SigningRequest> = Api::all_with(self.cluster.client.clone(), &kind);
        let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
        let events = watcher(api, config).default_backoff();
        pin!(events);
        let end = time::sleep(LIST_AGAIN);
        pin!(end);
        let mut aside = SetAside::default();
        loop {
            let mut problem = None;
            let mut done = Done::Something;
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(request) | Event::InitApply(request))) => {
                        done = self.handle(request, None, &mut aside).await;
                    }
                    Some(Ok(Event::Delete(request))) => {
                        aside.forget(request.metadata.name.as_deref().unwrap_or_default());
                    }
                    Some(Ok(Event::Init | Event::InitDone)) => {}
                    Some(Err(error)) => problem = Some(format!(
                        "CertificateSigningRequests can't be watched: {}",
                        error.to_string().escape_debug()
                    )),
                    None => return,
                },
                Due { request, delay } = aside.due() => {
                    done = self.handle(request, Some(delay), &mut aside).await;
                }
                () = &mut end => return,
            }
            if done == Done::Nothing {
                continue;
            }
            let problems = problem.into_iter().chain(aside.problems()).collect();
            self.cluster.conditions.set(Part::SigningRequests, problems);
            time::sleep(BETWEEN_REQUESTS).await;
        }
    }

    /// Takes a request as far as it goes, and sets it aside if that is not far enough. `waited`:
    /// for how long it was aside.
    async fn handle(
        &self,
        request: SigningRequest,
        waited: Option<Duration>,
        aside: &mut SetAside,
    ) -> Done {
        let Some(name) = request.metadata.name.clone() else {
            return Done::Nothing;
        };
        aside.forget(&name);
        let place = Place::signing_request(&name);
        match self.step(&place, &request).await {
            Ok(done) => done,
            // the watch says what became of it
            Err(NotDone::Object(error))
                if matches!(error.failure, Failure::Conflict | Failure::NotFound) =>
            {
                Done::Something
            }
            Err(error) => {
                let problem = format!("{place} waits: {error}");
                aside.put(name, request, waited, problem);
                Done::Something
            }
        }
    }

    async fn step(&self, place: &Place, request: &SigningRequest) -> Result<Done, NotDone> {
        let now = (self.cluster.clock)();
        let standing = Standing::of(request, now);
        if standing == Standing::NotOurs {
            return Ok(Done::Nothing);
        }
        let accepted = match self.accept(request, now) {
            Ok(accepted) => accepted,
            Err(refused) => {
                let (subresource, kind) = match standing {
                    // approved by somebody: no more can be denied
                    Standing::Approved => ("status", "Failed"),
                    _ => ("approval", "Denied"),
                };
                tracing::info!(target: AUDIT, request = %place, kind, reason = %refused, "certificate refused");
                let condition = condition(kind, "NotThisIdentity", &refused.to_string());
                self.add(place, request, subresource, condition).await?;
                return Ok(Done::Something);
            }
        };
        let mut version = request.metadata.resource_version.clone();
        if standing == Standing::Pending {
            let words = format!("{} asks for its own identity", accepted.id);
            let approval = condition("Approved", "OwnIdentity", &words);
            version = self.add(place, request, "approval", approval).await?;
        }
        let issued = self.sign(&accepted, now)?;
        let body = json!({
            "metadata": { "resourceVersion": version },
            "status": { "certificate": encoded(&issued.chain_pem()) },
        });
        let body = body.to_string().into_bytes();
        self.objects
            .change(place, Some("status"), Change::Merge, body)
            .await?;
        tell(place, &accepted, &issued);
        Ok(Done::Something)
    }

    fn accept(&self, request: &SigningRequest, now: SystemTime) -> Result<Accepted, Refused> {
        let leaf_lifetime = self.cluster.authority.leaf_lifetime();
        let accepted = judge(&request.spec, &self.cluster.trust_domain, leaf_lifetime)?;
        let policies = self.cluster.policies.borrow();
        match policies.evicted(&accepted.id, None, now) {
            Some(eviction) => Err(Refused::Evicted(eviction.source.to_string())),
            None => Ok(accepted),
        }
    }

    /// Without a common name: what it was asked for has none, and such a leaf gets no other
    /// certificate from us.
    fn sign(&self, accepted: &Accepted, now: SystemTime) -> Result<IssuedSvid, NotDone> {
        let subject = Subject::of(accepted.id.clone());
        let key = accepted.request.public_key.clone();
        let authority = &self.cluster.authority;
        Ok(authority.issue_for(subject, key, accepted.lifetime, now)?)
    }

    /// Adds a condition to those that are there; answers the version that it then has.
    async fn add(
        &self,
        place: &Place,
        request: &SigningRequest,
        subresource: &'static str,
        condition: Value,
    ) -> Result<Option<String>, NotDone> {
        let mut conditions = request.status.clone().unwrap_or_default().conditions;
        conditions.push(condition);
        let body = json!({
            "metadata": { "resourceVersion": request.metadata.resource_version },
            "status": { "conditions": conditions },
        });
        let body = body.to_string().into_bytes();
        let answer = self
            .objects
            .change(place, Some(subresource), Change::Merge, body)
            .await?;
        let answer: SigningRequest = parse(place, &answer)?;
        Ok(answer.metadata.resource_version)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It was not for us, or done long ago.
    Nothing,
    Something,
}

/// Why a request was not taken further now. It is tried again.
#[derive(Debug, thiserror::Error)]
enum NotDone {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Issue(#[from] crate::certificate_authority::IssueError),
}

fn condition(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "message": message })
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    base64(text.as_bytes(), &mut encoded);
    encoded
}

fn tell(place: &Place, accepted: &Accepted, issued: &IssuedSvid) {
    tracing::info!(
        target: AUDIT,
        request = %place,
        proof = "CertificateSigningRequest",
        pod = accepted.pod.as_deref(),
        pod.uid = %accepted.pod_uid.escape_debug(),
        id = %issued.facts.id,
        serial = %issued.facts.serial,
        key = %accepted.request.public_key.kind(),
        not_before = %readable(issued.facts.not_before),
        not_after = %readable(issued.facts.not_after),
        issuer.key_id = issued.issuer_key_id,
        "certificate issued"
    );
}

#[cfg(test)]
mod tests;
