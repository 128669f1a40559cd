use super::*;

fn key(number: u32) -> KeyPrint {
    KeyPrint::of(&number.to_be_bytes())
}

#[test]
fn admits_a_key_once_and_remembers_a_bounded_number() {
    let mut recent = RecentKeys::default();
    let count = u32::try_from(REMEMBERED_KEYS).unwrap();
    recent.admit(key(0)).unwrap();
    assert!(matches!(recent.admit(key(0)), Err(Refusal::KeyUsedBefore)));
    for number in 1..=count {
        recent.admit(key(number)).unwrap();
    }
    assert_eq!(
        (recent.known.len(), recent.order.len()),
        (REMEMBERED_KEYS, REMEMBERED_KEYS)
    );
    assert!(recent.admit(key(1)).is_err());
    assert!(recent.admit(key(0)).is_ok(), "the oldest is forgotten");
}
