use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use tempfile::TempDir;

use super::*;

fn files(text: &str) -> [(&'static str, &str); 2] {
    [("tls.key", text), ("tls.crt", text)]
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn newest(directory: &Path) -> u64 {
    number_of(&fs::read_link(directory.join("..data")).unwrap()).unwrap()
}

/// As an application reads that wants a pair: the link is followed once.
fn read_pair(directory: &Path) -> (String, String) {
    loop {
        let version = directory.join(fs::read_link(directory.join("..data")).unwrap());
        let read = |file: &str| fs::read_to_string(version.join(file));
        // a version that was replaced twice meanwhile is gone: again
        if let (Ok(key), Ok(certificate)) = (read("tls.key"), read("tls.crt")) {
            return (key, certificate);
        }
    }
}

#[test]
fn a_reader_never_sees_a_torn_pair() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    replace_all(path, &files("0")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..500 {
                replace_all(path, &files(&round.to_string().repeat(1000))).unwrap();
            }
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let (key, certificate) = read_pair(path);
            assert!(!key.is_empty());
            assert_eq!(key, certificate);
            // the usual names lead somewhere, unless two versions come while they are followed
            let before = newest(path);
            match fs::read_to_string(path.join("tls.crt")) {
                Ok(certificate) => assert!(!certificate.is_empty()),
                Err(error) => assert!(newest(path) >= before + 2, "{error}"),
            }
        }
    });
}

#[test]
fn everybody_who_has_the_directory_may_read_whatever_the_mask_and_nobody_else_may_write() {
    let directory = TempDir::new().unwrap();
    replace_all(directory.path(), &files("x")).unwrap();
    for file in ["tls.key", "tls.crt"] {
        let mode = fs::metadata(directory.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644);
    }
    let version = fs::metadata(directory.path().join("..data")).unwrap();
    assert_eq!(version.permissions().mode() & 0o777, 0o755);
}

#[test]
fn old_versions_go_and_what_is_not_ours_stays() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("..version-x"), "somebody's").unwrap();
    for round in 0..5 {
        replace_all(directory.path(), &files(&round.to_string())).unwrap();
    }
    let expected = [
        "..data",
        "..version-4",
        "..version-5",
        "..version-x",
        "tls.crt",
        "tls.key",
    ];
    assert_eq!(names(directory.path()), expected.map(str::to_owned).into());
}

#[test]
fn what_a_sidecar_left_behind_that_was_ended_in_the_middle_is_replaced() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    replace_all(path, &files("1")).unwrap();
    fs::create_dir(path.join("..version-2")).unwrap();
    fs::write(path.join("..version-2/tls.key"), "half").unwrap();
    symlink("..version-2", path.join("..data_next")).unwrap();
    fs::remove_file(path.join("tls.crt")).unwrap();
    fs::write(path.join("tls.crt"), "no link").unwrap();
    replace_all(path, &files("2")).unwrap();
    assert_eq!(read_pair(path), ("2".to_owned(), "2".to_owned()));
    assert_eq!(fs::read_to_string(path.join("tls.crt")).unwrap(), "2");
}

#[test]
fn a_link_in_the_place_of_a_file_is_never_written_through() {
    let directory = TempDir::new().unwrap();
    let (path, precious) = (
        directory.path().join("files"),
        directory.path().join("precious"),
    );
    fs::create_dir(&path).unwrap();
    fs::write(&precious, "precious").unwrap();
    for name in ["tls.key", "..version-1", "..data_next"] {
        symlink(&precious, path.join(name)).unwrap();
    }
    replace_all(&path, &files("1")).unwrap();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(read_pair(&path).0, "1");
}
