use serde_json::json;

use super::*;

fn settings() -> MeshSettings {
    MeshSettings::with_image("mesh-lite:1").unwrap()
}

fn review() -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "request": {
            "uid": "u-1",
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {"username": "admin"},
            "object": {"spec": {"containers": [{"name": "web"}]}},
        },
    })
}

fn parse(review: &Value) -> Result<AdmissionRequest, MalformedReview> {
    AdmissionRequest::parse(&serde_json::to_vec(review).unwrap())
}

/// The answer as it is sent.
fn sent(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.to_json().unwrap()).unwrap()
}

fn answer(review: &Value) -> Value {
    let request = parse(review).unwrap();
    sent(&request.answer(&settings(), &NamespaceFacts::default()))
}

#[test]
fn an_answer_carries_the_uid_and_a_patch_with_its_type() {
    let answer = answer(&review());
    assert_eq!(answer["apiVersion"], API_VERSION);
    assert_eq!(answer["kind"], KIND);
    let response = &answer["response"];
    assert_eq!(
        (
            &response["uid"],
            &response["allowed"],
            &response["patchType"]
        ),
        (&json!("u-1"), &json!(true), &json!("JSONPatch"))
    );
    let patch = response["patch"].as_str().unwrap();
    // "[{" in base64
    assert!(patch.starts_with("W3s"), "{patch}");
    assert_eq!(response["auditAnnotations"], json!({"decision": "inject"}));
    assert!(response.get("status").is_none() && response.get("warnings").is_none());
}

/// Facts 1.5 and 9: what we were not registered for is let through unchanged.
#[test]
fn whatever_does_not_make_a_pod_is_allowed_unchanged() {
    let changes = [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("")),
        ("subResource", json!("ephemeralcontainers")),
        (
            "resource",
            json!({"group": "apps", "version": "v1", "resource": "deployments"}),
        ),
        (
            "resource",
            json!({"group": "x.io", "version": "v1", "resource": "pods"}),
        ),
        (
            "resource",
            json!({"group": "", "version": "v2", "resource": "pods"}),
        ),
    ];
    for (key, value) in changes {
        let mut review = review();
        review["request"][key] = value.clone();
        let answer = answer(&review);
        let response = &answer["response"];
        assert_eq!(response["allowed"], true, "{key} {value}");
        assert!(response.get("patch").is_none() && response.get("patchType").is_none());
        assert_eq!(response["auditAnnotations"]["reason"], "not-a-pod");
    }
}

/// What `kubectl debug` sends.
fn debug(container: Value) -> Value {
    let mut review = review();
    review["request"]["operation"] = json!("UPDATE");
    review["request"]["subResource"] = json!("ephemeralcontainers");
    review["request"]["object"]["spec"]["ephemeralContainers"] = json!([container]);
    review
}

#[test]
fn a_debug_container_that_would_be_the_sidecar_is_refused() {
    let containers = [
        (
            json!({"name": "debug", "securityContext": {"runAsUser": 15008}}),
            "sidecar-uid",
        ),
        (json!({"name": "mesh-lite-proxy"}), "reserved-name"),
        (json!({"name": "mesh-lite-redirect"}), "reserved-name"),
        (
            json!({"name": "debug", "volumeMounts": [
                {"name": crate::pod_volumes::OWN_VOLUMES[0], "mountPath": "/x"}]}),
            "reserved-mount",
        ),
    ];
    for (container, reason) in containers {
        let response = answer(&debug(container.clone()))["response"].take();
        assert_eq!(response["allowed"], false, "{container}");
        assert_eq!(response["auditAnnotations"]["reason"], reason);
        assert!(response.get("patch").is_none());
    }
}

/// A pod that runs has a sidecar already, and can't get another one.
#[test]
fn any_other_debug_container_is_allowed_unchanged() {
    for container in [
        json!({"name": "debug", "image": "busybox"}),
        json!({"name": "debug", "securityContext": {"runAsUser": 0}}),
    ] {
        let mut review = debug(container);
        let own = json!({"name": "mesh-lite-proxy", "securityContext": {"runAsUser": 15008}});
        review["request"]["object"]["spec"]["initContainers"] = json!([own]);
        let response = answer(&review)["response"].take();
        assert_eq!(response["allowed"], true);
        assert!(response.get("patch").is_none() && response.get("patchType").is_none());
    }
}

#[test]
fn a_pod_that_is_no_pod_is_refused_in_words() {
    for object in [Value::Null, json!("pod"), json!({})] {
        let mut review = review();
        review["request"]["object"] = object;
        let answer = answer(&review);
        let response = &answer["response"];
        assert_eq!(response["allowed"], false);
        assert_eq!(response["status"]["code"], 403);
        assert!(response.get("patch").is_none());
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains("as in a pod"), "{message}");
    }
}

#[test]
fn what_is_no_review_has_nothing_to_answer() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"request": null}"#,
        r#"{"request": {"uid": ""}}"#,
    ] {
        let malformed = AdmissionRequest::parse(body.as_bytes()).unwrap_err();
        assert_eq!(malformed.uid, None, "{body}");
    }
}

#[test]
fn another_version_is_refused_inside_the_protocol() {
    for (key, value) in [
        ("apiVersion", "admission.k8s.io/v1beta1"),
        ("kind", "Review"),
    ] {
        let mut review = review();
        review[key] = json!(value);
        let malformed = parse(&review).unwrap_err();
        assert_eq!(malformed.uid.as_deref(), Some("u-1"));
        let answer = sent(&Answer::refuse("u-1", &malformed.why));
        assert_eq!(answer["response"]["allowed"], false);
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("admissionReviewVersions"), "{message}");
    }
}

#[test]
fn a_deeply_nested_body_is_no_review_and_no_overflow() {
    let body = "[".repeat(100_000);
    assert!(AdmissionRequest::parse(body.as_bytes()).is_err());
}

#[test]
fn only_nodes_are_taken_for_kubelets() {
    for (user, caller) in [
        ("system:node:node1", Caller::Kubelet),
        ("system:nodes", Caller::Anybody),
        ("admin", Caller::Anybody),
        ("", Caller::Anybody),
    ] {
        let mut review = review();
        review["request"]["userInfo"]["username"] = json!(user);
        assert_eq!(parse(&review).unwrap().request().caller, caller, "{user}");
    }
}

#[test]
fn a_refusal_holds_all_reasons_and_no_control_characters() {
    let mut review = review();
    review["request"]["object"]["metadata"] = json!({"annotations": {
        "config.mesh-lite.io/mtls-mode": "\u{1b}[31mSTRICT",
        "config.mesh-lite.io/zebra\u{7}": "1",
    }});
    let answer = answer(&review);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert_eq!(message.lines().count(), 2, "{message}");
    assert!(!message.contains(|char: char| char.is_control() && char != '\n'));
    assert_eq!(
        answer["response"]["auditAnnotations"]["reason"],
        "annotation"
    );
}
