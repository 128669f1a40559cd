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

/// CSR-C9
#[test]
fn bounds_the_renewals_of_each_workload_by_itself() {
    let mut admission = Admission::default();
    let (web, api): (WorkloadName, WorkloadName) =
        ("shop/web".parse().unwrap(), "shop/api".parse().unwrap());
    let start = Duration::ZERO;
    for _ in 0..RENEWAL_BURST {
        assert!(admission.take_turn(&web, start));
    }
    assert!(!admission.take_turn(&web, start));
    assert!(admission.take_turn(&api, start));
    assert!(admission.take_turn(&web, Duration::from_secs(1)));
    assert!(!admission.take_turn(&web, Duration::from_secs(1)));
}

/// A key that is asked for too often is not spent by that.
#[test]
fn refuses_a_renewal_beyond_the_rate_and_takes_the_same_key_later() {
    let mut admission = Admission::default();
    let web: WorkloadName = "shop/web".parse().unwrap();
    for number in 0..RENEWAL_BURST {
        admission
            .renewal(&web, key(number), Duration::ZERO)
            .unwrap();
    }
    let late = admission.renewal(&web, key(99), Duration::ZERO);
    assert!(matches!(late, Err(Refusal::TooOften(workload)) if workload == web));
    admission
        .renewal(&web, key(99), Duration::from_secs(1))
        .unwrap();
    let again = admission.renewal(&web, key(99), Duration::from_secs(2));
    assert!(matches!(again, Err(Refusal::KeyUsedBefore)));
    assert!(matches!(
        admission.first(key(99)),
        Err(Refusal::KeyUsedBefore)
    ));
}

#[test]
fn forgets_rates_rather_than_grow_without_end() {
    let mut admission = Admission::default();
    for number in 0..MAX_RATES + 100 {
        let workload = format!("shop/w{number}").parse().unwrap();
        assert!(admission.take_turn(&workload, Duration::ZERO));
    }
    assert_eq!(admission.rates.len(), 100);
}
