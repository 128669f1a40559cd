//! Root and issuing CA: made once if they are not there, renewed in time.

use aws_lc_rs::digest::{SHA256, digest};
use mesh_lite_proto::kubernetes::ROOT_SERVICE_ACCOUNT;
use serde_json::{Value, json};

use super::{
    choice::{Condition, Text, when},
    parts::{Part, labels},
    permissions::metadata,
    workloads::{container_security, pod_security},
};

/// What has ended is of interest for a while; then its name is free again.
const KEEP_ENDED_SECONDS: u32 = 24 * 3600;
/// A run takes a second; a node that hangs must not hold up the next one.
const DEADLINE_SECONDS: u32 = 300;
/// The issuing CA is renewed at half of its 30 days: failed runs have 60 more to come.
const SCHEDULE: &str = "17 */6 * * *";

pub(super) fn parts() -> Vec<Part> {
    let of_root = |object| Part {
        file: "root",
        conditions: &[Condition::OwnRoot],
        object,
    };
    vec![of_root(init()), of_root(renew())]
}

/// A Job can't be changed, so one that would differ has another name.
pub(super) fn root_init_name(
    mesh_namespace: &str,
    image: &str,
    image_pull_policy: &str,
    trust_domain: &str,
) -> String {
    let what_differs = format!("{mesh_namespace} {image} {image_pull_policy} {trust_domain}");
    let digest = digest(&SHA256, what_differs.as_bytes());
    let start = digest.as_ref().iter().take(4);
    let start: String = start.map(|byte| format!("{byte:02x}")).collect();
    format!("mesh-lite-root-init-{start}")
}

fn init() -> Value {
    let name = Text::RootJob.placeholder();
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(name, "root"),
        "spec": job("init"),
    })
}

fn renew() -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata("mesh-lite-root-renew", "root"),
        "spec": {
            "schedule": SCHEDULE,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"metadata": {"labels": labels("root")}, "spec": job("renew")},
        },
    })
}

fn job(command: &str) -> Value {
    let arguments = json!([
        "root",
        command,
        "--kubernetes",
        format!("--mesh-namespace={}", Text::MeshNamespace),
        format!("--trust-domain={}", Text::TrustDomain),
    ]);
    json!({
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "backoffLimit": 6,
        "ttlSecondsAfterFinished": KEEP_ENDED_SECONDS,
        "template": {
            "metadata": {"labels": labels("root")},
            "spec": {
                "serviceAccountName": ROOT_SERVICE_ACCOUNT,
                "restartPolicy": "OnFailure",
                "securityContext": pod_security(),
                "priorityClassName": when(
                    Condition::PriorityClass,
                    json!(Text::PriorityClass.placeholder()),
                ),
                "containers": [{
                    "name": "root",
                    "image": Text::Image.placeholder(),
                    "imagePullPolicy": Text::ImagePullPolicy.placeholder(),
                    "args": arguments,
                    "securityContext": container_security(),
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"cpu": "1", "memory": "64Mi"},
                    },
                }],
            },
        },
    })
}
