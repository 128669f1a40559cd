//! Secrets by name, for scripts; the content is a text.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use crate::{
    secret_discovery::{
        BundleForm, NamedVersion, Secrets, VersionedSecret, active_authority_secret,
    },
    wire::envoy::extensions::transport_sockets::tls::v3::Secret,
};

#[derive(Default)]
pub(crate) struct Store {
    contents: Mutex<BTreeMap<String, String>>,
    being_made: Mutex<BTreeSet<String>>,
    secrets: Mutex<BTreeMap<String, VersionedSecret>>,
}

impl Store {
    pub(crate) fn with(names: &[&str]) -> Self {
        let store = Self::default();
        names.iter().for_each(|name| store.set(name, "first"));
        store
    }

    pub(crate) fn set(&self, name: &str, content: &str) {
        self.being_made.lock().unwrap().remove(name);
        let mut contents = self.contents.lock().unwrap();
        contents.insert(name.to_owned(), content.to_owned());
    }

    /// What is more than a text.
    pub(crate) fn set_secret(&self, name: &str, secret: VersionedSecret) {
        self.secrets.lock().unwrap().insert(name.to_owned(), secret);
    }

    pub(crate) fn remove(&self, name: &str) {
        self.contents.lock().unwrap().remove(name);
    }

    pub(crate) fn begin_to_make(&self, name: &str) {
        self.being_made.lock().unwrap().insert(name.to_owned());
    }

    /// These as they are now.
    pub(crate) fn versions(&self, names: &[&str]) -> Vec<NamedVersion> {
        let version = |name: &&str| NamedVersion {
            name: (*name).to_owned(),
            version: self.secret(name, BundleForm::default()).unwrap().version,
        };
        names.iter().map(version).collect()
    }
}

impl Secrets for Store {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        if let Some(secret) = self.secrets.lock().unwrap().get(name) {
            return Some(secret.clone());
        }
        let content = self.contents.lock().unwrap().get(name)?.clone();
        let secret = active_authority_secret(&format!("{content} {form:?}"));
        Some(VersionedSecret::new(Secret {
            name: name.to_owned(),
            ..secret
        }))
    }

    fn is_being_made(&self, name: &str) -> bool {
        self.being_made.lock().unwrap().contains(name)
    }
}
