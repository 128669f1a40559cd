//! Logs that hold several runs of a sidecar, or not all of one.

use super::*;

#[test]
fn a_later_line_of_an_earlier_run_ends_nothing_of_the_latest() {
    let other = OPEN.replace("06920f1", "0000001");
    let read = read(&log(&[OPEN, &other, CLOSE])).unwrap();
    assert_eq!((read.records[0].count, read.records[0].open), (2, 1));
}

#[test]
fn a_log_that_begins_after_its_sidecar_says_so() {
    let second = OPEN.replace("1000000000", "1000000001");
    assert!(read(&log(&[&second])).unwrap().begins_late);
    assert!(!read(&log(&[&second, OPEN])).unwrap().begins_late);
    // an end is no beginning
    let ended = read(&log(&[&second, CLOSE])).unwrap();
    assert!(ended.begins_late);
    assert_eq!((ended.forgotten, ended.forgotten_let_through), (1, 1));
    // nor is the beginning of another run
    let next = OPEN.replace("06920f1", "06920f2");
    assert!(read(&log(&[&second, &next])).unwrap().begins_late);
    let dropped = r#"{"time":"2026-11-21T13:00:06.000Z","event":"dropped","lines":12}"#;
    assert!(read(&log(&[dropped])).unwrap().begins_late);
}
