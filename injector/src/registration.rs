//! The API server's registration of the webhook: a MutatingWebhookConfiguration that `mesh-lite
//! install` prints without `caBundle`, and in which whichever replica is alive keeps it current.
//!
//! Nothing else in it is ever touched, and none is ever made: who takes it away wants no injection.

use futures::StreamExt;
use k8s_openapi::ByteString;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use mesh_lite_proto::kubernetes::{INJECTOR_SERVICE, NAMESPACE_WEBHOOK, POD_WEBHOOK};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What a replica knows of the registration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Registration {
    /// Not asked yet, or no answer yet.
    #[default]
    Unknown,
    /// There is none: nobody calls the webhook.
    Absent,
    /// Our webhooks in it.
    Present(Vec<Entry>),
}

/// One of our webhooks in the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its place in the list, which a patch needs.
    index: usize,
    name: String,
    ca_bundle: Vec<u8>,
}

impl Registration {
    fn read(object: &DynamicObject) -> Self {
        let webhooks = object.data.get("webhooks").and_then(Value::as_array);
        let entries = webhooks.into_iter().flatten().enumerate();
        let ours = entries.filter_map(|(index, webhook)| {
            let webhook = Webhook::deserialize(webhook).ok()?;
            [NAMESPACE_WEBHOOK, POD_WEBHOOK]
                .contains(&webhook.name.as_str())
                .then(|| Entry {
                    index,
                    name: webhook.name,
                    ca_bundle: webhook
                        .client_config
                        .ca_bundle
                        .map_or_else(Vec::new, |ca| ca.0),
                })
        });
        Self::Present(ours.collect())
    }

    /// Whether the API server trusts exactly these CAs.
    pub(crate) fn carries(&self, ca_bundle: &str) -> bool {
        match self {
            Self::Unknown | Self::Absent => false,
            Self::Present(entries) => {
                !entries.is_empty()
                    && entries
                        .iter()
                        .all(|entry| entry.ca_bundle == ca_bundle.as_bytes())
            }
        }
    }

    /// The JSON Patch that makes it carry these CAs, if it does not. It applies only as long as the
    /// webhooks stand where they were seen.
    pub(crate) fn repair(&self, ca_bundle: &str) -> Option<json_patch::Patch> {
        let Self::Present(entries) = self else {
            return None;
        };
        let wrong = entries
            .iter()
            .filter(|entry| entry.ca_bundle != ca_bundle.as_bytes());
        let operations: Vec<Value> = wrong
            .flat_map(|Entry { index, name, .. }| {
                let bundle = ByteString(ca_bundle.as_bytes().to_vec());
                [
                    json!({"op": "test", "path": format!("/webhooks/{index}/name"), "value": name}),
                    json!({
                        "op": "add",
                        "path": format!("/webhooks/{index}/clientConfig/caBundle"),
                        "value": bundle,
                    }),
                ]
            })
            .collect();
        if operations.is_empty() {
            return None;
        }
        serde_json::from_value(Value::Array(operations)).ok()
    }
}

#[derive(Deserialize)]
struct Webhook {
    name: String,
    #[serde(default, rename = "clientConfig")]
    client_config: ClientConfig,
}

#[derive(Default, Deserialize)]
struct ClientConfig {
    #[serde(default, rename = "caBundle")]
    ca_bundle: Option<ByteString>,
}

fn api(client: Client) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "admissionregistration.k8s.io/v1".to_owned(),
        kind: "MutatingWebhookConfiguration".to_owned(),
        plural: "mutatingwebhookconfigurations".to_owned(),
    };
    Api::all_with(client, &resource)
}

/// Follows the registration until nobody wants to know any more. Away API servers are waited for.
pub(crate) async fn follow(client: Client, seen: watch::Sender<Registration>) {
    let only_ours = watcher::Config::default().fields(&format!("metadata.name={INJECTOR_SERVICE}"));
    let mut events = watcher(api(client), only_ours).default_backoff().boxed();
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) if is_ours(&object) => {
                listed = Some(Registration::read(&object));
            }
            Ok(watcher::Event::InitDone) => {
                seen.send_replace(listed.take().unwrap_or(Registration::Absent));
            }
            Ok(watcher::Event::Apply(object)) if is_ours(&object) => {
                seen.send_replace(Registration::read(&object));
            }
            Ok(watcher::Event::Delete(object)) if is_ours(&object) => {
                tracing::warn!(
                    "the MutatingWebhookConfiguration {INJECTOR_SERVICE} is gone: no pod is injected until \
                     it is there again"
                );
                seen.send_replace(Registration::Absent);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(
                error = %error.to_string().escape_debug(),
                "the MutatingWebhookConfiguration {INJECTOR_SERVICE} can't be watched; trying again"
            ),
        }
        if seen.is_closed() {
            return;
        }
    }
}

fn is_ours(object: &DynamicObject) -> bool {
    object.metadata.name.as_deref() == Some(INJECTOR_SERVICE)
}

pub(crate) async fn patch(client: Client, patch: json_patch::Patch) -> Result<(), kube::Error> {
    let patch = Patch::Json::<()>(patch);
    api(client)
        .patch(INJECTOR_SERVICE, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests;
