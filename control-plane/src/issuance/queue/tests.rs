use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use super::{
    super::tests::{DAY, asked, fixture, now},
    *,
};
use crate::certificate_authority::svid_inspection::InspectionError;

/// A storm with real signatures on real threads: 120 sidecars renew, then 40 new ones come.
#[tokio::test]
async fn certifies_who_has_nothing_before_who_renews() {
    const RENEWALS: usize = 120;
    const FIRST: usize = 40;
    let fixture = fixture(RENEWALS + FIRST);
    let queue = IssuanceQueue::new(Arc::clone(&fixture.issuance), Metrics::new(), now);
    let mut held = Vec::new();
    for _ in 0..MAX_ISSUANCES {
        held.push(queue.turns.take(Urgency::Renewal).await.unwrap());
    }
    let mut asking = JoinSet::new();
    let order = Arc::new(Mutex::new(Vec::new()));
    for number in 0..RENEWALS + FIRST {
        let (urgency, credential) = if number < RENEWALS {
            (Urgency::Renewal, Credential::Svid(fixture.peer(number)))
        } else {
            let token = fixture.join_token(number);
            (Urgency::First, Credential::JoinToken(token))
        };
        let (queue, order) = (queue.clone(), Arc::clone(&order));
        asking.spawn(async move {
            let turn = queue.turns.take(urgency).await.unwrap();
            order.lock().unwrap().push(urgency);
            let signing = queue.after(turn, move |issuance, now| {
                issuance.issue(&credential, &asked(), now)
            });
            signing.await.unwrap();
        });
    }
    // all stand in line before the first turn is free
    while queue.turns.waiting() < RENEWALS + FIRST {
        task::yield_now().await;
    }
    drop(held);
    while let Some(done) = asking.join_next().await {
        done.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(order.len(), RENEWALS + FIRST);
    let last = order.iter().rposition(|begun| *begun == Urgency::First);
    let renewed_before = last.unwrap() + 1 - FIRST;
    // every eighth turn is a renewal's
    let most = FIRST / 7 + 1;
    assert!(renewed_before <= most, "{renewed_before} of {RENEWALS}");
}

/// Whoever waits in vain is told to come back, and is counted.
#[tokio::test(start_paused = true)]
async fn says_that_it_is_busy_rather_than_let_anybody_wait_without_end() {
    let fixture = fixture(1);
    let metrics = Metrics::new();
    let queue = IssuanceQueue::new(Arc::clone(&fixture.issuance), metrics.clone(), now);
    let mut held = Vec::new();
    for _ in 0..MAX_ISSUANCES {
        held.push(queue.turns.take(Urgency::First).await.unwrap());
    }
    let renewal = || Credential::Svid(fixture.peer(0));
    let busy = queue.issue(renewal(), asked()).await.unwrap_err();
    assert!(matches!(busy, NotIssued::Busy(_)) && busy.to_string().contains("try again"));
    let text = metrics.encode().unwrap();
    assert!(
        text.contains("issuances_total{outcome=\"busy\"} 1"),
        "{text}"
    );
    drop(held);
    assert!(queue.issue(renewal(), asked()).await.is_ok());
}

/// SDS-S27: by the time of the signature, not by that of the question.
#[tokio::test]
async fn judges_a_credential_when_its_turn_comes() {
    static LATE: AtomicBool = AtomicBool::new(false);
    let clock = || {
        let late = if LATE.load(Ordering::Relaxed) {
            DAY
        } else {
            Duration::ZERO
        };
        now() + late
    };
    let fixture = fixture(1);
    let queue = IssuanceQueue::new(Arc::clone(&fixture.issuance), Metrics::new(), clock);
    let mut held = Vec::new();
    for _ in 0..MAX_ISSUANCES {
        held.push(queue.turns.take(Urgency::First).await.unwrap());
    }
    let renewal = Credential::Svid(fixture.peer(0));
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.issue(renewal, asked()).await }
    });
    while queue.turns.waiting() < 1 {
        task::yield_now().await;
    }
    LATE.store(true, Ordering::Relaxed);
    drop(held);
    let refused = waiting.await.unwrap().unwrap_err();
    assert!(
        refused.to_string().contains("compare the clocks"),
        "{refused}"
    );
}

/// SDS-S18: an alarm, and only for what is broken.
#[tokio::test]
async fn alarms_when_what_was_signed_is_not_what_was_meant() {
    let fixture = fixture(1);
    let metrics = Metrics::new();
    let queue = IssuanceQueue::new(Arc::clone(&fixture.issuance), metrics.clone(), now);
    let address = asked().address;
    let alarms = || {
        let text = metrics.encode().unwrap();
        let line = text
            .lines()
            .find(|line| line.contains("broken_secrets_total "));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let busy: Result<(), _> = queue.count(Err(NoTurn.into()), address);
    assert!(busy.is_err() && alarms() == "0");
    let broken = InspectionError::Differs("the public key");
    let broken = Refusal::Issue(IssueError::Inspection(broken));
    let refused: Result<(), _> = queue.count(Err(broken.into()), address);
    assert!(refused.is_err() && alarms() == "1");
}

/// Neither the queue of those who have a token nor what an invented certificate request costs.
#[tokio::test(start_paused = true)]
async fn an_invented_token_takes_no_turn_and_its_request_is_not_looked_at() {
    let fixture = fixture(1);
    let queue = IssuanceQueue::new(Arc::clone(&fixture.issuance), Metrics::new(), now);
    let mut held = Vec::new();
    for _ in 0..MAX_ISSUANCES {
        held.push(queue.turns.take(Urgency::First).await.unwrap());
    }
    let nonsense = || Asked {
        request_pem: b"nonsense".to_vec(),
        ..asked()
    };
    let invented = || JoinToken::received("mesh-lite-join-invented");
    let issuing = queue.issue(Credential::JoinToken(invented()), nonsense());
    let (issued, opened) = (issuing.await, queue.open_stream(invented()).await);
    for refused in [issued.map(drop), opened.map(drop)] {
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, NotIssued::Refused(Refusal::Token(error)) if error.is_refusal()),
            "{refused}"
        );
    }
    // a good one waits, and is as good as before
    let token = fixture.join_token(0);
    let copy = JoinToken::received(token.as_str());
    let busy = queue.issue(Credential::JoinToken(token), nonsense()).await;
    assert!(matches!(busy, Err(NotIssued::Busy(_))));
    drop(held);
    let spoiled = queue.issue(Credential::JoinToken(copy), nonsense()).await;
    assert!(matches!(
        spoiled,
        Err(NotIssued::Refused(Refusal::Request(_)))
    ));
}
