//! `mesh-lite status`: what runs, which pods are in the mesh, which policies are refused.

use std::{fmt::Write as _, process::ExitCode};

use mesh_lite_injector::cluster_check::{
    PodsOfNamespace,
    objects::{DEPLOYMENTS, Kind, Objects, Question},
    pods_of_namespaces, roots,
};
use mesh_lite_proto::{decision_record::Utc, sidecar::DEFAULT_MESH_NAMESPACE};
use serde_json::{Value, json};

use crate::{
    check::{Output, objects, unreachable},
    terminal::{self, Paint, harmless},
};

const EXAMPLES: &str = "\
Examples:
  mesh-lite status
  mesh-lite status -n shop --output json

The cluster is the one of KUBECONFIG, asked with your own rights; nothing is changed. What is wrong,
and what to do about it, says mesh-lite check; of a single sidecar's certificate, mesh-lite identity.

Exit codes: 0 all of it was read; 1 a deployment is not there or has no ready replica, a policy is
refused, or a labelled namespace has pods without a sidecar that are not left out on purpose; 2 wrong
usage, no such namespace, the API server can't be reached, or something could not be read.";

/// Say what of the mesh runs, and which pods are in it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only pods and policies of this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Where the mesh itself runs.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE, value_name = "NAMESPACE")]
    mesh_namespace: String,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// `None` is what could not be read.
struct Status {
    deployments: Option<Vec<Deployment>>,
    namespaces: Option<Vec<(String, PodsOfNamespace)>>,
    refused: Option<Vec<Refused>>,
    roots: Option<Option<(usize, String)>>,
    /// The namespace that was asked for, and is not there.
    missing: Option<String>,
    unreadable: Vec<String>,
}

/// Pods without a sidecar that are named; more say nothing new.
const MAX_NAMED: usize = 20;

struct Deployment {
    name: &'static str,
    version: String,
    ready: u64,
    wanted: u64,
}

struct Refused {
    object: String,
    reason: String,
    message: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let objects = match objects(Question::Mesh(&args.mesh_namespace)) {
        Ok(objects) => objects,
        Err(error) => return Ok(unreachable(&error)),
    };
    let status = status(&objects, &args.mesh_namespace, args.namespace.as_deref());
    match args.output {
        Output::Json => terminal::print_line(&terminal::json(&status.as_json()))?,
        Output::Text => terminal::print(&status.describe(Paint::for_stdout()))?,
    }
    Ok(status.exit_code())
}

fn text(object: &Value, pointer: &str) -> String {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default().to_owned()
}

fn status(objects: &Objects, mesh: &str, only: Option<&str>) -> Status {
    let deployments = DEPLOYMENTS.map(|name| {
        let all = objects.of(Kind::Deployments).iter();
        let found = all
            .into_iter()
            .find(|found| text(found, "/metadata/name") == name);
        let number = |pointer| found.and_then(|found| found.pointer(pointer)?.as_u64());
        Deployment {
            name,
            version: found.map_or_else(String::new, |found| {
                text(found, "/metadata/labels/app.kubernetes.io~1version")
            }),
            ready: number("/status/readyReplicas").unwrap_or(0),
            wanted: number("/spec/replicas").unwrap_or(0),
        }
    });
    let is_asked = |namespace: &str| only.is_none_or(|only| only == namespace);
    let namespaces = pods_of_namespaces(objects).into_iter();
    let known = |kinds: &[Kind]| kinds.iter().all(|kind| objects.is_known(*kind));
    let roots =
        roots(objects, mesh).map(|roots| (roots.count, Utc(roots.last_end.into()).to_string()));
    let policies = POLICIES.map(|(kind, _)| kind);
    Status {
        deployments: known(&[Kind::Deployments]).then(|| deployments.into()),
        namespaces: known(&[Kind::Namespaces, Kind::Pods])
            .then(|| namespaces.filter(|(name, _)| is_asked(name)).collect()),
        refused: known(&policies).then(|| refused(objects, is_asked)),
        roots: known(&[Kind::TrustBundles]).then_some(roots),
        missing: only
            .filter(|only| is_missing(objects, only))
            .map(str::to_owned),
        // one line for each kind that was not read
        unreadable: objects
            .unreadable()
            .map(|(kind, why)| format!("{kind}: {why}"))
            .collect(),
    }
}

fn is_missing(objects: &Objects, namespace: &str) -> bool {
    let mut all = objects.of(Kind::Namespaces).iter();
    objects.is_known(Kind::Namespaces)
        && !all.any(|found| text(found, "/metadata/name") == namespace)
}

const POLICIES: [(Kind, &str); 3] = [
    (Kind::AuthorizationPolicies, "AuthorizationPolicy"),
    (Kind::PeerAuthentications, "PeerAuthentication"),
    (Kind::Evictions, "Eviction"),
];

