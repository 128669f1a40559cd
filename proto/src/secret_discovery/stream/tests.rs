use std::collections::BTreeMap;

use prost::Message as _;
use prost_types::Any;

use super::*;
use crate::{
    secret_discovery::{MAX_SECRET_NAME, tests::store::Store},
    wire::{
        envoy::{config::core::v3::Node, extensions::transport_sockets::tls::v3::Secret},
        google::rpc::Status,
    },
};

const NOW: Duration = Duration::ZERO;

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn ack(names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..request(names)
    }
}

fn nack(names: &[&str], response: &DiscoveryResponse, message: &str) -> DiscoveryRequest {
    let error_detail = Some(Status {
        code: 13,
        message: message.to_owned(),
        details: Vec::new(),
    });
    DiscoveryRequest {
        error_detail,
        version_info: String::new(),
        ..ack(names, response)
    }
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    assert!(!response.nonce.is_empty() && !response.version_info.is_empty());
    let secret = |any: &Any| Secret::decode(&*any.value).unwrap().name;
    response.resources.iter().map(secret).collect()
}

struct Script {
    stream: SecretStream,
    store: Store,
}

impl Script {
    fn new(store: Store) -> Self {
        Self {
            stream: SecretStream::mounted(Mounting::Secrets),
            store,
        }
    }

    fn receive(&mut self, request: &DiscoveryRequest) -> Received {
        self.stream.receive(request, NOW).unwrap()
    }

    fn respond(&mut self) -> Option<DiscoveryResponse> {
        self.stream.respond(&self.store)
    }

    /// Request in, response out.
    fn turn(&mut self, request: &DiscoveryRequest) -> Option<DiscoveryResponse> {
        self.receive(request);
        self.respond()
    }
}

/// SDS-S11
#[test]
fn answers_the_first_request_in_full_whatever_version_it_states() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a", "b"])).unwrap();
    let mut again = Script::new(Store::with(&["a", "b"]));
    let reconnect = DiscoveryRequest {
        version_info: first.version_info.clone(),
        response_nonce: "41".to_owned(),
        ..request(&["a", "b"])
    };
    let second = again.turn(&reconnect).unwrap();
    assert_eq!(names(&second), ["a", "b"]);
    assert_eq!(second.version_info, first.version_info);
}

/// SDS-S12
#[test]
fn never_answers_an_acknowledgement() {
    let mut script = Script::new(Store::with(&["a"]));
    let first = script.turn(&request(&["a"])).unwrap();
    let received = script.receive(&ack(&["a"], &first));
    assert_eq!(
        received,
        Received {
            accepted: script.store.versions(&["a"]),
            ..Received::default()
        }
    );
    assert_eq!(script.respond(), None);
}

/// SDS-S12
#[test]
fn answers_added_names_with_those_alone() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a"])).unwrap();
    let second = script.turn(&ack(&["a", "b"], &first)).unwrap();
    assert_eq!(names(&second), ["b"]);
    assert_ne!(second.version_info, first.version_info);
}

/// SDS-S13: over ADS a client adds names by a request without nonce before its first ACK.
#[test]
fn takes_a_request_without_nonce_for_a_change_of_names() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a"])).unwrap();
    let second = script.turn(&request(&["a", "b"])).unwrap();
    assert_eq!(names(&second), ["b"]);
    // then its ACK of the first response arrives, with the names it had then: stale
    let received = script.receive(&ack(&["a"], &first));
    assert_eq!(received, Received::default());
    assert_eq!(script.stream.names().collect::<Vec<_>>(), ["a", "b"]);
    let accepted = script.receive(&ack(&["a", "b"], &second)).accepted;
    assert_eq!(accepted, script.store.versions(&["b"]));
}

