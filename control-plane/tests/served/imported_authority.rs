//! A mesh whose issuing CA was signed by somebody else's PKI: root, regional CA, issuing CA.

use std::path::{Path, PathBuf};

use mesh_lite_control_plane::{
    clock,
    root_commands::{Import, import_authority},
};
use mesh_lite_proto::secret_discovery::OWN_BUNDLE;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use spiffe::X509Svid;

use super::{
    acceptance::openssl_verify,
    client::request_for,
    running::{Directories, Running, bundle_at, trust_domain},
    workload_api::joined,
};

fn parameters(name: &str, uri: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

/// The files that an operator is given.
struct Given {
    chain: PathBuf,
    key: PathBuf,
    roots: PathBuf,
}

impl Given {
    fn new(directory: &Path, issuing_uri: &str) -> Self {
        Self::with_usage(directory, issuing_uri, &[KeyUsagePurpose::KeyCertSign])
    }

    fn with_usage(directory: &Path, issuing_uri: &str, usage: &[KeyUsagePurpose]) -> Self {
        let keys = [(); 3].map(|()| KeyPair::generate().unwrap());
        let [root_key, regional_key, issuing_key] = &keys;
        let root = parameters("company root", "spiffe://mesh.test");
        let root_certificate = root.self_signed(root_key).unwrap();
        let regional = parameters("regional", "spiffe://mesh.test");
        let by_root = Issuer::from_params(&root, root_key);
        let regional_certificate = regional.signed_by(regional_key, &by_root).unwrap();
        let by_regional = Issuer::from_params(&regional, regional_key);
        let mut issuing = parameters("issuing", issuing_uri);
        issuing.key_usages = usage.to_vec();
        let issuing = issuing.signed_by(issuing_key, &by_regional).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        Self {
            chain: write("chain.pem", issuing.pem() + &regional_certificate.pem()),
            key: write("key.pem", issuing_key.serialize_pem()),
            roots: write("company-roots.pem", root_certificate.pem()),
        }
    }

    fn import(&self, directories: &Directories) -> Import {
        Import {
            data_dir: directories.data.clone(),
            trust_domain: trust_domain(),
            chain: self.chain.clone(),
            key: self.key.clone(),
            roots: Some(self.roots.clone()),
        }
    }
}

/// SPIFFE-A6, and the chain as every peer needs it: leaf, issuing CA, regional CA, no root.
#[tokio::test]
async fn issues_under_an_imported_issuing_ca_with_its_intermediates() {
    let directories = Directories::new();
    let given = Given::new(&directories.config, "spiffe://mesh.test");
    let before = directories.trust_bundle();
    let report = import_authority(&given.import(&directories), clock::now()).unwrap();
    assert_eq!((report.intermediates, report.warnings.len()), (1, 0));
    let own_roots = bundle_at(&given.roots);
    let both = [before.authorities(), own_roots.authorities()].concat();
    assert_eq!(directories.trust_bundle().authorities(), both);

    let running = Running::start_in(directories).await;
    let svid = running.issue("shop/web").await;
    assert_eq!(svid.chain.len(), 3);
    // the control plane's own certificate has that chain too, and the workload's opens a stream
    let channel = running.connect(Some(&svid)).await.unwrap();
    let bundle = running.fetch(channel, request_for(&[OWN_BUNDLE])).await;
    assert_eq!(bundle.unwrap().resources.len(), 1);

    let key = svid.key.serialize_der();
    assert!(X509Svid::parse_from_der(&joined(&svid.chain), &key).is_ok());
    let data = &running.directories.data;
    let test = "issues_under_an_imported_issuing_ca_with_its_intermediates";
    if let Some(output) = openssl_verify(test, data, "sslclient", &svid.chain, &own_roots) {
        assert!(output.status.success(), "{output:?}");
    }
}

/// SPIFFE-A3: refused at the import, and nothing was touched.
#[tokio::test]
async fn refuses_an_import_that_can_not_serve_and_leaves_what_was_there() {
    let directories = Directories::new();
    let file = directories.data.join("issuing/issuing-ca.pem");
    let (issuing, bundle) = (std::fs::read(&file).unwrap(), directories.trust_bundle());
    let good = Given::new(&directories.config, "spiffe://mesh.test");
    let refusal = |import: &Import| {
        let refused = import_authority(import, clock::now()).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), issuing, "{refused}");
        assert_eq!(directories.trust_bundle(), bundle, "{refused}");
        refused.to_string()
    };
    let no_roots = Import {
        roots: None,
        ..good.import(&directories)
    };
    assert!(refusal(&no_roots).contains("add its root to the trust bundle"));
    let other_key = Import {
        key: file.clone(),
        ..good.import(&directories)
    };
    assert!(refusal(&other_key).contains("do not belong together"));
    let no_key = Import {
        key: good.chain.clone(),
        ..good.import(&directories)
    };
    assert!(refusal(&no_key).contains("openssl pkcs8"));
    let no_chain = Import {
        chain: good.key.clone(),
        ..good.import(&directories)
    };
    assert!(refusal(&no_chain).contains("holds no readable CERTIFICATE"));
    let with_path = Given::new(&directories.config, "spiffe://mesh.test/ca");
    let refused = refusal(&with_path.import(&directories));
    assert!(refused.contains("without a path"), "{refused}");
    // our own sidecars would refuse its leaves
    let no_usage = Given::with_usage(&directories.config, "spiffe://mesh.test", &[]);
    let refused = refusal(&no_usage.import(&directories));
    assert!(refused.contains("peers would refuse"), "{refused}");
}
