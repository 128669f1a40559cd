use super::*;

fn escaped(text: &str) -> String {
    let mut out = String::new();
    Escaped(&mut out).write_str(text).unwrap();
    out
}

fn utc(seconds: u64, millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
    Utc(at).to_string()
}

#[test]
fn writes_times_as_rfc_3339_has_them() {
    assert_eq!(utc(0, 0), "1970-01-01T00:00:00.000Z");
    assert_eq!(utc(951_782_399, 999), "2000-02-28T23:59:59.999Z");
    assert_eq!(utc(951_782_400, 1), "2000-02-29T00:00:00.001Z");
    assert_eq!(utc(951_868_800, 0), "2000-03-01T00:00:00.000Z");
    assert_eq!(utc(1_795_219_618, 70), "2026-11-21T00:06:58.070Z");
    assert_eq!(utc(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
}

#[test]
fn writes_the_same_days_as_another_calendar_for_four_hundred_years() {
    for day in (0..146_097_u64).step_by(13) {
        let date = time::OffsetDateTime::from_unix_timestamp(i64::try_from(day * 86_400).unwrap())
            .unwrap()
            .date();
        let expected = (
            u64::try_from(date.year()).unwrap(),
            u64::from(u8::from(date.month())),
            u64::from(date.day()),
        );
        assert_eq!(civil(day), expected, "day {day}");
    }
}

#[test]
fn a_time_before_1970_is_1970() {
    let at = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(Utc(at).to_string(), "1970-01-01T00:00:00.000Z");
}

#[test]
fn what_is_escaped_reads_back_as_it_was() {
    for text in [
        "plain",
        "a\"b\\c",
        "line\nend\r\t",
        "\u{0}\u{1b}[2J\u{7f}\u{85}\u{2028}",
        "héß 🦀",
    ] {
        let read: String = serde_json::from_str(&format!("\"{}\"", escaped(text))).unwrap();
        assert_eq!(read, text);
    }
}

#[test]
fn nothing_escaped_holds_a_control_character() {
    let all: String = (0..0x2100_u32).filter_map(char::from_u32).collect();
    assert!(
        !escaped(&all)
            .chars()
            .any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}')
    );
}
