//! Times as lines have them.

use super::*;

fn utc(seconds: u64, millis: u64) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis);
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
