use super::*;

#[test]
fn spreads_the_age_of_connections_by_a_fifth_each_way() {
    let ages: Vec<Duration> = (0..200).map(|_| age()).collect();
    let (least, most) = (MAX_AGE * 8 / 10, MAX_AGE * 12 / 10);
    assert!(
        ages.iter().all(|age| (least..=most).contains(age)),
        "{ages:?}"
    );
    assert!(ages.iter().any(|age| *age < MAX_AGE) && ages.iter().any(|age| *age > MAX_AGE));
}
