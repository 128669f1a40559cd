use prost::Message as _;

use super::*;
use crate::{
    secret_discovery::{MAX_SECRET_NAME, tests::store::Store},
    sidecar::VALIDATOR_METADATA_KEY,
    wire::{
        envoy::{config::core::v3::Node, extensions::transport_sockets::tls::v3::Secret},
        google::rpc::Status,
    },
};

mod properties;

const NOW: Duration = Duration::ZERO;
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: owned(names),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn unsubscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_unsubscribe: owned(names),
        ..subscribe(&[])
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        ..subscribe(&[])
    }
}

fn nack(response: &DeltaDiscoveryResponse, message: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        error_detail: Some(Status {
            code: 13,
            message: message.to_owned(),
            details: Vec::new(),
        }),
        ..ack(response)
    }
}

/// The names sent; each is said three times over, and each time the same.
fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    assert!(!response.nonce.is_empty() && !response.system_version_info.is_empty());
    let name = |resource: &'_ Resource| {
        assert!(!resource.version.is_empty());
        let any = resource.resource.as_ref().unwrap();
        assert_eq!(any.type_url, SECRET_TYPE_URL);
        assert_eq!(Secret::decode(&*any.value).unwrap().name, resource.name);
    };
    response.resources.iter().for_each(name);
    response
        .resources
        .iter()
        .map(|resource| resource.name.as_str())
        .collect()
}

struct Script {
    stream: DeltaStream,
    store: Store,
}

impl Script {
    fn new(names: &[&str]) -> Self {
        Self {
            stream: DeltaStream::mounted(Mounting::Secrets),
            store: Store::with(names),
        }
    }

    fn receive(&mut self, request: &DeltaDiscoveryRequest) -> Received {
        self.stream.receive(request, NOW).unwrap()
    }

    fn respond(&mut self) -> Option<DeltaDiscoveryResponse> {
        self.stream.respond(&self.store)
    }

    /// Request in, response out.
    fn turn(&mut self, request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        self.receive(request);
        self.respond()
    }

    fn subscribed(&self) -> Vec<&str> {
        self.stream.names().collect()
    }
}

/// SDS-S10, SDS-S11: as Envoy comes back after a loss; also when it claims to have what we have.
#[test]
fn answers_the_first_request_in_full_whatever_versions_it_states() {
    let mut script = Script::new(&["a", "b"]);
    let first = script.turn(&subscribe(&["a", "b"])).unwrap();
    let has = |resource: &Resource| (resource.name.clone(), resource.version.clone());
    let reconnect = DeltaDiscoveryRequest {
        initial_resource_versions: first.resources.iter().map(has).collect(),
        response_nonce: "1".to_owned(),
        ..subscribe(&["a", "b"])
    };
    let mut again = Script::new(&["a", "b"]);
    let received = again.receive(&reconnect);
    assert_eq!(received.accepted, [], "nothing was sent on this stream");
    let second = again.respond().unwrap();
    assert_eq!(names(&second), ["a", "b"]);
    assert_eq!(second.resources, first.resources);
}

/// SDS-S11: what a client has from before is no subscription.
#[test]
fn does_not_subscribe_to_names_that_only_came_with_a_version() {
    let mut script = Script::new(&["a", "b"]);
    let mut reconnect = subscribe(&["a"]);
    reconnect
        .initial_resource_versions
        .insert("b".to_owned(), "1".to_owned());
    assert_eq!(names(&script.turn(&reconnect).unwrap()), ["a"]);
}

/// SDS-S12
#[test]
fn never_answers_an_acknowledgement() {
    let mut script = Script::new(&["a"]);
    let first = script.turn(&subscribe(&["a"])).unwrap();
    let received = script.receive(&ack(&first));
    assert_eq!(
        received,
        Received {
            accepted: script.store.versions(&["a"]),
            ..Received::default()
        }
    );
    assert_eq!(script.respond(), None);
    // the second time it is about nothing
    assert_eq!(script.receive(&ack(&first)), Received::default());
    assert_eq!(script.respond(), None);
}

/// SDS-S12: the client may have forgotten it.
#[test]
fn answers_a_subscription_also_to_what_was_sent_already() {
    let mut script = Script::new(&["a", "b"]);
    let first = script.turn(&subscribe(&["a", "b"])).unwrap();
    let received = script.receive(&DeltaDiscoveryRequest {
        resource_names_subscribe: owned(&["a"]),
        ..ack(&first)
    });
    assert_eq!(received.added, owned(&[]));
    let second = script.respond().unwrap();
    assert_eq!(names(&second), ["a"]);
    assert_eq!(second.resources[0], first.resources[0]);
    assert_eq!(script.respond(), None);
}

