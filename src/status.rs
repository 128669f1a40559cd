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
refused, or a labelled namespace has pods without a sidecar; 2 wrong usage, the API server can't be
reached, or something could not be read.";

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

struct Status {
    deployments: Vec<Deployment>,
    namespaces: Vec<(String, PodsOfNamespace)>,
    refused: Vec<Refused>,
    roots: Option<(usize, String)>,
    unreadable: Vec<String>,
}

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
    Status {
        deployments: deployments.into(),
        namespaces: namespaces.filter(|(name, _)| is_asked(name)).collect(),
        refused: refused(objects, is_asked),
        roots: roots(objects, mesh)
            .map(|roots| (roots.count, Utc(roots.last_end.into()).to_string())),
        // one line for each kind that was not read
        unreadable: objects
            .unreadable()
            .map(|(kind, why)| format!("{kind}: {why}"))
            .collect(),
    }
}

fn refused(objects: &Objects, is_asked: impl Fn(&str) -> bool) -> Vec<Refused> {
    let kinds = [
        (Kind::AuthorizationPolicies, "AuthorizationPolicy"),
        (Kind::PeerAuthentications, "PeerAuthentication"),
        (Kind::Evictions, "Eviction"),
    ];
    let mut refused = Vec::new();
    for (kind, word) in kinds {
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
        if !self.unreadable.is_empty() {
            return ExitCode::from(2);
        }
        let all_run = self
            .deployments
            .iter()
            .all(|deployment| deployment.ready > 0);
        let all_meshed = self
            .namespaces
            .iter()
            .all(|(_, pods)| !pods.labelled || pods.unmeshed == 0);
        match all_run && all_meshed && self.refused.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(1),
        }
    }

    fn describe(&self, paint: Paint) -> String {
        let mut text = format!("{}\n", paint.title("The mesh itself"));
        for deployment in &self.deployments {
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
        match &self.roots {
            Some((1, end)) => {
                let _ = writeln!(text, "  trust bundle               1 root, until {end}");
            }
            Some((count, end)) => {
                let _ = writeln!(
                    text,
                    "  trust bundle               {count} roots, until {end}"
                );
            }
            None => {
                let _ = writeln!(text, "  trust bundle               {}", paint.bad("none"));
            }
        }
        let _ = writeln!(text, "\n{}", paint.title("Namespaces"));
        if self.namespaces.is_empty() {
            text.push_str(
                "  none is labelled: kubectl label namespace NAME mesh-lite.io/inject=enabled\n",
            );
        }
        for (name, pods) in &self.namespaces {
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
        }
        if !self.refused.is_empty() {
            let _ = writeln!(text, "\n{}", paint.title("Policy that is refused"));
        }
        for refused in &self.refused {
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

    fn as_json(&self) -> Value {
        let deployments = self.deployments.iter().map(|deployment| {
            json!({
                "name": deployment.name, "version": deployment.version,
                "ready": deployment.ready, "replicas": deployment.wanted,
            })
        });
        let namespaces = self.namespaces.iter().map(|(name, pods)| {
            json!({
                "name": name, "labelled": pods.labelled, "meshed": pods.meshed,
                "unmeshed": pods.unmeshed, "opted_out": pods.opted_out, "versions": pods.versions,
            })
        });
        let refused = self.refused.iter().map(|refused| {
            json!({"object": refused.object, "reason": refused.reason, "message": refused.message})
        });
        json!({
            "deployments": deployments.collect::<Value>(),
            "namespaces": namespaces.collect::<Value>(),
            "refused": refused.collect::<Value>(),
            "trust_bundle": self.roots.as_ref().map(|(count, end)| json!({"roots": count, "until": end})),
            "unreadable": self.unreadable,
        })
    }
}
