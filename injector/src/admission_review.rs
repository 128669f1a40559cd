//! AdmissionReview v1 as the API server sends and takes it. What is wrong is answered inside the
//! protocol wherever there is a request to answer, so that people read words and not
//! "failed calling webhook".

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    injection_decision::{
        Caller, Decided, Decision, Refusal, Request, SkipReason, debug_containers, inject,
    },
    mesh_settings::MeshSettings,
    namespace_facts::NamespaceFacts,
    pod_patch,
};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// Kubelets and nothing else have this before their node's name (the API server's own check).
const NODE_USER: &str = "system:node:";
/// Characters of a refusal: it reaches a terminal.
const MAX_MESSAGE: usize = 4096;

/// One request to judge.
#[derive(Debug, Clone)]
pub struct AdmissionRequest {
    uid: String,
    /// Whether a pod is being made, by its resource and operation.
    makes_pod: bool,
    /// Whether a pod that runs gets a debug container (`kubectl debug`).
    adds_debug_container: bool,
    request: Request,
    pod: Value,
}

/// What is no request that could be answered with words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct MalformedReview {
    /// Known if at least that could be read: then [`Answer::refuse`] can say it inside the protocol.
    pub uid: Option<String>,
    pub why: String,
}

/// The answer to one request, and what to count.
#[derive(Debug, Clone)]
pub struct Answer {
    pub review: AdmissionAnswer,
    pub outcome: Outcome,
}

/// For metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Injected,
    Skipped(SkipReason),
    /// The labels of all reasons; never empty.
    Refused(Vec<&'static str>),
}

impl Outcome {
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Injected => "inject",
            Self::Skipped(_) => "skip",
            Self::Refused(_) => "refuse",
        }
    }

    /// The first one's, of several.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Injected => "",
            Self::Skipped(reason) => reason.as_str(),
            Self::Refused(labels) => labels.first().copied().unwrap_or_default(),
        }
    }
}

impl AdmissionRequest {
    /// # Errors
    /// If it is not an AdmissionReview of version v1 with a request.
    pub fn parse(body: &[u8]) -> Result<Self, MalformedReview> {
        let without_uid = |why: String| MalformedReview { uid: None, why };
        let review: WireReview = serde_json::from_slice(body)
            .map_err(|error| without_uid(format!("this is no AdmissionReview: {error}")))?;
        let request = review
            .request
            .filter(|request| !request.uid.is_empty())
            .ok_or_else(|| {
                without_uid("this AdmissionReview has no request with a uid".to_owned())
            })?;
        if (review.api_version.as_str(), review.kind.as_str()) != (API_VERSION, KIND) {
            return Err(MalformedReview {
                uid: Some(request.uid),
                why: format!(
                    "this is {:?} of version {:?}, not {KIND} of {API_VERSION}: correct \
                     admissionReviewVersions of the webhook",
                    review.kind, review.api_version
                ),
            });
        }
        Ok(request.into_request())
    }

    /// Where the pod will be: whose facts [`Self::answer`] needs.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.request.namespace
    }

    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether facts of its namespace matter for the answer.
    #[must_use]
    pub const fn makes_pod(&self) -> bool {
        self.makes_pod
    }

    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Decides, and makes the patch.
    #[must_use]
    pub fn answer(&self, settings: &MeshSettings, namespace: &NamespaceFacts) -> Answer {
        if self.adds_debug_container {
            let refusals = debug_containers(&self.pod);
            if !refusals.is_empty() {
                return self.refuse(&refusals, Vec::new());
            }
        }
        if !self.makes_pod {
            return self.allow(None, Outcome::Skipped(SkipReason::NotAPod), Vec::new());
        }
        let Decided { decision, warnings } = inject(&self.pod, &self.request, settings, namespace);
        match decision {
            Decision::Inject(pod) => self.allow(Some(&pod), Outcome::Injected, warnings),
            Decision::Skip(skipped) => {
                let outcome = Outcome::Skipped(skipped.reason);
                self.allow(skipped.stamped.as_ref(), outcome, warnings)
            }
            Decision::Refuse(refusals) => self.refuse(&refusals, warnings),
        }
    }

    fn allow(&self, pod: Option<&Value>, outcome: Outcome, warnings: Vec<String>) -> Answer {
        let mut response = Response::new(&self.uid, true);
        if let Some(pod) = pod.filter(|pod| **pod != self.pod) {
            let patch = pod_patch::patch(&self.pod, pod)
                .and_then(|patch| serde_json::to_vec(&patch).map_err(|error| error.to_string()));
            match patch {
                Ok(patch) => response.set_patch(patch),
                Err(why) => return self.refuse(&[Refusal::Patch(why)], warnings),
            }
        }
        response.warnings = warnings;
        Answer::new(response, outcome)
    }

    fn refuse(&self, refusals: &[Refusal], warnings: Vec<String>) -> Answer {
        let words: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        let labels = refusals.iter().map(Refusal::label).collect();
        let mut answer = Answer::refuse(&self.uid, &words.join("\n"));
        answer.review.response.warnings = warnings;
        answer.with(Outcome::Refused(labels))
    }
}

