//! The trust bundle as a ClusterTrustBundle, for pods that mount one without being in the mesh.
//! Not every API server has the kind; its absence is nobody's fault.

use std::time::Duration;

use mesh_lite_proto::kubernetes::SIGNER;
use serde::Deserialize;
use serde_json::json;
use tokio::time;

use crate::{
    cluster::{Cluster, wait_until},
    cluster_objects::{Change, ClusterObjects, Failure, ObjectError, Place, parse},
    condition::Part,
};

const MANAGER: &str = "mesh-lite-control-plane";
/// Newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// It is edited by nobody but a mistake, and an upgrade may bring the kind: a look now and then
/// will do.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Runs for as long as the control plane does; acts while this replica leads.
pub(crate) async fn run(cluster: Cluster) {
    let objects = ClusterObjects::new(cluster.client.clone());
    let (mut leads, mut trust) = (cluster.leads.clone(), cluster.trust.clone());
    let mut told_of_absence = false;
    loop {
        wait_until(&mut leads, true).await;
        let text = trust.borrow_and_update().bundle.to_pem();
        let problem = match publish(&objects, cluster.trust_domain.as_ref(), &text).await {
            Ok(Step::NotServed) => {
                if !told_of_absence {
                    tracing::info!("the API server has no ClusterTrustBundles: none is kept");
                }
                told_of_absence = true;
                None
            }
            Ok(Step::Kept | Step::Written) => None,
            Err(error) => Some(error.to_string()),
        };
        cluster
            .conditions
            .set(Part::ClusterTrustBundle, problem.into_iter().collect());
        tokio::select! {
            Ok(()) = trust.changed() => {}
            () = time::sleep(LOOK_AGAIN) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    NotServed,
    Kept,
    Written,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    spec: BundleSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct BundleSpec {
    #[serde(default)]
    trust_bundle: String,
}

/// Kubernetes demands that its name begins with its signer's.
fn name(trust_domain: &str) -> String {
    format!("{}:{trust_domain}", SIGNER.replace('/', ":"))
}

async fn publish(
    objects: &ClusterObjects,
    trust_domain: &str,
    text: &str,
) -> Result<Step, ObjectError> {
    let Some(version) = served_version(objects).await? else {
        return Ok(Step::NotServed);
    };
    let place = Place::cluster_trust_bundle(version, &name(trust_domain));
    if let Some(found) = objects.get(&place).await? {
        let found: Bundle = parse(&place, &found)?;
        if found.spec.trust_bundle == text {
            return Ok(Step::Kept);
        }
    }
    let mut object = place.header();
    if let Some(object) = object.as_object_mut() {
        let spec = json!({ "signerName": SIGNER, "trustBundle": text });
        object.insert("spec".to_owned(), spec);
    }
    let change = Change::Apply { manager: MANAGER };
    let body = object.to_string().into_bytes();
    objects.change(&place, None, change, body).await?;
    Ok(Step::Written)
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

async fn served_version(objects: &ClusterObjects) -> Result<Option<&'static str>, ObjectError> {
    for version in VERSIONS {
        let place = Place::resources_of_certificates(version);
        let text = match objects.get(&place).await {
            Ok(Some(text)) => text,
            Ok(None) => continue,
            // an API server without the version may answer so
            Err(error) if matches!(error.failure, Failure::Refused(_)) => continue,
            Err(error) => return Err(error),
        };
        let found: Resources = parse(&place, &text)?;
        if found
            .resources
            .iter()
            .any(|resource| resource.name == "clustertrustbundles")
        {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
