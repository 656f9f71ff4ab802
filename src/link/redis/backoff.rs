//! When to connect again: at once, then after 50 ms, doubled up to a second, each drawn between a half and the whole.
//!
//! A server that is back is found within a second, and what is refused never becomes a tight loop: a second has at most
//! ten attempts, also where every connection is made and lost at once, since only one that held for a second makes the
//! next wait short again.

use std::time::{Duration, Instant};

/// The first wait that is none.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(1);

/// How long a connection must have held to count as one.
const HELD: Duration = Duration::from_secs(1);

/// Counts the attempts of one connection.
#[derive(Clone, Debug)]
pub struct Backoff {
    tries: u32,
    opened: Option<Instant>,
    state: u64,
}

impl Default for Backoff {
    /// With a seed of its own, so that nodes do not come all at once.
    fn default() -> Self {
        let drawn = uuid::Uuid::new_v4().as_u128();
        // Half of the bits are enough.
        Self::new((drawn >> 64) as u64)
    }
}

impl Backoff {
    /// With a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { tries: 0, opened: None, state: seed | 1 }
    }

    /// A connection came about.
    pub fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// An attempt failed, or the connection was lost: how long to wait before the next.
    pub fn wait(&mut self, now: Instant) -> Duration {
        if self.opened.take().is_some_and(|since| now.saturating_duration_since(since) >= HELD) {
            self.tries = 0;
        }
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        if tries == 0 {
            return Duration::ZERO;
        }
        let whole = FIRST.saturating_mul(1 << (tries - 1).min(10)).min(LONGEST);
        whole / 2 + (whole / 2).mul_f64(self.draw())
    }

    /// A number from 0 to 1 (xorshift64*).
    fn draw(&mut self) -> f64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let bits = self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40;
        bits as f64 / (1_u64 << 24) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_at_once_and_the_longest_a_second() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            let now = Instant::now();
            assert_eq!(backoff.wait(now), Duration::ZERO);
            for n in 1..40_u32 {
                let wait = backoff.wait(now);
                let whole = Duration::from_millis(50 << (n - 1).min(10)).min(LONGEST);
                assert!(wait >= whole / 2 && wait <= whole, "{n}: {wait:?}");
            }
        }
    }

    /// Attempts in the busiest second of a minute, where each connection holds for `held`.
    fn busiest(held: Duration, seed: u64) -> usize {
        let (mut backoff, start) = (Backoff::new(seed), Instant::now());
        let (mut now, mut at) = (start, Vec::new());
        while now < start + Duration::from_secs(60) {
            at.push(now);
            backoff.opened(now);
            now += held;
            now += backoff.wait(now);
        }
        let second = Duration::from_secs(1);
        let within = |from: &Instant| at.iter().filter(|t| **t >= *from && **t < *from + second).count();
        at.iter().map(within).max().unwrap_or(0)
    }

    #[test]
    fn a_second_has_at_most_ten_attempts_whatever_becomes_of_them() {
        for seed in 0..20 {
            for held in [0, 1, 100, 999, 1_000, 1_001, 5_000] {
                let most = busiest(Duration::from_millis(held), seed);
                assert!(most <= 10, "{held} ms: {most} in a second");
            }
        }
    }

    #[test]
    fn after_a_connection_that_held_the_first_is_at_once_again() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        for _ in 0..10 {
            backoff.wait(now);
        }
        backoff.opened(now);
        assert!(backoff.wait(now + Duration::from_millis(999)) > Duration::ZERO);
        backoff.opened(now);
        assert_eq!(backoff.wait(now + Duration::from_secs(1)), Duration::ZERO);
        assert!(backoff.wait(now) > Duration::ZERO);
    }
}
