//! Bugs planted on purpose: the shell between the engine and the world bends what passes. Each must be
//! caught by an invariant within a number of seeds, or the simulation looks at the wrong things.

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The store takes a settle or a defer under a token that is not valid any more.
    UnfencedSettle,
    /// A defer is answered and not done.
    LostDefer,
    /// After a restart nobody is told what the adopted children run.
    ForgottenRunning,
    /// A silent child is taken for one that holds nothing.
    SilenceMeansNothing,
    /// A lost attempt is given back as if it had been interrupted.
    UncountedLoss,
    /// A planned retry becomes a failure.
    ForgottenRetry,
    /// The engine is not told of a queue's concurrency.
    NoConcurrency,
    /// The engine is not told when a delivery expires.
    NoExpiry,
    /// A failed settle is answered as done.
    OutcomeLostOnFault,
    /// The child is told `settled` when the outcome arrives, not when it is committed.
    SettledTooEarly,
    /// A message is handed to a second child too.
    DoubleRun,
    /// A sweep does not say which queues got messages.
    SilentSweep,
    /// An attempt that a shutdown interrupted is given back as if it had never started.
    UncountedInterrupt,
    /// A message given back before it started counts as an attempt.
    CountedReturn,
    /// A failed publish is answered as done.
    AcceptedNotKept,
    /// A cancel of a running attempt does not reach the child.
    ForgottenCancel,
    /// Revoking a waiting message is answered and not done.
    ForgottenRevoke,
    /// The start of an `acks = "early"` task is not recorded.
    EarlyWithoutTrace,
    /// A reload kills the children.
    ReloadKills,
    /// What a failed lease had taken is not given back.
    ForgottenLease,
    /// The engine is not told how many runs a child may have.
    NoRunLimit,
    /// A child is ended when its successor is asked for, not when that is ready.
    EndsBeforeItsSuccessor,
    /// The engine is not told that a pool's children are programs of the user's.
    LimitsOfWorkersUnkept,
    /// What ran beside an overdue run counts as lost.
    CompanionsLost,
    /// A retry by `on_memory` is stored as a plain one.
    MemoryRetryUncounted,
    /// The engine is not told of memory pressure.
    DeafToPressure,
    /// The engine is not told what limits tasks.
    NoThrottle,
    /// A start that the engine decided by itself is stored without what it took.
    SureStartsTakeNothing,
    /// Places are not taken at the start.
    PlacesUnasked,
    /// The engine hears of a rate as if nothing had been taken of it.
    RateLooksUnused,
    /// The engine does not hear when closed lanes open.
    LanesNeverOpen,
}

pub const ALL: [Planted; 29] = [
    Planted::UnfencedSettle,
    Planted::LostDefer,
    Planted::ForgottenRunning,
    Planted::SilenceMeansNothing,
    Planted::UncountedLoss,
    Planted::ForgottenRetry,
    Planted::NoConcurrency,
    Planted::NoExpiry,
    Planted::OutcomeLostOnFault,
    Planted::SettledTooEarly,
    Planted::DoubleRun,
    Planted::SilentSweep,
    Planted::UncountedInterrupt,
    Planted::CountedReturn,
    Planted::AcceptedNotKept,
    Planted::ForgottenCancel,
    Planted::ForgottenRevoke,
    Planted::EarlyWithoutTrace,
    Planted::ReloadKills,
    Planted::ForgottenLease,
    Planted::NoRunLimit,
    Planted::EndsBeforeItsSuccessor,
    Planted::LimitsOfWorkersUnkept,
    Planted::CompanionsLost,
    Planted::MemoryRetryUncounted,
    Planted::DeafToPressure,
    Planted::NoThrottle,
    Planted::RateLooksUnused,
    Planted::LanesNeverOpen,
];