/// SDS-S13
#[test]
fn ignores_stale_and_invented_nonces() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a"])).unwrap();
    script.store.set("a", "second");
    let second = script.respond().unwrap();
    for stale in [
        ack(&["b"], &first),
        nack(&["b"], &first, "no"),
        DiscoveryRequest {
            response_nonce: "77".to_owned(),
            ..request(&["b"])
        },
    ] {
        assert_eq!(script.receive(&stale), Received::default());
        assert_eq!(script.respond(), None);
    }
    let accepted = script.receive(&ack(&["a"], &second)).accepted;
    assert_eq!(accepted, script.store.versions(&["a"]));
}

/// SDS-S14
#[test]
fn reports_a_rejection_and_sends_again_only_when_the_content_changes() {
    let mut script = Script::new(Store::with(&["a"]));
    let first = script.turn(&request(&["a"])).unwrap();
    let long = "é".repeat(1024);
    let received = script.receive(&nack(&["a"], &first, &long));
    let rejection = received.rejected.unwrap();
    assert_eq!(received.accepted, []);
    assert_eq!(rejection.secrets, script.store.versions(&["a"]));
    assert_eq!(rejection.message, "é".repeat(512));
    assert_eq!(script.respond(), None);
    script.store.set("a", "second");
    assert_eq!(names(&script.respond().unwrap()), ["a"]);
}

/// SDS-S13, S14: its names count, and the word on the response is spoken.
#[test]
fn takes_one_verdict_on_a_response_and_later_requests_with_its_nonce_for_names() {
    for accepts in [false, true] {
        let mut script = Script::new(Store::with(&["a", "b"]));
        let first = script.turn(&request(&["a"])).unwrap();
        let (yes, no) = (ack(&["a"], &first), nack(&["a"], &first, "no"));
        let received = script.receive(if accepts { &yes } else { &no });
        assert_eq!(received.accepted.len(), usize::from(accepts));
        assert_eq!(received.rejected.is_some(), !accepts);
        for again in [&yes, &no, &yes] {
            assert_eq!(script.receive(again), Received::default());
        }
        // a client that rejected it keeps its nonce until the next response
        let received = script.receive(&ack(&["a", "b"], &first));
        let added = vec!["b".to_owned()];
        assert_eq!(
            received,
            Received {
                added,
                ..Received::default()
            }
        );
        let second = script.respond().unwrap();
        assert_eq!(names(&second), ["b"]);
        let accepted = script.receive(&ack(&["a", "b"], &second)).accepted;
        assert_eq!(accepted, script.store.versions(&["b"]));
    }
}

/// SDS-S9, S10, S16
#[test]
fn pushes_what_changed_with_a_new_nonce_and_a_version_of_the_content() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a", "b"])).unwrap();
    script.store.set("a", "first");
    assert_eq!(script.respond(), None, "equal content is not pushed");
    script.store.set("a", "second");
    let second = script.respond().unwrap();
    assert_eq!(names(&second), ["a"]);
    script.store.set("a", "first");
    let third = script.respond().unwrap();
    assert_eq!(third.version_info, first.version_info);
    assert_ne!(second.version_info, first.version_info);
    let nonces = [&first.nonce, &second.nonce, &third.nonce];
    assert_eq!(BTreeSet::from(nonces).len(), 3);
}

/// SDS-S8
#[test]
fn remembers_unknown_names_and_sends_them_when_they_appear() {
    let mut script = Script::new(Store::with(&["a"]));
    let first = script.turn(&request(&["a", "later"])).unwrap();
    assert_eq!(names(&first), ["a"]);
    assert_eq!(script.turn(&ack(&["a", "later"], &first)), None);
    script.store.set("later", "here");
    assert_eq!(names(&script.respond().unwrap()), ["later"]);
}

/// SDS-S8
#[test]
fn waits_when_nothing_asked_for_exists() {
    let mut script = Script::new(Store::default());
    assert_eq!(script.turn(&request(&["later"])), None);
    script.store.set("later", "here");
    assert_eq!(names(&script.respond().unwrap()), ["later"]);
}

