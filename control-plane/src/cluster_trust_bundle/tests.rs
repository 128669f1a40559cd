use mesh_lite_test_support::api_server::{ApiServer, Trouble};

use super::*;
use crate::cluster::connect;

const NAME: &str = "mesh-lite.io:spiffe:mesh.test";

async fn objects(server: &ApiServer) -> ClusterObjects {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ClusterObjects::new(connect(Some(&server.kubeconfig())).await.unwrap())
}

fn text_in(server: &ApiServer) -> Option<String> {
    let bundle = server.get("ClusterTrustBundle", "", NAME)?;
    assert_eq!(bundle["spec"]["signerName"], "mesh-lite.io/spiffe");
    bundle["spec"]["trustBundle"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn is_written_where_it_differs_and_left_alone_where_it_does_not() {
    let server = ApiServer::start();
    let objects = objects(&server).await;
    let publish = |text: &'static str| publish(&objects, "mesh.test", text);
    assert_eq!(publish("one").await, Ok(Step::Written));
    assert_eq!(publish("one").await, Ok(Step::Kept));
    assert_eq!(publish("two").await, Ok(Step::Written));
    assert_eq!(text_in(&server).as_deref(), Some("two"));
    server.remove("ClusterTrustBundle", "", NAME);
    assert_eq!(publish("two").await, Ok(Step::Written));
    assert_eq!(text_in(&server).as_deref(), Some("two"));
}

#[tokio::test]
async fn an_api_server_without_the_kind_is_no_fault() {
    let server = ApiServer::start();
    server.unserve("clustertrustbundles");
    let objects = objects(&server).await;
    assert_eq!(
        publish(&objects, "mesh.test", "one").await,
        Ok(Step::NotServed)
    );
}

#[tokio::test]
async fn a_refusal_is_not_taken_for_the_absence_of_the_kind() {
    let server = ApiServer::start();
    let objects = objects(&server).await;
    for path in [
        "/apis/certificates.k8s.io/v1beta1/clustertrustbundles",
        "/apis/certificates.k8s.io",
    ] {
        server.trouble("*", path, Trouble::Status(403));
        let refused = publish(&objects, "mesh.test", "one").await.unwrap_err();
        assert!(
            refused.to_string().contains("the API server forbids it"),
            "{refused}"
        );
        server.heal();
    }
    assert_eq!(text_in(&server), None);
}
