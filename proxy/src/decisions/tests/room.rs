//! What is remembered stays within its room, and says what it forgot.

use super::*;

#[test]
fn the_room_is_a_part_of_a_small_memory_limit_and_bounded_by_a_large_one() {
    assert_eq!(room(None), 1024 * 1024);
    assert_eq!(room(Some(u64::MAX)), 1024 * 1024);
    assert_eq!(room(Some(32 * 1024 * 1024)), 512 * 1024);
    assert_eq!(room(Some(0)), 0);
}

#[test]
fn a_flood_of_strangers_is_bounded_and_pushes_out_nothing_that_was_let_through() {
    let told = Told::with_room(128 * 1024);
    let allowed = 20;
    (0..allowed).for_each(|n| told.tell(&Call::plaintext(n)));
    let strangers = 20_000;
    for n in 0..strangers {
        told.tell(&Call::stranger(n));
    }
    let recording = told.recording();
    let kept = |through| {
        let records = recording.records.iter();
        records.filter(|it| it.is_let_through() == through).count() as u64
    };
    assert_eq!(kept(true), u64::from(allowed));
    assert!((20..500).contains(&kept(false)), "{}", kept(false));
    assert_eq!(kept(false) + recording.forgotten, u64::from(strangers));
    assert_eq!(recording.forgotten_let_through, 0);
    assert!(locked(&told.decisions.0.rest).bytes() <= 64 * 1024);
    let forgotten = told.metric("mesh_lite_decision_records_forgotten_total ");
    assert_eq!(forgotten, recording.forgotten);
    let remembered = told.metric("mesh_lite_decision_records ");
    assert_eq!(remembered, recording.records.len() as u64);
}

#[test]
fn what_was_let_through_is_bounded_too_and_what_was_forgotten_of_it_is_said() {
    let told = Told::with_room(128 * 1024);
    (0..5_000).for_each(|n| told.tell(&Call::plaintext(n)));
    let recording = told.recording();
    assert!(recording.forgotten_let_through > 4_000);
    assert_eq!(recording.forgotten_let_through, recording.forgotten);
    assert!(locked(&told.decisions.0.let_through).bytes() <= 64 * 1024);
}

#[test]
fn the_least_recently_seen_is_forgotten_first() {
    let told = Told::with_room(128 * 1024);
    for n in 1..5_000 {
        told.tell(&Call::stranger(n));
        // seldom new, but always there
        told.tell(&Call::stranger(0));
    }
    let sources: Vec<_> = told
        .records()
        .iter()
        .map(|record| record.source.address.ip())
        .collect();
    let ip = |n: u32| IpAddr::from(n.to_be_bytes());
    assert_eq!(sources[..3], [ip(0), ip(4_999), ip(4_998)]);
    assert!(!sources.contains(&ip(1)));
}

#[test]
fn a_record_that_has_no_room_at_all_is_forgotten_at_once_and_counted() {
    let told = Told::with_room(0);
    told.tell(&Call::allowed());
    assert_eq!(told.records(), []);
    assert_eq!(told.recording().forgotten_let_through, 1);
}

fn beside_dry_runs(dry_runs: usize, name: usize) -> Outcome {
    let recorded = Recorded {
        policy: SourceRef {
            document: "x".repeat(name).into(),
            ..source("next.yaml", 4).unwrap()
        },
        rule: Some(0),
        action: PolicyAction::Deny,
        dry_run: true,
    };
    Outcome::Decided(Decision {
        recorded: vec![recorded; dry_runs],
        ..allowed()
    })
}

#[test]
fn what_dry_runs_said_is_counted_and_bounded_like_all() {
    let told = Told::with_room(128 * 1024);
    for (dry_runs, name) in [(0, 1), (3, 200), (1, 10), (4, 400), (0, 1)] {
        for n in 0..100 {
            told.tell(&Call {
                outcome: beside_dry_runs(dry_runs, name),
                ..Call::plaintext(n)
            });
        }
        let half = locked(&told.decisions.0.let_through);
        assert!(half.bytes() <= 64 * 1024);
        assert_eq!(half.bytes(), half.counted_again());
    }
    let bytes = |dry_runs, name| {
        let told = Told::of(&[Call::inbound(beside_dry_runs(dry_runs, name))]);
        locked(&told.decisions.0.let_through).bytes()
    };
    assert!(bytes(2, 0) > bytes(1, 0) && bytes(1, 0) > bytes(0, 0));
    assert_eq!(bytes(3, 1000), bytes(3, 0) + 3000);
    assert_eq!(bytes(16, 1000), bytes(4, 1000));
}

#[test]
fn words_that_grow_are_counted_and_bounded_like_all() {
    let told = Told::with_room(128 * 1024);
    for length in [0, 300, 10, 500, 0] {
        for n in 0..100 {
            let words = Some("x".repeat(length).into());
            told.tell(&Call {
                outcome: Outcome::Refused(Refusal::HandshakeFailed, words),
                ..Call::stranger(n)
            });
        }
        let half = locked(&told.decisions.0.rest);
        assert!(half.bytes() <= 64 * 1024);
        assert_eq!(half.bytes(), half.counted_again());
    }
}
