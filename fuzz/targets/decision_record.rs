//! Recordings: saved pages `/decisions` and access logs, which tools vouch by; and snapshots, which
//! they ask a sidecar for. Both come from files and addresses that somebody names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_lite_proto::{authorization::PolicySnapshot, decision_record::Recording};

fuzz_target!(|bytes: &[u8]| {
    recording(bytes);
    snapshot(bytes);
});

fn recording(bytes: &[u8]) {
    let read = Recording::read("r", bytes);
    assert_eq!(read, Recording::read("r", bytes), "reading has no memory");
    let recording = match read {
        Ok(recording) => recording,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.contains(char::is_control), "{text:?} steers a terminal");
            let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(error.line >= 1 && error.line <= lines + 1, "{text} of {lines} lines");
            return;
        }
    };
    assert!(recording.forgotten_let_through <= recording.forgotten);
    for record in &recording.records {
        assert!(record.first <= record.last && record.count > 0);
    }
    // a page can't say that it is the end of a log: but what it can say is read as it was written
    let page = recording.to_lines();
    let again = Recording::read("r", page.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{page}"));
    assert_eq!(Recording::read("r", again.to_lines().as_bytes()), Ok(again), "{page}");
}

fn snapshot(bytes: &[u8]) {
    let Ok(snapshot) = PolicySnapshot::from_json(bytes) else { return };
    let shown = serde_json::to_vec(&snapshot.shown_as_json()).expect("JSON");
    let again = PolicySnapshot::from_json(&shown);
    assert!(again.is_ok_and(|again| again == snapshot), "{}", String::from_utf8_lossy(&shown));
}
