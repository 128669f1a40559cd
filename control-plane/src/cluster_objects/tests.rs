use super::*;

#[test]
fn a_name_never_leads_to_another_object() {
    let odd = Place::signing_request("a/b?x=1#%2e\u{7}");
    assert_eq!(
        odd.path(),
        "/apis/certificates.k8s.io/v1/certificatesigningrequests/a%2Fb%3Fx%3D1%23%252e%07"
    );
    assert!(!odd.to_string().contains('\u{7}'));
    let bundle = Place::cluster_trust_bundle("v1beta1", "mesh-lite.io:spiffe:cluster.local");
    assert!(
        bundle
            .path()
            .ends_with("/v1beta1/clustertrustbundles/mesh-lite.io:spiffe:cluster.local")
    );
}

#[test]
fn an_object_says_where_it_lies() {
    let place = Place::secret("mesh-lite-system", "mesh-lite-root");
    assert_eq!(
        place.path(),
        "/api/v1/namespaces/mesh-lite-system/secrets/mesh-lite-root"
    );
    assert_eq!(place.to_string(), "Secret mesh-lite-system/mesh-lite-root");
    assert_eq!(place.header()["metadata"]["namespace"], "mesh-lite-system");
}

#[test]
fn what_can_not_be_read_is_not_shown() {
    let place = Place::secret("a", "b");
    let error = parse::<Version>(&place, "{\"data\": \"c2VjcmV0\"}")
        .err()
        .unwrap();
    assert!(!error.to_string().contains("c2Vj"), "{error}");
    assert!(error.to_string().contains("Secret a/b"), "{error}");
}
