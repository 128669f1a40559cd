//! What is written down while keys are sent.

use std::{
    io::{self, Write},
    sync::Mutex,
};

use prost::Message as _;
use rcgen::KeyPair;
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{MakeWriter, Subscriber},
    util::SubscriberInitExt as _,
};
use zeroize::Zeroizing;

use super::*;
use crate::{
    secret_discovery::svid_secret, wire::envoy::extensions::transport_sockets::tls::v3::Secret,
};

/// Everything that is logged, whatever its level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn key() -> Zeroizing<String> {
    Zeroizing::new(KeyPair::generate().unwrap().serialize_pem())
}

/// Whether a response holds this key: then the test looked where a key was.
fn holds(any: Option<&prost_types::Any>, key: &str) -> bool {
    let secret = Secret::decode(&*any.unwrap().value).unwrap();
    let needle = key.as_bytes();
    secret
        .encode_to_vec()
        .windows(needle.len())
        .any(|window| window == needle)
}

/// SDS-S29, SDS-S30: over first answers, pushes, acknowledgements, rejections and ends.
#[tokio::test]
async fn logs_no_key_at_any_level_while_keys_are_sent_and_rejected() {
    let log = Log::default();
    // With one subscriber in the process, what other tests come by first is never logged.
    let _second = Subscriber::builder()
        .with_max_level(LevelFilter::OFF)
        .finish()
        .set_default();
    let logging = Subscriber::builder()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(log.clone())
        .finish()
        .set_default();
    let served = Served::with(&[]).await;
    let keys = [key(), key(), key()];
    let svid = |key| svid_secret(DEFAULT_SVID, "chain", key);
    let mut stream = Stream::open(&served, false, request(&[DEFAULT_SVID])).await;
    let mut delta = Delta::open(&served, true, subscribe(&[DEFAULT_SVID])).await;
    for key in &keys {
        served.set_secret(DEFAULT_SVID, svid(key));
        let one = stream.next().await.unwrap();
        let mut other = delta.next().await.unwrap();
        if other.resources.is_empty() {
            // that there was none at first
            other = delta.next().await.unwrap();
        }
        assert!(holds(one.resources.first(), key));
        assert!(holds(other.resources[0].resource.as_ref(), key));
        delta.ack(&other).await;
        stream
            .send(DiscoveryRequest {
                response_nonce: one.nonce,
                error_detail: no("no good"),
                ..request(&[DEFAULT_SVID])
            })
            .await;
    }
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let fetched = client.fetch_secrets(request(&[DEFAULT_SVID])).await;
    let fetched = fetched.unwrap().into_inner();
    assert!(holds(fetched.resources.first(), &keys[2]));
    served.lose_the_right_and_set(Status::permission_denied("no longer"), "a", "x");
    while stream.next().await.is_ok() {}
    while delta.next().await.is_ok() {}
    drop(logging);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("Data"), "frames are not in the log");
    for line in keys.iter().flat_map(|key| key.lines()) {
        let found = log.lines().find(|logged| logged.contains(line));
        assert_eq!(found, None, "{line} is in the log");
    }
}
