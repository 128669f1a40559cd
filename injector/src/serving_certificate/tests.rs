use std::time::{Duration, SystemTime};

use super::*;
use crate::clock::from_unix_seconds;

const DAY: Duration = Duration::from_secs(86_400);

fn begin() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn name() -> ServerName {
    ServerName::new("mesh-lite-injector", "mesh-lite-system")
}

fn first() -> Generations {
    Generations::create(&name(), begin()).unwrap()
}

#[track_caller]
fn changed(step: Result<Step, GenerationError>, wanted: Change) -> Generations {
    match step.unwrap() {
        Step::Write(generations, change) => {
            assert_eq!(change, wanted);
            *generations
        }
        Step::Rest => panic!("nothing happened instead of {wanted:?}"),
    }
}

fn rests(step: Result<Step, GenerationError>) -> bool {
    matches!(step, Ok(Step::Rest))
}

fn again(generations: &Generations) -> Generations {
    Generations::read(&generations.write(), &name()).unwrap()
}

#[test]
fn the_next_is_made_at_half_life_and_not_before() {
    let generations = first();
    for settled in [false, true] {
        assert!(rests(generations.step(&name(), settled, begin())));
        let before = begin() + 14 * DAY;
        assert!(rests(generations.step(&name(), settled, before)));
    }
    let after = begin() + 15 * DAY;
    changed(generations.step(&name(), true, after), Change::Prepared);
}

#[test]
fn the_next_is_trusted_before_it_is_served_and_the_previous_still_after() {
    let old = first();
    let later = begin() + 16 * DAY;
    let prepared = again(&changed(old.step(&name(), false, later), Change::Prepared));
    assert!(prepared.active() == old.active(), "served too early");
    assert_eq!(prepared.ca_bundle().matches("BEGIN CERT").count(), 2);
    assert!(prepared.ca_bundle().contains(old.active().authority()));
    assert!(rests(prepared.step(&name(), false, later + DAY)));

    let new = again(&changed(
        prepared.step(&name(), true, later),
        Change::Activated,
    ));
    assert!(new.active() != old.active());
    assert!(new.ca_bundle().contains(old.active().authority()));
    assert!(new.ca_bundle().contains(new.active().authority()));
    assert!(rests(new.step(&name(), true, later)));
    // the same CAs as before it was served: no API server has to learn anything at that moment
    assert_eq!(new.ca_bundle(), prepared.ca_bundle());
}

#[test]
fn what_nobody_would_accept_any_more_is_replaced_at_once() {
    let expired = first();
    let new = changed(
        expired.step(&name(), false, begin() + 31 * DAY),
        Change::Replaced,
    );
    assert!(new.active() != expired.active());
    // an old next one that expired with it is no way out
    let prepared = changed(
        expired.step(&name(), false, begin() + 16 * DAY),
        Change::Prepared,
    );
    let at = begin() + 47 * DAY;
    let new = changed(prepared.step(&name(), false, at), Change::Replaced);
    assert!(rests(new.step(&name(), false, at)));
}

#[test]
fn a_secret_that_is_not_ours_is_never_served() {
    let good = first().write();
    let other = first().write();
    for key in ["ca.crt", "tls.crt", "tls.key"] {
        let mut without = good.clone();
        without.remove(key);
        assert!(Generations::read(&without, &name()).is_err(), "no {key}");
        let mut mixed = good.clone();
        mixed.insert(key.to_owned(), other[key].clone());
        assert!(Generations::read(&mixed, &name()).is_err(), "other {key}");
        let mut twice = good.clone();
        let more = [good[key].as_slice(), &other[key]].concat();
        twice.insert(key.to_owned(), more);
        if key != "tls.key" {
            assert!(Generations::read(&twice, &name()).is_err(), "two {key}");
        }
    }
    let elsewhere = ServerName::new("mesh-lite-injector", "another");
    assert!(Generations::read(&good, &elsewhere).is_err());
    assert!(Generations::read(&good, &name()).is_ok());
}

#[test]
fn a_next_or_previous_one_that_cannot_be_read_is_none() {
    let mut data = first().write();
    data.insert("next-ca.crt".to_owned(), b"x".to_vec());
    data.insert("previous-ca.crt".to_owned(), data["tls.crt"].clone());
    let generations = Generations::read(&data, &name()).unwrap();
    assert_eq!(
        generations.ca_bundle().trim_end(),
        generations.active().authority().trim_end()
    );
}

#[test]
fn the_key_of_the_ca_is_nowhere() {
    let data = first().write();
    let keys: Vec<&String> = data
        .iter()
        .filter(|(_, value)| String::from_utf8_lossy(value).contains("PRIVATE KEY"))
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, ["tls.key"]);
    let shown = format!("{:?}", first().active());
    assert!(!shown.contains("PRIVATE"), "{shown}");
}