/// SDS-S7
#[test]
fn takes_no_names_for_everything_until_something_is_named() {
    let mut script = Script::new(Store::with(&[DEFAULT_SVID, OWN_BUNDLE, "a"]));
    let first = script.turn(&request(&[])).unwrap();
    assert_eq!(names(&first), [OWN_BUNDLE, DEFAULT_SVID]);
    // who asks for everything acknowledges with the same empty list
    assert_eq!(script.turn(&ack(&[], &first)), None);
    script.store.set(OWN_BUNDLE, "second");
    let second = script.respond().unwrap();
    assert_eq!(names(&second), [OWN_BUNDLE]);
    let third = script.turn(&ack(&["a"], &second)).unwrap();
    assert_eq!(names(&third), ["a"]);
    assert_eq!(script.stream.names().collect::<Vec<_>>(), ["a"]);
}

/// SDS-S7
#[test]
fn takes_no_names_for_nothing_once_something_was_named() {
    let mut script = Script::new(Store::with(&[DEFAULT_SVID, OWN_BUNDLE, "a"]));
    let first = script.turn(&request(&["a"])).unwrap();
    for _ in 0..3 {
        assert_eq!(script.turn(&ack(&[], &first)), None);
        assert_eq!(script.stream.names().count(), 0);
    }
    script.store.set("a", "second");
    assert_eq!(script.respond(), None);
}

/// SDS-S12
#[test]
fn sends_a_name_again_that_was_dropped_and_is_asked_for_anew() {
    let mut script = Script::new(Store::with(&["a", "b"]));
    let first = script.turn(&request(&["a", "b"])).unwrap();
    assert_eq!(script.turn(&ack(&["a"], &first)), None);
    let second = script.turn(&ack(&["a", "b"], &first)).unwrap();
    assert_eq!(names(&second), ["b"]);
}

/// SDS-S6: node is only in the first request of some clients, and in every one of others.
#[test]
fn fixes_the_form_of_bundles_by_the_first_node() {
    let with_form = |form: &str| {
        let kind = Some(prost_types::value::Kind::StringValue(form.to_owned()));
        let key = crate::sidecar::VALIDATOR_METADATA_KEY.to_owned();
        let fields = BTreeMap::from([(key, prost_types::Value { kind })]);
        let node = Node {
            metadata: Some(prost_types::Struct { fields }),
            ..Node::default()
        };
        DiscoveryRequest {
            node: Some(node),
            ..request(&["a"])
        }
    };
    let mut script = Script::new(Store::with(&["a"]));
    script.receive(&with_form("trusted_ca"));
    assert_eq!(script.stream.form(), BundleForm::TrustedCa);
    script.receive(&with_form("spiffe"));
    assert_eq!(script.stream.form(), BundleForm::TrustedCa);
    let mut other = Script::new(Store::with(&["a"]));
    other.receive(&with_form("nonsense"));
    assert_eq!(other.stream.form(), BundleForm::SpiffeValidator);
}

/// SDS-S3
#[test]
fn takes_secrets_and_no_other_type() {
    let mut stream = SecretStream::mounted(Mounting::Secrets);
    let mut listener = request(&["a"]);
    listener.type_url = "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned();
    assert!(matches!(
        stream.receive(&listener, NOW),
        Err(Violation::TypeUrl(_))
    ));
    let untyped = DiscoveryRequest {
        type_url: String::new(),
        ..request(&["a"])
    };
    assert!(stream.receive(&untyped, NOW).is_ok());
}

