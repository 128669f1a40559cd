use std::time::Duration;

use super::*;

const OPEN: &str = r#"{"time":"2026-11-21T13:00:00.100Z","event":"open","conn_id":"06920f1000000000","direction":"inbound","src.addr":"10.0.0.9:40001","src.identity":"spiffe://cluster.local/ns/shop/sa/web","src.serial":"0a","dst.addr":"10.0.0.2:8080","dst.identity":"spiffe://cluster.local/ns/shop/sa/api","dst.serial":"0b","original_dst_claimed":"10.0.0.2","tls.version":"TLSv1.3","tls.group":"X25519MLKEM768","decision":"allow","step":"allow-rule","policy":"shop/api-from-web","policy_source":"policy.yaml:7","rule":0,"reason":"allowed by shop/api-from-web (policy.yaml:7): rules[0].from[0].source.principals matches","recorded":[{"action":"AUDIT","policy":"shop/a","policy_source":"a.yaml:3","rule":0,"dry_run":false}],"trace_id_claimed":"06920f1000000009"}"#;
const CLOSE: &str = r#"{"time":"2026-11-21T13:00:05.000Z","event":"close","conn_id":"06920f1000000000","direction":"inbound","bytes_sent":1,"bytes_recv":2,"duration_ms":4900,"end":"complete"}"#;
const STRICT: &str = r#"{"time":"2026-11-21T13:00:01.000Z","event":"open","conn_id":"06920f1000000002","direction":"inbound","src.addr":"10.0.0.7:5000","dst.addr":"10.0.0.2:8080","decision":"refuse","reason":"plaintext_to_strict","error":"plaintext to port 8080"}"#;

fn read(text: &str) -> Result<Recording, InvalidRecording> {
    Recording::read("api.log", text.as_bytes())
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn log(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) + Duration::from_millis(millis)
}

fn allowed() -> DecisionRecord {
    DecisionRecord {
        first: at(1),
        last: at(2_500),
        direction: Direction::Inbound,
        source: Endpoint {
            address: "10.0.0.9:40001".parse().unwrap(),
            identity: Some(id("spiffe://cluster.local/ns/shop/sa/web")),
        },
        destination: Some(Endpoint {
            address: "[fd00::2]:8080".parse().unwrap(),
            identity: Some(id("spiffe://cluster.local/ns/shop/sa/api")),
        }),
        outcome: Outcome::Allow,
        decided_by_peer: false,
        step: Some(Step::AllowRule),
        policy: Some(SourceRef {
            document: "shop/api-from-web".into(),
            file: "dir/policy:1.yaml".into(),
            line: 7,
        }),
        rule: Some(0),
        reason: Some("allowed \"by\" \u{1b}[2J\u{85}\u{202e} rule".into()),
        plaintext: None,
        error: None,
        count: 3,
        open: 2,
        ended: Some(at(2_700)),
        connections: vec![ConnectionId(1), ConnectionId(2), ConnectionId(3)],
    }
}

fn passed() -> DecisionRecord {
    DecisionRecord {
        direction: Direction::Outbound,
        destination: None,
        outcome: Outcome::Pass,
        step: None,
        policy: None,
        rule: None,
        reason: None,
        plaintext: Some("outbound_dns".into()),
        error: Some("x".into()),
        ..allowed()
    }
}

fn answered() -> DecisionRecord {
    DecisionRecord {
        direction: Direction::Outbound,
        outcome: Outcome::Deny,
        decided_by_peer: true,
        step: None,
        rule: None,
        reason: None,
        open: 0,
        ..allowed()
    }
}

fn recording(records: Vec<DecisionRecord>) -> Recording {
    Recording {
        workload: Some("shop/api-0".into()),
        identity: Some(id("spiffe://cluster.local/ns/shop/sa/api")),
        since: at(0),
        until: at(9_999),
        forgotten: 5,
        forgotten_let_through: 2,
        begins_late: false,
        ends_noted: true,
        records,
    }
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    let bare = Recording {
        workload: None,
        identity: None,
        ..recording(Vec::new())
    };
    for written in [recording(vec![allowed(), passed(), answered()]), bare] {
        assert_eq!(read(&written.to_lines()).unwrap(), written);
    }
}

