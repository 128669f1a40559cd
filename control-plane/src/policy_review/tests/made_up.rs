//! Documents and recordings that tests make up.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    decision_record::{Recording, Utc},
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};
use serde_json::{Value, json};

use super::super::{Documents, NamedRecording, NoWorkload, Recorded, ReviewSettings, workloads_of};
use crate::{outbound_rules::OutboundRules, policy_index::ShippedDefaults};

pub(in crate::policy_review) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(in crate::policy_review) const GUEST: &str = "spiffe://cluster.local/ns/shop/sa/guest";
pub(in crate::policy_review) const API: &str = "spiffe://cluster.local/ns/shop/sa/api";
pub(in crate::policy_review) const WEB_ADDRESS: &str = "10.0.0.10:4000";
pub(in crate::policy_review) const GUEST_ADDRESS: &str = "10.0.0.13:4000";
pub(in crate::policy_review) const LEGACY_ADDRESS: &str = "10.0.0.12:4000";
pub(in crate::policy_review) const API_PORT: &str = "10.0.0.11:8080";

/// web, api and guest in the mesh, legacy outside.
pub(in crate::policy_review) const WORKLOADS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web-1, namespace: shop}
spec: {serviceAccount: web, addresses: [10.0.0.10], labels: {app: web}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api-1, namespace: shop}
spec: {serviceAccount: api, addresses: [10.0.0.11], labels: {app: api}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: guest-1, namespace: shop}
spec: {serviceAccount: guest, addresses: [10.0.0.13], labels: {app: guest}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: legacy, namespace: shop}
spec: {serviceAccount: legacy, addresses: [10.0.0.12], meshed: false}
---
";

/// api may be called by these principals of namespace shop.
pub(in crate::policy_review) fn allowing(accounts: &[&str]) -> String {
    let principals: Vec<String> = accounts
        .iter()
        .map(|account| format!("cluster.local/ns/shop/sa/{account}"))
        .collect();
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: api-callers, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: api}}}}\n  action: ALLOW\n  rules:\n  \
         - from:\n    - source: {{principals: {principals:?}}}\n---\n"
    )
}

pub(in crate::policy_review) const PERMISSIVE: &str = "\
apiVersion: mesh-lite.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
---
";

pub(in crate::policy_review) fn settings(shipped: ShippedDefaults) -> ReviewSettings {
    ReviewSettings {
        trust_domain: DEFAULT_TRUST_DOMAIN.parse().unwrap(),
        mesh_namespace: DEFAULT_MESH_NAMESPACE.to_owned(),
        dialect: mesh_lite_proto::document::Dialect::default(),
        shipped,
        outbound: OutboundRules::default(),
    }
}

pub(in crate::policy_review) fn documents(texts: &[&str]) -> Documents {
    shipped(ShippedDefaults::STRICT, texts)
}

pub(in crate::policy_review) fn shipped(shipped: ShippedDefaults, texts: &[&str]) -> Documents {
    let text = texts.concat().into_bytes();
    let files = BTreeMap::from([("new.yaml".to_owned(), text)]);
    Documents::of(&files, &settings(shipped))
}

/// Noon of some day, and so many minutes later; all that is recorded here lies before noon.
pub(in crate::policy_review) fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * 86_400 + 12 * 3600)
}

pub(in crate::policy_review) fn before_noon(minutes: u64) -> String {
    Utc(noon() - Duration::from_secs(minutes * 60)).to_string()
}

/// Calls to api that came in an hour ago the first time and half an hour ago the last.
#[derive(Debug, Clone)]
pub(in crate::policy_review) struct Calls(Value);

impl Calls {
    pub(in crate::policy_review) fn of(caller: Option<&str>, from: &str, decision: &str) -> Self {
        let mut line = json!({
            "event": "decision", "time": before_noon(30), "first": before_noon(60),
            "direction": "inbound", "src.addr": from, "dst.addr": API_PORT,
            "decision": decision, "count": 1, "open": 0, "conn_ids": [],
        });
        if decision == "deny" {
            line["step"] = "no-allow-rule".into();
        }
        let mut calls = Self(line);
        if let Some(caller) = caller {
            calls = calls.with("src.identity", caller).with("dst.identity", API);
        } else if decision == "allow" {
            calls = calls.with("plaintext", "inbound_permissive");
        }
        calls
    }

    /// web's, let through.
    pub(in crate::policy_review) fn of_web() -> Self {
        Self::of(Some(WEB), WEB_ADDRESS, "allow")
    }

    /// guest's, denied.
    pub(in crate::policy_review) fn of_guest() -> Self {
        Self::of(Some(GUEST), GUEST_ADDRESS, "deny").with("reason", "no ALLOW rule matches")
    }

    /// Plaintext of legacy, let through.
    pub(in crate::policy_review) fn of_legacy() -> Self {
        Self::of(None, LEGACY_ADDRESS, "allow")
    }

    pub(in crate::policy_review) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }

    pub(in crate::policy_review) fn count(self, count: u64) -> Self {
        self.with("count", count)
    }

    pub(in crate::policy_review) fn open(self, open: u64) -> Self {
        let calls = self.with("open", open);
        let count = calls.0["count"].as_u64().unwrap();
        calls.count(count.max(open))
    }

    /// The last one came so many minutes before noon.
    pub(in crate::policy_review) fn last(self, minutes: u64) -> Self {
        let first = before_noon(minutes.max(60));
        self.with("time", before_noon(minutes)).with("first", first)
    }
}

/// A page of ten days up to noon, of which nothing is lost.
pub(in crate::policy_review) fn page(workload: &str, calls: &[Calls]) -> Recording {
    page_with(workload, &json!({}), calls)
}

/// As [`page`], with some fields of its header otherwise; null removes one.
pub(in crate::policy_review) fn page_with(
    workload: &str,
    header: &Value,
    calls: &[Calls],
) -> Recording {
    let mut first = json!({
        "event": "recording", "workload": workload, "since": before_noon(10 * 24 * 60),
        "until": before_noon(0), "forgotten": 0, "forgotten_let_through": 0, "ends_noted": true,
        "records": calls.len(),
    });
    for (field, value) in header.as_object().unwrap() {
        first[field] = value.clone();
    }
    first
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    let mut text = format!("{first}\n");
    for calls in calls {
        text.push_str(&format!("{}\n", calls.0));
    }
    Recording::read("page", text.as_bytes()).unwrap()
}

/// The same recordings under the names 0, 1, 2.
pub(in crate::policy_review) fn recorded<'a>(
    documents: &'a Documents,
    recordings: &'a [Recording],
) -> Result<Vec<Recorded<'a>>, NoWorkload> {
    const NAMES: [&str; 3] = ["0", "1", "2"];
    let named: Vec<NamedRecording<'a>> = NAMES
        .iter()
        .zip(recordings)
        .map(|(name, recording)| NamedRecording { name, recording })
        .collect();
    workloads_of(documents, &named, noon())
}
