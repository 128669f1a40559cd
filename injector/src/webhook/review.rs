//! One AdmissionReview: read, judged by what its namespace says, answered.

use std::net::IpAddr;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{BodyError, BodyRoom};
use crate::{
    admission_review::{AdmissionRequest, Answer, MalformedReview},
    injection_decision::Request,
    mesh_settings::MeshSettings,
    metrics::Metrics,
    namespace_facts::NamespaceFacts,
    namespaces::Namespaces,
};

/// All that judges.
pub(super) struct Reviews {
    mesh: MeshSettings,
    namespaces: Namespaces,
    metrics: Metrics,
    room: BodyRoom,
}

/// An AdmissionReview that answers one.
pub(super) struct Reply {
    pub(super) json: Bytes,
    /// Whether a review of this version was asked, which is what API servers do.
    pub(super) is_to_review: bool,
}

/// What can't be answered with an AdmissionReview.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReviewError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("{0}")]
    NoReview(String),
    #[error("the answer can't be written: {0}")]
    Answer(#[from] serde_json::Error),
}

impl ReviewError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Body(BodyError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::NoRoom) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(BodyError::Cut) | Self::NoReview(_) => StatusCode::BAD_REQUEST,
            Self::Answer(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Reviews {
    pub(super) fn new(mesh: MeshSettings, namespaces: Namespaces, metrics: Metrics) -> Self {
        Self {
            mesh,
            namespaces,
            metrics,
            room: BodyRoom::default(),
        }
    }

    pub(super) async fn answer(
        &self,
        source: IpAddr,
        incoming: Incoming,
    ) -> Result<Reply, ReviewError> {
        let body = self.room.read(source, incoming).await?;
        let begun = Instant::now();
        let mut is_to_review = false;
        let answer = match AdmissionRequest::parse(&body.bytes) {
            Ok(request) => {
                is_to_review = true;
                self.judge(&request).await
            }
            Err(MalformedReview {
                uid: Some(uid),
                why,
            }) => {
                tracing::warn!(why = %why.escape_debug(), "a review can't be read");
                Answer::refuse(&uid, &why)
            }
            Err(MalformedReview { uid: None, why }) => {
                self.metrics.decision("refuse", "malformed");
                return Err(ReviewError::NoReview(why));
            }
        };
        let outcome = &answer.outcome;
        self.metrics.decision(outcome.as_str(), outcome.reason());
        self.metrics.review_time(begun.elapsed());
        Ok(Reply {
            json: answer.to_json()?.into(),
            is_to_review,
        })
    }

    async fn judge(&self, request: &AdmissionRequest) -> Answer {
        if !request.makes_pod() {
            return request.answer(&self.mesh, &NamespaceFacts::default());
        }
        let namespace = request.namespace();
        let answer = match self.namespaces.facts(namespace).await {
            Ok(facts) => request.answer(&self.mesh, &facts),
            Err(error) => Answer::refuse(request.uid(), &error.to_string()),
        };
        log(request.request(), &answer);
        answer
    }
}

fn log(request: &Request, answer: &Answer) {
    tracing::info!(
        namespace = %request.namespace.escape_debug(),
        pod = request.name.as_deref().map(|name| name.escape_debug().to_string()),
        dry_run = request.dry_run,
        decision = answer.outcome.as_str(),
        reason = answer.outcome.reason(),
        "pod"
    );
}
