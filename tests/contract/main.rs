//! One suite for every store: what a broker promises, as cases that each adapter runs.
//!
//! A new adapter adds a module at the end of `suite!` and must pass every case unchanged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may"
)]

mod admin;
mod cases;
mod differential;
mod express;
mod faults;
mod full_disk;
mod harness;
mod opening;
mod redis;
mod throughput;

/// Runs the same cases over each adapter, one test for each pair.
macro_rules! suite {
    ($($room:ident: $($case:ident),+;)+) => {
        mod model {
            $($(#[test]
            fn $case() {
                crate::cases::$room::$case(&mut crate::harness::InMemory::new());
            })+)+
        }
        mod sqlite {
            $($(#[test]
            fn $case() {
                crate::cases::$room::$case(&mut crate::harness::Embedded::new());
            })+)+
        }
        mod shared {
            $($(#[test]
            fn $case() {
                crate::cases::$room::$case(&mut crate::redis::Shared::new());
            })+)+
        }
    };
}

suite! {
    publish:
        a_batch_is_stored_and_known_ids_are_answered_with_what_is_there,
        a_duplicate_inside_one_batch_is_known,
        a_full_queue_stores_nothing_of_a_batch,
        known_ids_do_not_fill_a_queue,
        what_is_leased_fills_its_queue_until_it_starts,
        bounds_that_do_not_fit_are_refused,
        ids_of_every_spelling_come_back_as_given,
        long_messages_come_back_whole;
    claims:
        the_second_is_answered_with_the_first,
        one_that_may_not_be_second_is_refused_with_its_batch,
        duplicates_inside_a_batch_stand_in_each_others_way,
        what_waits_is_replaced_in_one_step,
        a_replaced_message_makes_room_in_its_queue,
        a_key_is_held_for_as_long_as_was_asked,
        who_claims_for_its_run_waits_beside_others,
        a_period_bounds_the_hold_from_acceptance,
        every_end_of_a_life_frees_its_key,
        a_new_life_claims_again_or_is_refused,
        what_nobody_waits_for_is_told_by_its_record;
    letters:
        letters_have_a_retention_of_their_own,
        letters_are_counted_by_kind,
        a_letter_begins_a_new_life,
        a_letter_whose_key_is_held_stays,
        a_purged_letter_is_forgotten,
        a_bulk_goes_in_bounded_steps_and_meets_none_twice;
    order:
        priority_first_then_order_of_acceptance,
        a_minute_of_waiting_is_worth_a_step_of_priority,
        a_clock_that_goes_back_reorders_nothing,
        an_empty_store_follows_the_clock_back,
        given_back_uncounted_it_keeps_its_place,
        given_back_counted_it_keeps_its_place,
        given_back_lost_it_goes_behind,
        a_deferred_one_gets_its_place_back_when_due;
    lease:
        a_lease_has_a_greater_token_and_counts_an_attempt,
        an_expired_message_is_not_handed_out,
        a_paused_queue_hands_out_nothing_also_after_a_restart,
        start_makes_it_running_and_a_repeat_changes_nothing,
        a_stale_token_changes_nothing,
        extend_names_what_is_gone,
        recover_finds_every_lease_after_a_restart,
        tokens_grow_over_a_restart;
    settle:
        the_end_is_one_step_with_everything_that_follows,
        a_final_record_is_written_once,
        a_retry_keeps_its_id_and_counts,
        a_retry_may_be_called_otherwise,
        a_retry_with_more_memory_is_counted_apart_and_may_change_its_queue,
        losses_are_counted,
        an_end_that_is_none_is_refused,
        a_known_follow_up_changes_nothing;
    life:
        revoke_ends_what_is_not_leased,
        a_new_life_begins_at_zero,
        a_new_life_drops_an_expiry_that_has_passed,
        purge_ends_all_that_is_not_leased,
        a_long_purge_holds_leases_of_its_queue_back,
        unknown_tasks_are_set_aside_and_come_back,
        unknown_messages_expire,
        move_looks_at_token_and_state;
    limits:
        a_start_takes_all_or_nothing,
        a_start_that_was_decided_is_recorded_whatever_the_limits_say,
        a_repeated_start_takes_nothing_more,
        a_place_is_free_when_the_attempt_ends_however_it_ends,
        places_and_rates_outlive_a_restart,
        an_end_counts_what_its_start_could_not,
        a_closed_lane_opens_in_time_and_others_pass,
        a_lane_that_waits_for_a_place_opens_when_it_is_released,
        a_lane_is_not_closed_for_what_is_free_again,
        a_clock_that_goes_back_opens_what_was_closed_later,
        lanes_take_turns,
        lanes_and_the_rest_are_merged_by_rank,
        tasks_are_passed_over,
        an_expired_message_does_not_hold_its_lane_up,
        a_message_changes_its_lane,
        everything_waits_in_its_lane_again_however_it_came,
        a_purge_empties_lanes,
        closed_lanes_are_opened_when_limits_change,
        a_rate_is_forgotten_when_it_is_past;
    time:
        due_messages_wait_and_expired_ones_end,
        sweep_tells_when_the_next_is,
        a_sweep_is_bounded,
        outcomes_go_first_and_ids_are_kept_a_day,
        a_record_may_outlive_the_day,
        the_oldest_beyond_the_count_go_first,
        id_records_are_bounded_too;
    side:
        counts_follow_every_move,
        list_is_newest_first_and_filters,
        list_keeps_its_place_in_the_order_of_operations,
        a_schedule_fires_once_for_a_planned_time,
        ticks_of_long_ago_count_as_fired,
        facts_are_kept_until_they_are_withdrawn,
        nodes_know_each_other_for_a_day;
    fired:
        a_planned_time_launches_once,
        it_runs_until_its_last_step_ended,
        one_that_waits_publishes_nothing_until_its_turn,
        what_waits_is_bounded_and_canceled_like_any_other,
        replace_cancels_what_runs_and_waits_for_its_last_step,
        a_message_of_the_schedule_is_replaced_too,
        a_failed_workflow_is_one_failure,
        a_new_life_of_a_workflow_is_a_run_again,
        a_workflow_that_is_over_at_once_is_told_as_skipped,
        first_steps_that_do_not_fit_launch_nothing,
        a_launch_by_hand_counts_as_a_run,
        a_rewind_launches_again_under_another_id;
    schedules:
        a_planned_time_fires_once,
        fires_of_long_ago_count_as_fired,
        a_clock_that_was_a_day_ahead_silences_nothing,
        skip_stores_nothing_beside_what_runs,
        queue_releases_the_next_at_every_kind_of_end,
        queue_is_bounded,
        replace_revokes_what_waits_and_waits_for_what_runs,
        a_repeated_replacement_names_what_still_runs,
        allow_stores_whatever_runs,
        a_full_queue_takes_no_fire,
        failures_in_a_row_pause,
        a_pause_lasts_until_it_is_ended,
        a_rewind_fires_again_under_other_ids,
        rows_come_in_pages_and_are_forgotten_when_idle,
        a_fire_by_hand_counts_as_a_run;
    flow:
        a_result_goes_before_the_arguments_of_the_next_step,
        a_body_runs_once_with_the_results_in_order,
        a_list_of_one_is_a_list,
        a_failed_member_fails_what_comes_after_it,
        a_handler_of_errors_gets_the_failed_id_and_is_skipped_otherwise,
        whatever_ends_a_member_is_told,
        a_known_workflow_is_not_launched_again,
        an_id_names_a_message_or_a_workflow,
        a_linked_message_whose_key_is_held_is_answered_as_one_alone,
        a_full_queue_launches_nothing,
        an_id_that_is_taken_fails_its_step_and_nothing_hangs,
        what_is_too_large_for_a_message_fails_the_body,
        what_takes_long_goes_on_in_sweeps,
        a_member_that_is_retried_revives_what_failed_because_of_it,
        a_member_that_is_retried_is_waited_for_again,
        what_never_ran_has_no_life_to_repeat,
        a_canceled_workflow_publishes_nothing_more,
        a_retry_of_a_workflow_keeps_what_succeeded,
        large_workflows_are_canceled_and_retried_in_parts,
        a_workflow_is_forgotten_after_its_time,
        workflows_of_too_many_steps_go_before_their_time,
        a_step_may_wait_and_expire;
}
