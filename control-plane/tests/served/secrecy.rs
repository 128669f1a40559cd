use mesh_lite_proto::secret_discovery::OWN_BUNDLE;
use rcgen::KeyPair;

use super::{
    client::{csr, fetch_request, request_for, with_token},
    log::heard,
    remote_keys::{Pair, TokenStream, stream_token},
    running::{Directories, Running},
};

/// The lines between the markers, which no text of ours would hold by chance.
fn key_lines(file: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let key = text.split("PRIVATE KEY-----").nth(1).unwrap();
    key.lines()
        .filter(|line| line.len() > 20)
        .map(ToOwned::to_owned)
        .collect()
}

/// SDS-S29
#[tokio::test]
async fn logs_no_key_and_no_join_token_at_any_level() {
    let log = heard();
    let directories = Directories::new();
    let (web, api) = (directories.token("shop/web"), directories.token("shop/api"));
    let reusable = stream_token(&directories, "shop/web");
    let mut settings = directories.settings();
    settings.allow_remote_keys = true;
    let running = Running::start_with(directories, settings).await;
    let key = KeyPair::generate().unwrap();
    for token in [&web, &web, &api] {
        let request = with_token(fetch_request(&csr(&key, &[])), token);
        let _ = running.fetch(running.anonymous().await, request).await;
    }
    let request = request_for(&["default", OWN_BUNDLE]);
    let mut stream = TokenStream::open(running.anonymous().await, request, &reusable)
        .await
        .unwrap();
    let made_here = stream.next_pair("default").await;
    running.directories.renew_root();
    let issuing = running.directories.data.join("issuing/issuing-ca.pem");
    std::fs::write(&issuing, "not PEM").unwrap();
    super::running::eventually("the fault is seen", async || {
        (running.get("/readyz").await.1 != "ok\n").then_some(())
    })
    .await;
    let root = key_lines(&running.directories.data.join("root/root.pem"));
    running.directories.renew_root();
    let secrets = [
        root,
        key_lines(&issuing),
        Pair::lines_of_key(&made_here),
        vec![web, api, reusable],
    ]
    .concat();
    let mut answers = running.get("/metrics").await.1 + &running.get("/readyz").await.1;
    running.end().await;
    answers.push_str(&log.text());
    assert!(
        !log.lines(&["control_plane::audit", "certificate issued"])
            .is_empty(),
        "the log was not caught"
    );
    for secret in secrets {
        let found = answers.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} is in the log");
    }
}
