use super::*;

fn away() -> Reason {
    Reason::Away("watches are refused".to_owned())
}

fn list() -> Change<()> {
    Change::All(BTreeMap::new())
}

/// A list, then a watch that fails.
fn round(health: &mut Health, now: Instant) -> (Option<Trouble>, Duration) {
    health.heard(Some(&list()), now);
    (health.failed(away()), health.next_pause())
}

#[test]
fn lists_that_work_do_not_hide_that_watches_fail() {
    let start = Instant::now();
    let mut health = Health::new();
    let (said, _) = round(&mut health, start);
    assert_eq!(said, None, "once is no trouble");
    let mut pauses = Vec::new();
    for second in 1..8 {
        let now = start + Duration::from_secs(second);
        let (said, pause) = round(&mut health, now);
        // it is as old as the list is
        assert_eq!(said.map(|trouble| trouble.since), Some(now));
        pauses.push(pause);
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
}

#[test]
fn a_list_in_a_trouble_says_how_new_it_is_and_ends_nothing() {
    let start = Instant::now();
    let mut health = Health::new();
    round(&mut health, start);
    round(&mut health, start);
    let later = start + Duration::from_secs(9);
    let told = health.heard(Some(&list()), later);
    assert_eq!(told.flatten().map(|trouble| trouble.since), Some(later));
    assert!(!health.is_well());
}

#[test]
fn a_change_ends_a_trouble_and_its_pauses() {
    let now = Instant::now();
    let mut health = Health::new();
    for _ in 0..5 {
        round(&mut health, now);
    }
    health.heard(Some(&list()), now);
    let gone: Change<()> = Change::Gone(ObjectName {
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
    });
    assert_eq!(health.heard(Some(&gone), now), Some(None));
    assert!(health.is_well());
}

#[test]
fn a_watch_that_holds_ends_a_trouble_first_and_its_pauses_later() {
    let now = Instant::now();
    let mut health = Health::new();
    for _ in 0..5 {
        round(&mut health, now);
    }
    health.heard(Some(&list()), now);
    assert_eq!(health.heard::<()>(None, now), Some(None));
    assert_eq!(health.next_pause(), LONGEST_PAUSE);
    health.heard(Some(&list()), now);
    assert_eq!(health.heard::<()>(None, now), None);
    assert!(health.is_well());
}
