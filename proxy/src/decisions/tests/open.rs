//! Which connections of a record are open still.

use super::*;

#[test]
fn open_connections_are_counted_in_the_record_that_names_them() {
    let told = Told::of(&[Call::plaintext(7), Call::plaintext(8)]);
    assert!(told.records().iter().all(|record| record.open == 0));
    let open = told.open(1, 7);
    let counts: Vec<_> = told
        .records()
        .iter()
        .map(|it| (it.count, it.open))
        .collect();
    assert_eq!(counts.iter().filter(|count| **count == (1, 1)).count(), 1);
    assert_eq!(counts.len(), 2);
    drop(open);
    assert!(told.records().iter().all(|record| record.open == 0));
}

#[test]
fn open_connections_that_are_no_longer_named_are_counted_by_their_facts() {
    let told = Told::new();
    let open: Vec<_> = (1..=100)
        .map(|id| {
            told.tell(&Call {
                id,
                ..Call::plaintext(7)
            });
            told.open(id, 7)
        })
        .collect();
    // the ones that no record names are open, the ones that it names are not
    let unnamed: Vec<_> = open.into_iter().take(50).collect();
    let record = told.only_record();
    assert_eq!((record.count, record.open), (100, 50));
    drop(unnamed);
    assert_eq!(told.only_record().open, 0);
}

#[test]
fn no_record_has_more_open_connections_than_it_counts_and_none_is_left_out() {
    let told = Told::of(&[Call {
        id: 100,
        ..Call::plaintext(7)
    }]);
    let open: Vec<_> = (1..=40).map(|id| told.open(id, 7)).collect();
    let records = told.records();
    let counts: Vec<_> = records.iter().map(|it| (it.count, it.open)).collect();
    assert_eq!(counts, [(1, 1), (39, 39)]);
    let unknown = &records[1];
    assert!(unknown.is_let_through() && unknown.facts().is_some());
    assert_eq!((unknown.first, unknown.last), (at(0), at(1_000)));
    assert_eq!(unknown.connections.len(), MAX_CONNECTIONS_NAMED);
    drop(open);
    assert_eq!(told.records().len(), 1);
}
