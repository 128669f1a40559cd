use mesh_lite_proto::svid::Serial;

use super::*;

const START: SystemTime = SystemTime::UNIX_EPOCH;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn leaf(not_before: SystemTime, life: Duration) -> LeafFacts {
    LeafFacts {
        id: "spiffe://a.test/ns/shop/sa/web".parse().unwrap(),
        serial: Serial::new(&[1]).unwrap(),
        not_before,
        not_after: not_before + life,
        common_name: None,
    }
}

fn pods() -> impl Iterator<Item = Schedule> {
    (0..1000).map(|pod| Schedule::new(&format!("pod-{pod}")))
}

#[test]
fn renews_between_40_and_60_percent_of_a_life_and_spreads_pods_over_that() {
    for life in [seconds(10), seconds(20), seconds(86_400)] {
        let leaf = leaf(START, life);
        let points: Vec<Duration> = pods()
            .map(|pod| {
                pod.renewal_point(START, &leaf)
                    .duration_since(START)
                    .unwrap()
            })
            .collect();
        let (first, last) = (points.iter().min().unwrap(), points.iter().max().unwrap());
        assert!(*first >= life.mul_f64(0.4) && *first < life.mul_f64(0.41));
        assert!(*last <= life.mul_f64(0.6) && *last > life.mul_f64(0.59));
    }
}

#[test]
fn a_ten_second_leaf_leaves_time_for_several_attempts() {
    let leaf = leaf(START, seconds(10));
    for pod in pods().take(20) {
        let mut now = pod.renewal_point(START, &leaf);
        let mut attempts = 0;
        while now < leaf.not_after {
            let left = leaf.not_after.duration_since(now).unwrap();
            now += retry_delay(seconds(60), Some(left));
            attempts += 1;
        }
        assert!(attempts >= 5, "{attempts} attempts");
    }
}

/// What measuring another mesh taught: a backdated short leaf made 386 requests in 17 s.
#[test]
fn a_clock_that_runs_ahead_does_not_ask_without_pause() {
    let leaf = leaf(START, seconds(20));
    let obtained = START + seconds(15);
    for pod in pods() {
        assert!(pod.renewal_point(obtained, &leaf) >= obtained + seconds(2));
    }
}

#[test]
fn a_leaf_that_was_kept_over_a_restart_and_is_past_its_point_is_renewed_now() {
    let leaf = leaf(START, seconds(100));
    let point = Schedule::new("pod").renewal_point(leaf.not_before, &leaf);
    assert!(point < START + seconds(61));
}

#[test]
fn an_ended_leaf_has_a_renewal_point_that_has_passed() {
    let leaf = leaf(START, seconds(10));
    let late = START + seconds(50);
    assert_eq!(Schedule::new("pod").renewal_point(late, &leaf), late);
}

#[test]
fn a_rotation_is_followed_soon_but_not_by_all_at_once() {
    let leaf = leaf(START, seconds(86_400));
    let now = START + seconds(100);
    let mut points: Vec<SystemTime> = pods().map(|pod| pod.rotation_point(now, &leaf)).collect();
    assert!(
        points
            .iter()
            .all(|point| *point >= now && *point <= now + seconds(30))
    );
    points.sort();
    points.dedup();
    assert!(points.len() > 990);
}

#[test]
fn a_rotation_of_short_leaves_is_followed_within_a_twentieth_of_their_life() {
    let leaf = leaf(START, seconds(20));
    assert!(pods().all(|pod| pod.rotation_point(START, &leaf) <= START + seconds(1)));
}

#[test]
fn without_a_leaf_the_back_off_alone_decides() {
    assert_eq!(retry_delay(seconds(60), None), seconds(60));
    assert_eq!(attempt_deadline(None), LONGEST_ATTEMPT);
}

#[test]
fn never_retries_in_a_tight_loop() {
    assert_eq!(
        retry_delay(seconds(1), Some(Duration::ZERO)),
        SHORTEST_RETRY
    );
    assert_eq!(attempt_deadline(Some(Duration::ZERO)), SHORTEST_ATTEMPT);
}
