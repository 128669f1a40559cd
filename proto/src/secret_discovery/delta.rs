//! One DeltaSecrets stream: names come and go one by one, and each secret has its own version.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    BundleForm, DEFAULT_SVID, NamedVersion, OWN_BUNDLE, Received, Rejection, SECRET_TYPE_URL,
    Secrets, Violation,
    intake::{About, Intake, MAX_NAMES, Mounting, check_names, shortened},
    stream::ourselves,
    version_of,
};
use crate::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

/// Responses whose acknowledgement is waited for. Clients acknowledge each at once; what one that
/// never does says later is about a response nobody remembers.
const MAX_OUTSTANDING: usize = 32;

/// What the client was last told of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Nothing,
    Version(String),
    Removed,
}

#[derive(Debug)]
struct Outstanding {
    nonce: String,
    secrets: Vec<NamedVersion>,
}

/// State of one stream. It never answers by itself: see [`DeltaStream::respond`].
#[derive(Debug)]
pub struct DeltaStream {
    intake: Intake,
    subscribed: BTreeMap<String, Told>,
    opened: bool,
    responses: u64,
    outstanding: VecDeque<Outstanding>,
}

impl DeltaStream {
    #[must_use]
    pub fn mounted(mounting: Mounting) -> Self {
        Self {
            intake: Intake::new(mounting),
            subscribed: BTreeMap::new(),
            opened: false,
            responses: 0,
            outstanding: VecDeque::new(),
        }
    }

    /// Takes a request in. `since_open`: how long the stream has been open. What the client says
    /// it has from another stream is not looked at: it gets everything again (SDS-S11).
    ///
    /// # Errors
    /// If the client breaks a rule that ends the stream.
    pub fn receive(
        &mut self,
        request: &DeltaDiscoveryRequest,
        since_open: Duration,
    ) -> Result<Received, Violation> {
        let about = self
            .intake
            .admit(&request.type_url, request.node.as_ref(), since_open)?;
        let mut received = Received::default();
        if about == About::SomethingElse {
            return Ok(received);
        }
        let answered = self.answered_by(&request.response_nonce);
        match (answered, &request.error_detail) {
            (Some(outstanding), Some(error)) => {
                received.rejected = Some(Rejection {
                    secrets: outstanding.secrets,
                    message: shortened(&error.message),
                });
            }
            (Some(outstanding), None) => received.accepted = outstanding.secrets,
            (None, _) => {}
        }
        received.added = self.subscribe(request)?;
        Ok(received)
    }

    fn answered_by(&mut self, nonce: &str) -> Option<Outstanding> {
        let position = self
            .outstanding
            .iter()
            .position(|outstanding| outstanding.nonce == nonce)?;
        self.outstanding.remove(position)
    }

    /// Names count whatever the nonce says (SDS-S13). A name that is asked for is answered, also
    /// if it was answered before: the client may have forgotten it (SDS-S12).
    fn subscribe(&mut self, request: &DeltaDiscoveryRequest) -> Result<Vec<String>, Violation> {
        check_names(&request.resource_names_subscribe)?;
        check_names(&request.resource_names_unsubscribe)?;
        for name in &request.resource_names_unsubscribe {
            self.subscribed.remove(name);
        }
        let names = request.resource_names_subscribe.iter();
        let mut asked: BTreeSet<&str> = names.map(String::as_str).collect();
        // a first request without names asks for everything (SDS-S7)
        if asked.is_empty() && !self.opened {
            asked.extend([DEFAULT_SVID, OWN_BUNDLE]);
        }
        self.opened = true;
        let is_new = |name: &&&str| !self.subscribed.contains_key(**name);
        let added: Vec<String> = asked
            .iter()
            .filter(is_new)
            .map(ToString::to_string)
            .collect();
        let count = self.subscribed.len().saturating_add(added.len());
        if count > MAX_NAMES {
            return Err(Violation::TooManyNames(count));
        }
        let owed = asked
            .into_iter()
            .map(|name| (name.to_owned(), Told::Nothing));
        self.subscribed.extend(owed);
        Ok(added)
    }

    /// The form of bundles on this stream, fixed by the first node seen.
    #[must_use]
    pub fn form(&self) -> BundleForm {
        self.intake.form()
    }

    /// The names asked for and not unsubscribed from since.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.subscribed.keys().map(String::as_str)
    }

    /// What to send now: every secret that is owed or has other content than what was sent, and
    /// every name that there is nothing for, so that Envoy ends its warming and refuses
    /// connections instead of waiting (SDS-S8). An acknowledgement or a rejection causes nothing
    /// (SDS-S12, S14).
    pub fn respond(&mut self, secrets: &impl Secrets) -> Option<DeltaDiscoveryResponse> {
        let form = self.form();
        let mut resources = Vec::new();
        let mut removed = Vec::new();
        let mut named = Vec::new();
        for (name, told) in &mut self.subscribed {
            match secrets.secret(name, form) {
                Some(found) if *told == Told::Version(found.version.clone()) => {}
                Some(found) => {
                    *told = Told::Version(found.version.clone());
                    resources.push(Resource {
                        name: name.clone(),
                        version: found.version.clone(),
                        resource: Some(found.to_any()),
                    });
                    named.push(NamedVersion {
                        name: name.clone(),
                        version: found.version,
                    });
                }
                None if *told == Told::Removed || secrets.is_being_made(name) => {}
                None => {
                    *told = Told::Removed;
                    removed.push(name.clone());
                }
            }
        }
        if resources.is_empty() && removed.is_empty() {
            return None;
        }
        self.responses = self.responses.saturating_add(1);
        let nonce = self.responses.to_string();
        if self.outstanding.len() >= MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding {
            nonce: nonce.clone(),
            secrets: named,
        });
        Some(DeltaDiscoveryResponse {
            system_version_info: self.version(),
            resources,
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce,
            removed_resources: removed,
            control_plane: Some(ourselves()),
        })
    }

    /// A name for all that the client now has.
    fn version(&self) -> String {
        let mut all = String::new();
        for (name, told) in &self.subscribed {
            if let Told::Version(version) = told {
                all.push_str(&format!("{} {name} {version}\n", name.len()));
            }
        }
        version_of(all.as_bytes())
    }
}

#[cfg(test)]
mod tests;
