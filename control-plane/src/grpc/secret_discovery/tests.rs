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
    let id = || "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap();
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
        (InvalidRequest::TooLong(1).into(), Code::InvalidArgument),
        (Refusal::NotKnownYet(name()), Code::Unavailable),
        (Refusal::OtherPod(name()), Code::Unavailable),
        (InvalidRequest::KeyKind.into(), Code::InvalidArgument),
        (InvalidRequest::Signature.into(), Code::InvalidArgument),
        (Refusal::KeyUsedBefore, Code::InvalidArgument),
        (JoinTokenError::Unknown.into(), Code::Unauthenticated),
        (token_expired.into(), Code::Unauthenticated),
        (stream_token_expired.into(), Code::Unauthenticated),
        (redeemed.into(), Code::Unauthenticated),
        (
            JoinTokenError::TakenBack(name()).into(),
            Code::Unauthenticated,
        ),
        (
            JoinTokenError::SignsNothing(name()).into(),
            Code::Unauthenticated,
        ),
        (
            JoinTokenError::OpensNothing(name()).into(),
            Code::Unauthenticated,
        ),
        (
            NotAttested::Expired { at, now }.into(),
            Code::Unauthenticated,
        ),
        (NotAttested::RootDropped(id()).into(), Code::Unauthenticated),
        (
            NotAttested::NoDocument(name()).into(),
            Code::PermissionDenied,
        ),
        (
            NotAttested::NoWorkloadName(id()).into(),
            Code::PermissionDenied,
        ),
        (other_identity.into(), Code::PermissionDenied),
        (other_uri, Code::PermissionDenied),
        (
            Refusal::Evicted("evictions.yaml".to_owned()),
            Code::PermissionDenied,
        ),
        (Refusal::TooOften(name()), Code::ResourceExhausted),
        // not the caller's fault, and over some time
        (
            JoinTokenError::TooMany("secret-place".into()).into(),
            Code::Unavailable,
        ),
        (
            IssueError::Template(TemplateError::IssuerExpired).into(),
            Code::Unavailable,
        ),
        (
            IssueError::Template(TemplateError::IssuerNotYetValid).into(),
            Code::Unavailable,
        ),
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
