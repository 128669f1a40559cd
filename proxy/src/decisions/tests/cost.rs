//! What a connection pays, and what everybody's records take, printed:
//! `cargo test -p mesh-lite-proxy --release --lib -- --ignored --nocapture cost`.

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

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// Callers with identities of their own, through to an application.
fn callers(count: u32) -> impl Iterator<Item = Call> {
    (0..count).map(|n| {
        let id = format!("spiffe://cluster.local/ns/shop-{n}/sa/caller-{n}");
        Call {
            source: Peer {
                identity: Some(id.parse().unwrap()),
                ..Call::stranger(n).source
            },
            ..Call::allowed()
        }
    })
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
}

#[test]
#[ignore = "measures, and asserts nothing"]
fn cost_of_a_full_memory() {
    let told = Told::new();
    told.tell(&Call::allowed());
    let before = resident_kib();
    callers(20_000).for_each(|call| told.tell(&call));
    (0..20_000).for_each(|n| told.tell(&Call::stranger(n)));
    let grown = resident_kib() - before;
    for half in [&told.decisions.0.let_through, &told.decisions.0.rest] {
        let half = locked(half);
        let records = half.copied().records().count();
        println!("{records:>6} records counted as {} bytes", half.bytes());
    }
    println!("{grown:>6} KiB more resident");
    let begin = tokio::time::Instant::now();
    let page = told.recording().to_lines();
    println!("{:>6} bytes of page in {:?}", page.len(), begin.elapsed());
}
