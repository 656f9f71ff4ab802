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
    /// A retry with other arguments is stored without them.
    LostCall,
    /// The engine is not told of memory pressure.
    DeafToPressure,
    /// The store is not told what happens where fires of a schedule overlap.
    OverlapIgnored,
    /// The store is not told after how many failures a schedule pauses.
    FailuresUncounted,
    /// A planned time that comes to the store again is taken for another one.
    RepeatedFireIsNew,
    /// A planned time is answered as known and was not.
    ForgottenFire,
    /// The engine takes every missed time for one that is to be caught up.
    MissedFireAll,
    /// After a restart nobody knows what was done of a schedule.
    UntilForgotten,
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
    /// The notices of an end are not stored with it.
    LostNotice,
    /// A notice is stored twice.
    DoubledNotice,
    /// What is known of a task's ends is not stored with them.
    ForgottenStreak,
    /// The engine is not told how often at most somebody is told.
    UnboundedNotices,
    /// An alarm is answered as one that came before.
    ForgottenAlarm,
    /// Messages of unique tasks claim nothing.
    NotUnique,
    /// A message that is over is said to hold its key.
    HeldByTheDead,
    /// What replaces another message is not stored.
    ReplacedAndLost,
    /// Dead letters are said to have a new life and have none.
    LettersForgotten,
    /// A join does not wait for the last of its members.
    LooseJoin,
    /// A join gets the results in another order.
    UnorderedResults,
    /// A failed member does not fail what comes after it.
    FailureIgnored,
    /// Results do not reach the steps that are to be given them.
    ResultNotPassed,
    /// A cancel of a workflow is answered and not done.
    WorkflowCancelForgotten,
    /// The end of a step does not say which queues got messages by it.
    SilentJoin,
    /// The store is not told what happens where workflows of a schedule overlap.
    WorkflowsOverlap,
    /// A planned time is answered as having launched a workflow, and did not.
    WorkflowNotLaunched,
    /// The engine does not hear that workflows of schedules ended.
    WorkflowEndUntold,
}

pub const ALL: [Planted; 54] = [
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
    Planted::LostCall,
    Planted::DeafToPressure,
    Planted::OverlapIgnored,
    Planted::FailuresUncounted,
    Planted::RepeatedFireIsNew,
    Planted::ForgottenFire,
    Planted::MissedFireAll,
    Planted::UntilForgotten,
    Planted::NoThrottle,
    Planted::RateLooksUnused,
    Planted::LanesNeverOpen,
    Planted::LostNotice,
    Planted::DoubledNotice,
    Planted::ForgottenStreak,
    Planted::UnboundedNotices,
    Planted::ForgottenAlarm,
    Planted::NotUnique,
    Planted::HeldByTheDead,
    Planted::ReplacedAndLost,
    Planted::LettersForgotten,
    Planted::LooseJoin,
    Planted::UnorderedResults,
    Planted::FailureIgnored,
    Planted::ResultNotPassed,
    Planted::WorkflowCancelForgotten,
    Planted::SilentJoin,
    Planted::WorkflowsOverlap,
    Planted::WorkflowNotLaunched,
    Planted::WorkflowEndUntold,
];
