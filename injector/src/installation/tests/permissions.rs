//! What roles let our parts do.

use super::*;

#[test]
fn roles_name_what_they_allow() {
    for choices in all_choices() {
        let objects = manifests(&choices);
        for role in objects
            .iter()
            .filter(|o| o["kind"].as_str().unwrap().ends_with("Role"))
        {
            for rule in role["rules"].as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{}: {rule}", name(role));
                let has = |field: &str, word: &str| {
                    let words = rule[field].as_array();
                    words.is_some_and(|words| words.contains(&json!(word)))
                };
                let secret = has("resources", "secrets");
                if secret && rule["verbs"] != json!(["create"]) {
                    assert!(rule["resourceNames"].is_array(), "{}: {rule}", name(role));
                }
                for verb in [
                    "list",
                    "watch",
                    "delete",
                    "deletecollection",
                    "escalate",
                    "bind",
                    "impersonate",
                ] {
                    assert!(!(secret && has("verbs", verb)), "{}: {rule}", name(role));
                }
                for word in [
                    "roles",
                    "clusterroles",
                    "pods/exec",
                    "serviceaccounts/token",
                ] {
                    assert!(!has("resources", word), "{}: {rule}", name(role));
                }
                if role["kind"] == "ClusterRole" {
                    assert!(!secret, "of every namespace: {rule}");
                }
            }
        }
    }
}

/// What is listed and watched is not asked for one by one.
#[test]
fn nothing_that_is_followed_may_be_gotten_by_name_too() {
    for choices in all_choices() {
        for role in of_kind(&manifests(&choices), "ClusterRole") {
            for rule in role["rules"].as_array().unwrap() {
                let verbs = rule["verbs"].as_array().unwrap();
                let has = |verb: &str| verbs.contains(&json!(verb));
                // the injector asks for one that its watch has not told of yet
                let excepted =
                    name(role).contains("injector") && rule["resources"] == json!(["namespaces"]);
                let both = has("get") && has("watch");
                assert!(!both || excepted, "{}: {rule}", name(role));
            }
        }
    }
}

#[test]
fn the_control_plane_reads_no_secret_at_all() {
    for choices in all_choices() {
        for role in manifests(&choices) {
            if role["metadata"]["name"] == "mesh-lite-control-plane" && role["rules"].is_array() {
                assert!(!role["rules"].to_string().contains("secrets"), "{role}");
            }
        }
    }
}
