//! Files that somebody else wrote.

use proptest::prelude::*;

use super::*;

/// Changes a byte, or cuts a piece out.
fn damaged(text: &str, at: usize, byte: u8, gone: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes[at] = byte;
    let end = (at + gone).min(bytes.len());
    bytes.drain(at..end);
    bytes
}

/// Whatever is read can be written and read again, and means the same.
fn reads_back(bytes: &[u8]) -> Result<(), TestCaseError> {
    match Recording::read("f", bytes) {
        Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        Ok(recording) => {
            let lines = recording.to_lines();
            let again = Recording::read("f", lines.as_bytes());
            let again = again.map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(recording.records, again.records);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_damaged_page_is_refused_or_means_what_it_says(
        at in any::<usize>(), byte in any::<u8>(), gone in 0..40_usize,
    ) {
        let page = recording(vec![allowed(), passed(), answered()]).to_lines();
        reads_back(&damaged(&page, at, byte, gone))?;
    }

    #[test]
    fn a_damaged_log_is_refused_or_means_what_it_says(
        at in any::<usize>(), byte in any::<u8>(), gone in 0..40_usize,
    ) {
        reads_back(&damaged(&log(&[OPEN, STRICT, CLOSE]), at, byte, gone))?;
    }

    #[test]
    fn arbitrary_bytes_are_no_recording(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Recording::read("f", bytes.as_slice()).is_err());
    }
}
