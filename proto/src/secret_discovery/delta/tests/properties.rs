use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Request {
        subscribe: Vec<u8>,
        unsubscribe: Vec<u8>,
        nonce: u8,
        rejected: bool,
    },
    Change {
        name: u8,
        content: Option<u8>,
    },
    Respond,
}

fn event() -> impl Strategy<Value = Event> {
    let names = || proptest::collection::vec(0..4_u8, 0..4);
    prop_oneof![
        (names(), names(), 0..6_u8, any::<bool>()).prop_map(
            |(subscribe, unsubscribe, nonce, rejected)| Event::Request {
                subscribe,
                unsubscribe,
                nonce,
                rejected
            }
        ),
        (0..4_u8, proptest::option::of(0..3_u8))
            .prop_map(|(name, content)| Event::Change { name, content }),
        Just(Event::Respond),
    ]
}

/// What a client has that follows the protocol: a version, or the word that there is nothing.
type Client = BTreeMap<String, Option<String>>;

fn respond(
    script: &mut Script,
    client: &mut Client,
    nonces: &mut BTreeSet<String>,
) -> Result<(), TestCaseError> {
    let Some(response) = script.respond() else {
        return Ok(());
    };
    prop_assert!(nonces.insert(response.nonce.clone()));
    let present = response
        .resources
        .iter()
        .map(|resource| (&resource.name, Some(resource.version.clone())));
    let absent = response.removed_resources.iter().map(|name| (name, None));
    let mut seen = BTreeSet::new();
    for (name, state) in present.chain(absent) {
        prop_assert!(seen.insert(name.clone()), "{} is there twice", name);
        prop_assert!(script.stream.names().any(|asked| asked == name));
        let before = client.insert(name.clone(), state.clone());
        prop_assert_ne!(before, Some(state), "{} was known", name);
    }
    Ok(())
}

proptest! {
    /// SDS-S9, S12, S15, S16. Whatever a client does: nonces are fresh, only names asked for are spoken of, nothing is
    /// said twice unless it was asked for again, and in the end the client knows the newest.
    #[test]
    fn sends_what_is_owed_and_nothing_else(events in proptest::collection::vec(event(), 0..60)) {
        let mut script = Script::new(&[]);
        let mut nonces = BTreeSet::new();
        let mut client = Client::new();
        for (number, event) in events.into_iter().enumerate() {
            match event {
                Event::Request { subscribe: asked, unsubscribe: dropped, nonce, rejected } => {
                    let text = |names: Vec<u8>| -> Vec<String> {
                        names.iter().map(ToString::to_string).collect()
                    };
                    let mut message = subscribe(&[]);
                    message.resource_names_subscribe = text(asked);
                    message.resource_names_unsubscribe = text(dropped);
                    if nonce > 0 {
                        message.response_nonce = nonce.to_string();
                    }
                    message.error_detail = rejected.then(Status::default);
                    let since_open = Duration::from_secs(number as u64);
                    script.stream.receive(&message, since_open).unwrap();
                    client.retain(|name, _| script.stream.names().any(|asked| asked == name));
                    for name in &message.resource_names_subscribe {
                        client.remove(name);
                    }
                }
                Event::Change { name, content: Some(content) } => {
                    script.store.set(&name.to_string(), &content.to_string());
                }
                Event::Change { name, content: None } => script.store.remove(&name.to_string()),
                Event::Respond => respond(&mut script, &mut client, &mut nonces)?,
            }
        }
        respond(&mut script, &mut client, &mut nonces)?;
        let form = script.stream.form();
        for name in script.stream.names() {
            let newest = script.store.secret(name, form).map(|found| found.version);
            prop_assert_eq!(client.get(name), Some(&newest));
        }
    }
}
