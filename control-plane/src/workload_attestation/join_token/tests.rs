use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

use super::*;

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn web() -> WorkloadName {
    "shop/web".parse().unwrap()
}

fn key(number: u8) -> KeyPrint {
    KeyPrint::of(&[number])
}

struct Fixture {
    directory: TempDir,
    tokens: JoinTokens,
}

fn fixture() -> Fixture {
    let directory = TempDir::new().unwrap();
    let tokens = JoinTokens::new(directory.path().join("join-tokens"));
    Fixture { directory, tokens }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn keeps_a_hash_and_never_the_token() {
    let Fixture { directory, tokens } = fixture();
    let token = tokens.create(&web(), HOUR, now()).unwrap();
    let secret = token.as_str().strip_prefix(PREFIX).unwrap();
    assert_eq!(secret.len(), 64);
    for entry in fs::read_dir(directory.path().join("join-tokens")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(secret));
        assert!(!fs::read_to_string(&path).unwrap().contains(secret));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    let other = tokens.create(&web(), HOUR, now()).unwrap();
    assert_ne!(token.as_str(), other.as_str());
}

#[test]
fn answers_the_redeeming_key_again_for_five_minutes_and_nobody_else() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let token = tokens.create(&web(), HOUR, now()).unwrap();
    assert_eq!(
        tokens.claim(&token, key(1), now()).unwrap(),
        Claim::Fresh(web())
    );
    tokens
        .redeem(&token, key(1), "the chain".to_owned(), now())
        .unwrap();
    let again = Claim::Again {
        workload: web(),
        chain_pem: "the chain".to_owned(),
    };
    let last = now() + RETRY - Duration::from_secs(1);
    assert_eq!(tokens.claim(&token, key(1), last).unwrap(), again);
    let late = tokens.claim(&token, key(1), now() + RETRY).unwrap_err();
    assert!(matches!(late, JoinTokenError::Redeemed { .. }), "{late}");
    let stranger = tokens.claim(&token, key(2), now()).unwrap_err();
    assert!(matches!(stranger, JoinTokenError::Redeemed { .. }) && stranger.is_refusal());
}

/// The answer to a redemption in the last second of a token may be lost as well.
#[test]
fn answers_the_redeeming_key_again_although_the_token_has_expired_since() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let token = tokens
        .create(&web(), Duration::from_secs(10), now())
        .unwrap();
    tokens
        .redeem(&token, key(1), "the chain".to_owned(), now())
        .unwrap();
    let later = now() + Duration::from_secs(20);
    assert!(matches!(
        tokens.claim(&token, key(1), later),
        Ok(Claim::Again { .. })
    ));
}

#[test]
fn refuses_expired_and_unknown_tokens_and_names_the_remedy() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let token = tokens.create(&web(), HOUR, now()).unwrap();
    let expired = tokens.claim(&token, key(1), now() + HOUR).unwrap_err();
    assert!(
        expired
            .to_string()
            .contains("mesh-lite token create shop/web"),
        "{expired}"
    );
    for text in [
        "",
        "x",
        "../../etc/passwd",
        token.as_str().strip_prefix('m').unwrap(),
    ] {
        let unknown = tokens
            .claim(&JoinToken::received(text), key(1), now())
            .unwrap_err();
        assert!(matches!(unknown, JoinTokenError::Unknown), "{unknown}");
    }
    // as it comes out of a file
    let with_newline = JoinToken::received(&format!("{}\n", token.as_str()));
    assert!(tokens.claim(&with_newline, key(1), now()).is_ok());
}

#[test]
fn takes_a_damaged_record_for_our_fault_and_not_for_a_good_token() {
    let Fixture { tokens, directory } = fixture();
    let token = tokens.create(&web(), HOUR, now()).unwrap();
    for entry in fs::read_dir(directory.path().join("join-tokens")).unwrap() {
        fs::write(entry.unwrap().path(), "{}").unwrap();
    }
    let damaged = tokens.claim(&token, key(1), now()).unwrap_err();
    assert!(!damaged.is_refusal(), "{damaged}");
}

#[test]
fn forgets_tokens_a_day_after_they_expired() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let old = tokens.create(&web(), HOUR, now()).unwrap();
    let later = now() + HOUR + REMEMBER;
    tokens.create(&web(), HOUR, later).unwrap();
    assert!(matches!(
        tokens.claim(&old, key(1), later),
        Err(JoinTokenError::Expired { .. })
    ));
    tokens
        .create(&web(), HOUR, later + Duration::from_secs(1))
        .unwrap();
    assert!(matches!(
        tokens.claim(&old, key(1), later),
        Err(JoinTokenError::Unknown)
    ));
}
