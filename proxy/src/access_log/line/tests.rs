use super::*;

fn escaped(text: &str) -> String {
    let mut out = String::new();
    Escaped(&mut out).write_str(text).unwrap();
    out
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
