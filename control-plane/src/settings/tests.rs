use std::net::Ipv4Addr;

use tempfile::TempDir;

use super::*;

fn settings(directory: &TempDir) -> Settings {
    Settings {
        data_dir: directory.path().to_owned(),
        documents: DocumentSource::Directory(directory.path().to_owned()),
        shipped: ShippedDefaults::STRICT,
        trust_domain: TrustDomain::new("mesh.test").unwrap(),
        mesh_namespace: "mesh-lite-system".to_owned(),
        istio_root_namespace: None,
        listen: (Ipv4Addr::LOCALHOST, 15012).into(),
        admin_listen: (Ipv4Addr::LOCALHOST, 15014).into(),
        leaf_lifetime: LEAF_LIFETIME,
        outbound: OutboundRules::default(),
        allow_remote_keys: false,
    }
}

fn refused(settings: Settings) -> String {
    match settings.check() {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn takes_what_makes_sense_without_a_warning() {
    let directory = TempDir::new().unwrap();
    let checked = settings(&directory).check().unwrap();
    assert_eq!(checked.warnings, Vec::<String>::new());
    let expected = "spiffe://mesh.test/ns/mesh-lite-system/sa/mesh-lite-control-plane";
    assert_eq!(checked.own_id.as_str(), expected);
}

#[test]
fn warns_of_short_leaves_and_refuses_the_shortest() {
    let directory = TempDir::new().unwrap();
    let with = |seconds| Settings {
        leaf_lifetime: Duration::from_secs(seconds),
        ..settings(&directory)
    };
    assert_eq!(with(300).check().unwrap().warnings.len(), 0);
    assert_eq!(with(299).check().unwrap().warnings.len(), 1);
    assert_eq!(with(10).check().unwrap().warnings.len(), 1);
    assert!(refused(with(9)).contains("--leaf-lifetime"));
}

/// SDS-S28
#[test]
fn warns_of_keys_that_are_made_here() {
    let directory = TempDir::new().unwrap();
    let allowed = Settings {
        allow_remote_keys: true,
        ..settings(&directory)
    };
    let [warning] = allowed.check().unwrap().warnings.try_into().unwrap();
    assert!(warning.contains("--allow-remote-keys"), "{warning}");
}

#[test]
fn says_everything_that_is_wrong_at_once() {
    let directory = TempDir::new().unwrap();
    let mut wrong = settings(&directory);
    wrong.data_dir = directory.path().join("nowhere");
    wrong.documents = DocumentSource::Directory(directory.path().join("nowhere-else"));
    wrong.mesh_namespace = "No Name".to_owned();
    wrong.istio_root_namespace = Some("istio_system".to_owned());
    wrong.admin_listen = wrong.listen;
    wrong.leaf_lifetime = Duration::ZERO;
    wrong
        .outbound
        .unmeshed_by_namespace
        .insert("No/Name".to_owned(), Default::default());
    let text = refused(wrong);
    for part in [
        "--data-dir",
        "root init",
        "--config-dir",
        "--mesh-namespace",
        "--istio-root-namespace",
        "--admin-listen",
        "--leaf-lifetime",
        "--outbound-unmeshed",
    ] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn in_a_cluster_nothing_of_istios_is_read_and_the_data_directory_is_mounted() {
    let directory = TempDir::new().unwrap();
    let mut wrong = settings(&directory);
    wrong.documents = DocumentSource::Kubernetes { kubeconfig: None };
    assert!(
        wrong.clone().check().is_ok(),
        "no --config-dir is asked for"
    );
    wrong.istio_root_namespace = Some("istio-system".to_owned());
    wrong.data_dir = directory.path().join("nowhere");
    let text = refused(wrong);
    for part in ["--istio-root-namespace", "--data-dir", "mesh-lite install"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}
