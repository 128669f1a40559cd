//! `mesh-lite install`: what a cluster needs, as plain manifests for kubectl.

use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use ipnet::IpNet;
use mesh_lite_injector::{
    installation::{self, Choices, VERSION},
    mesh_settings::PullPolicy,
};
use mesh_lite_proto::{
    identity::parse_trust_domain,
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};
use spiffe::TrustDomain;

use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  mesh-lite install | kubectl apply -f -
  mesh-lite install --strict --ha --image images.example/mesh-lite:1.0 | kubectl apply -f -
  mesh-lite install --issuing-ca-secret mesh-issuer    the CA is made and renewed by cert-manager

Then label a namespace and restart its pods:
  mesh-lite check -n shop
  kubectl label namespace shop mesh-lite.io/inject=enabled
  kubectl -n shop rollout restart deployment

Nothing is read from or written to a cluster, and nothing that is printed is secret: the root is made
in the cluster, by a Job, once. The same command with other flags or of another version is an
upgrade. The first kubectl apply may have to be repeated if the kinds are not there quickly enough.

Exit codes: 0 printed, 1 could not be written, 2 wrong usage.";

/// Print the manifests that put the mesh into a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// STRICT, default DENY, and no plaintext to pods without a sidecar. Without it PERMISSIVE:
    /// for the time in which pods come into the mesh.
    #[arg(long)]
    strict: bool,
    /// Two replicas of the control plane.
    #[arg(long)]
    ha: bool,
    /// Of the control plane, the injector and the sidecars.
    #[arg(long, value_parser = image, default_value_t = format!("mesh-lite:{VERSION}"))]
    image: String,
    /// When nodes fetch the image.
    #[arg(long, value_parser = pull_policy(), default_value = "IfNotPresent", value_name = "POLICY")]
    image_pull_policy: PullPolicy,
    /// A Secret in the mesh's namespace, for the image of the control plane and the injector.
    #[arg(long, value_parser = object_name, value_name = "SECRET")]
    image_pull_secret: Option<String>,
    /// Where the mesh itself runs. Policy in it is for the whole mesh.
    #[arg(long, value_parser = namespace, default_value = DEFAULT_MESH_NAMESPACE, value_name = "NAMESPACE")]
    mesh_namespace: String,
    /// Of all identities. One for each cluster.
    #[arg(long, value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    /// Addresses inside the mesh, if not as the cluster says.
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    mesh_cidrs: Vec<IpNet>,
    /// Exceptions: addresses that count as outside.
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    external_cidrs: Vec<IpNet>,
    /// A Secret in the mesh's namespace with tls.crt, tls.key and ca.crt, which somebody else fills
    /// and renews. Without it the mesh has a root of its own.
    #[arg(long, value_parser = object_name, value_name = "SECRET")]
    issuing_ca_secret: Option<String>,
    /// For the pods of control plane and injector.
    #[arg(long, value_parser = object_name, value_name = "NAME")]
    priority_class: Option<String>,
}

fn pull_policy() -> impl TypedValueParser<Value = PullPolicy> {
    PossibleValuesParser::new(["Always", "IfNotPresent", "Never"])
        .try_map(|word| word.parse::<PullPolicy>())
}

/// No text of an argument may become more than a text in the manifests.
fn image(text: &str) -> Result<String, String> {
    let holds = |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(holds) {
        return Ok(text.to_owned());
    }
    Err("write an image as pods do: images.example/mesh-lite:1.0".to_owned())
}

fn namespace(text: &str) -> Result<String, String> {
    if text.contains('.') || text.len() > 63 {
        return Err("a namespace has 1 to 63 lower-case letters, digits and dashes".to_owned());
    }
    if text == "default" || text.starts_with("kube-") {
        return Err(format!(
            "{text} is the cluster's own: its pods are not the mesh's, and policy in the mesh's namespace \
             is for the whole mesh; choose one that has nothing else, as {DEFAULT_MESH_NAMESPACE}"
        ));
    }
    object_name(text)
}

fn object_name(text: &str) -> Result<String, String> {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let holds = |c: char| ends(c) || c == '-' || c == '.';
    let well_formed = text.len() <= 253
        && text.starts_with(ends)
        && text.ends_with(ends)
        && text.chars().all(holds);
    if well_formed {
        return Ok(text.to_owned());
    }
    Err("a name has lower-case letters, digits, dashes and dots".to_owned())
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let choices = Choices {
        mesh_namespace: args.mesh_namespace,
        image: args.image,
        image_pull_policy: args.image_pull_policy,
        image_pull_secret: args.image_pull_secret,
        trust_domain: args.trust_domain,
        strict: args.strict,
        ha: args.ha,
        mesh_cidrs: args.mesh_cidrs,
        external_cidrs: args.external_cidrs,
        issuing_ca_secret: args.issuing_ca_secret,
        priority_class: args.priority_class,
    };
    terminal::print(&installation::text(&choices))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_more_than_a_name_is_refused() {
        for wrong in ["", "-a", "a\nb", "a b", "A", "a:", "{{ x }}", "a\"b", "ä"] {
            assert!(object_name(wrong).is_err(), "{wrong:?}");
            assert!(namespace(wrong).is_err(), "{wrong:?}");
        }
        assert!(namespace("a.b").is_err());
        for clusters in [
            "default",
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "kube-x",
        ] {
            let words = namespace(clusters).unwrap_err();
            assert!(words.contains("cluster's own"), "{words}");
        }
        assert_eq!(namespace("kubernetes-mesh").unwrap(), "kubernetes-mesh");
        for wrong in [
            "", " mesh", "a\nb", "a b", "{{ x }}", "a\"", "-x", "@{image}",
        ] {
            assert!(image(wrong).is_err(), "{wrong:?}");
        }
        assert!(image("images.example:5000/a/b_c:1.0@sha256:00").is_ok());
    }
}
