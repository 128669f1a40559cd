use rustls::{crypto::aws_lc_rs, server::ResolvesServerCertUsingSni, version::TLS13};

use super::*;

/// Time stands still but for timers: a wait that has no end would hang here.
#[tokio::test(start_paused = true)]
async fn gives_up_on_a_client_that_says_nothing() {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(socket.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, _) = socket.accept().await.unwrap();
    let refused = handshake(Arc::new(config), accepted).await.err().unwrap();
    assert!(matches!(refused, HandshakeError::Deadline), "{refused}");
    assert_eq!(refused.outcome(), "deadline");
}
