//! Asking the API server whose token it is.

use std::{collections::BTreeMap, error::Error as _, time::Duration};

use http::{Method, Request, header::CONTENT_TYPE};
use kube::Client;
use mesh_lite_proto::kubernetes::TOKEN_AUDIENCE;
use serde::{Deserialize, Serialize};

use super::claims::PodOfToken;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Of what the API server says, in a message.
const MAX_WORDS: usize = 300;

pub(super) struct TokenReviews(Client);

/// What the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reviewed {
    Yes(PodOfToken),
    /// In its words, or why its yes is not enough.
    No(String),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReviewFailure {
    /// No connection, no answer in time, or one that says that it is not well (5xx).
    Unreachable(String),
    /// It is there, and does not do what is asked.
    Failed(String),
}

impl ReviewFailure {
    pub(super) fn too_slow(after: Duration) -> Self {
        Self::Unreachable(format!("no answer within {after:?}"))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'static str; 1],
}

/// The token in it, which the API server repeats, is not read.
#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    error: String,
    user: User,
    audiences: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl TokenReviews {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    pub(super) async fn review(&self, token: &str) -> Result<Reviewed, ReviewFailure> {
        let question = Question {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec {
                token,
                audiences: [TOKEN_AUDIENCE],
            },
        };
        let body = serde_json::to_vec(&question).map_err(unusable)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(unusable)?;
        // as text: the client would log an answer that it can't parse, and the token is in it
        let text = self.0.request_text(request).await.map_err(failure)?;
        let review: Review = serde_json::from_str(&text)
            .map_err(|_| ReviewFailure::Failed("its answer is no TokenReview".to_owned()))?;
        Ok(judged(review.status))
    }
}

/// Fails closed: an API server that does not know audiences lists none, and its yes means nothing.
fn judged(status: Status) -> Reviewed {
    if !status.authenticated {
        return Reviewed::No(match status.error.as_str() {
            "" => "it does not say why".to_owned(),
            error => words(error),
        });
    }
    if !status.audiences.iter().any(|one| one == TOKEN_AUDIENCE) {
        return Reviewed::No(format!(
            "it does not say that the token is for {TOKEN_AUDIENCE:?}"
        ));
    }
    let User { username, extra } = status.user;
    let account = username
        .strip_prefix(SERVICE_ACCOUNT)
        .and_then(|account| account.split_once(':'))
        .filter(|(namespace, name)| {
            !namespace.is_empty() && !name.is_empty() && !name.contains(':')
        });
    let Some((namespace, service_account)) = account else {
        let username = words(&username);
        return Reviewed::No(format!("its user {username:?} is no service account"));
    };
    let (Some(name), Some(uid)) = (only(&extra, POD_NAME), only(&extra, POD_UID)) else {
        return Reviewed::No("the token is not bound to a pod".to_owned());
    };
    Reviewed::Yes(PodOfToken {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        name,
        uid,
    })
}

fn only(extra: &BTreeMap<String, Vec<String>>, key: &str) -> Option<String> {
    match extra.get(key)?.as_slice() {
        [one] if !one.is_empty() => Some(one.clone()),
        _ => None,
    }
}

fn failure(error: kube::Error) -> ReviewFailure {
    match &error {
        kube::Error::Api(status) => {
            let said = words(&status.message);
            match status.code {
                500..=599 => {
                    ReviewFailure::Unreachable(format!("it answers {}: {said}", status.code))
                }
                401 | 403 => ReviewFailure::Failed(format!(
                    "{said}. It needs the right to create tokenreviews.authentication.k8s.io, which `mesh-lite install` gives it"
                )),
                code => ReviewFailure::Failed(format!("it answers {code}: {said}")),
            }
        }
        kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_) => {
            ReviewFailure::Unreachable(in_words(&error))
        }
        _ => ReviewFailure::Failed(in_words(&error)),
    }
}

fn unusable(error: impl std::error::Error) -> ReviewFailure {
    ReviewFailure::Failed(error.to_string())
}

/// With the causes below it, which alone say what is wrong.
pub(super) fn in_words(error: &kube::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let below = error.to_string();
        if !text.contains(&below) && text.len() < MAX_WORDS {
            text.push_str(": ");
            text.push_str(&below);
        }
        cause = error.source();
    }
    words(&text)
}

fn words(text: &str) -> String {
    let shown: String = text.chars().take(MAX_WORDS).collect();
    shown
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
pub(super) fn judged_json(review: &str) -> Reviewed {
    let review: Review = serde_json::from_str(review).unwrap();
    judged(review.status)
}
