use std::{
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::PathBuf,
    time::Duration,
};

use mesh_lite_test_support::requirements::not_run;
use spiffe::TrustDomain;
use tempfile::TempDir;

use super::*;
use crate::{
    certificate_authority::{
        key_store::{DataDirectory, RootDirectory},
        root::Root,
        root_mode::RootMode,
    },
    clock::from_unix_seconds,
};

const NOBODY: u32 = 65_534;

/// A data directory of nobody's, and beside it something of the superuser's.
struct Shared {
    _temporary: TempDir,
    data: DataDirectory,
    precious: PathBuf,
}

impl Shared {
    fn new() -> Option<Self> {
        if !geteuid().is_root() {
            let test = thread::current();
            let test = test.name().unwrap_or("directory_owner");
            not_run(test, "only the superuser can work as others");
            return None;
        }
        let temporary = TempDir::new().unwrap();
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(temporary.path(), open.clone()).unwrap();
        let (path, precious) = (
            temporary.path().join("state"),
            temporary.path().join("precious"),
        );
        for directory in [&path, &precious] {
            fs::create_dir(directory).unwrap();
            fs::set_permissions(directory, open.clone()).unwrap();
        }
        let secret = precious.join("secret");
        fs::write(&secret, "offline\n").unwrap();
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        Some(Self {
            _temporary: temporary,
            data: DataDirectory::new(path),
            precious,
        })
    }

    fn sign(&self) -> Result<(), KeyStoreError> {
        let (domain, now) = (
            TrustDomain::new("mesh.test").unwrap(),
            from_unix_seconds(1_800_000_000),
        );
        let day = Duration::from_secs(86_400);
        let root = Root::create(&domain, day, now).unwrap();
        let issuing = root.sign_issuing_authority(day, now).unwrap();
        self.data.as_its_owner(|| {
            self.data.create()?;
            self.data.write_issuing_authority(&issuing, RootMode::Kept)
        })
    }

    fn assert_precious_is_as_it_was(&self) {
        let metadata = fs::metadata(&self.precious).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0));
        assert_eq!(metadata.mode() & 0o777, 0o755);
        let entries = fs::read_dir(&self.precious).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = self.precious.join("secret");
        assert_eq!(fs::read_to_string(secret).unwrap(), "offline\n");
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// The superuser's timer signs; a control plane with fewer rights reads. What it must not read
/// stays the superuser's.
#[test]
fn leaves_files_to_the_owner_of_the_data_directory_but_not_the_root() {
    let Some(shared) = Shared::new() else { return };
    let data = &shared.data;
    let domain = TrustDomain::new("mesh.test").unwrap();
    let now = from_unix_seconds(1_800_000_000);
    let root = Root::create(&domain, Duration::from_secs(86_400), now).unwrap();
    RootDirectory::new(data.default_root())
        .write_new(&root)
        .unwrap();
    shared.sign().unwrap();
    for path in [
        data.issuing(),
        data.join_tokens(),
        data.issuing_authority(),
        data.root_mode(),
    ] {
        assert_eq!(owner(&path), (NOBODY, NOBODY), "{}", path.display());
    }
    assert_eq!(owner(&data.default_root()), (0, 0));
    assert_eq!(owner(&data.default_root().join("root.pem")), (0, 0));
    // and afterwards we are who we were
    assert!(geteuid().is_root());
}

/// A control plane that was taken over would own whatever it links to.
#[test]
fn does_not_follow_a_link_to_where_the_owner_may_not_write() {
    let Some(shared) = Shared::new() else { return };
    for place in [shared.data.issuing(), shared.data.join_tokens()] {
        symlink(&shared.precious, &place).unwrap();
        let refused = shared.sign().unwrap_err().to_string();
        assert!(refused.contains("Operation not permitted"), "{refused}");
        shared.assert_precious_is_as_it_was();
        fs::remove_file(place).unwrap();
    }
    shared.sign().unwrap();
}

#[test]
fn does_not_read_by_a_link_what_the_owner_may_not_read() {
    let Some(shared) = Shared::new() else { return };
    let data = &shared.data;
    symlink(&shared.precious, data.issuing()).unwrap();
    let place = shared.precious.join("root-mode");
    fs::rename(shared.precious.join("secret"), place).unwrap();
    let refused = data.as_its_owner(|| data.read_root_mode()).unwrap_err();
    assert!(
        refused.to_string().contains("Permission denied"),
        "{refused}"
    );
}

/// Files are replaced, never written through.
#[test]
fn writes_over_a_link_and_not_through_it() {
    let Some(shared) = Shared::new() else { return };
    shared.sign().unwrap();
    for place in [shared.data.issuing_authority(), shared.data.root_mode()] {
        fs::remove_file(&place).unwrap();
        symlink(shared.precious.join("secret"), place).unwrap();
    }
    shared.sign().unwrap();
    shared.assert_precious_is_as_it_was();
    assert_eq!(shared.data.read_root_mode().unwrap(), RootMode::Kept);
}

/// Who made the link, not where it leads, says whose rights are enough.
#[test]
fn a_data_directory_that_is_somebodys_link_is_worked_on_as_that_one() {
    let Some(shared) = Shared::new() else { return };
    let link = shared.precious.with_file_name("link");
    symlink(&shared.precious, &link).unwrap();
    rustix::fs::chownat(
        rustix::fs::CWD,
        &link,
        Some(Uid::from_raw(NOBODY)),
        Some(Gid::from_raw(NOBODY)),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
    let data = DataDirectory::new(link);
    let refused = data.as_its_owner(|| data.create()).unwrap_err();
    assert!(
        refused.to_string().contains("Operation not permitted"),
        "{refused}"
    );
    shared.assert_precious_is_as_it_was();
}

#[test]
#[should_panic(expected = "from within")]
fn a_panic_of_the_work_is_the_callers() {
    let Some(shared) = Shared::new() else {
        panic!("from within: not run, only the superuser can work as others")
    };
    let _ = shared
        .data
        .as_its_owner(|| -> Result<(), KeyStoreError> { panic!("from within") });
}
