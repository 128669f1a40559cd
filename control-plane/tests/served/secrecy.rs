use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use rcgen::KeyPair;
use tracing_subscriber::fmt::MakeWriter;

use super::{
    client::{csr, fetch_request, with_token},
    running::{Directories, Running},
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
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let directories = Directories::new();
    let (web, api) = (directories.token("shop/web"), directories.token("shop/api"));
    let running = Running::start_in(directories).await;
    let key = KeyPair::generate().unwrap();
    for token in [&web, &web, &api] {
        let request = with_token(fetch_request(&csr(&key, &[])), token);
        let _ = running.fetch(running.anonymous().await, request).await;
    }
    running.directories.renew_root();
    let issuing = running.directories.data.join("issuing/issuing-ca.pem");
    std::fs::write(&issuing, "not PEM").unwrap();
    super::running::eventually("the fault is seen", async || {
        (running.get("/readyz").await.1 != "ok\n").then_some(())
    })
    .await;
    let root = key_lines(&running.directories.data.join("root/root.pem"));
    running.directories.renew_root();
    let secrets = [root, key_lines(&issuing), vec![web, api]].concat();
    let mut answers = running.get("/metrics").await.1 + &running.get("/readyz").await.1;
    running.end().await;
    answers.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(
        answers.contains("certificate issued"),
        "the log was not caught"
    );
    for secret in secrets {
        let found = answers.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} is in the log");
    }
}
