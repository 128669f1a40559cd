use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use mesh_lite_proto::trust_bundle::pem;
use mesh_lite_test_support::requirements::program;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tempfile::TempDir;

use super::*;
use crate::{
    certificate_authority::{
        key_store::DataDirectory,
        root::{NewIssuingAuthority, Root},
        root_mode::RootMode,
        rotation::{Rotation, SETTLE_IN_CLUSTER, Step},
    },
    clock::from_unix_seconds,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn root() -> Root {
    Root::create(&trust_domain(), 365 * DAY, now()).unwrap()
}

/// What one Secret says.
struct Files(Vec<(&'static str, String)>);

impl Files {
    fn of(root: &Root, issuing: &NewIssuingAuthority) -> Self {
        let key = pem("PRIVATE KEY", issuing.key.serialized_der());
        Self(vec![
            ("issuing/tls.crt", pem("CERTIFICATE", &issuing.certificate)),
            ("issuing/tls.key", key),
            ("issuing/ca.crt", pem("CERTIFICATE", root.certificate())),
        ])
    }

    fn made_by(root: &Root) -> Self {
        Self::of(root, &root.sign_issuing_authority(30 * DAY, now()).unwrap())
    }

    fn with(mut self, name: &'static str, text: String) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, text));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self
    }
}

/// A volume as the kubelet mounts and swaps it.
struct Volume {
    directory: TempDir,
    version: u32,
}

impl Volume {
    fn new(files: &Files) -> Self {
        let mut volume = Self {
            directory: TempDir::new().unwrap(),
            version: 0,
        };
        volume.swap(files);
        volume
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn data(&self) -> DataDirectory {
        DataDirectory::new(self.path())
    }

    fn swap(&mut self, files: &Files) {
        let before = self.path().join(format!("..{}", self.version));
        self.version += 1;
        let name = format!("..{}", self.version);
        for (file, text) in &files.0 {
            let path = self.path().join(&name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink(&name, self.path().join("..data_tmp")).unwrap();
        fs::rename(self.path().join("..data_tmp"), self.path().join("..data")).unwrap();
        for entry in ["issuing", "trust-bundle.pem"] {
            let _ = fs::remove_file(self.path().join(entry));
            symlink(format!("..data/{entry}"), self.path().join(entry)).unwrap();
        }
        let _ = fs::remove_dir_all(before);
    }
}

/// As `authority_watch` looks.
struct Looking {
    rotation: Rotation,
    departing: DepartingRoots,
}

impl Looking {
    fn start(volume: &Volume) -> Self {
        let (found, plugged_in) = volume.data().read_found(&trust_domain()).unwrap();
        let mut rotation = Rotation::start(found, DAY, now()).unwrap();
        rotation.settle_for(SETTLE_IN_CLUSTER);
        let mut looking = Self {
            rotation,
            departing: DepartingRoots::default(),
        };
        looking.departing.named = plugged_in;
        looking
    }

    fn look(&mut self, volume: &Volume, now: SystemTime) -> Step {
        let (mut found, plugged_in) = volume.data().read_found(&trust_domain()).unwrap();
        let trust = self.rotation.trust();
        let active = trust.authority.root_in(&trust.bundle).ok();
        found.bundle = self
            .departing
            .complete(found.bundle, plugged_in, active, DAY, now);
        self.rotation.look(found, now).unwrap()
    }

    fn trusts(&self, root: &Root) -> bool {
        let bundle = self.rotation.trust();
        bundle.bundle.authorities().contains(root.certificate())
    }

    fn is_signed_under(&self, root: &Root) -> bool {
        let trust = self.rotation.trust();
        trust.authority.root_in(&trust.bundle).unwrap() == root.certificate()
    }
}

/// Pain 33. A new root each time: announced first, then signs, and the one before stays until the
/// last leaf under it has ended.
#[test]
fn five_swaps_of_a_mounted_secret_each_announce_the_root_before_it_signs() {
    let mut current = root();
    let mut volume = Volume::new(&Files::made_by(&current));
    let mut looking = Looking::start(&volume);
    let mut at = now();
    for round in 0..5 {
        let next = root();
        volume.swap(&Files::made_by(&next));
        let step = looking.look(&volume, at);
        assert!(matches!(step, Step::Prepared { .. }), "{round}: {step:?}");
        assert!(looking.trusts(&current) && looking.trusts(&next), "{round}");
        assert!(looking.is_signed_under(&current), "{round}");

        at += SETTLE_IN_CLUSTER;
        let step = looking.look(&volume, at);
        assert!(matches!(step, Step::Activated { .. }), "{round}: {step:?}");
        assert!(looking.is_signed_under(&next), "{round}");
        assert!(
            looking.trusts(&current),
            "{round}: leaves under it are in use"
        );
        // the last leaf under the one before was made a moment ago
        assert_eq!(looking.look(&volume, at + DAY), Step::Unchanged, "{round}");
        assert!(looking.trusts(&current), "{round}");

        at += DAY + SETTLE_IN_CLUSTER.saturating_mul(2);
        assert_eq!(looking.look(&volume, at), Step::Announced, "{round}");
        assert!(!looking.trusts(&current), "{round}");
        current = next;
    }
}

#[test]
fn a_new_issuing_ca_of_the_same_root_signs_at_once() {
    let root = root();
    let mut volume = Volume::new(&Files::made_by(&root));
    let mut looking = Looking::start(&volume);
    volume.swap(&Files::made_by(&root));
    assert!(matches!(
        looking.look(&volume, now()),
        Step::Activated { .. }
    ));
}

#[test]
fn its_roots_join_those_of_the_trust_bundle() {
    let (kept, plugged) = (root(), root());
    let bundle = pem("CERTIFICATE", kept.certificate());
    let files = Files::made_by(&plugged).with("trust-bundle.pem", bundle);
    let volume = Volume::new(&files);
    let (found, _) = volume.data().read_found(&trust_domain()).unwrap();
    assert_eq!(found.bundle.authorities().len(), 2);
    assert_eq!(volume.data().read_root_mode().unwrap(), RootMode::Offline);
    // a root that a person takes out of the bundle is gone at once
    let mut volume = volume;
    let mut looking = Looking::start(&volume);
    volume.swap(&Files::made_by(&plugged));
    looking.look(&volume, now());
    assert!(!looking.trusts(&kept) && looking.trusts(&plugged));
}

#[test]
fn what_can_not_serve_is_refused_in_words() {
    let (mine, other) = (root(), root());
    let ours = mine.sign_issuing_authority(30 * DAY, now()).unwrap();
    let files = || Files::of(&mine, &ours);
    let cases: Vec<(&str, Files, &str)> = vec![
        (
            "two authorities",
            files().with("issuing/issuing-ca.pem", "x".to_owned()),
            "only one can be the issuing CA",
        ),
        ("no key", files().without("issuing/tls.key"), "tls.key"),
        (
            "a torn pair",
            files().with("issuing/tls.key", {
                let other = other.sign_issuing_authority(30 * DAY, now()).unwrap();
                pem("PRIVATE KEY", other.key.serialized_der())
            }),
            "do not belong together",
        ),
        (
            "an encrypted key",
            files().with("issuing/tls.key", pem("ENCRYPTED PRIVATE KEY", b"x")),
            "private key (not encrypted)",
        ),
        (
            "a chain in the wrong order",
            files().with("issuing/tls.crt", {
                let stranger = other.sign_issuing_authority(30 * DAY, now()).unwrap();
                pem("CERTIFICATE", &ours.certificate) + &pem("CERTIFICATE", &stranger.certificate)
            }),
            "did not sign the one before it",
        ),
        (
            "nothing to trust",
            files().without("issuing/ca.crt"),
            "trust-bundle.pem",
        ),
        (
            "roots that are none",
            files().with(
                "issuing/ca.crt",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            ),
            "ca.crt",
        ),
    ];
    for (case, files, words) in cases {
        let volume = Volume::new(&files);
        let refused = volume.data().read_found(&trust_domain()).err();
        let refused = refused.unwrap_or_else(|| panic!("{case}")).to_string();
        assert!(refused.contains(words), "{case}: {refused}");
    }
}

/// PKCS#1 and SEC1 are what cert-manager writes if nobody asks for PKCS#8.
#[test]
fn keys_are_read_in_each_form_that_cert_manager_writes() {
    if !program("keys_are_read_in_each_form", "openssl") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    openssl(&[
        "ecparam",
        "-name",
        "prime256v1",
        "-genkey",
        "-noout",
        "-out",
        "sec1.pem",
    ]);
    openssl(&["genrsa", "-traditional", "-out", "pkcs1.pem", "2048"]);
    openssl(&[
        "pkcs8",
        "-topk8",
        "-nocrypt",
        "-in",
        "sec1.pem",
        "-out",
        "pkcs8.pem",
    ]);
    for (name, label) in [
        ("sec1.pem", "EC PRIVATE KEY"),
        ("pkcs1.pem", "RSA PRIVATE KEY"),
        ("pkcs8.pem", "PRIVATE KEY"),
    ] {
        let path = directory.path().join(name);
        let text = fs::read(&path).unwrap();
        assert!(String::from_utf8_lossy(&text).contains(label), "{name}");
        assert!(parse_any_key(&path, &text).is_ok(), "{name}");
    }
    // what `root import` takes is still PKCS#8 alone: it writes the key again, under that name
    assert!(
        PrivatePkcs8KeyDer::from_pem_slice(&fs::read(directory.path().join("sec1.pem")).unwrap())
            .is_err()
    );
}
