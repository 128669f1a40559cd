//! The lines of one connection, for who asks for it.

use super::*;

const TRACE: &str = "06920f1000000009";

fn told(id: &str, lines: &[&str]) -> Vec<LoggedConnection> {
    let id = Some(id.parse().unwrap());
    Recording::read_for(id, "api.log", log(lines).as_bytes())
        .unwrap()
        .1
}

#[test]
fn how_it_ended_is_told_in_the_words_of_its_line_which_are_cut_if_they_are_many() {
    let cut = CLOSE.replace(
        "\"complete\"",
        "\"policy_changed\",\"error\":\"no ALLOW rule matches\"",
    );
    let [only] = &told("06920f1000000000", &[OPEN, &cut])[..] else {
        panic!("one")
    };
    let ending = only.ending.as_ref().unwrap();
    assert_eq!(ending.end.as_deref(), Some("policy_changed"));
    assert_eq!(ending.error.as_deref(), Some("no ALLOW rule matches"));
    assert_eq!(Utc(ending.at).to_string(), "2026-11-21T13:00:05.000Z");
    assert!(ending.is_cut() && only.record.open == 0);

    let long = cut.replace("no ALLOW", &"é".repeat(MAX_REASON));
    let only = &told("06920f1000000000", &[OPEN, &long])[0];
    let error = only.ending.as_ref().unwrap().error.as_deref().unwrap();
    assert!(error.len() <= MAX_REASON && error.ends_with('…'), "{error}");
    let only = &told("06920f1000000000", &[OPEN, CLOSE])[0];
    assert!(!only.ending.as_ref().unwrap().is_cut());
    let only = &told("06920f1000000000", &[OPEN])[0];
    assert_eq!((&only.ending, only.record.open), (&None, 1));
}

#[test]
fn the_one_that_a_caller_claims_is_told_as_claimed() {
    let [only] = &told(TRACE, &[OPEN, CLOSE])[..] else {
        panic!("one")
    };
    assert!(only.is_claimed && only.ending.is_some());
    assert_eq!(only.id.to_string(), "06920f1000000000");
    assert!(!told("06920f1000000000", &[OPEN])[0].is_claimed);
    assert_eq!(told("0000000000000001", &[OPEN, CLOSE]), []);
}

#[test]
fn one_id_claimed_for_all_connections_does_not_tell_of_all() {
    let lines: Vec<_> = (0..40)
        .map(|n| OPEN.replace("1000000000", &format!("10000000{n:02}")))
        .collect();
    let mut lines: Vec<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(told("06920f1000000009", &lines).len(), MAX_CLAIMS + 1);
    // the one that has the id is told of, however many claim it before
    let own = OPEN.replace("1000000000", "1000000099");
    let claimed = OPEN.replace("06920f1000000009", "06920f1000000099");
    let claims = vec![claimed.as_str(); 40];
    lines = claims;
    lines.push(&own);
    let told = told("06920f1000000099", &lines);
    assert_eq!(told.iter().filter(|told| !told.is_claimed).count(), 1);
}

#[test]
fn what_its_application_dialled_is_told_if_the_kernel_says_so() {
    let refused = STRICT.replace(
        "\"dst.addr\":\"10.0.0.2:8080\"",
        "\"original_dst\":\"10.0.0.4:8080\"",
    );
    let only = &told("06920f1000000002", &[&refused])[0];
    assert_eq!(only.original_destination, "10.0.0.4:8080".parse().ok());
    assert_eq!(only.record.destination, None);
    // where the caller says so, it is no fact
    assert_eq!(
        told("06920f1000000000", &[OPEN])[0].original_destination,
        None
    );
}
