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
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    let secret = token.as_str().strip_prefix(PREFIX).unwrap();
    assert_eq!(secret.len(), 64);
    for entry in fs::read_dir(directory.path().join("join-tokens")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(secret));
        assert!(!fs::read_to_string(&path).unwrap().contains(secret));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    let other = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    assert_ne!(token.as_str(), other.as_str());
}

#[test]
fn answers_the_redeeming_key_again_for_five_minutes_and_nobody_else() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
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
        .create(&web(), TokenUse::Once, Duration::from_secs(10), now())
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
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
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
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
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
    let old = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    let later = now() + HOUR + REMEMBER;
    tokens.create(&web(), TokenUse::Once, HOUR, later).unwrap();
    assert!(matches!(
        tokens.claim(&old, key(1), later),
        Err(JoinTokenError::Expired { .. })
    ));
    tokens
        .create(&web(), TokenUse::Once, HOUR, later + Duration::from_secs(1))
        .unwrap();
    assert!(matches!(
        tokens.claim(&old, key(1), later),
        Err(JoinTokenError::Unknown)
    ));
}

/// SDS-S27: contract of reusable tokens.
#[test]
fn opens_streams_with_a_reusable_token_until_its_last_second() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let token = tokens
        .create(&web(), TokenUse::Streams, HOUR, now())
        .unwrap();
    assert!(token.as_str().starts_with(REUSABLE_PREFIX));
    let last = now() + HOUR - Duration::from_secs(1);
    for at in [now(), now(), last] {
        let opened = tokens.open(&token, at).unwrap();
        assert_eq!((&opened.workload, opened.expires), (&web(), now() + HOUR));
        assert!(opened.check_time(last).is_ok());
        let ended = opened.check_time(now() + HOUR).unwrap_err();
        assert!(ended.to_string().contains("--reusable"), "{ended}");
    }
    let expired = tokens.open(&token, now() + HOUR).unwrap_err();
    assert!(expired.is_refusal());
    assert!(matches!(expired, JoinTokenError::StreamTokenExpired { .. }));
}

/// Neither kind of token does what the other is for, whatever its text begins with.
#[test]
fn signs_nothing_with_a_reusable_token_and_opens_nothing_with_another() {
    let Fixture {
        tokens,
        directory: _keep,
    } = fixture();
    let stream = tokens
        .create(&web(), TokenUse::Streams, HOUR, now())
        .unwrap();
    let once = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    let signs_not = tokens.claim(&stream, key(1), now()).unwrap_err();
    assert!(matches!(signs_not, JoinTokenError::SignsNothing(_)) && signs_not.is_refusal());
    let opens_not = tokens.open(&once, now()).unwrap_err();
    assert!(matches!(opens_not, JoinTokenError::OpensNothing(_)) && opens_not.is_refusal());
    assert!(
        opens_not
            .to_string()
            .contains("mesh-lite token create shop/web --reusable"),
        "{opens_not}"
    );
    let dressed = once.as_str().replace(PREFIX, REUSABLE_PREFIX);
    assert!(matches!(
        tokens.open(&JoinToken::received(&dressed), now()),
        Err(JoinTokenError::Unknown)
    ));
    // nothing of this used the one-time token up
    assert!(matches!(
        tokens.claim(&once, key(1), now()),
        Ok(Claim::Fresh(_))
    ));
}

/// As written before reusable tokens were known.
#[test]
fn takes_a_record_that_says_nothing_of_reuse_for_a_token_that_is_good_once() {
    let Fixture { tokens, directory } = fixture();
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    let path = fs::read_dir(directory.path().join("join-tokens"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"reusable\":false,", "")).unwrap();
    assert!(tokens.claim(&token, key(1), now()).is_ok());
    assert!(tokens.open(&token, now()).is_err());
}

#[test]
fn names_a_token_by_the_beginning_of_its_hash() {
    let Fixture { tokens, directory } = fixture();
    let token = tokens.create(&web(), TokenUse::Once, HOUR, now()).unwrap();
    let print = token.short_print();
    assert_eq!(print.len(), PRINT_DIGITS);
    assert!(!token.as_str().contains(&print));
    let mut files = fs::read_dir(directory.path().join("join-tokens")).unwrap();
    let name = files.next().unwrap().unwrap().file_name();
    assert!(name.to_string_lossy().starts_with(&print));
}
