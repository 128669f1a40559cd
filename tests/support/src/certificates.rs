//! Authorities and leaves made at run time, good ones and every kind of bad one.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A CA that signs whatever it is told to.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
    params: Option<CertificateParams>,
}

/// A key and its certificates, leaf first.
pub struct Credential {
    pub chain: Vec<CertificateDer<'static>>,
    pub chain_pem: String,
    key: KeyPair,
}

impl Authority {
    /// A root of `trust_domain`. Its name is its own, as those of mesh-lite's roots are.
    pub fn root(trust_domain: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority(&format!("root {}", name_of(&key)));
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        let certificate = params.self_signed(&key).unwrap();
        Self::new(params, key, &certificate)
    }

    fn new(params: CertificateParams, key: KeyPair, certificate: &Certificate) -> Self {
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params.clone(), key),
            params: Some(params),
        }
    }

    /// The authority whose certificate and key are in a file, as `mesh-lite root init` writes it.
    pub fn read(pem: &str) -> Self {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = KeyPair::try_from(&key).unwrap();
        let end = "-----END CERTIFICATE-----\n";
        let (before, _) = pem.split_once(end).expect("a certificate");
        Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).unwrap(),
            certificate,
            pem: format!("{before}{end}"),
            params: None,
        }
    }

    pub fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority(&format!("intermediate {}", name_of(&key)));
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self::new(params, key, &certificate)
    }

    /// Another key under this authority's name.
    pub fn impostor(&self) -> Self {
        let params = self.params.clone().expect("an authority made here");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self::new(params, key, &certificate)
    }

    /// A leaf as mesh-lite issues it, changed as the test wants; no chain above it.
    pub fn leaf(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Credential {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf(id);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Credential {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key,
        }
    }
}

impl Credential {
    /// A leaf that vouches for itself.
    pub fn self_signed(id: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf(id).self_signed(&key).unwrap();
        Self {
            chain: vec![certificate.der().clone()],
            chain_pem: certificate.pem(),
            key,
        }
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// With the certificates of `issuers` behind the leaf, in this order.
    pub fn under(mut self, issuers: &[&Authority]) -> Self {
        for issuer in issuers {
            self.chain.push(issuer.certificate.clone());
            self.chain_pem.push_str(&issuer.pem);
        }
        self
    }
}

pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A critical subject alternative name extension with these URIs, byte for byte: also what is
/// not ASCII, which a careful library would not write.
pub fn raw_uris(uris: &[&str]) -> CustomExtension {
    const SUBJECT_ALTERNATIVE_NAME: &[u64] = &[2, 5, 29, 17];
    const URI_TAG: u8 = 0x86;
    const SEQUENCE: u8 = 0x30;
    let names: Vec<u8> = uris
        .iter()
        .flat_map(|uri| der(URI_TAG, uri.as_bytes()))
        .collect();
    let content = der(SEQUENCE, &names);
    let mut extension = CustomExtension::from_oid_content(SUBJECT_ALTERNATIVE_NAME, content);
    extension.set_criticality(true);
    extension
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => value.push(short),
        _ => {
            let length = u16::try_from(content.len()).expect("a short text");
            value.push(0x82);
            value.extend(length.to_be_bytes());
        }
    }
    value.extend(content);
    value
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(id)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A few digits that no other key has.
fn name_of(key: &KeyPair) -> String {
    let end = key.public_key_raw().iter().rev().take(6);
    end.map(|byte| format!("{byte:02x}")).collect()
}
