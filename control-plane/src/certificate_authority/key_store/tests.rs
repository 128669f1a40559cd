use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::Duration,
};

use tempfile::TempDir;

use super::*;
use crate::clock::from_unix_seconds;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn root() -> Root {
    let now = from_unix_seconds(1_800_000_000);
    Root::create(&trust_domain(), Duration::from_secs(86_400), now).unwrap()
}

fn issuing(root: &Root) -> NewIssuingAuthority {
    let now = from_unix_seconds(1_800_000_000);
    root.sign_issuing_authority(Duration::from_secs(3_600), now)
        .unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn keeps_keys_where_nobody_else_reads_them() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().join("state"));
    data.create().unwrap();
    let root = root();
    RootDirectory::new(data.default_root())
        .write_new(&root)
        .unwrap();
    data.write_issuing_authority(&issuing(&root), RootMode::Kept)
        .unwrap();
    for directory in [
        data.path(),
        &data.issuing(),
        &data.join_tokens(),
        &data.default_root(),
    ] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    assert_eq!(mode(&data.issuing_authority()), 0o600);
    assert_eq!(mode(&data.default_root().join(ROOT_FILE)), 0o600);
    // nothing half-written stays behind
    assert_eq!(names(&data.issuing()), ["issuing-ca.pem", "root-mode"]);
    assert_eq!(names(data.path()), ["issuing", "join-tokens", "root"]);
}

#[test]
fn closes_a_directory_that_others_could_read() {
    let temporary = TempDir::new().unwrap();
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    DataDirectory::new(temporary.path().to_owned())
        .create()
        .unwrap();
    assert_eq!(mode(temporary.path()), 0o700);
}

#[test]
fn reads_what_it_wrote() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().to_owned());
    let root = root();
    let new = issuing(&root);
    data.write_issuing_authority(&new, RootMode::Kept).unwrap();
    let read = data.read_issuing_authority(&trust_domain()).unwrap();
    assert_eq!(read.certificate(), &new.certificate);
    let directory = RootDirectory::new(data.default_root());
    directory.write_new(&root).unwrap();
    assert_eq!(directory.read().unwrap().certificate(), root.certificate());
    let bundle = TrustBundle::new(trust_domain(), vec![root.certificate().clone()]).unwrap();
    data.write_trust_bundle(&bundle).unwrap();
    assert_eq!(data.read_trust_bundle(&trust_domain()).unwrap(), bundle);
}

#[test]
fn never_overwrites_a_root() {
    let temporary = TempDir::new().unwrap();
    let directory = RootDirectory::new(temporary.path().join("root"));
    let first = root();
    directory.write_new(&first).unwrap();
    let refused = directory.write_new(&root()).unwrap_err();
    assert!(matches!(refused, KeyStoreError::RootExists(_)), "{refused}");
    assert_eq!(directory.read().unwrap().certificate(), first.certificate());
    assert_eq!(names(temporary.path()), ["root"]);
    // nor anything else that lies there
    let file = temporary.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(RootDirectory::new(file.clone()).write_new(&root()).is_err());
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
}

#[test]
fn refuses_files_that_are_not_what_they_should_be() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().to_owned());
    data.create().unwrap();
    let path = data.issuing_authority();
    let root = root();
    let new = issuing(&root);
    let certificate = pem("CERTIFICATE", &new.certificate);
    let other_key = pem("PRIVATE KEY", KeyPair::generate().unwrap().serialized_der());
    let wrong = [
        String::new(),
        certificate.clone(),
        other_key.clone(),
        format!("{certificate}{}", pem("PRIVATE KEY", b"rubbish")),
        format!("{certificate}{other_key}"),
        "x".repeat(300 * 1024),
    ];
    for text in wrong {
        fs::write(&path, &text).unwrap();
        let error = data
            .read_issuing_authority(&trust_domain())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("issuing-ca.pem"), "{error}");
        assert!(!error.contains("PRIVATE KEY-"), "{error}");
    }
    assert!(
        data.read_trust_bundle(&trust_domain())
            .unwrap_err()
            .is_not_found()
    );
}

#[test]
fn lets_one_control_plane_at_a_time_use_a_directory() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().to_owned());
    let held = data.lock().unwrap();
    assert!(matches!(data.lock(), Err(KeyStoreError::InUse(_))));
    drop(held);
    assert!(data.lock().is_ok());
}

#[test]
fn remembers_the_root_mode_and_takes_no_other_word_for_one() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().to_owned());
    // a mesh that was made before there was a mode
    assert_eq!(data.read_root_mode().unwrap(), RootMode::Kept);
    let root = root();
    for mode in [RootMode::Offline, RootMode::Kept] {
        data.write_issuing_authority(&issuing(&root), mode).unwrap();
        assert_eq!(data.read_root_mode().unwrap(), mode);
    }
    assert_eq!(mode(&data.root_mode()), 0o644);
    for word in ["", "Offline", "online"] {
        fs::write(data.root_mode(), word).unwrap();
        let refused = data.read_root_mode().unwrap_err().to_string();
        assert!(refused.contains("write kept or offline"), "{refused}");
        assert!(word.is_empty() || !refused.contains(word), "{refused}");
    }
}

/// Whoever can lay a link there must not learn, by our mouth, what it leads to; nor may a pipe or
/// a device keep us.
#[test]
fn reads_plain_files_alone() {
    let temporary = TempDir::new().unwrap();
    let data = DataDirectory::new(temporary.path().join("state"));
    data.create().unwrap();
    let good = temporary.path().join("good");
    fs::write(&good, "offline\n").unwrap();
    let pipe = temporary.path().join("pipe");
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, 0o600.into(), 0).unwrap();
    let places = [
        data.root_mode(),
        data.issuing_authority(),
        data.trust_bundle(),
    ];
    for target in [&good, Path::new("/dev/zero"), &pipe] {
        for place in &places {
            let _ = fs::remove_file(place);
            symlink(target, place).unwrap();
        }
        assert_refuses_all(&data);
    }
    fs::remove_file(data.root_mode()).unwrap();
    fs::rename(&pipe, data.root_mode()).unwrap();
    assert_refuses_all(&data);
}

fn assert_refuses_all(data: &DataDirectory) {
    let refusals = [
        data.read_root_mode().unwrap_err(),
        data.read_issuing_authority(&trust_domain()).err().unwrap(),
        data.read_trust_bundle(&trust_domain()).unwrap_err(),
    ];
    for refused in refusals {
        assert!(
            matches!(refused, KeyStoreError::NotAPlainFile(_)),
            "{refused}"
        );
    }
}
