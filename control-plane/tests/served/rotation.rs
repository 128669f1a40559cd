use std::{collections::BTreeSet, time::Duration};

use mesh_lite_control_plane::{
    clock,
    root_commands::{Renewal, renew_root},
};
use mesh_lite_proto::{
    secret_discovery::{ACTIVE_AUTHORITY, OWN_BUNDLE},
    trust_bundle::pem,
};
use rcgen::KeyPair;
use tokio::sync::watch;

use super::{
    client::{Svid, csr, fetch_request, request_for},
    running::{Directories, Running, eventually},
    secret_streams::{Stream, active_authority},
};

fn key_id_of_issuer(svid: &Svid) -> String {
    let (_, issuer) = x509_parser::parse_x509_certificate(&svid.chain[1]).unwrap();
    issuer
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                Some(mesh_lite_proto::trust_bundle::hex(id.0))
            }
            _ => None,
        })
        .unwrap()
}

#[tokio::test]
async fn signs_with_the_next_issuing_authority_after_saying_so() {
    let running = Running::start().await;
    let first = running.issue("shop/web").await;
    let channel = running.connect(Some(&first)).await.unwrap();
    let mut stream = Stream::open(channel.clone(), request_for(&[ACTIVE_AUTHORITY]))
        .await
        .unwrap();
    let before = active_authority(&stream.next().await.unwrap()).unwrap();
    assert_eq!(key_id_of_issuer(&first), before);

    let renewed = running.directories.renew_root();
    let after = active_authority(&stream.next().await.unwrap()).unwrap();
    assert_eq!(after, renewed.issuing_key_id);
    let key = KeyPair::generate().unwrap();
    // the connection that was opened under the old authority goes on
    let response = running
        .fetch(channel, fetch_request(&csr(&key, &[])))
        .await
        .unwrap();
    let second = Svid::new(&response, key);
    assert_eq!(key_id_of_issuer(&second), after);
    // and both certificates open new ones, under the server's new certificate
    for svid in [&first, &second] {
        let channel = running.connect(Some(svid)).await.unwrap();
        let mut stream = Stream::open(channel, request_for(&[OWN_BUNDLE]))
            .await
            .unwrap();
        stream.next().await.unwrap();
    }
}

#[tokio::test]
async fn keeps_the_good_issuing_authority_when_the_next_can_not_serve() {
    let running = Running::start().await;
    let before = running.directories.trust_bundle();
    let file = running.directories.data.join("issuing/issuing-ca.pem");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "rubbish").unwrap();
    eventually("readiness says so", async || {
        let (status, text) = running.get("/readyz").await;
        (status == 200 && text.contains("issuing-ca.pem holds no readable CERTIFICATE"))
            .then_some(())
    })
    .await;
    assert_eq!(running.issue("shop/web").await.chain.len(), 2);

    let short = renew_root(
        &running.directories.places("root"),
        Renewal {
            issuing_lifetime: Some(Duration::from_secs(600)),
            ..Renewal::default()
        },
        clock::now(),
    );
    short.unwrap();
    eventually("readiness says why", async || {
        running
            .get("/readyz")
            .await
            .1
            .contains("must live at least 2 times as long")
            .then_some(())
    })
    .await;

    std::fs::write(&file, good).unwrap();
    eventually("all is well", async || {
        (running.get("/readyz").await.1 == "ok\n").then_some(())
    })
    .await;
    assert_eq!(running.directories.trust_bundle(), before);
}

#[tokio::test]
async fn does_not_drop_a_root_whose_leaves_are_in_use() {
    let running = Running::start().await;
    let own = running.directories.trust_bundle();
    let other = Directories::new();
    let text: String = other
        .trust_bundle()
        .authorities()
        .iter()
        .map(|root| pem("CERTIFICATE", root))
        .collect();
    std::fs::write(running.directories.data.join("trust-bundle.pem"), text).unwrap();
    eventually("readiness says so", async || {
        running
            .get("/readyz")
            .await
            .1
            .contains("no root in the trust bundle signed")
            .then_some(())
    })
    .await;
    std::fs::write(
        running.directories.data.join("trust-bundle.pem"),
        own.to_pem(),
    )
    .unwrap();
    eventually("all is well", async || {
        (running.get("/readyz").await.1 == "ok\n").then_some(())
    })
    .await;
}

/// Callers come without a pause while the issuing CA changes under them.
#[tokio::test]
async fn answers_every_request_while_issuing_authorities_come_and_go() {
    let running = Running::start().await;
    let (end, ended) = watch::channel(false);
    let caller = async |workload: &str| {
        let mut issuers = BTreeSet::new();
        while !*ended.borrow() {
            issuers.insert(key_id_of_issuer(&running.issue(workload).await));
        }
        issuers
    };
    let changes = async {
        let mut made = BTreeSet::new();
        for _ in 0..5 {
            let next = running.directories.renew_root().issuing_key_id;
            eventually("the next one signs", async || {
                let svid = running.issue("shop/web").await;
                (key_id_of_issuer(&svid) == next).then_some(())
            })
            .await;
            made.insert(next);
        }
        end.send_replace(true);
        made
    };
    let (web, api, made) = tokio::join!(caller("shop/web"), caller("shop/api"), changes);
    assert_eq!(made.len(), 5);
    for issuers in [web, api] {
        assert!(issuers.intersection(&made).count() >= 2, "{issuers:?}");
    }
}