fn refused(objects: &Objects, is_asked: impl Fn(&str) -> bool) -> Vec<Refused> {
    let mut refused = Vec::new();
    for (kind, word) in POLICIES {
        for object in objects.of(kind) {
            let namespace = text(object, "/metadata/namespace");
            let conditions = object
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            let mut conditions = conditions.into_iter().flatten();
            let is_refused = |condition: &&Value| {
                text(condition, "/type") == "Loaded" && text(condition, "/status") != "True"
            };
            if let (true, Some(condition)) = (is_asked(&namespace), conditions.find(is_refused)) {
                refused.push(Refused {
                    object: format!("{word} {namespace}/{}", text(object, "/metadata/name")),
                    reason: text(condition, "/reason"),
                    message: text(condition, "/message"),
                });
            }
        }
    }
    refused
}

impl Status {
    fn exit_code(&self) -> ExitCode {
        if !self.unreadable.is_empty() || self.missing.is_some() {
            return ExitCode::from(2);
        }
        let mut deployments = self.deployments.iter().flatten();
        let mut namespaces = self.namespaces.iter().flatten();
        let all_run = deployments.all(|deployment| deployment.ready > 0);
        let all_meshed = namespaces.all(|(_, pods)| !pods.labelled || pods.unmeshed == 0);
        match all_run && all_meshed && self.refused.iter().flatten().next().is_none() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(1),
        }
    }

    fn describe(&self, paint: Paint) -> String {
        let mut text = self.describe_mesh(paint);
        self.describe_namespaces(&mut text, paint);
        self.describe_refused(&mut text, paint);
        for what in &self.unreadable {
            let _ = writeln!(
                text,
                "{} {}",
                paint.odd("could not be read:"),
                harmless(what)
            );
        }
        text
    }

    fn describe_mesh(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", paint.title("The mesh itself"));
        for deployment in self.deployments.iter().flatten() {
            let Deployment {
                name,
                version,
                ready,
                wanted,
            } = deployment;
            let line = match wanted {
                0 => "not there".to_owned(),
                _ => format!("{ready} of {wanted} ready, version {}", harmless(version)),
            };
            let line = if *ready > 0 { line } else { paint.bad(&line) };
            let _ = writeln!(text, "  {name:<26} {line}");
        }
        if self.deployments.is_none() {
            let _ = writeln!(text, "  {:<26} {}", "deployments", paint.odd("unknown"));
        }
        let roots = match &self.roots {
            Some(Some((1, end))) => format!("1 root, until {end}"),
            Some(Some((count, end))) => format!("{count} roots, until {end}"),
            Some(None) => paint.bad("none"),
            None => paint.odd("unknown"),
        };
        let _ = writeln!(text, "  {:<26} {roots}", "trust bundle");
        text
    }

    fn describe_namespaces(&self, text: &mut String, paint: Paint) {
        let _ = writeln!(text, "\n{}", paint.title("Namespaces"));
        if let Some(missing) = &self.missing {
            let what = format!("{}: there is no such namespace", harmless(missing));
            let _ = writeln!(text, "  {}", paint.bad(&what));
            return;
        }
        let Some(namespaces) = &self.namespaces else {
            let _ = writeln!(text, "  {}", paint.odd("unknown"));
            return;
        };
        if namespaces.is_empty() {
            text.push_str(
                "  none is labelled: kubectl label namespace NAME mesh-lite.io/inject=enabled\n",
            );
        }
        for (name, pods) in namespaces {
            let versions: Vec<String> = pods
                .versions
                .iter()
                .map(|version| harmless(version))
                .collect();
            let label = if pods.labelled { "" } else { ", not labelled" };
            let _ = writeln!(
                text,
                "  {:<26} {} in the mesh, {} without a sidecar, {} left out, sidecars of version {}{label}",
                harmless(name),
                pods.meshed,
                pods.unmeshed,
                pods.opted_out,
                if versions.is_empty() {
                    "-".to_owned()
                } else {
                    versions.join(", ")
                },
            );
            let named = pods.without_sidecar.iter().take(MAX_NAMED);
            for pod in named {
                let _ = writeln!(text, "    without a sidecar: {}", harmless(pod));
            }
            if pods.without_sidecar.len() > MAX_NAMED {
                let more = pods.without_sidecar.len().saturating_sub(MAX_NAMED);
                let _ = writeln!(text, "    and {more} more");
            }
        }
    }

    fn describe_refused(&self, text: &mut String, paint: Paint) {
        let none = self.refused.as_ref().is_some_and(Vec::is_empty);
        if !none {
            let _ = writeln!(text, "\n{}", paint.title("Policy that is refused"));
        }
        if self.refused.is_none() {
            let _ = writeln!(text, "  {}", paint.odd("unknown"));
        }
        for refused in self.refused.iter().flatten() {
            let Refused {
                object,
                reason,
                message,
            } = refused;
            let _ = writeln!(
                text,
                "  {} {}: {}",
                harmless(object),
                paint.bad(&harmless(reason)),
                harmless(message)
            );
        }
    }

    /// What could not be read is `null`; of the trust bundle, `"unknown"`.
    fn as_json(&self) -> Value {
        let deployments = self.deployments.as_ref().map(|deployments| {
            let deployments = deployments.iter().map(|deployment| {
                json!({
                    "name": deployment.name, "version": deployment.version,
                    "ready": deployment.ready, "replicas": deployment.wanted,
                })
            });
            deployments.collect::<Value>()
        });
        let namespaces = self.namespaces.as_ref().map(|namespaces| {
            let namespaces = namespaces.iter().map(|(name, pods)| {
                json!({
                    "name": name, "labelled": pods.labelled, "meshed": pods.meshed,
                    "unmeshed": pods.unmeshed, "without_sidecar": pods.without_sidecar,
                    "opted_out": pods.opted_out, "versions": pods.versions,
                })
            });
            namespaces.collect::<Value>()
        });
        let refused = self.refused.as_ref().map(|refused| {
            let refused = refused.iter().map(|refused| {
                json!({"object": refused.object, "reason": refused.reason, "message": refused.message})
            });
            refused.collect::<Value>()
        });
        let roots = self.roots.as_ref().map_or_else(
            || json!("unknown"),
            |roots| {
                json!(
                    roots
                        .as_ref()
                        .map(|(count, end)| json!({"roots": count, "until": end}))
                )
            },
        );
        json!({
            "deployments": deployments,
            "namespaces": namespaces,
            "missing_namespace": self.missing,
            "refused": refused,
            "trust_bundle": roots,
            "unreadable": self.unreadable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(pods: Vec<Value>) -> Objects {
        let mut objects = Objects::default();
        let namespace =
            json!({"metadata": {"name": "shop", "labels": {"mesh-lite.io/inject": "enabled"}}});
        let deployment = |name: &str| json!({"metadata": {"name": name}, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}});
        objects.put(Kind::Namespaces, Ok(vec![namespace]));
        objects.put(Kind::Deployments, Ok(DEPLOYMENTS.map(deployment).to_vec()));
        objects.put(Kind::Pods, Ok(pods));
        for kind in POLICIES.map(|(kind, _)| kind) {
            objects.put(kind, Ok(Vec::new()));
        }
        objects.put(Kind::TrustBundles, Ok(Vec::new()));
        objects
    }

    fn seen(objects: &Objects, only: Option<&str>) -> (String, String) {
        let status = status(objects, "mesh-lite-system", only);
        let text = status.describe(Paint::for_stdout());
        (text, format!("{:?}", status.exit_code()))
    }

    fn is(number: u8) -> String {
        format!("{:?}", ExitCode::from(number))
    }

    #[test]
    fn pods_left_out_on_purpose_are_good_and_others_are_named() {
        let pod = |spec: Value| json!({"metadata": {"name": "api-1\u{1b}", "namespace": "shop"}, "spec": spec});
        let (text, code) = seen(&labelled(vec![pod(json!({"hostNetwork": true}))]), None);
        assert!(text.contains("1 left out"), "{text}");
        assert_eq!(code, is(0), "{text}");
        let (text, code) = seen(&labelled(vec![pod(json!({}))]), None);
        assert!(text.contains("without a sidecar: api-1"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert_eq!(code, is(1), "{text}");
    }

    #[test]
    fn what_was_not_read_is_unknown_and_never_none() {
        let mut objects = labelled(Vec::new());
        for kind in [
            Kind::Deployments,
            Kind::Pods,
            Kind::TrustBundles,
            Kind::Evictions,
        ] {
            objects.put(kind, Err("forbidden".to_owned()));
        }
        let (text, code) = seen(&objects, None);
        assert_eq!(text.matches("unknown").count(), 4, "{text}");
        for wrong in ["none", "not there", "0 "] {
            assert!(!text.contains(wrong), "{wrong}: {text}");
        }
        assert_eq!(code, is(2));
        let json = status(&objects, "mesh-lite-system", None).as_json();
        assert_eq!(json["trust_bundle"], "unknown");
        assert!(
            json["deployments"].is_null() && json["refused"].is_null(),
            "{json}"
        );
    }

    #[test]
    fn a_namespace_that_is_not_there_is_said() {
        let (text, code) = seen(&labelled(Vec::new()), Some("nosuch"));
        assert!(
            text.contains("nosuch: there is no such namespace"),
            "{text}"
        );
        assert_eq!(code, is(2));
        assert_eq!(seen(&labelled(Vec::new()), Some("shop")).1, is(0));
    }
}