impl Answer {
    /// No, in words, to a request of which nothing but the uid need be known.
    #[must_use]
    pub fn refuse(uid: &str, why: &str) -> Self {
        let mut response = Response::new(uid, false);
        let message: String = why
            .chars()
            .map(|char| match char {
                '\n' => char,
                other if other.is_control() => ' ',
                other => other,
            })
            .take(MAX_MESSAGE)
            .collect();
        response.status = Some(Status {
            code: 403,
            reason: "Forbidden",
            message,
        });
        Self::new(response, Outcome::Refused(vec!["request"]))
    }

    /// The body of the answer.
    ///
    /// # Errors
    /// Never, in practice: everything in it is text and numbers.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.review)
    }

    fn new(response: Response, outcome: Outcome) -> Self {
        let review = AdmissionAnswer {
            api_version: API_VERSION,
            kind: KIND,
            response,
        };
        Self { review, outcome }.audited()
    }

    fn with(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self.audited()
    }

    /// The API server's audit log says what was decided.
    fn audited(mut self) -> Self {
        let mut annotations = serde_json::Map::new();
        annotations.insert("decision".to_owned(), self.outcome.as_str().into());
        let reason = self.outcome.reason();
        if !reason.is_empty() {
            annotations.insert("reason".to_owned(), reason.into());
        }
        self.review.response.audit_annotations = annotations;
        self
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireReview {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<WireRequest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRequest {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource: WireResource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    user_info: WireUser,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct WireResource {
    group: String,
    version: String,
    resource: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct WireUser {
    username: String,
}

impl WireRequest {
    fn into_request(self) -> AdmissionRequest {
        let resource = (
            self.resource.group.as_str(),
            self.resource.version.as_str(),
            self.resource.resource.as_str(),
        );
        let is_pod = resource == ("", "v1", "pods");
        let part = self.sub_resource.as_deref().unwrap_or_default();
        let operation = self.operation.as_str();
        let makes_pod = is_pod && (part, operation) == ("", "CREATE");
        let adds_debug_container = is_pod && (part, operation) == ("ephemeralcontainers", "UPDATE");
        let caller = if self.user_info.username.starts_with(NODE_USER) {
            Caller::Kubelet
        } else {
            Caller::Anybody
        };
        AdmissionRequest {
            uid: self.uid,
            makes_pod,
            adds_debug_container,
            request: Request {
                namespace: self.namespace.unwrap_or_default(),
                name: self.name.filter(|name| !name.is_empty()),
                caller,
                dry_run: self.dry_run.unwrap_or_default(),
            },
            pod: self.object,
        }
    }
}

/// The AdmissionReview that goes back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionAnswer {
    api_version: &'static str,
    kind: &'static str,
    pub response: Response,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    pub uid: String,
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Both or neither: the API server refuses one without the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    audit_annotations: serde_json::Map<String, Value>,
}

impl Response {
    fn new(uid: &str, allowed: bool) -> Self {
        Self {
            uid: uid.to_owned(),
            allowed,
            status: None,
            patch_type: None,
            patch: None,
            warnings: Vec::new(),
            audit_annotations: serde_json::Map::new(),
        }
    }

    fn set_patch(&mut self, patch: Vec<u8>) {
        self.patch_type = Some("JSONPatch");
        self.patch = Some(ByteString(patch));
    }

    /// The JSON Patch, as it is before it is encoded.
    #[must_use]
    pub fn patch(&self) -> Option<&[u8]> {
        self.patch.as_ref().map(|patch| patch.0.as_slice())
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

#[cfg(test)]
mod tests;
