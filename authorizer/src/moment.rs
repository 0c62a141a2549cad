//! Ages that neither a frozen environment nor a wall clock that is set back can make younger.

use std::time::{Duration, Instant};

use bulkhead_core::time::{Clock, Timestamp};

/// A point in time on both clocks. The monotonic one may stand still while an environment is frozen; the wall clock may be
/// set back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: Timestamp,
    monotonic: Instant,
}

impl Moment {
    /// The present.
    pub fn now(clock: &Clock) -> Self {
        Self {
            wall: clock.now(),
            monotonic: clock.instant(),
        }
    }

    /// How long before `now` this was: what the clock says that saw more time pass. The wall clock counts whole seconds.
    pub fn age(self, now: Self) -> Duration {
        let wall = now.wall.as_unix().saturating_sub(self.wall.as_unix());
        let wall = Duration::from_secs(u64::try_from(wall).unwrap_or_default());
        wall.max(now.monotonic.saturating_duration_since(self.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_saw_more_time_pass_counts() {
        let start = Instant::now();
        let at = |wall: i64, monotonic: u64| Moment {
            wall: Timestamp::from_unix(wall),
            monotonic: start + Duration::from_secs(monotonic),
        };
        assert_eq!(at(100, 10).age(at(100, 10)), Duration::ZERO);
        assert_eq!(at(100, 10).age(at(400, 11)), Duration::from_secs(300), "frozen");
        assert_eq!(at(100, 10).age(at(50, 70)), Duration::from_secs(60), "set back");
    }
}
