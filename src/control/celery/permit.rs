//! Which commands `[access] celery_control` lets through.

use crate::celery::control::Command;
use crate::celery::control::reply::Reply;
use crate::config::settings::CeleryControl;

/// The setting as a number, to be shared by threads.
pub(super) const fn number(control: CeleryControl) -> u8 {
    match control {
        CeleryControl::No => 0,
        CeleryControl::Read => 1,
        CeleryControl::Yes => 2,
    }
}

/// The number's setting.
pub(super) const fn of_number(number: u8) -> CeleryControl {
    match number {
        0 => CeleryControl::No,
        1 => CeleryControl::Read,
        _ => CeleryControl::Yes,
    }
}

/// Whether a command only looks: those of `celery inspect`, and what its tools and other workers send by themselves.
#[must_use]
pub const fn reads(command: &Command) -> bool {
    match command {
        Command::Ping
        | Command::Active { .. }
        | Command::Reserved
        | Command::Scheduled
        | Command::Registered(_)
        | Command::Stats
        | Command::ActiveQueues
        | Command::Conf { .. }
        | Command::Report
        | Command::Revoked
        | Command::Clock
        | Command::QueryTask(_)
        | Command::Hello { .. }
        | Command::EnableEvents
        | Command::DisableEvents
        | Command::Heartbeat
        | Command::Election { .. }
        | Command::Memory => true,
        Command::Revoke { .. }
        | Command::RevokeByStamps { .. }
        | Command::RateLimit { .. }
        | Command::TimeLimit { .. }
        | Command::AddConsumer(_)
        | Command::CancelConsumer(_)
        | Command::PoolGrow(_)
        | Command::PoolShrink(_)
        | Command::Autoscale { .. }
        | Command::PoolRestart
        | Command::Shutdown => false,
    }
}

/// Whether a command may be done; `old`: it came on the channel of Celery 3.1, which clients of all databases of the
/// server share. There somebody else's `shutdown` would end this node, so only what looks is taken, and revokes, whose
/// ids are nobody else's.
///
/// # Errors
/// What to answer instead.
pub fn check(control: CeleryControl, old: bool, command: &Command) -> Result<(), Reply> {
    if reads(command) {
        return Ok(());
    }
    if control != CeleryControl::Yes {
        return Err(Reply::Error(
            "refused: [access] celery_control = \"read\" of this node lets remote control only look"
                .to_owned(),
        ));
    }
    if old && !matches!(command, Command::Revoke { .. }) {
        return Err(Reply::Error(
            "refused: requests of Celery 3.1 reach every database of the server, so they may only look and revoke"
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_looks_and_old_clients_end_nothing() {
        let revoke = Command::Revoke { ids: Vec::new(), terminate: true, signal: None };
        for (control, old, command, may) in [
            (CeleryControl::Yes, false, &Command::Shutdown, true),
            (CeleryControl::Yes, true, &Command::Shutdown, false),
            (CeleryControl::Yes, true, &revoke, true),
            (CeleryControl::Read, false, &revoke, false),
            (CeleryControl::Read, true, &Command::Stats, true),
            (CeleryControl::Read, false, &Command::EnableEvents, true),
        ] {
            assert_eq!(check(control, old, command).is_ok(), may, "{control:?} {old} {command:?}");
        }
        for control in [CeleryControl::No, CeleryControl::Read, CeleryControl::Yes] {
            assert_eq!(of_number(number(control)), control);
        }
    }
}
