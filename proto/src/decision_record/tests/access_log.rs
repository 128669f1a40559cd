//! An access log as a recording.

use super::*;

#[test]
fn an_access_log_is_a_recording_of_its_open_lines() {
    let read = read(&log(&[OPEN, STRICT])).unwrap();
    assert_eq!(read.workload, None);
    assert_eq!(
        read.identity,
        Some(id("spiffe://cluster.local/ns/shop/sa/api"))
    );
    assert_eq!(Utc(read.since).to_string(), "2026-11-21T13:00:00.100Z");
    assert_eq!(Utc(read.until).to_string(), "2026-11-21T13:00:01.000Z");
    assert_eq!(read.forgotten, 0);
    let [allowed, refused] = read.records.as_slice() else {
        panic!("{read:?}");
    };
    assert_eq!((allowed.count, allowed.open), (1, 1));
    assert_eq!(allowed.step, Some(Step::AllowRule));
    assert_eq!(allowed.policy.as_ref().unwrap().line, 7);
    assert!(refused.is_plaintext_to_strict());
    assert_eq!(refused.open, 0);
}

#[test]
fn a_connection_is_open_until_its_close_line() {
    let read = read(&log(&[OPEN, CLOSE])).unwrap();
    assert_eq!((read.records[0].count, read.records[0].open), (1, 0));
    assert_eq!(Utc(read.until).to_string(), "2026-11-21T13:00:05.000Z");
    assert_eq!(read.records[0].ended, Some(read.until));
    assert_eq!(read.records[0].last_use(), read.until);
    assert!(read.ends_noted && !read.begins_late);
}

#[test]
fn connections_of_a_run_that_ended_without_a_word_are_not_open() {
    let later = OPEN.replace("06920f1000000000", "06920f2000000000");
    let read = read(&log(&[OPEN, &later])).unwrap();
    assert_eq!((read.records[0].count, read.records[0].open), (2, 1));
    // when it ended nobody knows: no later than the next run began
    assert_eq!(read.records[0].ended, Some(read.until));
    assert!(!read.begins_late);
}

#[test]
fn lines_alike_become_one_record_which_counts_them_and_names_the_latest() {
    let lines: Vec<_> = (0..40)
        .map(|n| {
            OPEN.replace("1000000000", &format!("10000001{n:02}"))
                .replace("13:00:00.100", &format!("13:00:{n:02}.100"))
                .replace(":40001", &format!(":400{n:02}"))
        })
        .collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let read = read(&log(&lines)).unwrap();
    let [record] = read.records.as_slice() else {
        panic!("{read:?}");
    };
    assert_eq!((record.count, record.open), (40, 40));
    assert_eq!(Utc(record.first).to_string(), "2026-11-21T13:00:00.100Z");
    assert_eq!(Utc(record.last).to_string(), "2026-11-21T13:00:39.100Z");
    assert_eq!(record.source.address.port(), 40039);
    assert_eq!(record.connections.len(), MAX_CONNECTIONS_NAMED);
    assert_eq!(record.connections[15].to_string(), "06920f1000000139");
    assert_eq!(read.of_connection(record.connections[0]), Some(record));
    assert_eq!(read.of_connection(ConnectionId(7)), None);
}

#[test]
fn the_line_of_a_connection_that_is_asked_for_is_a_record_of_its_own() {
    let asked = OPEN
        .replace(":40001", ":40000")
        .replace("allowed by", "once allowed by");
    let later: Vec<_> = (2..40)
        .map(|n| OPEN.replace("1000000000", &format!("10000000{n:02}")))
        .collect();
    let mut lines = vec![asked.as_str(), CLOSE];
    lines.extend(later.iter().map(String::as_str));
    let text = log(&lines);
    let id = "06920f1000000000".parse().unwrap();
    assert_eq!(read(&text).unwrap().of_connection(id), None);
    let (read, told) = Recording::read_for(Some(id), "api.log", text.as_bytes()).unwrap();
    let record = read.of_connection(id).unwrap();
    let [told] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!((&told.record, told.is_claimed), (record, false));
    assert_eq!((record.count, record.open), (1, 0));
    assert_eq!(record.source.address.port(), 40000);
    assert!(record.reason.as_deref().unwrap().starts_with("once"));
    let counts: Vec<_> = read.records.iter().map(|it| (it.count, it.open)).collect();
    assert_eq!(counts, [(1, 0), (38, 38)]);
}

#[test]
fn whatever_decides_or_names_somebody_keeps_records_apart() {
    for (from, to) in [
        ("inbound", "outbound"),
        ("10.0.0.9:", "10.0.0.8:"),
        ("sa/web", "sa/shop"),
        (":8080", ":8081"),
        ("\"allow\"", "\"deny\""),
        ("allow-rule", "deny-rule"),
        ("shop/api-from-web\",", "shop/other\","),
        ("policy.yaml:7\",", "policy.yaml:8\","),
        ("\"rule\":0,\"reason", "\"rule\":1,\"reason"),
        (
            "\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\"",
            "\"plaintext\":\"inbound_permissive\"",
        ),
        ("\"decision\"", "\"decided_by\":\"peer\",\"decision\""),
    ] {
        let changed = OPEN.replace(from, to);
        assert_ne!(changed, OPEN, "{from}");
        let text = log(&[OPEN, &changed.replace("1000000000", "1000000002")]);
        // an outbound line has the caller's own identity, which is another workload's here
        if to == "outbound" {
            assert!(refusal(&text).contains("own file"));
        } else {
            assert_eq!(read(&text).unwrap().records.len(), 2, "{to}");
        }
    }
    let other = STRICT.replace("plaintext_to_strict", "limit");
    assert_eq!(read(&log(&[STRICT, &other])).unwrap().records.len(), 2);
}

#[test]
fn dropped_lines_of_a_log_are_forgotten_records_that_may_have_been_let_through() {
    let dropped = r#"{"time":"2026-11-21T13:00:06.000Z","event":"dropped","lines":12}"#;
    let read = read(&log(&[OPEN, dropped, dropped])).unwrap();
    assert_eq!((read.forgotten, read.forgotten_let_through), (24, 24));
}

#[test]
fn the_last_line_of_a_log_may_be_there_in_part() {
    for end in 1..STRICT.len() {
        let text = format!("{OPEN}\n{}", STRICT.get(..end).unwrap());
        assert_eq!(read(&text).unwrap().records.len(), 1, "{end}");
    }
    let whole = format!("{OPEN}\n{STRICT}");
    assert_eq!(read(&whole).unwrap().records.len(), 2);
}

#[test]
fn a_place_that_another_sidecar_names_without_a_line_is_in_line_0() {
    let odd = OPEN.replace(
        "\"policy_source\":\"policy.yaml:7\",\"rule",
        "\"policy_source\":\"somewhere\",\"rule",
    );
    let read = read(&log(&[&odd])).unwrap();
    let policy = read.records[0].policy.clone().unwrap();
    assert_eq!((&*policy.file, policy.line), ("somewhere", 0));
}