#[test]
fn a_record_is_one_line_without_control_characters_and_named_as_in_the_access_log() {
    let lines = recording(vec![allowed()]).to_lines();
    assert_eq!(lines.lines().count(), 2);
    assert!(
        !lines
            .chars()
            .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'))
    );
    let line: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    for (field, value) in [
        ("event", "decision"),
        ("time", "2026-11-18T11:06:42.500Z"),
        ("first", "2026-11-18T11:06:40.001Z"),
        ("src.addr", "10.0.0.9:40001"),
        ("dst.identity", "spiffe://cluster.local/ns/shop/sa/api"),
        ("policy_source", "dir/policy:1.yaml:7"),
        ("step", "allow-rule"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["conn_ids"][2], "0000000000000003");
}

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
    let read = Recording::read_for(Some(id), "api.log", text.as_bytes()).unwrap();
    let record = read.of_connection(id).unwrap();
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
fn a_part_of_a_line_anywhere_else_is_refused_where_it_stands() {
    let half = STRICT.get(..60).unwrap();
    let message = refusal(&log(&[OPEN, half, CLOSE]));
    assert!(message.starts_with("api.log:2: "), "{message}");
    // it has its line end
    assert!(refusal(&log(&[OPEN, half])).starts_with("api.log:2: "));
}

#[test]
fn a_page_that_was_saved_in_part_is_refused() {
    let page = recording(vec![allowed(), passed()]).to_lines();
    for end in 1..page.len() - 1 {
        if page.is_char_boundary(end) {
            assert!(read(page.get(..end).unwrap()).is_err(), "{end}");
        }
    }
    // without its last line end it is whole
    assert!(read(page.trim_end()).is_ok());
    let headless: String = page.split_inclusive('\n').skip(1).collect();
    assert!(refusal(&headless).contains("first line is missing"));
}

#[test]
fn pages_and_logs_are_not_mixed_and_each_sidecar_has_its_own_file() {
    let page = recording(vec![allowed()]).to_lines();
    for (text, line, words) in [
        (format!("{page}{page}"), 3, "own file"),
        (format!("{page}{OPEN}\n"), 3, "access log in a saved page"),
        (format!("{OPEN}\n{page}"), 2, "own file"),
        (
            log(&[OPEN, &OPEN.replace("sa/api", "sa/db")]),
            2,
            "own file",
        ),
    ] {
        let message = refusal(&text);
        assert!(
            message.starts_with(&format!("api.log:{line}: ")),
            "{message}"
        );
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn nothing_is_no_recording() {
    for text in ["", "\n", "\n\n", "{\"time\""] {
        assert!(
            refusal(text).contains("nothing is recorded here"),
            "{text:?}"
        );
    }
}

#[test]
fn a_line_that_says_what_no_sidecar_says_is_refused_by_name() {
    for (from, to, words) in [
        ("\"rule\":0,\"reason", "\"rulee\":0,\"reason", "rulee"),
        ("\"rule\":0,\"reason", "\"rule\":-1,\"reason", "-1"),
        ("2026-11-21T13", "2026-11-21 at 13", "RFC 3339"),
        ("06920f1000000000", "6920f1000000000", "conn_id"),
        ("06920f1000000000", "06920F1000000000", "conn_id"),
        ("\"conn_id\":\"06920f1000000000\",", "", "conn_id"),
        ("inbound", "sideways", "inbound, outbound"),
        ("10.0.0.9:40001", "10.0.0.9", "src.addr"),
        (
            "spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://x",
            "src.identity",
        ),
        (
            "\"dst.addr\":\"10.0.0.2:8080\",",
            "",
            "dst.identity without",
        ),
        ("\"allow\"", "\"allowed\"", "allow, deny, refuse"),
        ("allow-rule", "some-rule", "step"),
        (
            "\"policy_source\":\"policy.yaml:7\",\"rule",
            "\"rule",
            "stand together",
        ),
        ("\"event\":\"open\"", "\"event\":\"opened\"", "opened"),
        ("\"event\":\"open\",", "", "event"),
        ("\"decision\"", "\"count\":1,\"decision\"", "count"),
        (
            "\"decision\"",
            "\"plaintext\":\"inbound_permissive\",\"decision\"",
            "proves no identity",
        ),
        (
            "\"dst.addr\":\"10.0.0.2:8080\",\"dst.identity\":\"spiffe://cluster.local/ns/shop/sa/api\",",
            "",
            "there is none",
        ),
        ("\"decision\"", "\"decided_by\":\"me\",\"decision\"", "me"),
        (
            "\"decision\"",
            "\"direction\":\"inbound\",\"decision\"",
            "direction",
        ),
    ] {
        let changed = OPEN.replace(from, to);
        assert_ne!(changed, OPEN, "{from}");
        let message = refusal(&log(&[STRICT, &changed]));
        assert!(message.starts_with("api.log:2: "), "{message}");
        assert!(message.contains(words), "{words} is not in {message}");
    }
}

#[test]
fn a_record_that_can_not_be_is_refused() {
    let page = recording(vec![allowed()]).to_lines();
    for (from, to) in [
        ("\"count\":3", "\"count\":0"),
        ("\"count\":3,", ""),
        ("\"open\":2", "\"open\":4"),
        // later than the page, before the page, first after last
        ("11:06:42.500Z", "11:08:52.500Z"),
        ("11:06:42.700Z", "11:08:52.700Z"),
        ("11:06:40.001Z", "11:04:39.001Z"),
        ("11:06:40.001Z", "11:08:43.001Z"),
        ("11:06:49.999Z", "11:06:39.999Z"),
        ("\"ends_noted\":true", "\"ends_noted\":7"),
        (
            "\"conn_ids\":[",
            "\"conn_id\":\"0000000000000001\",\"conn_ids\":[",
        ),
        (
            "\"0000000000000001\"",
            &["\"0000000000000001\""; 15].join(","),
        ),
        ("\"records\":1", "\"records\":2"),
        ("\"forgotten_let_through\":2", "\"forgotten_let_through\":6"),
        ("shop/api-0", "shop"),
        ("shop/api-0", "shop/\\u001b[2J"),
        ("\"forgotten\":5", "\"forgotten\":5,\"more\":1"),
        (
            "\"identity\":\"spiffe://cluster.local/ns/shop/sa/api\"",
            "\"identity\":\"api\"",
        ),
    ] {
        let changed = page.replacen(from, to, 1);
        assert_ne!(changed, page, "{from}");
        let message = refusal(&changed);
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

#[test]
fn a_line_without_end_is_not_read_to_its_end() {
    let endless = std::io::BufReader::new(std::io::repeat(b' '));
    let error = Recording::read("x", endless).unwrap_err();
    assert_eq!(error.line, 1);
    assert!(error.reason.contains("64 KiB"), "{error}");
    let just_right = format!("{}{OPEN}\n", " ".repeat(MAX_LINE - OPEN.len() - 1));
    assert!(read(&just_right).is_ok());
    assert!(refusal(&format!(" {just_right}")).contains("64 KiB"));
}

/// Lines without anything, for ever.
struct BlankLines(usize);

impl std::io::Read for BlankLines {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(MAX_LINE - self.0);
        bytes[..count].fill(b' ');
        self.0 += count;
        if self.0 == MAX_LINE {
            bytes[count - 1] = b'\n';
            self.0 = 0;
        }
        Ok(count)
    }
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let endless = std::io::BufReader::with_capacity(MAX_LINE, BlankLines(0));
    let error = Recording::read("x", endless).unwrap_err();
    assert!(error.reason.contains("256 MiB"), "{error}");
    assert_eq!(error.line, MAX_RECORDING / MAX_LINE as u64 + 1);
}

#[test]
fn a_file_that_is_not_text_is_refused_and_its_name_can_not_steer_a_terminal() {
    let bytes: &[u8] = b"\xff\xfe\n";
    let message = Recording::read("a\u{1b}[2Jb", bytes)
        .unwrap_err()
        .to_string();
    assert_eq!(message, "a\\u{1b}[2Jb:1: it is not UTF-8");
    let field = OPEN.replace("\"rule\"", "\"\u{202e}\u{85}rule\"");
    let message = refusal(&log(&[&field]));
    let steers = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!message.chars().any(steers), "{message:?}");
}

#[test]
fn policy_has_facts_of_what_came_in_and_came_as_far_as_policy() {
    let denied = |direction, decided_by_peer| DecisionRecord {
        outcome: Outcome::Deny,
        direction,
        decided_by_peer,
        ..allowed()
    };
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let wanted = Facts {
        caller: Caller::Authenticated(&web),
        source: "10.0.0.9".parse().unwrap(),
        port: 8080,
    };
    assert_eq!(allowed().facts(), Some(wanted));
    assert_eq!(denied(Direction::Inbound, false).facts(), Some(wanted));
    assert_eq!(denied(Direction::Outbound, false).facts(), None);
    assert_eq!(denied(Direction::Inbound, true).facts(), None);
    assert_eq!(passed().facts(), None);
    let strict = read(&log(&[STRICT])).unwrap();
    assert_eq!(strict.records[0].facts().unwrap().caller, Caller::Plaintext);
    let other = read(&log(&[&STRICT.replace("plaintext_to_strict", "limit")])).unwrap();
    assert_eq!(other.records[0].facts(), None);
}

#[test]
fn only_what_was_forwarded_was_let_through() {
    let through: Vec<_> = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_let_through())
        .map(Outcome::as_str)
        .collect();
    assert_eq!(through, ["allow", "pass"]);
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

#[test]
fn every_step_is_known_by_its_name() {
    for step in [
        Step::StrictPort,
        Step::BrokenDocument,
        Step::DenyRule,
        Step::AllowRule,
        Step::NoAllowRule,
        Step::DefaultAction,
        Step::MutualTlsMode,
    ] {
        assert_eq!(step_named(step.as_str()), Some(step));
    }
    assert_eq!(step_named("Allow-Rule"), None);
}

mod hostile;
mod runs;

mod times {
    use super::*;

    fn utc(seconds: u64, millis: u64) -> String {
        let at =
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
        Utc(at).to_string()
    }

    #[test]
    fn are_written_as_rfc_3339_has_them() {
        assert_eq!(utc(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(utc(951_782_400, 1), "2000-02-29T00:00:00.001Z");
        assert_eq!(utc(951_868_800, 0), "2000-03-01T00:00:00.000Z");
        assert_eq!(utc(1_795_219_618, 70), "2026-11-21T00:06:58.070Z");
        assert_eq!(utc(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn are_the_same_days_as_in_another_calendar_for_four_hundred_years() {
        for day in (0..146_097_u64).step_by(13) {
            let unix = i64::try_from(day * 86_400).unwrap();
            let date = time::OffsetDateTime::from_unix_timestamp(unix).unwrap();
            let expected = format!(
                "{:04}-{:02}-{:02}T00:00:00.000Z",
                date.year(),
                u8::from(date.month()),
                date.day()
            );
            assert_eq!(utc(day * 86_400, 0), expected);
            assert_eq!(utc::parse(&expected), Some(SystemTime::from(date)));
        }
    }

    #[test]
    fn before_1970_are_written_as_1970_and_not_read() {
        let at = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(Utc(at).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc::parse("1969-12-31T23:59:59.000Z"), None);
    }
}
