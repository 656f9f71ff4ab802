//! The one place where clocks are read.

use nix::time::{ClockId, clock_gettime};

use crate::model::time::{Mono, Now, Wall};

/// Both clocks, now. `CLOCK_BOOTTIME` counts suspend (clock_gettime(2)); the kernel has had it since 2.6.39, so a
/// failure can only mean a seccomp filter, and then zero is returned and nothing is ever due.
#[must_use]
pub fn now() -> Now {
    let ms = |id| {
        clock_gettime(id)
            .map_or(0, |t| t.tv_sec().saturating_mul(1000).saturating_add(t.tv_nsec() / 1_000_000))
    };
    Now {
        wall: Wall(ms(ClockId::CLOCK_REALTIME)),
        mono: Mono(u64::try_from(ms(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)),
    }
}
