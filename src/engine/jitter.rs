//! The engine's own randomness: seeded, so that a run can be replayed.

/// A small generator (SplitMix64): good enough to spread retries.
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between 0 and `max`, both included.
    pub(super) fn up_to(&mut self, max: u64) -> u64 {
        let r = self.next();
        max.checked_add(1).map_or(r, |n| r % n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_range_and_repeat_with_the_seed() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        for max in [0, 1, 9, 1000, u64::MAX] {
            let x = a.up_to(max);
            assert!(x <= max);
            assert_eq!(x, b.up_to(max));
        }
    }
}
