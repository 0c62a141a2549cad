//! The clock that every decision about time asks, so that tests can set it, and ages that neither a frozen environment
//! nor a wall clock that is set back can make younger.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time in UTC, in whole seconds: what items, tokens and answers carry. RFC 3339 as text, also in DynamoDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From seconds since the Unix epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix(self) -> i64 {
        self.0
    }

    /// This time plus `duration`, saturating; fractions of a second are dropped.
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        )
    }

    /// This time minus `duration`, saturating; fractions of a second are dropped.
    pub fn minus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.0)
            .ok()
            .and_then(|time| time.format(&Rfc3339).ok())
            .ok_or(fmt::Error)?;
        f.write_str(&text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339)
            .map(|time| Self(time.unix_timestamp()))
            .map_err(serde::de::Error::custom)
    }
}

/// Where "now" comes from. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> (OffsetDateTime, Instant) + Send + Sync>);

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self(Arc::new(|| (OffsetDateTime::now_utc(), Instant::now())))
    }

    /// A clock that answers what `read` says: wall-clock time and monotonic time.
    pub fn from_fn(read: impl Fn() -> (OffsetDateTime, Instant) + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The wall-clock time, in whole seconds.
    pub fn now(&self) -> Timestamp {
        Timestamp((self.0)().0.unix_timestamp())
    }

    /// The monotonic time: for durations within one call. An age that outlives a call is a [`Moment`]'s.
    pub fn instant(&self) -> Instant {
        (self.0)().1
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

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

    #[test]
    fn a_timestamp_is_rfc_3339_in_json_and_comes_back() {
        let time = Timestamp::from_unix(1_767_225_600);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-01-01T00:00:00Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
    }
}
