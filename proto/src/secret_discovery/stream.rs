//! One StreamSecrets stream (state of the world): what was asked, sent, accepted and rejected.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    BundleForm, DEFAULT_SVID, NamedVersion, OWN_BUNDLE, Received, Rejection, SECRET_TYPE_URL,
    Secrets, VersionedSecret, Violation,
    intake::{About, Intake, Mounting, check_names, shortened},
    version_of,
};
use crate::wire::envoy::{
    config::core::v3::ControlPlane,
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

/// The last response.
#[derive(Debug)]
struct Outstanding {
    nonce: String,
    /// Until the client says what it thinks of them. Its later requests repeat the nonce, with or
    /// without the error, and mean only their names.
    unjudged: Option<Vec<NamedVersion>>,
}

/// State of one stream. It never answers by itself: see [`SecretStream::respond`].
#[derive(Debug)]
pub struct SecretStream {
    intake: Intake,
    /// Name, and the version last sent under it on this stream.
    subscribed: BTreeMap<String, Option<String>>,
    opened: bool,
    /// A list was not empty.
    named: bool,
    responses: u64,
    outstanding: Option<Outstanding>,
}

impl SecretStream {
    #[must_use]
    pub fn mounted(mounting: Mounting) -> Self {
        Self {
            intake: Intake::new(mounting),
            subscribed: BTreeMap::new(),
            opened: false,
            named: false,
            responses: 0,
            outstanding: None,
        }
    }

    /// Takes a request in. `since_open`: how long the stream has been open.
    ///
    /// # Errors
    /// If the client breaks a rule that ends the stream.
    pub fn receive(
        &mut self,
        request: &DiscoveryRequest,
        since_open: Duration,
    ) -> Result<Received, Violation> {
        let about = self
            .intake
            .admit(&request.type_url, request.node.as_ref(), since_open)?;
        let mut received = Received::default();
        if about == About::SomethingElse {
            return Ok(received);
        }
        check_names(&request.resource_names)?;
        // a nonce in the first request is left over from another stream
        if self.opened && !request.response_nonce.is_empty() {
            let Some(outstanding) = self.answered_by(&request.response_nonce) else {
                // about an older response: a later request repeats the names (SDS-S13)
                return Ok(received);
            };
            match (outstanding.unjudged.take(), &request.error_detail) {
                (Some(secrets), Some(error)) => {
                    received.rejected = Some(Rejection {
                        secrets,
                        message: shortened(&error.message),
                    });
                }
                (Some(secrets), None) => received.accepted = secrets,
                (None, _) => {}
            }
        }
        received.added = self.subscribe(&request.resource_names);
        Ok(received)
    }

    fn answered_by(&mut self, nonce: &str) -> Option<&mut Outstanding> {
        self.outstanding
            .as_mut()
            .filter(|outstanding| outstanding.nonce == nonce)
    }

    /// Makes the subscription equal to the list. An empty list means everything until something
    /// was asked for by name, and nothing from then on (SDS-S7).
    fn subscribe(&mut self, names: &[String]) -> Vec<String> {
        let mut wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        self.named |= !wanted.is_empty();
        if !self.named {
            wanted.extend([DEFAULT_SVID, OWN_BUNDLE]);
        }
        self.opened = true;
        self.subscribed
            .retain(|name, _| wanted.contains(name.as_str()));
        let mut added = Vec::new();
        for name in wanted {
            if !self.subscribed.contains_key(name) {
                self.subscribed.insert(name.to_owned(), None);
                added.push(name.to_owned());
            }
        }
        added
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

    /// What to send now: every secret that was not sent yet or has other content than what was
    /// sent. An acknowledgement, an equal content, a rejected content cause nothing (SDS-S12,
    /// S14).
    pub fn respond(&mut self, secrets: &impl Secrets) -> Option<DiscoveryResponse> {
        let form = self.form();
        let mut resources = Vec::new();
        let mut named = Vec::new();
        for (name, sent) in &mut self.subscribed {
            let Some(found) = secrets.secret(name, form) else {
                continue;
            };
            if sent.as_ref() == Some(&found.version) {
                continue;
            }
            resources.push(found.to_any());
            *sent = Some(found.version.clone());
            named.push(NamedVersion {
                name: name.clone(),
                version: found.version,
            });
        }
        if resources.is_empty() {
            return None;
        }
        self.responses = self.responses.saturating_add(1);
        let nonce = self.responses.to_string();
        let version = self.version();
        self.outstanding = Some(Outstanding {
            nonce: nonce.clone(),
            unjudged: Some(named),
        });
        Some(DiscoveryResponse {
            version_info: version,
            resources,
            canary: false,
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce,
            control_plane: Some(ourselves()),
        })
    }

    /// A name for all that the client now has.
    fn version(&self) -> String {
        let mut all = String::new();
        for (name, sent) in &self.subscribed {
            if let Some(version) = sent {
                all.push_str(&format!("{} {name} {version}\n", name.len()));
            }
        }
        version_of(all.as_bytes())
    }
}

/// One answer without a stream: version set, no nonce (SDS-S1).
#[must_use]
pub fn single_response(secrets: &[VersionedSecret]) -> DiscoveryResponse {
    let versions: String = secrets
        .iter()
        .map(|secret| secret.version.as_str())
        .collect();
    DiscoveryResponse {
        version_info: version_of(versions.as_bytes()),
        resources: secrets.iter().map(VersionedSecret::to_any).collect(),
        canary: false,
        type_url: SECRET_TYPE_URL.to_owned(),
        nonce: String::new(),
        control_plane: Some(ourselves()),
    }
}

pub(super) fn ourselves() -> ControlPlane {
    ControlPlane {
        identifier: "mesh-lite".to_owned(),
    }
}

#[cfg(test)]
mod tests;
