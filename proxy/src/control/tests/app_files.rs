//! Key, certificate and trust bundle for the application.

use std::{fs, path::Path};

use mesh_lite_proto::svid::inspect_leaf;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::*;
use crate::identity::{PrivateKey, issued_chain::check_chain};

struct Found {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
    key_pem: String,
    bundle: String,
}

fn found(directory: &Path) -> Option<Found> {
    let version = directory.join(fs::read_link(directory.join("..data")).ok()?);
    let read = |file: &str| fs::read_to_string(version.join(file)).ok();
    let key_pem = read("tls.key")?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
    let chain = read("tls.crt")?;
    Some(Found {
        chain: CertificateDer::pem_slice_iter(chain.as_bytes())
            .map(Result::unwrap)
            .collect(),
        key: PrivateKey::from_pkcs8(key.secret_pkcs8_der().to_vec()),
        key_pem,
        bundle: read("ca.crt")?,
    })
}

fn with_files(server: &ScriptedControlPlane) -> (Sidecar, PathBuf) {
    let files = files();
    let directory = files.path().join("application");
    fs::create_dir(&directory).unwrap();
    let config = ControlConfig {
        files_dir: Some(directory.clone()),
        ..config(server, &files)
    };
    (start_with(config, &files), directory)
}

#[tokio::test]
async fn the_application_has_a_certificate_of_its_own_key_and_of_our_identity() {
    let server = ScriptedControlPlane::start();
    let (sidecar, directory) = with_files(&server);
    let identity = sidecar.identity().await;
    let files = eventually("the files", || found(&directory)).await;
    let bundle = &identity.trust_bundle;
    let now = crate::clock::now();
    let leaf = check_chain(&files.chain, &files.key, bundle, None, now).unwrap();
    assert_eq!(leaf.id, identity.leaf.id);
    assert_ne!(leaf.serial, identity.leaf.serial);
    assert_ne!(
        files.key_pem,
        *identity.key.to_pem(),
        "the sidecar's own key stays with it"
    );
    assert_eq!(files.bundle, bundle.to_pem());
}

#[tokio::test]
async fn the_files_are_renewed_with_our_own_certificate() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(4));
    let (sidecar, directory) = with_files(&server);
    let identity = sidecar.identity().await;
    let before = eventually("the files", || found(&directory)).await;
    sidecar.another_identity(&identity).await;
    let serial = |files: &Found| inspect_leaf(&files.chain[0]).unwrap().serial;
    let after = eventually("other files", || {
        found(&directory).filter(|files| serial(files) != serial(&before))
    })
    .await;
    assert_ne!(after.key_pem, before.key_pem);
}

#[tokio::test]
async fn without_a_directory_to_write_to_the_sidecar_serves_all_the_same() {
    let server = ScriptedControlPlane::start();
    let (sidecar, directory) = with_files(&server);
    fs::remove_dir_all(&directory).unwrap();
    sidecar.identity().await;
    assert!(found(&directory).is_none());
}
