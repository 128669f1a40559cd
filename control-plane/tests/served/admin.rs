use super::running::{Directories, Running, WORKLOADS, eventually};

#[tokio::test]
async fn answers_health_readiness_and_metrics() {
    let running = Running::start().await;
    assert_eq!(running.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(running.get("/readyz").await, (200, "ok\n".to_owned()));
    let (status, metrics) = running.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for kind in ["root", "issuing_ca", "control_plane"] {
        let series = format!(
            "mesh_lite_control_plane_certificate_expiry_timestamp_seconds{{kind=\"{kind}\"}}"
        );
        running.wait_for_metric(&series, 1_700_000_000.0).await;
    }
    running
        .wait_for_metric("mesh_lite_control_plane_facts{kind=\"workloads\"}", 2.0)
        .await;
    assert_eq!(running.get("/elsewhere").await.0, 404);
}

#[tokio::test]
async fn names_a_document_broken_at_start_and_says_when_it_is_repaired() {
    let directories = Directories::new();
    directories.write(
        "broken.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: typo, namespace: shop}\nspec: {acton: ALLOW}\n",
    );
    let running = Running::start_in(directories).await;
    let (status, text) = running.get("/readyz").await;
    assert_eq!(status, 200);
    for part in [
        "AuthorizationPolicy shop/typo",
        "broken.yaml:",
        "DENIES in its scope",
        "acton",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    running
        .wait_for_metric("mesh_lite_control_plane_problems{kind=\"documents\"}", 1.0)
        .await;
    running.directories.remove("broken.yaml");
    eventually("it is forgotten", async || {
        (running.get("/readyz").await.1 == "ok\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn names_two_workloads_that_claim_one_address() {
    let running = Running::start().await;
    let doubled = WORKLOADS.replace("[10.0.0.1]", "[10.0.0.2]");
    running.directories.write("workloads.yaml", &doubled);
    let text = eventually("the conflict is seen", async || {
        let (_, text) = running.get("/readyz").await;
        (text != "ok\n").then_some(text)
    })
    .await;
    let claim = "10.0.0.2 is claimed by Workload shop/api and by Workload shop/web";
    assert!(text.contains(claim), "{text}");
    running
        .wait_for_metric(
            "mesh_lite_control_plane_facts{kind=\"address_conflicts\"}",
            1.0,
        )
        .await;
}