/// SDS-S13: over ADS Envoy subscribes to the next secret before it acknowledges the first.
#[test]
fn takes_names_whatever_the_nonce_and_pairs_late_words_with_their_response() {
    let mut script = Script::new(&["a", "b", "c"]);
    let first = script.turn(&subscribe(&["a"])).unwrap();
    let second = script.turn(&subscribe(&["b"])).unwrap();
    assert_eq!((names(&first), names(&second)), (vec!["a"], vec!["b"]));
    // the word on the second overtakes that on the first
    let accepted = script.receive(&ack(&second)).accepted;
    assert_eq!(accepted, script.store.versions(&["b"]));
    let late = DeltaDiscoveryRequest {
        resource_names_subscribe: owned(&["c"]),
        ..nack(&first, "no")
    };
    let received = script.receive(&late);
    assert_eq!(
        received.rejected.unwrap().secrets,
        script.store.versions(&["a"])
    );
    assert_eq!(received.added, ["c"]);
    assert_eq!(names(&script.respond().unwrap()), ["c"]);
}

/// SDS-S13
#[test]
fn takes_names_also_with_a_nonce_it_never_sent() {
    let mut script = Script::new(&["a", "b"]);
    script.turn(&subscribe(&["a"])).unwrap();
    let received = script.receive(&DeltaDiscoveryRequest {
        response_nonce: "77".to_owned(),
        resource_names_subscribe: owned(&["b"]),
        resource_names_unsubscribe: owned(&["a"]),
        ..subscribe(&[])
    });
    assert_eq!((received.accepted, received.rejected), (Vec::new(), None));
    assert_eq!(script.subscribed(), ["b"]);
    assert_eq!(names(&script.respond().unwrap()), ["b"]);
}

/// SDS-S14
#[test]
fn reports_a_rejection_and_sends_again_only_when_the_content_changes() {
    let mut script = Script::new(&["a", "b"]);
    let first = script.turn(&subscribe(&["a", "b"])).unwrap();
    let received = script.receive(&nack(&first, &"é".repeat(1024)));
    let rejection = received.rejected.unwrap();
    assert_eq!(received.accepted, []);
    assert_eq!(rejection.secrets, script.store.versions(&["a", "b"]));
    assert_eq!(rejection.message, "é".repeat(512));
    assert_eq!(script.respond(), None);
    script.store.set("b", "first");
    assert_eq!(script.respond(), None, "equal content is not sent again");
    script.store.set("b", "second");
    assert_eq!(names(&script.respond().unwrap()), ["b"]);
}

/// SDS-S9, S10, S16
#[test]
fn pushes_what_changed_with_a_new_nonce_and_a_version_of_the_content() {
    let mut script = Script::new(&["a", "b"]);
    let first = script.turn(&subscribe(&["a", "b"])).unwrap();
    script.store.set("a", "second");
    let second = script.respond().unwrap();
    assert_eq!(names(&second), ["a"]);
    script.store.set("a", "first");
    let third = script.respond().unwrap();
    assert_eq!(third.resources[0], first.resources[0]);
    assert_ne!(second.resources[0].version, first.resources[0].version);
    assert_eq!(third.system_version_info, first.system_version_info);
    let nonces = [&first.nonce, &second.nonce, &third.nonce];
    assert_eq!(BTreeSet::from(nonces).len(), 3);
}

/// SDS-S20
#[test]
fn owes_a_client_that_is_slow_the_newest_of_each_name_and_no_more() {
    let mut script = Script::new(&["a", "b"]);
    script.turn(&subscribe(&["a", "b"])).unwrap();
    for round in 0..1000 {
        script.store.set("a", &format!("round {round}"));
    }
    let owed = script.respond().unwrap();
    assert_eq!(names(&owed), ["a"]);
    assert_eq!(
        owed.resources[0].version,
        script.store.versions(&["a"])[0].version
    );
    assert_eq!(script.respond(), None);
}

/// SDS-S8
#[test]
fn lists_unknown_names_as_removed_once_and_sends_them_when_they_appear() {
    let mut script = Script::new(&["a"]);
    let first = script.turn(&subscribe(&["a", "later"])).unwrap();
    assert_eq!(names(&first), ["a"]);
    assert_eq!(first.removed_resources, ["later"]);
    assert_eq!(script.turn(&ack(&first)), None);
    script.store.set("later", "here");
    let second = script.respond().unwrap();
    assert_eq!(names(&second), ["later"]);
    assert_eq!(second.removed_resources, owned(&[]));
}

