//! The tunnel's answer: the first bytes that a server sends inside TLS, some of which get into
//! the dialler's log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_lite_proto::{
    authorization::SourceRef,
    tunnel::{Answer, EncodedAnswer, MAX_ANSWER, Status},
};

fuzz_target!(|bytes: &[u8]| {
    match Answer::decode(bytes) {
        Ok(Some((answer, taken))) => {
            assert!(taken <= MAX_ANSWER && taken <= bytes.len());
            assert_eq!(bytes[0], answer.status.encode());
            let text = answer.decided_by.map(|named| named.as_str()).unwrap_or_default();
            assert_eq!(text.as_bytes(), &bytes[2..taken], "one answer has one wire form");
            assert!(!text.chars().any(char::is_control), "it ends no line of a log");
            if let Some(named) = answer.decided_by {
                assert_eq!(format!("{} ({})", named.policy(), named.source()), text);
                assert!(!named.policy().is_empty() && !named.source().is_empty());
            }
            // what follows belongs to the application and changes nothing
            assert_eq!(Answer::decode(&bytes[..taken]), Ok(Some((answer, taken))));
            // no part of it is an answer, and no part of it is refused
            for cut in 0..taken {
                assert_eq!(Answer::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_ANSWER, "a reader waits for no more than an answer");
        }
        // what was refused stays refused, whatever comes behind it
        Err(error) => {
            let mut more = bytes.to_vec();
            more.extend_from_slice(&[0; MAX_ANSWER]);
            assert_eq!(Answer::decode(&more), Err(error));
        }
    }
    // whatever documents and files are called, what we send is an answer
    if let Some((document, file)) = std::str::from_utf8(bytes).ok().and_then(|t| t.split_once('\n')) {
        let line = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let source = SourceRef { document: document.into(), file: file.into(), line };
        let encoded = EncodedAnswer::new(Status::Denied, Some(&source));
        let (answer, taken) = Answer::decode(encoded.as_slice()).unwrap().unwrap();
        assert_eq!(taken, encoded.as_slice().len());
        let named = answer.decided_by.unwrap();
        assert!(named.source().ends_with(&format!(":{line}")), "the line is always there");
        if document.len() + file.len() < 180 && !document.contains('(') {
            assert_eq!(named.policy().chars().count(), document.chars().count().max(1));
        }
    }
});
