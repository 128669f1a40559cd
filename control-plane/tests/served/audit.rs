//! One line for each certificate: who asked, by what proof, what was signed.

use mesh_lite_control_plane::clock::readable;
use rcgen::KeyPair;

use super::{
    client::{Svid, csr, fetch_request, request_for, with_token},
    log::heard,
    remote_keys::{TokenStream, stream_token},
    running::{Directories, Running},
};

const AUDIT: &str = "mesh_lite_control_plane::audit";

/// The one line about this serial number.
fn line_about(svid: &Svid) -> String {
    let serial = format!("serial={}", svid.facts.serial);
    let signed = heard().lines(&[AUDIT, "certificate issued", &serial]);
    let [line] = signed.try_into().expect("one line for one certificate");
    line
}

/// What every line says of what was signed.
fn says_what_was_signed(line: &str, svid: &Svid) {
    for part in [
        "INFO".to_owned(),
        // certificates of reusable tokens name none: here all workloads have the account of their name
        format!("workload=shop/{}", svid.facts.id.service_account().unwrap()),
        format!(" id={}", svid.facts.id),
        format!("not_before={}", readable(svid.facts.not_before)),
        format!("not_after={}", readable(svid.facts.not_after)),
        "client.addr=127.0.0.1:".to_owned(),
        "key=EC P-256".to_owned(),
        "issuer.key_id=".to_owned(),
    ] {
        assert!(line.contains(&part), "{part} is missing in {line}");
    }
}

/// The beginning of a token's file name in the data directory.
fn prints(directories: &Directories) -> Vec<String> {
    let files = std::fs::read_dir(directories.data.join("join-tokens")).unwrap();
    files
        .map(|file| {
            let name = file.unwrap().file_name().into_string().unwrap();
            name.get(..16).unwrap().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn tells_of_a_first_certificate_which_token_was_spent() {
    heard();
    let running = Running::start().await;
    let token = running.directories.token("shop/web");
    let key = KeyPair::generate().unwrap();
    let ask = || with_token(fetch_request(&csr(&key, &[])), &token);
    let response = running.fetch(running.anonymous().await, ask()).await;
    let svid = Svid::new(&response.unwrap(), KeyPair::generate().unwrap());
    let line = line_about(&svid);
    says_what_was_signed(&line, &svid);
    let [print] = prints(&running.directories).try_into().unwrap();
    assert!(line.contains("proof=\"join token\""), "{line}");
    assert!(line.contains(&format!("proof.id=\"{print}\"")), "{line}");
    assert!(line.contains("key_made_here=false"), "{line}");
    let secret = token.rsplit('-').next().unwrap();
    assert!(!line.contains(secret.get(..8).unwrap()), "{line}");

    // the same again is no second certificate, and is told all the same
    running
        .fetch(running.anonymous().await, ask())
        .await
        .unwrap();
    let again = heard().lines(&[AUDIT, "certificate handed out again", &print]);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!(line_about(&svid), line);
}

#[tokio::test]
async fn tells_of_a_renewal_which_certificate_proved_the_caller() {
    heard();
    let running = Running::start().await;
    let first = running.issue("shop/api").await;
    let channel = running.connect(Some(&first)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let request = fetch_request(&csr(&key, &[]));
    let response = running.fetch(channel, request).await.unwrap();
    let second = Svid::new(&response, key);
    let line = line_about(&second);
    says_what_was_signed(&line, &second);
    let proof = format!("proof=\"X509-SVID\" proof.id=\"{}\"", first.facts.serial);
    assert!(line.contains(&proof), "{line}");
}

#[tokio::test]
async fn tells_of_a_key_that_was_made_here() {
    heard();
    let directories = Directories::new();
    let mut settings = directories.settings();
    settings.allow_remote_keys = true;
    let running = Running::start_with(directories, settings).await;
    let token = stream_token(&running.directories, "shop/web");
    let channel = running.anonymous().await;
    let mut stream = TokenStream::open(channel, request_for(&["default"]), &token)
        .await
        .unwrap();
    let svid = stream.next_pair("default").await.svid();
    let line = line_about(&svid);
    says_what_was_signed(&line, &svid);
    let [print] = prints(&running.directories).try_into().unwrap();
    let proof = format!("proof=\"reusable token\" proof.id=\"{print}\"");
    assert!(line.contains(&proof), "{line}");
    assert!(line.contains("key_made_here=true"), "{line}");
}

/// Nothing was signed, so nothing is told as signed.
#[tokio::test]
async fn tells_of_no_certificate_that_was_refused() {
    heard();
    let running = Running::start().await;
    let token = running.directories.token("shop/nobody");
    let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
    let refused = running
        .fetch(running.anonymous().await, with_token(request, &token))
        .await;
    assert!(refused.is_err());
    let [print] = prints(&running.directories).try_into().unwrap();
    assert_eq!(heard().lines(&[AUDIT, &print]), Vec::<String>::new());
}
