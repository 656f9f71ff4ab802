//! Celery's settings by all the names they have had.

/// A setting that is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// `beat_schedule`
    Schedule,
    /// `task_routes`
    Routes,
    /// `task_annotations`
    Annotations,
    /// `task_queues`
    Queues,
    /// `timezone`
    Timezone,
    /// `enable_utc`
    EnableUtc,
    /// `task_default_queue`
    DefaultQueue,
    /// `include`, `imports`
    Modules,
    /// A key of every task, of `[results]` or of the pool.
    Key(&'static str, &'static str, Form),
    /// It has no counterpart, and needs none: why.
    Needless(&'static str),
}

/// What a value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// Seconds, or a timedelta.
    Seconds,
    /// A rate.
    Rate,
    /// A truth.
    Flag,
    /// A truth that becomes a word.
    Late,
    /// A whole number.
    Count,
    /// KiB.
    Kib,
}

const STORE: &str = "taskd has a store of its own; another broker is `broker` of [taskd]";
const JSON: &str = "arguments and results are JSON";
const ITS_OWN: &str = "taskd does this in its own way";

/// Names in lower case, without `CELERY_`.
const NAMES: &[(&str, Known)] = &[
    ("beat_schedule", Known::Schedule),
    ("celerybeat_schedule", Known::Schedule),
    ("task_routes", Known::Routes),
    ("routes", Known::Routes),
    ("task_annotations", Known::Annotations),
    ("annotations", Known::Annotations),
    ("task_queues", Known::Queues),
    ("queues", Known::Queues),
    ("timezone", Known::Timezone),
    ("enable_utc", Known::EnableUtc),
    ("task_default_queue", Known::DefaultQueue),
    ("default_queue", Known::DefaultQueue),
    ("include", Known::Modules),
    ("imports", Known::Modules),
    ("task_time_limit", Known::Key("defaults", "time_limit", Form::Seconds)),
    ("celeryd_task_time_limit", Known::Key("defaults", "time_limit", Form::Seconds)),
    ("task_soft_time_limit", Known::Key("defaults", "soft_time_limit", Form::Seconds)),
    ("celeryd_task_soft_time_limit", Known::Key("defaults", "soft_time_limit", Form::Seconds)),
    ("task_default_rate_limit", Known::Key("defaults", "rate_limit", Form::Rate)),
    ("default_rate_limit", Known::Key("defaults", "rate_limit", Form::Rate)),
    ("task_acks_late", Known::Key("defaults", "acks", Form::Late)),
    ("acks_late", Known::Key("defaults", "acks", Form::Late)),
    ("task_ignore_result", Known::Key("defaults", "ignore_result", Form::Flag)),
    ("ignore_result", Known::Key("defaults", "ignore_result", Form::Flag)),
    ("task_default_priority", Known::Key("defaults", "priority", Form::Count)),
    ("result_expires", Known::Key("results", "expires", Form::Seconds)),
    ("task_result_expires", Known::Key("results", "expires", Form::Seconds)),
    ("worker_concurrency", Known::Key("pools", "processes", Form::Count)),
    ("celeryd_concurrency", Known::Key("pools", "processes", Form::Count)),
    ("worker_max_tasks_per_child", Known::Key("pools", "max_tasks_per_child", Form::Count)),
    ("celeryd_max_tasks_per_child", Known::Key("pools", "max_tasks_per_child", Form::Count)),
    ("worker_max_memory_per_child", Known::Key("pools", "max_memory_per_child", Form::Kib)),
    ("broker_url", Known::Needless(STORE)),
    ("broker_host", Known::Needless(STORE)),
    ("broker_read_url", Known::Needless(STORE)),
    ("broker_write_url", Known::Needless(STORE)),
    ("broker_transport_options", Known::Needless(STORE)),
    ("broker_connection_retry_on_startup", Known::Needless(STORE)),
    ("broker_connection_retry", Known::Needless(STORE)),
    ("broker_pool_limit", Known::Needless(STORE)),
    ("broker_heartbeat", Known::Needless(STORE)),
    ("result_backend", Known::Needless(STORE)),
    ("result_backend_transport_options", Known::Needless(STORE)),
    ("result_extended", Known::Needless("a record has the arguments of its message")),
    ("result_persistent", Known::Needless(STORE)),
    ("accept_content", Known::Needless(JSON)),
    ("task_serializer", Known::Needless(JSON)),
    ("result_serializer", Known::Needless(JSON)),
    ("event_serializer", Known::Needless(JSON)),
    ("beat_scheduler", Known::Needless(ITS_OWN)),
    ("celerybeat_scheduler", Known::Needless(ITS_OWN)),
    ("beat_schedule_filename", Known::Needless(ITS_OWN)),
    ("beat_max_loop_interval", Known::Needless(ITS_OWN)),
    ("task_track_started", Known::Needless("`taskd status` shows what runs")),
    ("track_started", Known::Needless("`taskd status` shows what runs")),
    ("task_send_sent_event", Known::Needless("the journal has every event")),
    ("worker_send_task_events", Known::Needless("the journal has every event")),
    ("worker_prefetch_multiplier", Known::Needless("a child is given a task when it is free for one")),
    ("celeryd_prefetch_multiplier", Known::Needless("a child is given a task when it is free for one")),
    ("worker_hijack_root_logger", Known::Needless(ITS_OWN)),
    ("worker_log_format", Known::Needless(ITS_OWN)),
    ("worker_task_log_format", Known::Needless(ITS_OWN)),
    ("worker_redirect_stdouts", Known::Needless(ITS_OWN)),
    ("worker_disable_rate_limits", Known::Needless("remove rate_limit to have none")),
    ("disable_rate_limits", Known::Needless("remove rate_limit to have none")),
    (
        "task_reject_on_worker_lost",
        Known::Needless("a task whose worker died is run again, three times at most"),
    ),
    (
        "task_acks_on_failure_or_timeout",
        Known::Needless("a failure is final unless max_retries says otherwise"),
    ),
    ("task_create_missing_queues", Known::Needless("every queue is declared")),
    ("create_missing_queues", Known::Needless("every queue is declared")),
    ("task_default_exchange", Known::Needless("a queue is all there is")),
    ("task_default_exchange_type", Known::Needless("a queue is all there is")),
    ("task_default_routing_key", Known::Needless("a queue is all there is")),
    ("default_exchange", Known::Needless("a queue is all there is")),
    ("default_exchange_type", Known::Needless("a queue is all there is")),
    ("default_routing_key", Known::Needless("a queue is all there is")),
];

