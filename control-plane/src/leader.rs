//! Which replica does what only one should: the one that holds the Lease.
//!
//! A holder that has not renewed it for a while is told that it leads no more before anybody else
//! may take the Lease. Others go by their own clocks: they take it once it has not changed for its
//! duration, however far clocks are apart.

use std::{
    future::Future,
    pin::pin,
    time::{Duration, SystemTime},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, PostParams},
};
use mesh_lite_proto::kubernetes::CONTROL_PLANE_LEASE;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::{
    certificate_authority::random::random_bytes,
    clock::Clock,
    condition::{Conditions, Part},
};

/// With the time between looks: somebody else leads within 15 s of the holder's end.
const LEASE: Duration = Duration::from_secs(10);
/// A holder that could not renew for so long leads no more; the rest of the Lease is for what it
/// has begun.
const RENEW_WITHIN: Duration = Duration::from_secs(7);
const EVERY: Duration = Duration::from_millis(2500);
const ANSWER: Duration = Duration::from_secs(3);

/// Tries to hold the Lease for ever. Never ends.
pub(crate) async fn run(
    client: Client,
    namespace: String,
    clock: Clock,
    conditions: Conditions,
    leads: watch::Sender<bool>,
) {
    let api = Api::<DynamicObject>::namespaced_with(client, &namespace, &lease_resource());
    let mut election = Election::new(own_name());
    loop {
        let until = election.leads_until();
        let turn = time::timeout(ANSWER, turn(&api, &mut election, clock));
        let turned = while_leading(until, &leads, turn).await;
        let problem = match turned {
            Ok(Ok(())) => None,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Some(format!(
                "the API server does not let the control plane hold the Lease {CONTROL_PLANE_LEASE}: its Role in \
                 {namespace} needs the rule apiGroups [coordination.k8s.io], resources [leases], verbs [get, \
                 create, update]; apply what `mesh-lite install` prints"
            )),
            // said as the API server's trouble already, and short ones are none
            Ok(Err(_)) | Err(_) => None,
        };
        conditions.set(Part::Lease, problem.into_iter().collect());
        say(&leads, election.leads(Instant::now()));
        while_leading(election.leads_until(), &leads, time::sleep(EVERY)).await;
    }
}

/// Waits for this to end. If the time as the leader is over before, that is said when it is.
async fn while_leading<T>(
    until: Option<Instant>,
    leads: &watch::Sender<bool>,
    what: impl Future<Output = T>,
) -> T {
    let mut what = pin!(what);
    if let Some(until) = until {
        tokio::select! {
            biased;
            done = &mut what => return done,
            () = time::sleep_until(until) => say(leads, false),
        }
    }
    what.await
}

fn say(leads: &watch::Sender<bool>, is_leader: bool) {
    leads.send_if_modified(|leads| {
        let changed = *leads != is_leader;
        if changed {
            tracing::info!(leads = is_leader, "the Lease of the control plane");
        }
        *leads = is_leader;
        changed
    });
}

/// Unlike every other process's, also after a restart under one name.
fn own_name() -> String {
    let host = rustix::system::uname();
    let random: [u8; 6] = random_bytes().unwrap_or_default();
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{random}", host.nodename().to_string_lossy())
}

fn lease_resource() -> ApiResource {
    ApiResource {
        group: "coordination.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        plural: "leases".to_owned(),
    }
}

async fn turn(
    api: &Api<DynamicObject>,
    election: &mut Election,
    clock: Clock,
) -> Result<(), kube::Error> {
    let found = api.get_opt(CONTROL_PLANE_LEASE).await?;
    let begun = Instant::now();
    match election.step(found.as_ref(), begun) {
        Step::Wait => Ok(()),
        Step::Write => {
            let lease = election.lease(found, clock());
            let params = PostParams::default();
            let written = if lease.metadata.resource_version.is_some() {
                api.replace(CONTROL_PLANE_LEASE, &params, &lease).await
            } else {
                api.create(&params, &lease).await
            };
            match written {
                Ok(_) => {
                    election.held(begun);
                    Ok(())
                }
                // somebody else was faster
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                Err(error) => Err(error),
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Wait,
    Write,
}

/// What one replica knows of the Lease.
struct Election {
    own: String,
    /// Version of the Lease as it was last seen, and since when it has been that.
    seen: Option<(String, Instant)>,
    /// When the last write that succeeded was begun.
    held_at: Option<Instant>,
}

impl Election {
    fn new(own: String) -> Self {
        Self {
            own,
            seen: None,
            held_at: None,
        }
    }

    fn step(&mut self, lease: Option<&DynamicObject>, now: Instant) -> Step {
        let Some(lease) = lease else {
            return Step::Write;
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let holder = lease.data.pointer("/spec/holderIdentity");
        let holder = holder
            .and_then(|holder| holder.as_str())
            .unwrap_or_default();
        if holder == self.own {
            return Step::Write;
        }
        self.held_at = None;
        let over = now.saturating_duration_since(since) >= LEASE;
        if holder.is_empty() || over {
            Step::Write
        } else {
            Step::Wait
        }
    }

    fn held(&mut self, begun: Instant) {
        self.held_at = Some(begun);
    }

    /// Unless the Lease is renewed before. `None`: it is not held.
    fn leads_until(&self) -> Option<Instant> {
        self.held_at.and_then(|held| held.checked_add(RENEW_WITHIN))
    }

    fn leads(&self, now: Instant) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// The Lease as ours. An author's labels and the version stay.
    fn lease(&self, found: Option<DynamicObject>, now: SystemTime) -> DynamicObject {
        let mut lease =
            found.unwrap_or_else(|| DynamicObject::new(CONTROL_PLANE_LEASE, &lease_resource()));
        let before = lease.data.pointer("/spec/holderIdentity");
        let is_own = before.and_then(|holder| holder.as_str()) == Some(&self.own);
        let now = micro_time(now);
        let acquired = lease.data.pointer("/spec/acquireTime").cloned();
        let acquired = acquired.filter(|_| is_own).unwrap_or_else(|| json!(now));
        let transitions = lease.data.pointer("/spec/leaseTransitions");
        let transitions = transitions.and_then(serde_json::Value::as_i64).unwrap_or(0);
        let transitions = transitions.saturating_add(i64::from(!is_own));
        lease.types = Some(kube::core::TypeMeta {
            api_version: "coordination.k8s.io/v1".to_owned(),
            kind: "Lease".to_owned(),
        });
        lease.metadata.managed_fields = None;
        lease.data = json!({"spec": {
            "holderIdentity": self.own,
            "leaseDurationSeconds": LEASE.as_secs(),
            "acquireTime": acquired,
            "renewTime": now,
            "leaseTransitions": transitions,
        }});
        lease
    }
}

/// As Kubernetes writes a MicroTime.
fn micro_time(time: SystemTime) -> String {
    let seconds = crate::clock::readable(time);
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.unwrap_or_default().subsec_micros();
    format!("{}.{micros:06}Z", seconds.trim_end_matches('Z'))
}

#[cfg(test)]
mod tests;
