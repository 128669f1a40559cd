//! One StreamSecrets stream (state of the world): what was asked, sent, accepted and rejected.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use prost::Message as _;
use prost_types::Any;

use super::{
    BundleForm, DEFAULT_SVID, MAX_SECRET_NAME, OWN_BUNDLE, SECRET_TYPE_URL, VersionedSecret,
    request_rate::RequestRate, version_of,
};
use crate::wire::envoy::{
    config::core::v3::ControlPlane,
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

/// Envoy opens a stream per secret; nobody of ours names more than a handful (SDS-S21).
const MAX_NAMES: usize = 128;
/// A client that acknowledges everything at once stays far below (SDS-S21).
const REQUESTS_PER_SECOND: u32 = 20;
const REQUEST_BURST: u32 = 50;
/// A rejection's text goes into a log line (SDS-S14).
const MAX_REJECTION: usize = 1024;

/// Where a stream finds what it sends. `None`: unknown, or not this caller's to have; the
/// client can't tell which (SDS-S8).
pub trait Secrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret>;
}

/// What a request turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Names asked for now and not before.
    pub added: Vec<String>,
    /// The last response was taken.
    pub accepted: bool,
    /// The last response was refused; the last good secrets stay in use at the client.
    pub rejected: Option<Rejection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub names: Vec<String>,
    pub version: String,
    pub message: String,
}

/// Ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    #[error("type_url {0:?} is not served here: this is the SDS API, ask for {SECRET_TYPE_URL}")]
    TypeUrl(String),
    #[error("a secret's name has {0} bytes, more than {MAX_SECRET_NAME}")]
    NameTooLong(usize),
    #[error("{0} secrets are asked for on one stream, more than {MAX_NAMES}")]
    TooManyNames(usize),
    #[error(
        "requests come faster than {REQUESTS_PER_SECOND} a second: does the client answer every response with a new request?"
    )]
    TooFast,
}

/// The last response, until the client says what it thinks of it.
#[derive(Debug, Clone)]
struct Outstanding {
    nonce: String,
    version: String,
    names: Vec<String>,
}

/// State of one stream. It never answers by itself: see [`SecretStream::respond`].
#[derive(Debug)]
pub struct SecretStream {
    form: Option<BundleForm>,
    /// Name, and the version last sent under it on this stream.
    subscribed: BTreeMap<String, Option<String>>,
    opened: bool,
    responses: u64,
    outstanding: Option<Outstanding>,
    rate: RequestRate,
}

impl Default for SecretStream {
    fn default() -> Self {
        Self {
            form: None,
            subscribed: BTreeMap::new(),
            opened: false,
            responses: 0,
            outstanding: None,
            rate: RequestRate::new(REQUESTS_PER_SECOND, REQUEST_BURST),
        }
    }
}

impl SecretStream {
    /// Takes a request in. `since_open`: how long the stream has been open.
    ///
    /// # Errors
    /// If the client breaks a rule that ends the stream.
    pub fn receive(
        &mut self,
        request: &DiscoveryRequest,
        since_open: Duration,
    ) -> Result<Received, Violation> {
        if !self.rate.take(1, since_open) {
            return Err(Violation::TooFast);
        }
        check_type(&request.type_url)?;
        check_names(&request.resource_names)?;
        if self.form.is_none() {
            self.form = request.node.as_ref().map(BundleForm::asked_by);
        }
        let mut received = Received::default();
        // a nonce in the first request is left over from another stream
        if self.opened && !request.response_nonce.is_empty() {
            let Some(outstanding) = self.answered_by(&request.response_nonce) else {
                // about an older response: a later request repeats the names (SDS-S13)
                return Ok(received);
            };
            match &request.error_detail {
                Some(error) => {
                    received.rejected = Some(Rejection {
                        names: outstanding.names,
                        version: outstanding.version,
                        message: shortened(&error.message),
                    });
                }
                None => received.accepted = true,
            }
        }
        received.added = self.subscribe(&request.resource_names);
        Ok(received)
    }

    fn answered_by(&self, nonce: &str) -> Option<Outstanding> {
        self.outstanding
            .clone()
            .filter(|outstanding| outstanding.nonce == nonce)
    }

    /// Makes the subscription equal to the list. An empty list means everything at first, and
    /// nothing once something was asked for (SDS-S7).
    fn subscribe(&mut self, names: &[String]) -> Vec<String> {
        let mut wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        let named_before = self.opened && !self.subscribed.is_empty();
        if wanted.is_empty() && !named_before {
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
        self.form.unwrap_or_default()
    }

    /// The names asked for and not unsubscribed from since.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.subscribed.keys().map(String::as_str)
    }

    /// Names that nothing was sent for.
    pub fn unanswered(&self) -> impl Iterator<Item = &str> {
        self.subscribed
            .iter()
            .filter(|(_, sent)| sent.is_none())
            .map(|(name, _)| name.as_str())
    }

    /// What to send now: every secret that was not sent yet or has other content than what was
    /// sent. An acknowledgement, an equal content, a rejected content cause nothing (SDS-S12,
    /// S14).
    pub fn respond(&mut self, secrets: &impl Secrets) -> Option<DiscoveryResponse> {
        let form = self.form();
        let mut resources = Vec::new();
        let mut names = Vec::new();
        for (name, sent) in &mut self.subscribed {
            let Some(found) = secrets.secret(name, form) else {
                continue;
            };
            if sent.as_ref() == Some(&found.version) {
                continue;
            }
            *sent = Some(found.version);
            names.push(name.clone());
            resources.push(Any {
                type_url: SECRET_TYPE_URL.to_owned(),
                value: found.secret.encode_to_vec(),
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
            version: version.clone(),
            names,
        });
        Some(DiscoveryResponse {
            version_info: version,
            resources,
            canary: false,
            type_url: SECRET_TYPE_URL.to_owned(),
            nonce,
            control_plane: Some(ControlPlane {
                identifier: "mesh-lite".to_owned(),
            }),
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
        resources: secrets
            .iter()
            .map(|secret| Any {
                type_url: SECRET_TYPE_URL.to_owned(),
                value: secret.secret.encode_to_vec(),
            })
            .collect(),
        canary: false,
        type_url: SECRET_TYPE_URL.to_owned(),
        nonce: String::new(),
        control_plane: Some(ControlPlane {
            identifier: "mesh-lite".to_owned(),
        }),
    }
}

/// # Errors
/// If the request is not about secrets.
pub fn check_type(type_url: &str) -> Result<(), Violation> {
    if type_url.is_empty() || type_url == SECRET_TYPE_URL {
        return Ok(());
    }
    Err(Violation::TypeUrl(shortened(type_url)))
}

/// # Errors
/// If there are too many names, or one is too long.
pub fn check_names(names: &[String]) -> Result<(), Violation> {
    if names.len() > MAX_NAMES {
        return Err(Violation::TooManyNames(names.len()));
    }
    match names.iter().find(|name| name.len() > MAX_SECRET_NAME) {
        Some(name) => Err(Violation::NameTooLong(name.len())),
        None => Ok(()),
    }
}

fn shortened(text: &str) -> String {
    let fits = |(start, character): &(usize, char)| {
        start.saturating_add(character.len_utf8()) <= MAX_REJECTION
    };
    text.char_indices()
        .take_while(fits)
        .map(|(_, character)| character)
        .collect()
}

#[cfg(test)]
mod tests;
