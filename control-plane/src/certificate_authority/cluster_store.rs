//! The keys of a mesh in a cluster: what lies where. Only `mesh-lite root` reads it here; the
//! control plane has the issuing CA and the trust bundle mounted (`key_store`).
//!
//! ```text
//! Secret     mesh-lite-root          root.pem           read by the service account mesh-lite-root alone
//! Secret     mesh-lite-issuing-ca    issuing-ca.pem     certificate and key in one text
//!                                    root-mode          or tls.crt, tls.key, ca.crt (`plugged_in`)
//! ConfigMap  mesh-lite-trust-bundle  trust-bundle.pem   in the mesh's namespace: the source
//! ```

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::ByteString;
use mesh_lite_proto::{
    kubernetes::{ISSUING_CA_SECRET, ROOT_SECRET, TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY},
    trust_bundle::{TrustBundle, base64},
};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;
use spiffe::TrustDomain;
use zeroize::{Zeroize, Zeroizing};

use super::{
    authority::IssuingAuthority,
    key_store::{AuthorityFile, KeyStoreError, authority_file},
    plugged_in::{self, PluggedIn},
    root::{NewIssuingAuthority, Root},
    root_mode::RootMode,
};
use crate::cluster_objects::{Change, ClusterObjects, Failure, ObjectError, Place, Version, parse};

const ROOT_KEY: &str = "root.pem";
const ISSUING_KEY: &str = "issuing-ca.pem";
const MODE_KEY: &str = "root-mode";

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    Done,
    /// Somebody else was first: look again.
    Outrun,
}

/// The issuing CA as it lies there.
pub(crate) struct StoredAuthority {
    pub(crate) kept_by: KeptBy,
    /// For a change of just this version.
    pub(crate) version: String,
}

pub(crate) enum KeptBy {
    Us {
        authority: Box<IssuingAuthority>,
        mode: RootMode,
    },
    /// Another program, with these roots.
    Another {
        authority: Box<IssuingAuthority>,
        roots: Vec<CertificateDer<'static>>,
    },
}

pub(crate) struct StoredBundle {
    pub(crate) bundle: TrustBundle,
    pub(crate) version: String,
}

pub(crate) struct ClusterStore {
    objects: ClusterObjects,
    root: Place,
    issuing: Place,
    bundle: Place,
}

impl ClusterStore {
    pub(crate) fn new(objects: ClusterObjects, mesh_namespace: &str) -> Self {
        Self {
            objects,
            root: Place::secret(mesh_namespace, ROOT_SECRET),
            issuing: Place::secret(mesh_namespace, ISSUING_CA_SECRET),
            bundle: Place::config_map(mesh_namespace, TRUST_BUNDLE_CONFIG_MAP),
        }
    }

    pub(crate) fn root_place(&self) -> String {
        self.root.to_string()
    }

    pub(crate) fn issuing_place(&self) -> String {
        self.issuing.to_string()
    }

    pub(crate) fn bundle_place(&self) -> String {
        self.bundle.to_string()
    }

    pub(crate) async fn read_root(&self) -> Result<Option<Root>, KeyStoreError> {
        let Some(secret) = self.read_secret(&self.root).await? else {
            return Ok(None);
        };
        let path = key_path(&self.root, ROOT_KEY);
        let AuthorityFile {
            certificate, key, ..
        } = AuthorityFile::parse(&path, secret.get(ROOT_KEY))?;
        Root::load(certificate, key)
            .map(Some)
            .map_err(|error| KeyStoreError::Root { path, error })
    }

    /// Never replaces one that is there.
    pub(crate) async fn create_root(&self, root: &Root) -> Result<Written, KeyStoreError> {
        let text = authority_file(root.certificate(), root.key(), &[]);
        let body = secret_body(&self.root, None, &[(ROOT_KEY, &text)]);
        self.create(&self.root, body).await
    }

