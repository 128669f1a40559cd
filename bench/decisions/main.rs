//! What a decision costs with few and with many policies, and what it costs a control plane to
//! choose a workload's.
//!
//!     cargo bench -p mesh-lite-control-plane --bench decisions --profile measure
//!
//! One thread, nothing but the functions themselves: no socket, no certificate.

use std::{error::Error, fs, hint::black_box, time::Duration};

use tokio::time::Instant;

mod deciding;
mod selecting;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Of each figure, taken in turns; the median counts.
const ROUNDS: usize = 7;
/// How long one figure is measured for in one round.
const AT_LEAST: Duration = Duration::from_millis(250);

fn main() -> Outcome<()> {
    // held, so that its memory is not taken again by what is measured next
    let _held = selecting::measure()?;
    deciding::measure()
}

/// CPU time of one call, measured over as many as take some time: other programs may be running.
fn time_of<T>(mut call: impl FnMut() -> T) -> Outcome<Duration> {
    let (start, cpu, mut calls) = (Instant::now(), cpu_time()?, 0_u32);
    loop {
        black_box(call());
        calls = calls.saturating_add(1);
        // the clock is not asked at every call: it would be measured as well
        let ask = calls.is_power_of_two() || calls.is_multiple_of(1024);
        if ask && start.elapsed() >= AT_LEAST {
            let used = cpu_time()?.saturating_sub(cpu);
            return Ok(used.checked_div(calls).unwrap_or_default());
        }
    }
}

/// Of this program's only thread, to the kernel's last tick.
fn cpu_time() -> Outcome<Duration> {
    let used = fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds = used.split_whitespace().next();
    let nanoseconds = nanoseconds.ok_or("/proc/self/schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Resident memory of this process.
fn resident_kib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("/proc/self/status has no VmRSS")?.parse()?)
}