/// SDS-S8: also when there is nothing else to send, and each time it is asked for.
#[test]
fn answers_each_subscription_to_an_unknown_name() {
    let mut script = Script::new(&[]);
    for _ in 0..2 {
        let response = script.turn(&subscribe(&["nobody"])).unwrap();
        assert!(names(&response).is_empty());
        assert_eq!(response.removed_resources, ["nobody"]);
        assert_eq!(script.receive(&ack(&response)), Received::default());
        assert_eq!(script.respond(), None);
    }
}

/// SDS-S8
#[test]
fn lists_what_disappears_as_removed() {
    let mut script = Script::new(&["a", "b"]);
    script.turn(&subscribe(&["a", "b"])).unwrap();
    script.store.remove("a");
    let second = script.respond().unwrap();
    assert!(names(&second).is_empty());
    assert_eq!(second.removed_resources, ["a"]);
    script.store.set("a", "first");
    assert_eq!(names(&script.respond().unwrap()), ["a"]);
}

/// SDS-S8: a listener of Envoy waits for it, instead of refusing connections meanwhile.
#[test]
fn does_not_list_as_removed_what_is_being_made() {
    let mut script = Script::new(&["a"]);
    script.store.begin_to_make("slow");
    let first = script.turn(&subscribe(&["a", "slow"])).unwrap();
    assert_eq!(names(&first), ["a"]);
    assert_eq!(first.removed_resources, owned(&[]));
    assert_eq!(script.respond(), None);
    script.store.set("slow", "made");
    assert_eq!(names(&script.respond().unwrap()), ["slow"]);
}

/// SDS-S15
#[test]
fn unsubscribes_by_name_without_an_answer() {
    let mut script = Script::new(&["a", "b"]);
    script.turn(&subscribe(&["a", "b"])).unwrap();
    assert_eq!(script.turn(&unsubscribe(&["a", "never-asked-for"])), None);
    assert_eq!(script.subscribed(), ["b"]);
    script.store.set("a", "second");
    assert_eq!(script.respond(), None);
    assert_eq!(names(&script.turn(&subscribe(&["a"])).unwrap()), ["a"]);
}

/// SDS-S15: Envoy rejects a response with a name twice.
#[test]
fn sends_one_entry_for_a_name_that_is_asked_for_twice() {
    let mut script = Script::new(&["a"]);
    let first = script
        .turn(&subscribe(&["a", "a", "nobody", "nobody"]))
        .unwrap();
    assert_eq!(names(&first), ["a"]);
    assert_eq!(first.removed_resources, ["nobody"]);
}

/// SDS-S15: dropped and asked for in one request is asked for anew.
#[test]
fn unsubscribes_before_it_subscribes() {
    let mut script = Script::new(&["a"]);
    script.turn(&subscribe(&["a"])).unwrap();
    let both = DeltaDiscoveryRequest {
        resource_names_unsubscribe: owned(&["a"]),
        ..subscribe(&["a"])
    };
    assert_eq!(names(&script.turn(&both).unwrap()), ["a"]);
}

/// SDS-S7
#[test]
fn takes_no_names_for_everything_at_first_and_for_no_change_later() {
    let mut script = Script::new(&[DEFAULT_SVID, OWN_BUNDLE, "a"]);
    let first = script.turn(&subscribe(&[])).unwrap();
    assert_eq!(names(&first), [OWN_BUNDLE, DEFAULT_SVID]);
    assert_eq!(script.turn(&subscribe(&[])), None);
    assert_eq!(script.subscribed(), [OWN_BUNDLE, DEFAULT_SVID]);
    // nothing is left of it after names were asked for, and dropped
    let mut named = Script::new(&[DEFAULT_SVID, OWN_BUNDLE, "a"]);
    named.turn(&subscribe(&["a"])).unwrap();
    assert_eq!(named.turn(&unsubscribe(&["a"])), None);
    assert_eq!(named.turn(&subscribe(&[])), None);
    assert!(named.subscribed().is_empty());
}

