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

/// The open line of a connection of a run, so many seconds after 13:00.
fn opened(run: &str, number: u64, seconds: u64) -> String {
    let time = format!("13:{:02}:{:02}.100Z", seconds / 60, seconds % 60);
    OPEN.replace("06920f1000000000", &format!("{run}{number:09x}"))
        .replace("13:00:00.100Z", &time)
}

fn lost(lines: &[String]) -> (u64, u64) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let read = read(&text).unwrap();
    assert!(!read.begins_late);
    (read.forgotten, read.forgotten_let_through)
}

/// One each ten seconds, for a quarter of an hour.
fn quarter(run: &str) -> Vec<String> {
    (0..90)
        .map(|number| opened(run, number, 10 * number))
        .collect()
}

#[test]
fn connections_that_no_line_tells_of_are_lost_though_nothing_else_says_so() {
    let mut lines = quarter("06920f1");
    assert_eq!(lost(&lines), (0, 0));
    lines.drain(20..50);
    assert_eq!(lost(&lines), (30, 30), "opened and closed in a lost file");
    // of each run for itself: their ids are apart by chance
    lines.extend(quarter("0000001"));
    assert_eq!(lost(&lines), (30, 30));
    lines.retain(|line| !line.contains("0000001000000003"));
    assert_eq!(lost(&lines), (31, 31));
    // in whatever order its parts were put together
    lines.reverse();
    assert_eq!(lost(&lines), (31, 31));
    // the log itself says of some of them that they are lost
    let dropped = |count| {
        format!(r#"{{"time":"2026-11-21T13:01:00.000Z","event":"dropped","lines":{count}}}"#)
    };
    lines.push(dropped(7));
    assert_eq!(lost(&lines), (31, 31));
    lines.push(dropped(70));
    assert_eq!(lost(&lines), (77, 77));
}

#[test]
fn connections_that_are_being_decided_when_a_log_ends_are_not_lost() {
    let mut lines = quarter("06920f1");
    lines.retain(|line| !line.contains("06920f1000000057"));
    assert_eq!(lost(&lines), (0, 0), "ten seconds before the end");
    // a minute later its line must be there
    let later = opened("06920f1", 90, 10 * 88 + 61);
    lines.push(later);
    assert_eq!(lost(&lines), (1, 1));
    // the one before it took long, the one after it did not: that was more than a minute ago
    let mut lines = quarter("06920f1");
    lines.push(opened("06920f1", 90, 895));
    lines.push(opened("06920f1", 92, 829));
    assert_eq!(lost(&lines), (1, 1));
    // it may have come at once after the one before it, which is long ago
    let mut lines = quarter("06920f1");
    lines.truncate(70);
    lines.push(opened("06920f1", 71, 10 * 89));
    assert_eq!(lost(&lines), (1, 1));
}

#[test]
fn so_many_as_are_never_decided_on_at_once_are_lost() {
    for (missing, expected) in [(64, 0), (65, 65)] {
        let mut lines = quarter("06920f1");
        lines.push(opened("06920f1", 90 + missing, 895));
        assert_eq!(lost(&lines), (expected, expected));
    }
}

#[test]
fn the_end_of_a_connection_is_no_line_of_its_decision() {
    let mut lines = quarter("06920f1");
    lines.remove(40);
    lines.push(
        CLOSE
            .replace("1000000000", "1000000028")
            .replace("13:00:05", "13:14:59"),
    );
    assert_eq!(lost(&lines), (1, 1));
    // one without a line, of which only the end of a later one tells
    lines.push(
        CLOSE
            .replace("1000000000", "100000005b")
            .replace("13:00:05", "13:19:59"),
    );
    assert_eq!(lost(&lines), (3, 3));
}

#[test]
fn a_file_whose_parts_are_in_the_wrong_order_says_the_same_of_ends() {
    let text = log(&[CLOSE, OPEN]);
    let read = read(&text).unwrap();
    assert_eq!((read.records[0].open, read.forgotten), (0, 0));
    assert_eq!(read.records[0].ended, Some(read.until));
}

#[test]
fn a_run_ends_another_only_if_it_is_the_later_one_of_the_two() {
    let early = opened("0000001", 0, 10);
    let late = opened("06920f1", 0, 20);
    // restarted between the two
    let in_order = read(&log(&[&early, &late])).unwrap();
    assert_eq!(
        (in_order.records[0].count, in_order.records[0].open),
        (2, 1)
    );
    // the older file comes last: what the later run let through is not over
    let reversed = read(&log(&[&late, &early])).unwrap();
    assert_eq!(reversed.records[0].open, 2);
    // two sidecars in one file
    let again = opened("0000001", 1, 30);
    let mixed = read(&log(&[&early, &late, &again])).unwrap();
    assert_eq!(mixed.records[0].open, 3);
}
