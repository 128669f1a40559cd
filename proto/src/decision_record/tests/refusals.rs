//! What is no recording, and where it says so.

use super::*;

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