/// Names that other programs' modules use for other things: they count only where `conf` has them, or where the
/// module has a prefix before them.
const COMMON: &[&str] = &[
    "timezone",
    "include",
    "imports",
    "routes",
    "queues",
    "annotations",
    "ignore_result",
    "acks_late",
    "broker_host",
];

/// The setting of this name; `of_conf` where it can only be Celery's.
#[must_use]
pub fn known(name: &str, of_conf: bool) -> Option<Known> {
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_prefix("celery_").unwrap_or(&lower);
    let prefixed = bare.len() < lower.len();
    let found = NAMES.iter().find(|(n, _)| *n == bare || *n == lower).map(|(_, known)| *known)?;
    // Django's settings may have a constant of any name; Celery's own modules have lower-case ones.
    let plain = prefixed || of_conf || lower.starts_with("celery") || !COMMON.contains(&lower.as_str());
    (plain || name == lower && matches!(found, Known::Timezone | Known::Modules)).then_some(found)
}

/// Whether a name of `conf` is one of Celery's that has no counterpart.
#[must_use]
pub fn is_celerys(name: &str, of_conf: bool) -> bool {
    let lower = name.to_ascii_lowercase();
    let prefixes = ["celery_", "celeryd_", "celerybeat_", "celerymon_"];
    // A variable `celery_app` is nobody's setting.
    of_conf || (name.starts_with('C') && prefixes.iter().any(|p| lower.starts_with(p)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_the_names_of_a_setting() {
        for name in ["beat_schedule", "CELERY_BEAT_SCHEDULE", "CELERYBEAT_SCHEDULE", "BEAT_SCHEDULE"] {
            assert_eq!(known(name, false), Some(Known::Schedule), "{name}");
        }
        assert_eq!(known("CELERY_ROUTES", false), Some(Known::Routes));
        assert_eq!(known("CELERY_TASK_ROUTES", false), Some(Known::Routes));
        assert_eq!(known("ROUTES", false), None);
        assert_eq!(known("timezone", false), Some(Known::Timezone));
        assert_eq!(known("TIMEZONE", false), None);
        assert_eq!(known("DEBUG", false), None);
        assert!(is_celerys("CELERY_ODD", false) && !is_celerys("celery_app", false) && is_celerys("x", true));
    }
}
