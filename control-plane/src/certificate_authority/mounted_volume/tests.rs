use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

#[test]
fn a_directory_without_versions_is_read_itself() {
    let directory = TempDir::new().unwrap();
    assert_eq!(newest(directory.path()).unwrap(), directory.path());
    fs::write(directory.path().join("..data"), "a file").unwrap();
    assert_eq!(newest(directory.path()).unwrap(), directory.path());
}

#[test]
fn no_version_lies_outside_of_the_directory() {
    let directory = TempDir::new().unwrap();
    let volume = directory.path().join("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::create_dir_all(directory.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", volume.join("link")).unwrap();
    fs::write(volume.join("file"), "").unwrap();
    for target in ["../elsewhere", "..", "/etc", "a/b", "link", "file", "gone"] {
        symlink(target, volume.join("..data")).unwrap();
        assert!(newest(&volume).is_err(), "{target}");
        fs::remove_file(volume.join("..data")).unwrap();
    }
}

#[test]
fn a_version_that_is_taken_away_while_it_is_read_is_read_again_as_the_next() {
    let directory = TempDir::new().unwrap();
    let volume = directory.path();
    for version in ["..1", "..2"] {
        fs::create_dir(volume.join(version)).unwrap();
        fs::write(volume.join(version).join("a"), version).unwrap();
        fs::write(volume.join(version).join("b"), version).unwrap();
    }
    symlink("..1", volume.join("..data")).unwrap();
    let read = read_one_version(volume, |version| {
        let read = |name| {
            let path = version.join(name);
            fs::read_to_string(&path).map_err(KeyStoreError::io("read", &path))
        };
        let a = read("a")?;
        // between two reads, the first time
        if a == "..1" {
            symlink("..2", volume.join("next")).unwrap();
            fs::rename(volume.join("next"), volume.join("..data")).unwrap();
            fs::remove_dir_all(volume.join("..1")).unwrap();
        }
        Ok((a, read("b")?))
    });
    assert_eq!(read.unwrap(), ("..2".to_owned(), "..2".to_owned()));
}
