use proptest::prelude::*;

use super::*;

fn source(document: &str, file: &str, line: u32) -> SourceRef {
    SourceRef {
        document: document.into(),
        file: file.into(),
        line,
    }
}

fn status() -> impl Strategy<Value = Status> {
    (0u8..=6).prop_map(|byte| Status::decode(byte).unwrap())
}

/// An answer made by hand.
fn raw(status: u8, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![status, u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text);
    bytes
}

fn named(encoded: &EncodedAnswer) -> DecidedBy<'_> {
    let (answer, taken) = Answer::decode(encoded.as_slice()).unwrap().unwrap();
    assert_eq!(taken, encoded.as_slice().len());
    answer.decided_by.unwrap()
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_and_what_the_application_says_is_left(
        status in status(),
        document in "[a-z0-9-]{1,60}/[a-z0-9.-]{1,30}",
        file in "[!-~ ]{1,80}",
        line in any::<u32>(),
        app_bytes in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let encoded = EncodedAnswer::new(status, Some(&source(&document, &file, line)));
        let mut bytes = encoded.as_slice().to_vec();
        bytes.extend_from_slice(&app_bytes);
        let (answer, taken) = Answer::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!(taken, encoded.as_slice().len());
        prop_assert_eq!(answer.status, status);
        let decided_by = answer.decided_by.unwrap();
        prop_assert_eq!(decided_by.policy(), document);
        prop_assert_eq!(decided_by.source(), format!("{file}:{line}"));
    }

    #[test]
    fn every_truncation_asks_for_more(
        status in status(), document in "\\PC{1,250}", file in "\\PC{1,250}", line in any::<u32>(),
    ) {
        let encoded = EncodedAnswer::new(status, Some(&source(&document, &file, line)));
        for length in 0..encoded.as_slice().len() {
            prop_assert_eq!(Answer::decode(&encoded.as_slice()[..length]), Ok(None));
        }
    }

    #[test]
    fn whatever_a_document_is_called_the_answer_is_one_and_names_the_line(
        document in any::<String>(), file in any::<String>(), line in any::<u32>(),
    ) {
        let encoded = EncodedAnswer::new(Status::Denied, Some(&source(&document, &file, line)));
        prop_assert!(encoded.as_slice().len() <= MAX_ANSWER);
        let place = format!(":{line}");
        prop_assert!(named(&encoded).source().ends_with(&place));
    }

    #[test]
    fn arbitrary_bytes_never_take_more_than_is_there_and_never_hold_up_for_more_than_an_answer(
        bytes in proptest::collection::vec(any::<u8>(), 0..260)
    ) {
        match Answer::decode(&bytes) {
            Ok(Some((_, taken))) => prop_assert!(taken <= bytes.len() && taken <= MAX_ANSWER),
            Ok(None) => prop_assert!(bytes.len() < MAX_ANSWER),
            Err(_) => {}
        }
    }
}

#[test]
fn every_status_is_one_byte_and_unknown_bytes_are_none() {
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|byte| Status::decode(*byte).is_some())
        .collect();
    assert_eq!(known, [0, 1, 2, 3, 4, 5, 6]);
    for byte in known {
        assert_eq!(Status::decode(byte).map(Status::encode), Some(byte));
    }
}

#[test]
fn an_answer_that_no_policy_decided_is_two_bytes() {
    let encoded = EncodedAnswer::new(Status::Overloaded, None);
    assert_eq!(encoded.as_slice(), [6, 0]);
    let answer = Answer {
        status: Status::Overloaded,
        decided_by: None,
    };
    assert_eq!(Answer::decode(&[6, 0]), Ok(Some((answer, 2))));
}

#[test]
fn a_name_stands_on_the_wire_as_a_person_reads_it() {
    let policy = source("shop/api-from-web", "policy.yaml", 12);
    let encoded = EncodedAnswer::new(Status::Denied, Some(&policy));
    assert_eq!(encoded.as_slice()[..2], [1, 34]);
    assert_eq!(
        &encoded.as_slice()[2..],
        b"shop/api-from-web (policy.yaml:12)"
    );
    // what is built in, as the policy index names it
    let built_in = source("the shipped default", "built in", 0);
    let encoded = EncodedAnswer::new(Status::Denied, Some(&built_in));
    assert_eq!(named(&encoded).policy(), "the shipped default");
    assert_eq!(named(&encoded).source(), "built in:0");
}

#[test]
fn long_names_are_cut_between_characters_and_the_ends_that_tell_apart_are_kept() {
    let document = format!("shop/{}", "ä".repeat(150));
    let file = format!("{}/api.yaml", "ö".repeat(150));
    let encoded = EncodedAnswer::new(Status::Ok, Some(&source(&document, &file, u32::MAX)));
    let decided_by = named(&encoded);
    assert!(decided_by.as_str().len() <= MAX_DECIDED_BY);
    assert!(decided_by.as_str().len() >= MAX_DECIDED_BY - 4);
    assert!(decided_by.policy().starts_with("shop/ää"));
    assert!(decided_by.policy().ends_with("ä…"));
    assert!(decided_by.source().starts_with("…ö"));
    assert!(decided_by.source().ends_with("ö/api.yaml:4294967295"));
    // a long one has the room that a short one leaves
    let file = format!("{}/api.yaml", "ö".repeat(70));
    let encoded = EncodedAnswer::new(Status::Ok, Some(&source("shop/api", &file, 1)));
    assert_eq!(named(&encoded).source(), format!("{file}:1"));
}

#[test]
fn names_that_could_be_taken_for_something_else_are_made_harmless() {
    let hostile = source("a (b/c", "x\ny\u{1b}[2J\u{202e}.yaml", 3);
    let encoded = EncodedAnswer::new(Status::Denied, Some(&hostile));
    assert_eq!(named(&encoded).policy(), "a ?b/c");
    assert_eq!(named(&encoded).source(), "x?y?[2J?.yaml:3");
    let nameless = EncodedAnswer::new(Status::Denied, Some(&source("", "", 0)));
    assert_eq!(named(&nameless).as_str(), "? (:0)");
}

#[test]
fn refuses_each_broken_part_by_name() {
    assert_eq!(Answer::decode(&[7]), Err(InvalidAnswer::Status(7)));
    assert_eq!(Answer::decode(b"HTTP"), Err(InvalidAnswer::Status(b'H')));
    assert_eq!(Answer::decode(&[0, 201]), Err(InvalidAnswer::TooLong(201)));
    let not_visible: [&[u8]; 7] = [
        b"a (b:1)\n",
        b"a\x00 (b:1)",
        b"a (b\x1b[2J:1)",
        b"a\xff (b:1)",
        "a\u{2028} (b:1)".as_bytes(),
        "a\u{202e} (b:1)".as_bytes(),
        "a\u{85} (b:1)".as_bytes(),
    ];
    for text in not_visible {
        assert_eq!(
            Answer::decode(&raw(1, text)),
            Err(InvalidAnswer::NotVisible),
            "{text:?}"
        );
    }
    for text in ["a", "a b:1", "a (b:1", " (b:1)", "a ()", ")", " ()"] {
        assert_eq!(
            Answer::decode(&raw(1, text.as_bytes())),
            Err(InvalidAnswer::Nameless),
            "{text:?}"
        );
    }
}

#[test]
fn a_character_cut_by_the_length_is_refused() {
    let mut bytes = raw(0, "a (ä".as_bytes());
    bytes[1] -= 1;
    assert_eq!(Answer::decode(&bytes), Err(InvalidAnswer::NotVisible));
}
