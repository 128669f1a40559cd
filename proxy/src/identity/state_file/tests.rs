use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn state() -> SavedState {
    let rest = SavedFacts {
        pod_uid: "pod-1".to_owned(),
        chain: vec![vec![1; 900], vec![2; 700]],
        trust_bundle: vec![vec![3; 600]],
        trust_bundle_file: "digest".to_owned(),
        policy: Some(wire::PolicySnapshot {
            revision: 7,
            ..Default::default()
        }),
        directory: Some(wire::DirectoryResponse {
            revision: 9,
            ..Default::default()
        }),
    };
    SavedState {
        key: Some(PrivateKey::from_pkcs8(vec![42; 138])),
        rest,
    }
}

fn with_file() -> (tempfile::TempDir, StateFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::in_directory(directory.path());
    (directory, file)
}

fn reason(result: Result<Option<SavedState>, StateFileError>) -> InvalidState {
    match result {
        Err(StateFileError::Content { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the file was used"),
    }
}

#[test]
fn what_was_written_is_read_and_nobody_else_may_read_it() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let read = file.read().unwrap().unwrap();
    assert_eq!(read.rest, state().rest);
    assert_eq!(read.key.unwrap().secret_bytes(), [42; 138]);
    let mode = std::fs::metadata(file.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_file_is_no_error() {
    let (_directory, file) = with_file();
    assert!(file.read().unwrap().is_none());
}

#[test]
fn a_second_write_replaces_the_first_and_leaves_nothing_beside_it() {
    let (directory, file) = with_file();
    file.write(&state()).unwrap();
    let rest = SavedFacts {
        pod_uid: "pod-2".to_owned(),
        ..SavedFacts::default()
    };
    file.write(&SavedState { key: None, rest }).unwrap();
    let read = file.read().unwrap().unwrap();
    assert_eq!(read.rest.pod_uid, "pod-2");
    assert!(read.key.is_none());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_left_over_of_a_killed_process_does_not_stop_the_next_write() {
    let (directory, file) = with_file();
    std::fs::write(directory.path().join(TEMPORARY_NAME), b"half").unwrap();
    file.write(&state()).unwrap();
    assert!(file.read().unwrap().is_some());
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let whole = std::fs::read(file.path()).unwrap();
    for length in 0..whole.len() {
        assert!(
            decode(&whole[..length]).is_err(),
            "{length} bytes were taken for the whole"
        );
    }
}

#[test]
fn a_file_with_any_changed_byte_is_refused() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let whole = std::fs::read(file.path()).unwrap();
    for index in 0..whole.len() {
        let mut changed = whole.clone();
        changed[index] ^= 1;
        assert!(decode(&changed).is_err(), "byte {index} may be changed");
    }
}

#[test]
fn a_torn_file_is_refused_with_its_name_and_a_reason() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let whole = std::fs::read(file.path()).unwrap();
    std::fs::write(file.path(), &whole[..whole.len() / 2]).unwrap();
    let words = file.read().err().unwrap().to_string();
    assert!(
        words.contains("sidecar-state") && words.contains("torn"),
        "{words}"
    );
}

#[test]
fn a_file_of_another_version_is_refused() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let mut bytes = std::fs::read(file.path()).unwrap();
    bytes[MAGIC.len() - 1] = b'2';
    std::fs::write(file.path(), bytes).unwrap();
    assert_eq!(reason(file.read()), InvalidState::OtherVersion);
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    for mode in [0o640, 0o604, 0o660, 0o601] {
        let (_directory, file) = with_file();
        file.write(&state()).unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
        assert!(
            matches!(file.read(), Err(StateFileError::Mode { .. })),
            "{mode:o}"
        );
    }
}

#[test]
fn a_file_of_another_user_is_refused() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    if !rustix::process::geteuid().is_root() {
        let test = "a_file_of_another_user_is_refused";
        return mesh_lite_test_support::requirements::not_run(
            test,
            "giving a file away needs root",
        );
    }
    std::os::unix::fs::chown(file.path(), Some(12_345), None).unwrap();
    assert!(matches!(
        file.read(),
        Err(StateFileError::Owner { owner: 12_345, .. })
    ));
}

#[test]
fn a_symbolic_link_a_directory_and_a_pipe_are_refused() {
    let (directory, file) = with_file();
    file.write(&state()).unwrap();
    let real = directory.path().join("real");
    std::fs::rename(file.path(), &real).unwrap();
    symlink(&real, file.path()).unwrap();
    assert!(matches!(file.read(), Err(StateFileError::Read { .. })));
    std::fs::remove_file(file.path()).unwrap();
    std::fs::create_dir(file.path()).unwrap();
    assert!(matches!(file.read(), Err(StateFileError::NotAFile { .. })));
    std::fs::remove_dir(file.path()).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        file.path(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(matches!(file.read(), Err(StateFileError::NotAFile { .. })));
}

#[test]
fn an_endless_file_is_refused() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let options = OpenOptions::new().append(true).open(file.path()).unwrap();
    options.set_len(MAX_FILE as u64 + 1).unwrap();
    assert_eq!(reason(file.read()), InvalidState::TooLarge);
}

#[test]
fn a_key_without_its_chain_is_refused() {
    let (_directory, file) = with_file();
    let mut state = state();
    state.rest.chain.clear();
    file.write(&state).unwrap();
    assert_eq!(reason(file.read()), InvalidState::KeyWithoutChain);
}

#[test]
fn a_directory_that_does_not_fit_is_left_out_and_the_rest_is_kept() {
    let (_directory, file) = with_file();
    let mut state = state();
    let unknown = wire::Unknown {
        reason: "x".repeat(MAX_FILE),
    };
    let answer = wire::DirectoryAnswer {
        answer: Some(wire::directory_answer::Answer::Unknown(unknown)),
        ..Default::default()
    };
    state.rest.directory = Some(wire::DirectoryResponse {
        answers: vec![answer],
        ..Default::default()
    });
    file.write(&state).unwrap();
    let read = file.read().unwrap().unwrap();
    assert!(read.rest.directory.is_none());
    assert!(read.key.is_some() && read.rest.policy.is_some());
}

#[test]
fn what_can_never_fit_leaves_the_file_as_it_was() {
    let (_directory, file) = with_file();
    file.write(&state()).unwrap();
    let rest = SavedFacts {
        chain: vec![vec![0; MAX_FILE]],
        ..SavedFacts::default()
    };
    let huge = SavedState {
        key: Some(PrivateKey::from_pkcs8(vec![1; 138])),
        rest,
    };
    assert!(matches!(
        file.write(&huge),
        Err(StateFileError::TooLarge { .. })
    ));
    assert_eq!(file.read().unwrap().unwrap().rest, state().rest);
}

#[test]
fn a_directory_that_is_not_there_is_made_for_us_alone() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("state");
    let file = StateFile::in_directory(&directory);
    assert!(file.read().unwrap().is_none());
    file.write(&state()).unwrap();
    let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let file = StateFile::in_directory(Path::new("/dev/null/state"));
    let words = file.write(&state()).unwrap_err().to_string();
    assert!(words.contains("/dev/null/state/sidecar-state"), "{words}");
}