/// SDS-S21
#[test]
fn bounds_names_and_requests() {
    let mut stream = SecretStream::mounted(Mounting::Secrets);
    let many: Vec<String> = (0..129).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(
        stream.receive(&request(&many), NOW),
        Err(Violation::TooManyNames(129))
    );
    assert!(stream.receive(&request(&many[1..]), NOW).is_ok());
    let longest = "n".repeat(MAX_SECRET_NAME);
    assert!(stream.receive(&request(&[&longest]), NOW).is_ok());
    let too_long = format!("{longest}n");
    assert_eq!(
        stream.receive(&request(&[&too_long]), NOW),
        Err(Violation::NameTooLong(MAX_SECRET_NAME + 1))
    );
    // four requests of the burst of fifty are gone
    for _ in 0..46 {
        assert!(stream.receive(&request(&["a"]), NOW).is_ok());
    }
    assert_eq!(
        stream.receive(&request(&["a"]), NOW),
        Err(Violation::TooFast)
    );
    assert!(
        stream
            .receive(&request(&["a"]), Duration::from_millis(50))
            .is_ok()
    );
    assert_eq!(
        stream.receive(&request(&["a"]), Duration::from_millis(51)),
        Err(Violation::TooFast)
    );
}

/// SDS-S1
#[test]
fn answers_a_single_request_with_a_version_and_without_a_nonce() {
    let secret = Store::with(&["a"])
        .secret("a", BundleForm::default())
        .unwrap();
    let response = single_response(std::slice::from_ref(&secret));
    assert_eq!(response.nonce, "");
    assert!(!response.version_info.is_empty());
    assert_eq!(response.resources.len(), 1);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Request {
            names: Vec<u8>,
            nonce: u8,
            rejected: bool,
        },
        Change {
            name: u8,
            content: u8,
        },
        Respond,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (
                proptest::collection::vec(0..4_u8, 0..4),
                0..6_u8,
                any::<bool>()
            )
                .prop_map(|(names, nonce, rejected)| Event::Request {
                    names,
                    nonce,
                    rejected
                }),
            (0..4_u8, 0..3_u8).prop_map(|(name, content)| Event::Change { name, content }),
            Just(Event::Respond),
        ]
    }

    proptest! {
        /// SDS-S9, S12, S16. Whatever a client does: nonces are fresh, only names asked for are sent, nothing is
        /// sent twice with equal content, and in the end the client has the newest of everything.
        #[test]
        fn sends_what_is_owed_and_nothing_else(events in proptest::collection::vec(event(), 0..60)) {
            let mut script = Script::new(Store::default());
            let mut nonces = BTreeSet::new();
            let mut has: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            let mut check = |script: &mut Script, has: &mut BTreeMap<String, Vec<u8>>| {
                let Some(response) = script.respond() else { return Ok(()) };
                prop_assert!(nonces.insert(response.nonce.clone()));
                for any in &response.resources {
                    let name = Secret::decode(&*any.value).unwrap().name;
                    prop_assert!(script.stream.names().any(|asked| asked == name));
                    prop_assert_ne!(has.insert(name, any.value.clone()), Some(any.value.clone()));
                }
                Ok(())
            };
            for (number, event) in events.into_iter().enumerate() {
                match event {
                    Event::Request { names, nonce, rejected } => {
                        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                        let names: Vec<&str> = names.iter().map(String::as_str).collect();
                        let mut message = request(&names);
                        if nonce > 0 {
                            message.response_nonce = nonce.to_string();
                        }
                        message.error_detail = rejected.then(Status::default);
                        let since_open = Duration::from_secs(number as u64);
                        script.stream.receive(&message, since_open).unwrap();
                        let asked: Vec<String> = script.stream.names().map(ToOwned::to_owned).collect();
                        has.retain(|name, _| asked.contains(name));
                    }
                    Event::Change { name, content } => {
                        script.store.set(&name.to_string(), &content.to_string());
                    }
                    Event::Respond => check(&mut script, &mut has)?,
                }
            }
            check(&mut script, &mut has)?;
            let form = script.stream.form();
            for name in script.stream.names() {
                let newest = script.store.secret(name, form).map(|found| found.to_any().value);
                prop_assert_eq!(has.get(name), newest.as_ref());
            }
        }
    }
}