    pub(crate) async fn read_issuing_authority(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<StoredAuthority>, KeyStoreError> {
        let Some(secret) = self.read_secret(&self.issuing).await? else {
            return Ok(None);
        };
        let kept_by = if secret.has(plugged_in::CERTIFICATE) {
            self.plugged_in(&secret, trust_domain)?
        } else {
            self.ours(&secret, trust_domain)?
        };
        let version = secret.metadata.resource_version.clone();
        Ok(Some(StoredAuthority { kept_by, version }))
    }

    fn ours(
        &self,
        secret: &SecretObject,
        trust_domain: &TrustDomain,
    ) -> Result<KeptBy, KeyStoreError> {
        let path = key_path(&self.issuing, ISSUING_KEY);
        let file = AuthorityFile::parse(&path, secret.get(ISSUING_KEY))?;
        let authority = IssuingAuthority::with_intermediates(
            file.certificate,
            file.intermediates,
            file.key,
            trust_domain,
        )
        .map_err(|error| KeyStoreError::Authority { path, error })?;
        let path = key_path(&self.issuing, MODE_KEY);
        let mode = match secret.get(MODE_KEY) {
            [] => RootMode::default(),
            word => String::from_utf8_lossy(word)
                .trim_end()
                .parse()
                .map_err(|error| KeyStoreError::RootMode { path, error })?,
        };
        let authority = Box::new(authority);
        Ok(KeptBy::Us { authority, mode })
    }

    fn plugged_in(
        &self,
        secret: &SecretObject,
        trust_domain: &TrustDomain,
    ) -> Result<KeptBy, KeyStoreError> {
        if secret.has(ISSUING_KEY) {
            return Err(KeyStoreError::TwoAuthorities {
                ours: key_path(&self.issuing, ISSUING_KEY),
                theirs: key_path(&self.issuing, plugged_in::CERTIFICATE),
            });
        }
        let PluggedIn { authority, roots } = PluggedIn::parse(
            &PathBuf::from(self.issuing.to_string()),
            secret.get(plugged_in::CERTIFICATE),
            secret.get(plugged_in::KEY),
            Some(secret.get(plugged_in::ROOTS)),
            trust_domain,
        )?;
        let authority = Box::new(authority);
        Ok(KeptBy::Another { authority, roots })
    }

    /// `before`: the version that it replaces; `None` where there is none.
    pub(crate) async fn write_issuing_authority(
        &self,
        authority: &NewIssuingAuthority,
        mode: RootMode,
        before: Option<&str>,
    ) -> Result<Written, KeyStoreError> {
        let text = authority_file(
            &authority.certificate,
            &authority.key,
            &authority.intermediates,
        );
        let mode = format!("{mode}\n");
        let data = [(ISSUING_KEY, text.as_str()), (MODE_KEY, &mode)];
        let body = secret_body(&self.issuing, before, &data);
        self.write(&self.issuing, body, before).await
    }

    pub(crate) async fn read_trust_bundle(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<StoredBundle>, KeyStoreError> {
        let Some(text) = self.objects.get(&self.bundle).await? else {
            return Ok(None);
        };
        let object: ConfigMapObject = parse(&self.bundle, &text)?;
        let pem = object.data.get(TRUST_BUNDLE_KEY).map_or("", String::as_str);
        let bundle =
            TrustBundle::from_pem(trust_domain.clone(), pem.as_bytes()).map_err(|error| {
                let path = key_path(&self.bundle, TRUST_BUNDLE_KEY);
                KeyStoreError::TrustBundle { path, error }
            })?;
        let version = object.metadata.resource_version;
        Ok(Some(StoredBundle { bundle, version }))
    }

    pub(crate) async fn write_trust_bundle(
        &self,
        bundle: &TrustBundle,
        before: Option<&str>,
    ) -> Result<Written, KeyStoreError> {
        let mut object = described(&self.bundle, before);
        if let Some(object) = object.as_object_mut() {
            let data = json!({ TRUST_BUNDLE_KEY: bundle.to_pem() });
            object.insert("data".to_owned(), data);
        }
        let body = object.to_string().into_bytes();
        self.write(&self.bundle, body, before).await
    }

    async fn write(
        &self,
        place: &Place,
        body: Vec<u8>,
        before: Option<&str>,
    ) -> Result<Written, KeyStoreError> {
        if before.is_none() {
            return self.create(place, body).await;
        }
        written(self.objects.change(place, None, Change::Merge, body).await)
    }

    async fn create(&self, place: &Place, body: Vec<u8>) -> Result<Written, KeyStoreError> {
        written(self.objects.create(place, body).await)
    }

    async fn read_secret(&self, place: &Place) -> Result<Option<SecretObject>, KeyStoreError> {
        let Some(text) = self.objects.get(place).await? else {
            return Ok(None);
        };
        Ok(Some(parse(place, &text)?))
    }
}

fn written<T>(result: Result<T, ObjectError>) -> Result<Written, KeyStoreError> {
    match result {
        Ok(_) => Ok(Written::Done),
        // deleted under our hands: looked at again, it is created
        Err(error)
            if matches!(
                error.failure,
                Failure::AlreadyExists | Failure::Conflict | Failure::NotFound
            ) =>
        {
            Ok(Written::Outrun)
        }
        Err(error) => Err(error.into()),
    }
}

/// How a key of an object is named in errors.
fn key_path(place: &Place, key: &str) -> PathBuf {
    PathBuf::from(place.to_string()).join(key)
}

#[derive(Deserialize)]
struct SecretObject {
    metadata: Version,
    #[serde(default)]
    data: BTreeMap<String, ByteString>,
}

impl SecretObject {
    fn has(&self, key: &str) -> bool {
        self.data.contains_key(key)
    }

    /// Empty if there is none.
    fn get(&self, key: &str) -> &[u8] {
        self.data.get(key).map_or(&[], |bytes| bytes.0.as_slice())
    }
}

impl Drop for SecretObject {
    fn drop(&mut self) {
        self.data.values_mut().for_each(|bytes| bytes.0.zeroize());
    }
}

#[derive(Deserialize)]
struct ConfigMapObject {
    metadata: Version,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

fn described(place: &Place, before: Option<&str>) -> serde_json::Value {
    let mut object = place.header();
    if let Some(metadata) = object
        .get_mut("metadata")
        .and_then(serde_json::Value::as_object_mut)
    {
        match before {
            Some(version) => metadata.insert("resourceVersion".to_owned(), json!(version)),
            None => metadata.insert(
                "labels".to_owned(),
                json!({ "app.kubernetes.io/part-of": "mesh-lite" }),
            ),
        };
    }
    object
}

/// Written by hand, so that no copy of a key stays behind in a buffer that was outgrown. What the
/// HTTP client makes of it is beyond our reach: the process ends soon after.
fn secret_body(place: &Place, before: Option<&str>, data: &[(&str, &str)]) -> Vec<u8> {
    const AROUND: usize = 64;
    let header = described(place, before).to_string();
    let head = header.strip_suffix('}').unwrap_or_default();
    let texts: Vec<_> = data
        .iter()
        .map(|(key, text)| (*key, encoded(text)))
        .collect();
    let length: usize = texts
        .iter()
        .map(|(key, text)| key.len() + text.len() + AROUND)
        .sum();
    let mut body = String::with_capacity(head.len() + length + AROUND);
    body.push_str(head);
    body.push_str(",\"type\":\"Opaque\",\"data\":{");
    for (index, (key, text)) in texts.iter().enumerate() {
        let parts = [
            if index == 0 { "\"" } else { ",\"" },
            key,
            "\":\"",
            text,
            "\"",
        ];
        parts.iter().for_each(|part| body.push_str(part));
    }
    body.push_str("}}");
    body.into_bytes()
}

fn encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len().div_ceil(3) * 4));
    base64(text.as_bytes(), &mut encoded);
    encoded
}

#[cfg(test)]
mod tests;
