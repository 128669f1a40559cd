use mesh_lite_proto::identity::WorkloadId;
use tonic::Code;

use super::*;
use crate::{
    certificate_authority::{
        IssueError, certificate_request::InvalidRequest, svid_template::TemplateError,
    },
    issuance::turns::NoTurn,
    workload_attestation::{NotAttested, join_token::JoinTokenError},
    workload_index::WorkloadName,
};

fn name() -> WorkloadName {
    "shop/web".parse().unwrap()
}

/// Does not compile when there is a reason that the table below may lack.
fn is_in_the_table(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::Request(_)
        | Refusal::Token(_)
        | Refusal::Attestation(_)
        | Refusal::OtherUri { .. }
        | Refusal::KeyUsedBefore
        | Refusal::TooOften(_)
        | Refusal::Evicted(_)
        | Refusal::NotKnownYet(_)
        | Refusal::OtherPod(_)
        | Refusal::Issue(_) => true,
    }
}

fn refusals() -> Vec<(Refusal, Code)> {
    let by_code = [
        (Code::InvalidArgument, wrong_requests()),
        (Code::Unauthenticated, unproved_callers()),
        (Code::PermissionDenied, callers_that_may_not()),
        (Code::ResourceExhausted, vec![Refusal::TooOften(name())]),
        (Code::Unavailable, not_now()),
    ];
    by_code
        .into_iter()
        .flat_map(|(code, refusals)| refusals.into_iter().map(move |refusal| (refusal, code)))
        .collect()
}

fn id() -> WorkloadId {
    "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap()
}

fn wrong_requests() -> Vec<Refusal> {
    vec![
        InvalidRequest::TooLong(1).into(),
        InvalidRequest::KeyKind.into(),
        InvalidRequest::Signature.into(),
        Refusal::KeyUsedBefore,
    ]
}

fn unproved_callers() -> Vec<Refusal> {
    let (at, now) = ("then".to_owned(), "now".to_owned());
    let token_expired = JoinTokenError::Expired {
        at: at.clone(),
        now: now.clone(),
        workload: name(),
    };
    let stream_token_expired = JoinTokenError::StreamTokenExpired {
        at: at.clone(),
        now: now.clone(),
        workload: name(),
    };
    let redeemed = JoinTokenError::Redeemed {
        at: at.clone(),
        workload: name(),
    };
    vec![
        JoinTokenError::Unknown.into(),
        token_expired.into(),
        stream_token_expired.into(),
        redeemed.into(),
        JoinTokenError::TakenBack(name()).into(),
        JoinTokenError::SignsNothing(name()).into(),
        JoinTokenError::OpensNothing(name()).into(),
        NotAttested::Expired { at, now }.into(),
        NotAttested::RootDropped(id()).into(),
    ]
}

fn callers_that_may_not() -> Vec<Refusal> {
    let other_identity = NotAttested::OtherIdentity {
        workload: name(),
        document: id(),
        svid: id(),
    };
    let other_uri = Refusal::OtherUri {
        asked: "x:y".to_owned(),
        id: id().to_string(),
    };
    vec![
        NotAttested::NoDocument(name()).into(),
        NotAttested::NoWorkloadName(id()).into(),
        other_identity.into(),
        other_uri,
        Refusal::Evicted("evictions.yaml".to_owned()),
    ]
}

/// Not the caller's fault, and over some time.
fn not_now() -> Vec<Refusal> {
    vec![
        Refusal::NotKnownYet(name()),
        Refusal::OtherPod(name()),
        JoinTokenError::TooMany("secret-place".into()).into(),
        IssueError::Template(TemplateError::IssuerExpired).into(),
        IssueError::Template(TemplateError::IssuerNotYetValid).into(),
    ]
}

/// SDS-S23, CSR-C8
#[test]
fn says_by_its_status_whose_fault_it_is() {
    for (refusal, code) in refusals() {
        assert!(is_in_the_table(&refusal));
        let (text, status) = (refusal.to_string(), status_of(&refusal));
        assert_eq!(status.code(), code, "{text}");
        // what is wrong with this machine is for its log
        let soon = matches!(refusal, Refusal::NotKnownYet(_) | Refusal::OtherPod(_));
        let ours = code == Code::Unavailable && !soon;
        assert_eq!(status.message() == text, !ours, "{status}");
        assert_eq!(status.message().contains("log says why"), ours, "{status}");
        let again = not_issued(&NotIssued::Refused(refusal));
        assert_eq!((again.code(), again.message()), (code, status.message()));
    }
}

/// SDS-S23, CSR-C8: for whom there is no turn comes back; a defect is ours, and is called one.
#[test]
fn says_that_it_is_busy_or_broken() {
    let busy = not_issued(&NotIssued::Busy(NoTurn));
    assert_eq!(busy.code(), Code::Unavailable);
    assert!(busy.message().contains("try again"), "{busy}");
    let failed = not_issued(&NotIssued::Failed);
    assert_eq!(failed.code(), Code::Internal);
    assert!(failed.message().contains("a defect"), "{failed}");
}
