//! What a connection pays, printed: `cargo test -p mesh-lite-proxy --release -- --ignored cost`.

use super::*;

/// Told in turn until a few hundred thousand were told.
fn nanoseconds_each(told: &Told, calls: &[Call]) -> u128 {
    let rounds = 400_000 / calls.len();
    let begin = tokio::time::Instant::now();
    for _ in 0..rounds {
        for call in calls {
            told.tell(call);
        }
    }
    begin.elapsed().as_nanos() / (rounds * calls.len()) as u128
}

#[test]
#[ignore = "measures, and asserts nothing"]
fn cost_of_a_recorded_connection() {
    let deny = Call::inbound(Outcome::Decided(denied("cluster.local/ns/shop/sa/web")));
    let known: Vec<_> = (0..300).map(Call::plaintext).collect();
    let flood: Vec<_> = (0..100_000).map(Call::stranger).collect();
    for (what, calls) in [
        ("known, allowed", &[Call::allowed()][..]),
        ("known, denied with a nearest miss", &[deny]),
        ("known, one of 300", &known),
        ("new, room full", &flood),
    ] {
        let told = Told::new();
        calls.iter().for_each(|call| told.tell(call));
        println!("{:>6} ns  {what}", nanoseconds_each(&told, calls));
    }
    let told = Told::new();
    flood.iter().for_each(|call| told.tell(call));
    let half = locked(&told.decisions.0.rest);
    println!(
        "{:>6} records in {} bytes of {}",
        half.records().0.len(),
        half.bytes(),
        MAX_ROOM / 2
    );
}
