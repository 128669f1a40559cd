use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{sync::mpsc, task::JoinSet};

use super::*;

/// Waits until so many stand in both lines.
async fn until_waiting(turns: &Turns, count: usize) {
    while turns.waiting() < count {
        tokio::task::yield_now().await;
    }
}

fn line_up(
    turns: &Turns,
    urgency: Urgency,
    order: &mpsc::UnboundedSender<Urgency>,
) -> tokio::task::JoinHandle<()> {
    let (turns, order) = (turns.clone(), order.clone());
    tokio::spawn(async move {
        let turn = turns.take(urgency).await.unwrap();
        order.send(urgency).unwrap();
        drop(turn);
    })
}

/// A storm: renewals stand in line before the first certificates come.
#[tokio::test]
async fn lets_first_certificates_pass_and_gives_renewals_every_eighth_turn() {
    let turns = Turns::new(1);
    let held = turns.take(Urgency::Renewal).await.unwrap();
    let (order, mut served) = mpsc::unbounded_channel();
    for _ in 0..100 {
        line_up(&turns, Urgency::Renewal, &order);
    }
    until_waiting(&turns, 100).await;
    for _ in 0..21 {
        line_up(&turns, Urgency::First, &order);
    }
    until_waiting(&turns, 121).await;
    drop((held, order));
    let mut all = Vec::new();
    while let Some(urgency) = served.recv().await {
        all.push(urgency);
    }
    assert_eq!(all.len(), 121);
    let beginning = &all[..24];
    let count = |kind| beginning.iter().filter(|urgency| **urgency == kind).count();
    assert_eq!((count(Urgency::First), count(Urgency::Renewal)), (21, 3));
    assert_eq!(turns.state().free, 1);
}

/// Threads, and more at once than turns: never more run than may, and all are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn never_lets_more_run_than_may_and_serves_everybody() {
    const AT_ONCE: usize = 3;
    let turns = Turns::new(AT_ONCE);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for number in 0..600 {
        let (turns, running, most) = (turns.clone(), running.clone(), most.clone());
        tasks.spawn(async move {
            let urgency = if number % 3 == 0 {
                Urgency::First
            } else {
                Urgency::Renewal
            };
            // on a loaded machine some stand in line longer than MAX_WAIT, and come again as clients do
            let turn = loop {
                if let Ok(turn) = turns.take(urgency).await {
                    break turn;
                }
            };
            let work = move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
            };
            tokio::task::spawn_blocking(work).await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=AT_ONCE).contains(&most), "{most}");
    assert_eq!(turns.state().free, AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_bounded_time_and_loses_no_turn_to_those_who_gave_up() {
    let turns = Turns::new(1);
    let held = turns.take(Urgency::First).await.unwrap();
    let (first, renewal) = tokio::join!(turns.take(Urgency::First), turns.take(Urgency::Renewal),);
    assert!(matches!((first, renewal), (Err(NoTurn), Err(NoTurn))));
    drop(held);
    assert_eq!(turns.state().free, 1, "both had gone");
    assert!(turns.take(Urgency::Renewal).await.is_ok());
}

/// Whoever is given a turn and does not read it any more passes it on.
#[tokio::test]
async fn a_turn_that_was_given_to_somebody_who_left_goes_to_the_next() {
    let turns = Turns::new(1);
    let held = turns.take(Urgency::First).await.unwrap();
    let mut gone = Box::pin(turns.take(Urgency::First));
    assert!(futures::poll!(&mut gone).is_pending());
    let mut next = Box::pin(turns.take(Urgency::Renewal));
    assert!(futures::poll!(&mut next).is_pending());
    drop(held);
    drop(gone);
    assert!(next.await.is_ok());
    assert_eq!(turns.state().free, 1);
}

#[tokio::test]
async fn keeps_each_line_within_its_bound_by_itself() {
    let turns = Turns::new(1);
    let held = turns.take(Urgency::First).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..MAX_WAITING {
        waiting.push(turns.state().wait(Urgency::Renewal).unwrap());
    }
    assert!(turns.state().wait(Urgency::Renewal).is_err());
    assert!(turns.state().wait(Urgency::First).is_ok());
    // those who left make room
    waiting.truncate(10);
    assert!(turns.state().wait(Urgency::Renewal).is_ok());
    assert_eq!(turns.state().renewals.len(), 11);
    drop(held);
}
