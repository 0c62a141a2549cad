//! The least, the middle and the most of what was measured. No mean: one round in which the machine was busy moves it.

use anyhow::Context as _;
use serde::Serialize;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one; of an even number the upper of the two.
    pub median: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of some values, in any order.
    ///
    /// # Errors
    /// If there are none.
    pub fn of(values: &[f64]) -> anyhow::Result<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Self {
            min: sorted.first().copied().context("no measurements")?,
            median: sorted.get(sorted.len() / 2).copied().context("no measurements")?,
            max: sorted.last().copied().context("no measurements")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let spread = Spread::of(&[9.0, 1.0, 5.0]).unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (1.0, 5.0, 9.0));
        assert_eq!(Spread::of(&[2.0, 1.0]).unwrap().median, 2.0);
        assert!(Spread::of(&[]).is_err());
    }
}
