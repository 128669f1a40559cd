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

#[test]
fn bounds_the_renewals_of_each_workload_by_itself() {
    let mut memory = Memory::default();
    let (web, api): (WorkloadName, WorkloadName) =
        ("shop/web".parse().unwrap(), "shop/api".parse().unwrap());
    let start = Duration::ZERO;
    for _ in 0..RENEWAL_BURST {
        assert!(memory.take_turn(&web, start));
    }
    assert!(!memory.take_turn(&web, start));
    assert!(memory.take_turn(&api, start));
    assert!(memory.take_turn(&web, Duration::from_secs(1)));
    assert!(!memory.take_turn(&web, Duration::from_secs(1)));
}

#[test]
fn forgets_rates_rather_than_grow_without_end() {
    let mut memory = Memory::default();
    for number in 0..MAX_RATES + 100 {
        let workload = format!("shop/w{number}").parse().unwrap();
        assert!(memory.take_turn(&workload, Duration::ZERO));
    }
    assert_eq!(memory.rates.len(), 100);
}