/// SDS-S6
#[test]
fn fixes_the_form_of_bundles_by_the_first_node() {
    let with_form = |form: &str| {
        let kind = Some(prost_types::value::Kind::StringValue(form.to_owned()));
        let fields = [(
            VALIDATOR_METADATA_KEY.to_owned(),
            prost_types::Value { kind },
        )]
        .into();
        let metadata = Some(prost_types::Struct { fields });
        DeltaDiscoveryRequest {
            node: Some(Node {
                metadata,
                ..Node::default()
            }),
            ..subscribe(&["a"])
        }
    };
    let mut script = Script::new(&["a"]);
    script.receive(&with_form("trusted_ca"));
    script.receive(&with_form("spiffe"));
    script.receive(&subscribe(&["a"]));
    assert_eq!(script.stream.form(), BundleForm::TrustedCa);
}

/// SDS-S3
#[test]
fn takes_secrets_and_no_other_type() {
    let typed = |type_url: &str| DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        ..subscribe(&["a"])
    };
    let mut stream = DeltaStream::mounted(Mounting::Secrets);
    assert!(stream.receive(&typed(""), NOW).is_ok());
    let refused = stream.receive(&typed(LISTENERS), NOW);
    assert_eq!(refused, Err(Violation::TypeUrl(LISTENERS.to_owned())));
}

/// SDS-S2: a node comes with whatever is asked for first.
#[test]
fn leaves_other_types_unanswered_over_ads() {
    let mut stream = DeltaStream::mounted(Mounting::Aggregated);
    let store = Store::with(&["a", DEFAULT_SVID, OWN_BUNDLE]);
    let listeners = DeltaDiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..subscribe(&["a"])
    };
    assert_eq!(stream.receive(&listeners, NOW), Ok(Received::default()));
    assert_eq!(stream.respond(&store), None);
    assert_eq!(stream.names().count(), 0);
    // and they are not taken for the first request about secrets
    stream.receive(&subscribe(&[]), NOW).unwrap();
    let first = stream.respond(&store).unwrap();
    assert_eq!(names(&first), [OWN_BUNDLE, DEFAULT_SVID]);
    let ack_of_another_type = DeltaDiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..ack(&first)
    };
    assert_eq!(
        stream.receive(&ack_of_another_type, NOW),
        Ok(Received::default())
    );
    let untyped = DeltaDiscoveryRequest::default();
    assert_eq!(stream.receive(&untyped, NOW), Err(Violation::NoTypeUrl));
}

/// SDS-S21
#[test]
fn bounds_names_over_all_requests_of_a_stream() {
    let mut stream = DeltaStream::mounted(Mounting::Secrets);
    let many: Vec<String> = (0..129).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let too_many = Err(Violation::TooManyNames(129));
    assert_eq!(stream.receive(&subscribe(&many), NOW), too_many);
    stream.receive(&subscribe(&many[..100]), NOW).unwrap();
    stream.receive(&subscribe(&many[50..128]), NOW).unwrap();
    assert_eq!(stream.receive(&subscribe(&many[128..]), NOW), too_many);
    stream.receive(&unsubscribe(&many[..1]), NOW).unwrap();
    stream.receive(&subscribe(&many[128..]), NOW).unwrap();
    let too_long = "n".repeat(MAX_SECRET_NAME + 1);
    let refused = Err(Violation::NameTooLong(MAX_SECRET_NAME + 1));
    assert_eq!(stream.receive(&subscribe(&[&too_long]), NOW), refused);
    assert_eq!(stream.receive(&unsubscribe(&[&too_long]), NOW), refused);
}

/// SDS-S21
#[test]
fn bounds_requests_of_any_type() {
    let mut stream = DeltaStream::mounted(Mounting::Aggregated);
    let listeners = DeltaDiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..subscribe(&[])
    };
    for _ in 0..50 {
        assert!(stream.receive(&listeners, NOW).is_ok());
    }
    assert_eq!(stream.receive(&listeners, NOW), Err(Violation::TooFast));
    assert!(
        stream
            .receive(&listeners, Duration::from_millis(50))
            .is_ok()
    );
}

/// A client that never acknowledges costs no memory without end.
#[test]
fn forgets_the_oldest_of_many_responses_without_a_word() {
    let mut script = Script::new(&["a"]);
    let first = script.turn(&subscribe(&["a"])).unwrap();
    let mut last = None;
    for round in 0..MAX_OUTSTANDING {
        script.store.set("a", &round.to_string());
        last = script.respond();
    }
    assert_eq!(script.stream.outstanding.len(), MAX_OUTSTANDING);
    assert_eq!(script.receive(&ack(&first)), Received::default());
    let accepted = script.receive(&ack(&last.unwrap())).accepted;
    assert_eq!(accepted, script.store.versions(&["a"]));
}
