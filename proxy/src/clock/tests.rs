use super::*;

fn skew(date: &str, now: u64) -> Option<i64> {
    let mut metadata = MetadataMap::new();
    metadata.insert("date", date.parse().unwrap());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
    ClockSkew::measured(&metadata, now).map(|skew| skew.seconds)
}

#[test]
fn a_moment_before_1970_counts_as_its_beginning() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(unix(at(784_111_777)), 784_111_777);
    assert_eq!(unix(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
}

#[test]
fn a_span_is_told_in_its_largest_unit() {
    let told = |seconds| in_words(Duration::from_secs(seconds));
    assert_eq!(told(0), "0 s");
    assert_eq!(told(119), "119 s");
    assert_eq!(told(120), "2 min");
    assert_eq!(told(3 * 3600 + 59), "3 h");
    assert_eq!(told(3 * 3600 - 1), "3 h");
    assert_eq!(told(47 * 3600), "47 h");
    assert_eq!(told(30 * 24 * 3600), "30 days");
}

#[test]
fn measures_how_far_the_clocks_are_apart() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(skew(date, 784_111_777), Some(0));
    assert_eq!(skew(date, 784_111_777 + 300), Some(300));
    assert_eq!(skew(date, 784_111_777 - 5), Some(-5));
    assert!(
        ClockSkew { seconds: 300 }
            .to_string()
            .contains("5 min ahead")
    );
}

#[test]
fn a_date_that_is_none_measures_nothing() {
    for date in [
        "",
        "yesterday",
        "1994-11-06T08:49:37Z",
        "Sun, 99 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(skew(date, 0), None, "{date}");
    }
    assert_eq!(
        ClockSkew::measured(&MetadataMap::new(), SystemTime::UNIX_EPOCH),
        None
    );
}
