//! What `mesh-lite install` prints: every object that the mesh needs in a cluster, and no secret.
//!
//! ```text
//! Choices ─▶ objects ─▶ one text for kubectl
//!                   └─▶ chart: the same objects, with placeholders for Helm to fill in
//! ```
//! Objects are made once, as JSON values. Where they depend on a choice, they hold a placeholder
//! or a part with a condition; [`manifests`] settles both, the chart hands both to Helm.

use std::fmt::Write as _;

use ipnet::IpNet;
use mesh_lite_proto::sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN};
use serde_json::Value;
use spiffe::TrustDomain;

use crate::mesh_settings::PullPolicy;

pub mod chart;
pub mod yaml;

mod choice;
mod custom_resources;
mod parts;
mod permissions;
mod registration;
mod root_jobs;
mod workloads;

use choice::{Condition, Text};
pub use custom_resources::custom_resource_definitions;
pub use registration::{WEBHOOK_PATH, webhook_entries};

/// Where the control plane finds issuing CA and trust bundle: a projected volume, read-only.
pub const AUTHORITY_DIR: &str = "/var/run/mesh-lite/authority";
/// Of our own images and objects.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What can be chosen at `install`.
#[derive(Debug, Clone)]
pub struct Choices {
    pub mesh_namespace: String,
    pub image: String,
    pub image_pull_policy: PullPolicy,
    /// A Secret in the mesh's namespace, for the image of the control plane and the injector.
    pub image_pull_secret: Option<String>,
    pub trust_domain: TrustDomain,
    /// STRICT, default DENY, no plaintext to pods without a sidecar.
    pub strict: bool,
    /// Two replicas of the control plane.
    pub ha: bool,
    /// What the cluster does not say of itself; none: taken from the API server.
    pub mesh_cidrs: Vec<IpNet>,
    pub external_cidrs: Vec<IpNet>,
    /// A Secret with `tls.crt`, `tls.key` and `ca.crt` that somebody else fills and renews.
    pub issuing_ca_secret: Option<String>,
    pub priority_class: Option<String>,
}

impl Default for Choices {
    #[expect(clippy::expect_used, reason = "a constant that a test parses as well")]
    fn default() -> Self {
        Self {
            mesh_namespace: DEFAULT_MESH_NAMESPACE.to_owned(),
            image: format!("mesh-lite:{VERSION}"),
            image_pull_policy: PullPolicy::IfNotPresent,
            image_pull_secret: None,
            trust_domain: TrustDomain::new(DEFAULT_TRUST_DOMAIN).expect("a trust domain"),
            strict: false,
            ha: false,
            mesh_cidrs: Vec::new(),
            external_cidrs: Vec::new(),
            issuing_ca_secret: None,
            priority_class: None,
        }
    }
}

impl Choices {
    fn holds(&self, condition: Condition) -> bool {
        match condition {
            Condition::Strict => self.strict,
            Condition::Permissive => !self.strict,
            Condition::HighlyAvailable => self.ha,
            Condition::Single => !self.ha,
            Condition::OwnRoot => self.issuing_ca_secret.is_none(),
            Condition::PluginCa => self.issuing_ca_secret.is_some(),
            Condition::MeshCidrs => !self.mesh_cidrs.is_empty(),
            Condition::ExternalCidrs => !self.external_cidrs.is_empty(),
            Condition::ImagePullSecret => self.image_pull_secret.is_some(),
            Condition::PriorityClass => self.priority_class.is_some(),
        }
    }

    fn text(&self, text: Text) -> String {
        let or_nothing = |name: &Option<String>| name.clone().unwrap_or_default();
        match text {
            Text::MeshNamespace => self.mesh_namespace.clone(),
            Text::Image => self.image.clone(),
            Text::ImagePullPolicy => self.image_pull_policy.as_str().to_owned(),
            Text::ImagePullSecret => or_nothing(&self.image_pull_secret),
            Text::TrustDomain => self.trust_domain.to_string(),
            Text::MeshCidrs => list(&self.mesh_cidrs),
            Text::ExternalCidrs => list(&self.external_cidrs),
            Text::IssuingCaSecret => or_nothing(&self.issuing_ca_secret),
            Text::PriorityClass => or_nothing(&self.priority_class),
            Text::RootJob => root_jobs::root_init_name(
                &self.mesh_namespace,
                &self.image,
                self.image_pull_policy.as_str(),
                self.trust_domain.as_ref(),
            ),
        }
    }
}

fn list(networks: &[IpNet]) -> String {
    let texts: Vec<String> = networks.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// The objects, in the order in which they can be created.
pub fn manifests(choices: &Choices) -> Vec<Value> {
    parts::all()
        .into_iter()
        .filter(|part| part.conditions.iter().all(|when| choices.holds(*when)))
        .filter_map(|part| {
            choice::settle(part.object, &|when| choices.holds(when), &|text| {
                choices.text(text)
            })
        })
        .collect()
}

/// What `kubectl apply -f -` takes: what the choices mean as comments, then [`manifests`].
pub fn text(choices: &Choices) -> String {
    let mut text = String::new();
    for line in heading(choices).lines() {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    for object in manifests(choices) {
        text.push_str("---\n");
        text.push_str(&yaml::to_text(&object));
    }
    text
}

/// What holds at once, and what has to be done about it.
fn heading(choices: &Choices) -> String {
    let Choices {
        mesh_namespace,
        image,
        trust_domain,
        ..
    } = choices;
    let mut text = format!(
        "mesh-lite {VERSION}: namespace {mesh_namespace}, trust domain {trust_domain}, image {image}.\n\
         No secret is in here: "
    );
    match &choices.issuing_ca_secret {
        None => text.push_str("a Job makes root and first issuing CA in the cluster.\n"),
        Some(secret) => {
            let _ = writeln!(
                text,
                "the issuing CA comes from the Secret {mesh_namespace}/{secret}."
            );
        }
    }
    text.push_str(if choices.strict {
        "\nSTRICT: meshed pods take mutual TLS only, nothing is allowed that no policy allows, and they\n\
         send no plaintext to pods without a sidecar.\n"
    } else {
        "\nPERMISSIVE: meshed pods also take plaintext, whatever no policy denies is allowed, and they send\n\
         plaintext to pods without a sidecar. `mesh-lite check` repeats this until you install with --strict.\n"
    });
    text
}

#[cfg(test)]
mod tests;
