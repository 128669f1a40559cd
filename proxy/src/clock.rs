//! The one place where this crate reads the wall clock. All else takes `now` as an argument.

use std::time::SystemTime;

/// How the parts that live long learn the time: tests hand in another one.
pub type Clock = fn() -> SystemTime;

/// What the clock on the wall says.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}
