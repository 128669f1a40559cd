//! Whether the mesh itself is there, of one version, and reachable.

use mesh_lite_proto::{
    kubernetes::{CONTROL_PLANE_SERVICE, INJECTOR_SERVICE},
    sidecar::DEFAULT_TRUST_DOMAIN,
};
use serde_json::Value;

use super::{
    Finding, list, name, number,
    objects::{DEPLOYMENTS, Kind, Objects},
    text,
};
use crate::installation::{VERSION, custom_resource_definitions, webhook_entries};

/// Below it the API server or kubelets lack what sidecars rest on.
const OLDEST: (u32, u32) = (1, 33);

pub(super) fn findings(objects: &Objects, mesh: &str) -> Vec<Finding> {
    let mut findings = version(objects);
    findings.extend(kinds(objects));
    for deployment in DEPLOYMENTS {
        findings.extend(runs(objects, mesh, deployment));
    }
    findings.extend(registration(objects, mesh));
    findings.extend(modes(objects));
    findings.extend(readiness(objects));
    findings
}

/// Native sidecars and ServiceCIDRs are on by default from there on.
pub(super) fn version(objects: &Objects) -> Vec<Finding> {
    let Some(version) = objects.of(Kind::ServerVersion).first() else {
        return Vec::new();
    };
    let digits = |pointer| {
        let digits: String = text(version, pointer)
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse::<u32>().ok()
    };
    let stated = text(version, "/gitVersion");
    let what = match (digits("/major"), digits("/minor")) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => return Vec::new(),
        (Some(_), Some(_)) => format!(
            "{stated} is older than 1.33: sidecars would not start before the application, and Jobs with one would not end"
        ),
        _ => format!("says no version that can be read: {stated:?}"),
    };
    let next = "upgrade the cluster to 1.33 or later first";
    vec![Finding::problem("API server", what, next)]
}

fn kinds(objects: &Objects) -> Vec<Finding> {
    if !objects.is_known(Kind::CustomResourceDefinitions) {
        return Vec::new();
    }
    let there = objects.of(Kind::CustomResourceDefinitions);
    let mut findings = Vec::new();
    for wanted in custom_resource_definitions() {
        let subject = format!("CustomResourceDefinition {}", name(&wanted));
        let next = "mesh-lite install | kubectl apply -f -";
        match there.iter().find(|found| name(found) == name(&wanted)) {
            None => findings.push(Finding::problem(subject, "is not there", next)),
            Some(found) if !keeps_unknown_fields(found) => findings.push(Finding::problem(
                subject,
                "drops fields that it does not know: a rule would lose a condition in silence",
                next,
            )),
            Some(_) => {}
        }
    }
    findings
}

fn keeps_unknown_fields(definition: &Value) -> bool {
    let pointer = "/schema/openAPIV3Schema/properties/spec/x-kubernetes-preserve-unknown-fields";
    list(definition, "/spec/versions")
        .iter()
        .all(|version| version.pointer(pointer) == Some(&Value::Bool(true)))
}

/// Its Deployment has all replicas, is of our version, and its Service leads to one of them.
fn runs(objects: &Objects, mesh: &str, deployment: &str) -> Vec<Finding> {
    if !objects.is_known(Kind::Deployments) {
        return Vec::new();
    }
    let subject = format!("Deployment {mesh}/{deployment}");
    let found = objects
        .of(Kind::Deployments)
        .iter()
        .find(|found| name(found) == deployment);
    let Some(found) = found else {
        let next =
            "mesh-lite install | kubectl apply -f -; if the mesh is elsewhere, --mesh-namespace";
        return vec![Finding::problem(subject, "is not there", next)];
    };
    let mut findings = Vec::new();
    let wanted = found
        .pointer("/spec/replicas")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let ready = number(found, "/status/readyReplicas");
    if ready < wanted {
        let what = format!("{ready} of {wanted} replicas are ready");
        let next = format!(
            "kubectl -n {mesh} describe deployment,pod; kubectl -n {mesh} logs deployment/{deployment}"
        );
        findings.push(match ready {
            0 => Finding::problem(&subject, what, next),
            _ => Finding::warning(&subject, what, next),
        });
    }
    let version = text(found, "/metadata/labels/app.kubernetes.io~1version");
    if version != VERSION {
        let what = format!("is of version {version:?}, this program of {VERSION}");
        let next =
            "use the program of that version, or upgrade: mesh-lite install | kubectl apply -f -";
        findings.push(Finding::warning(&subject, what, next));
    }
    if objects.is_known(Kind::EndpointSlices) && !has_endpoint(objects, deployment) {
        let what = match deployment {
            INJECTOR_SERVICE => "has no endpoint: pods of labelled namespaces can't be made",
            _ => "has no endpoint: no certificate is issued and no policy changes",
        };
        let next = format!("kubectl -n {mesh} get pods,endpointslices");
        findings.push(Finding::problem(
            format!("Service {mesh}/{deployment}"),
            what,
            next,
        ));
    }
    findings
}

