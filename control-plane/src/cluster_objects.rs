//! Single objects of the cluster, read and written as text: a body that holds a key is wiped, and
//! never parsed by code that would log what it can't read.

use std::{fmt, time::Duration};

use http::{Method, Request, header};
use kube::Client;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

mod error;

pub(crate) use error::Failure;
pub use error::ObjectError;

/// An API server that answers at all answers within this time.
const ANSWER: Duration = Duration::from_secs(10);

/// Where an object lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    kind: &'static str,
    api_version: String,
    /// Plural, as in paths.
    resource: &'static str,
    namespace: Option<String>,
    name: String,
}

impl Place {
    pub(crate) fn secret(namespace: &str, name: &str) -> Self {
        Self::namespaced("Secret", "secrets", namespace, name)
    }

    pub(crate) fn config_map(namespace: &str, name: &str) -> Self {
        Self::namespaced("ConfigMap", "configmaps", namespace, name)
    }

    /// `version` of the group `certificates.k8s.io`.
    pub(crate) fn cluster_trust_bundle(version: &str, name: &str) -> Self {
        Self::certificates("ClusterTrustBundle", "clustertrustbundles", version, name)
    }

    pub(crate) fn signing_request(name: &str) -> Self {
        Self::certificates(
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "v1",
            name,
        )
    }

    /// The list of kinds in a version of `certificates.k8s.io`; only to be read.
    pub(crate) fn resources_of_certificates(version: &str) -> Self {
        Self::certificates("the kinds of certificates.k8s.io in", "", version, version)
    }

    fn namespaced(kind: &'static str, resource: &'static str, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            api_version: "v1".to_owned(),
            resource,
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        }
    }

    fn certificates(kind: &'static str, resource: &'static str, version: &str, name: &str) -> Self {
        Self {
            kind,
            api_version: format!("certificates.k8s.io/{version}"),
            resource,
            namespace: None,
            name: name.to_owned(),
        }
    }

    /// What every object says of itself.
    pub(crate) fn header(&self) -> serde_json::Value {
        let mut metadata = json!({ "name": self.name });
        if let (Some(namespace), Some(metadata)) = (&self.namespace, metadata.as_object_mut()) {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        json!({ "apiVersion": self.api_version, "kind": self.kind, "metadata": metadata })
    }

    fn collection(&self) -> String {
        let group = match self.api_version.as_str() {
            "v1" => "/api/v1".to_owned(),
            other => format!("/apis/{other}"),
        };
        match &self.namespace {
            Some(namespace) => format!(
                "{group}/namespaces/{}/{}",
                segment(namespace),
                self.resource
            ),
            None => format!("{group}/{}", self.resource),
        }
    }

    fn path(&self) -> String {
        if self.resource.is_empty() {
            return format!("/apis/{}", self.api_version);
        }
        format!("{}/{}", self.collection(), segment(&self.name))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name.escape_debug()),
        }
    }
}

/// One part of a path. Some kinds allow almost every character in a name.
fn segment(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// JSON merge patch. With `metadata.resourceVersion` in it, only that version is changed.
    Merge,
    /// Server-side apply: the fields become ours, whoever had them.
    Apply { manager: &'static str },
}

/// The API server, for single objects.
#[derive(Clone)]
pub(crate) struct ClusterObjects(Client);

impl ClusterObjects {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// `None`: there is none.
    pub(crate) async fn get(
        &self,
        place: &Place,
    ) -> Result<Option<Zeroizing<String>>, ObjectError> {
        let request = Request::get(place.path());
        match self.send("get", place, request, Vec::new()).await {
            Err(error) if error.failure == Failure::NotFound => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// # Errors
    /// Also [`Failure::AlreadyExists`].
    pub(crate) async fn create(
        &self,
        place: &Place,
        body: Vec<u8>,
    ) -> Result<Zeroizing<String>, ObjectError> {
        let request = Request::post(place.collection());
        self.send("create", place, request, body).await
    }

    /// # Errors
    /// Also [`Failure::Conflict`]: somebody else changed it first.
    pub(crate) async fn change(
        &self,
        place: &Place,
        subresource: Option<&'static str>,
        change: Change,
        body: Vec<u8>,
    ) -> Result<Zeroizing<String>, ObjectError> {
        let mut path = place.path();
        if let Some(subresource) = subresource {
            path = format!("{path}/{subresource}");
        }
        let (path, content_type) = match change {
            Change::Merge => (path, "application/merge-patch+json"),
            Change::Apply { manager } => (
                format!("{path}?fieldManager={manager}&force=true"),
                "application/apply-patch+yaml",
            ),
        };
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(header::CONTENT_TYPE, content_type);
        self.send("patch", place, request, body).await
    }

    async fn send(
        &self,
        verb: &'static str,
        place: &Place,
        mut request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<Zeroizing<String>, ObjectError> {
        let failed = |failure| ObjectError::new(verb, place.to_string(), failure);
        let described = request
            .headers_ref()
            .is_some_and(|headers| headers.contains_key(header::CONTENT_TYPE));
        if !body.is_empty() && !described {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(body)
            .map_err(|error| failed(Failure::Unreachable(error.to_string())))?;
        match tokio::time::timeout(ANSWER, self.0.request_text(request)).await {
            Ok(Ok(text)) => Ok(Zeroizing::new(text)),
            Ok(Err(error)) => Err(failed(Failure::of(error))),
            Err(_) => Err(failed(Failure::TooLate(ANSWER))),
        }
    }
}

/// What an object's text says of its version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) resource_version: String,
}

/// Reads an object's text. What can't be read is not shown: it may be a Secret.
pub(crate) fn parse<'a, T: Deserialize<'a>>(
    place: &Place,
    text: &'a str,
) -> Result<T, ObjectError> {
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        ObjectError::new(
            "read",
            place.to_string(),
            Failure::Unreadable { line, column },
        )
    })
}

#[cfg(test)]
mod tests;
