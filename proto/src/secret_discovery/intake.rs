//! What every request must pass, whatever the method it came by: rate, type, names, form.

use std::{fmt, time::Duration};

use super::{
    BundleForm, MAX_SECRET_NAME, SECRET_TYPE_URL, VersionedSecret, request_rate::RequestRate,
};
use crate::wire::envoy::config::core::v3::Node;

/// Envoy opens a stream per secret; nobody of ours names more than a handful (SDS-S21).
pub(super) const MAX_NAMES: usize = 128;
/// A client that acknowledges everything at once stays far below (SDS-S21).
const REQUESTS_PER_SECOND: u32 = 20;
const REQUEST_BURST: u32 = 50;
/// A rejection's text goes into a log line (SDS-S14).
const MAX_TEXT: usize = 1024;

/// Where a stream finds what it sends. `None`: unknown, or not this caller's to have; the
/// client can't tell which (SDS-S8).
pub trait Secrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret>;

    /// A secret that is not there only because it is being made is not unknown: its name is
    /// neither counted nor listed as removed.
    fn is_being_made(&self, _name: &str) -> bool {
        false
    }
}

/// A secret as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedVersion {
    pub name: String,
    pub version: String,
}

impl fmt::Display for NamedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} version {}", self.name, self.version)
    }
}

/// What a request turned out to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// Names asked for now and not before.
    pub added: Vec<String>,
    /// What the client says it took.
    pub accepted: Vec<NamedVersion>,
    /// A response was refused; the last good secrets stay in use at the client.
    pub rejected: Option<Rejection>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub secrets: Vec<NamedVersion>,
    /// The client's words, cut to what fits a log line.
    pub message: String,
}

/// Ends the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    #[error("type_url {0:?} is not served here: this is the SDS API, ask for {SECRET_TYPE_URL}")]
    TypeUrl(String),
    #[error("over ADS each request says its type_url; for secrets it is {SECRET_TYPE_URL}")]
    NoTypeUrl,
    #[error("a secret's name has {0} bytes, more than {MAX_SECRET_NAME}")]
    NameTooLong(usize),
    #[error("{0} secrets are asked for on one stream, more than {MAX_NAMES}")]
    TooManyNames(usize),
    #[error(
        "requests come faster than {REQUESTS_PER_SECOND} a second: does the client answer every response with a new request?"
    )]
    TooFast,
}

/// Under which service a stream was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounting {
    /// The SDS service: secrets and nothing else (SDS-S3).
    Secrets,
    /// ADS: other types are asked for too, and left unanswered, for an empty answer would mean
    /// "delete all" (SDS-S2).
    Aggregated,
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Secrets,
    SomethingElse,
}

/// What a stream remembers of its client, beside the names.
#[derive(Debug)]
pub(super) struct Intake {
    mounting: Mounting,
    form: Option<BundleForm>,
    rate: RequestRate,
}

impl Intake {
    pub(super) fn new(mounting: Mounting) -> Self {
        Self {
            mounting,
            form: None,
            rate: RequestRate::new(REQUESTS_PER_SECOND, REQUEST_BURST),
        }
    }

    pub(super) fn admit(
        &mut self,
        type_url: &str,
        node: Option<&Node>,
        since_open: Duration,
    ) -> Result<About, Violation> {
        if !self.rate.take(1, since_open) {
            return Err(Violation::TooFast);
        }
        // many clients send it once, with whatever they ask for first
        if self.form.is_none() {
            self.form = node.map(BundleForm::asked_by);
        }
        match self.mounting {
            Mounting::Secrets => check_type(type_url).map(|()| About::Secrets),
            Mounting::Aggregated if type_url.is_empty() => Err(Violation::NoTypeUrl),
            Mounting::Aggregated if type_url == SECRET_TYPE_URL => Ok(About::Secrets),
            Mounting::Aggregated => Ok(About::SomethingElse),
        }
    }

    /// The form of bundles on this stream, fixed by the first node seen (SDS-S6).
    pub(super) fn form(&self) -> BundleForm {
        self.form.unwrap_or_default()
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

pub(super) fn shortened(text: &str) -> String {
    let fits =
        |(start, character): &(usize, char)| start.saturating_add(character.len_utf8()) <= MAX_TEXT;
    text.char_indices()
        .take_while(fits)
        .map(|(_, character)| character)
        .collect()
}