fn has_endpoint(objects: &Objects, service: &str) -> bool {
    let slices = objects.of(Kind::EndpointSlices).iter();
    let mut slices = slices
        .filter(|slice| text(slice, "/metadata/labels/kubernetes.io~1service-name") == service);
    slices.any(|slice| {
        let mut endpoints = list(slice, "/endpoints").iter();
        endpoints.any(|endpoint| endpoint.pointer("/conditions/ready") == Some(&Value::Bool(true)))
    })
}

/// What the API server must be told, and has to have been told by the injector.
fn registration(objects: &Objects, mesh: &str) -> Vec<Finding> {
    if !objects.is_known(Kind::MutatingWebhooks) {
        return Vec::new();
    }
    let subject = format!("MutatingWebhookConfiguration {INJECTOR_SERVICE}");
    let again = "mesh-lite install | kubectl apply -f -";
    let all = objects.of(Kind::MutatingWebhooks).iter();
    let Some(found) = all
        .into_iter()
        .find(|found| name(found) == INJECTOR_SERVICE)
    else {
        let what = "is not there: no pod gets a sidecar";
        return vec![Finding::problem(subject, what, again)];
    };
    let mut findings = Vec::new();
    let webhooks = list(found, "/webhooks");
    for wanted in webhook_entries(mesh).as_array().into_iter().flatten() {
        let wanted_name = text(wanted, "/name");
        let Some(webhook) = webhooks
            .iter()
            .find(|webhook| text(webhook, "/name") == wanted_name)
        else {
            let what = format!("lacks the webhook {wanted_name}");
            findings.push(Finding::problem(&subject, what, again));
            continue;
        };
        for field in [
            "failurePolicy",
            "namespaceSelector",
            "objectSelector",
            "rules",
        ] {
            if webhook.get(field) != wanted.get(field) {
                let what = format!("{wanted_name}: {field} is not what install writes");
                findings.push(Finding::problem(&subject, what, again));
            }
        }
        if text(webhook, "/clientConfig/caBundle").is_empty() {
            let what = format!(
                "{wanted_name}: has no caBundle: pods of labelled namespaces can't be made"
            );
            let next = format!(
                "the injector writes it: kubectl -n {mesh} logs deployment/{INJECTOR_SERVICE}"
            );
            findings.push(Finding::problem(&subject, what, next));
        }
    }
    findings
}

/// What `install` chose, repeated until it is chosen otherwise.
fn modes(objects: &Objects) -> Vec<Finding> {
    let found = objects
        .of(Kind::Deployments)
        .iter()
        .find(|found| name(found) == CONTROL_PLANE_SERVICE);
    let Some(found) = found else {
        return Vec::new();
    };
    let arguments = list(found, "/spec/template/spec/containers/0/args");
    let says = |argument: &str| arguments.iter().any(|said| said == argument);
    let mut findings = Vec::new();
    if says("--shipped=permissive") {
        findings.push(Finding::warning(
            "mesh",
            "PERMISSIVE: meshed pods take plaintext too, and whatever no policy denies is allowed",
            "mesh-lite policy documents --to cluster; when `mesh-lite strict-ready --config-dir cluster --shipped \
             permissive` says so of their recordings: mesh-lite install --strict | kubectl apply -f -",
        ));
    }
    if says("--outbound-unmeshed=allow") {
        findings.push(Finding::warning(
            "mesh",
            "meshed pods send plaintext to pods without a sidecar",
            "mesh-lite install --strict ends that",
        ));
    }
    if says(&format!("--trust-domain={DEFAULT_TRUST_DOMAIN}")) {
        findings.push(Finding::warning(
            "mesh",
            format!("the trust domain is {DEFAULT_TRUST_DOMAIN}: in a second cluster with it, equal names would be equal identities"),
            "before there is a second one: mesh-lite install --trust-domain, in a new mesh",
        ));
    }
    findings
}

/// What the control plane itself says is wrong: documents, issuing CA, root.
fn readiness(objects: &Objects) -> Vec<Finding> {
    let text = objects
        .of(Kind::ControlPlaneReadiness)
        .first()
        .and_then(Value::as_str);
    let lines = text
        .unwrap_or_default()
        .lines()
        .filter(|line| *line != "ok");
    let lines = lines.filter(|line| !line.starts_with("serving, with "));
    lines
        .map(|line| Finding::problem("control plane", line, "see what it says"))
        .collect()
}
