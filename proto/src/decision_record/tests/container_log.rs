//! What a container writes: its access log, and its own log between the lines.

use super::*;

const JSON: &str = r#"{"timestamp":"2026-11-21T20:13:42.678454Z","level":"INFO","fields":{"message":"ready","part":"drain"},"target":"mesh_lite_proxy::readiness"}"#;
const TEXT: &str = "2026-11-21T20:13:42.678454Z  INFO ready part=\"drain\"";
const COLOURED: &str = "\u{1b}[2m2026-11-21T20:13:42.678454Z\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m not ready \u{1b}[3mpart\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"drain\"";

#[test]
fn lines_of_the_sidecar_s_own_log_are_passed_over() {
    let spans = JSON.replace(
        "\"target\"",
        "\"span\":{\"name\":\"x\"},\"spans\":[{\"name\":\"x\"}],\"target\"",
    );
    let mixed = log(&[JSON, OPEN, TEXT, COLOURED, STRICT, &spans, CLOSE, JSON]);
    assert_eq!(
        read(&mixed).unwrap(),
        read(&log(&[OPEN, STRICT, CLOSE])).unwrap()
    );
}

#[test]
fn a_line_that_may_have_been_one_of_the_access_log_is_refused() {
    let half = |text: &str| text.get(..text.len() / 2).unwrap().to_owned();
    let rest = |text: &str| text.get(text.len() / 2..).unwrap().to_owned();
    for line in [
        half(OPEN),
        rest(OPEN),
        half(CLOSE),
        rest(CLOSE),
        // broken by a line of the other log, or behind one
        format!("{}{JSON}", half(OPEN)),
        format!("{}{TEXT}", half(OPEN)),
        format!("{JSON}{OPEN}"),
        format!("{TEXT} {OPEN}"),
        format!("{TEXT}{}", rest(OPEN)),
        format!("{}{}", half(JSON), rest(OPEN)),
        half(JSON),
        // not quite as the sidecar writes them
        JSON.replace("INFO", "open"),
        JSON.replace("2026-11-21T20:13:42.678454Z", "today"),
        JSON.replace("\"target\"", "\"event\":\"open\",\"target\""),
        JSON.replace("\"target\"", "\"conn_id\":\"06920f1000000000\",\"target\""),
        JSON.replace("\"level\":\"INFO\",", ""),
        JSON.replace("{\"message\":\"ready\",\"part\":\"drain\"}", "7"),
        TEXT.replace("INFO", "SAYS"),
        TEXT.replace("2026-11-21T20:13:42.678454Z", "20:13"),
        format!("prefix {JSON}"),
        "thread 'main' panicked at src/main.rs:1:1:".to_owned(),
    ] {
        let message = refusal(&log(&[OPEN, &line, CLOSE]));
        assert!(message.starts_with("api.log:2: "), "{line}: {message}");
    }
}

#[test]
fn what_is_missing_among_them_is_missed() {
    let last = OPEN
        .replace("1000000000", "1000000002")
        .replace("13:00:00", "13:09:00");
    let read = read(&log(&[OPEN, CLOSE, JSON, &last])).unwrap();
    assert_eq!(read.forgotten_let_through, 1);
}

#[test]
fn its_own_log_alone_is_no_recording_and_has_no_place_in_a_page() {
    assert!(refusal(&log(&[JSON, TEXT])).contains("--access-log"));
    let page = recording(vec![allowed()]).to_lines();
    assert!(refusal(&format!("{page}{JSON}\n")).starts_with("api.log:3: "));
    assert!(refusal(&format!("{JSON}\n{page}")).starts_with("api.log:2: "));
}
