//! The meaning of a world, stated as claims that hold on every engine.
//!
//! A case is a function of the engine. An engine passes it, or refuses by name a change that the case needs; `jump`
//! refuses nothing. Where turmoil breaks a claim without a refusal, that is written here too, and tested to be so.

// The name that all other crates call it by.
extern crate shakedown_world as world;

mod hosts;
mod links;
mod seeds;
mod stage;
mod streams;

use world::{Engine, Refusal};

/// One test for each case, in a module named after the engine.
macro_rules! cases {
    ($engine_module:ident: $engine:expr; $($expectation:ident { $($module:ident::$case:ident,)* })*) => {
        mod $engine_module {
            $($(#[test] fn $case() { super::$expectation($engine, super::$module::$case); })*)*
        }
    };
}

/// The claim holds.
#[track_caller]
fn passes(engine: Engine, case: fn(Engine) -> stage::Outcome) {
    assert_eq!(case(engine), Ok(()), "`{engine}` must be able to do this");
}

/// The engine says that it cannot do what the claim is about.
#[track_caller]
fn refuses(engine: Engine, case: fn(Engine) -> stage::Outcome) {
    let outcome = case(engine);
    let refused = matches!(outcome, Err(Refusal::Unsupported { engine: by, .. }) if by == engine.name());
    assert!(refused, "`{engine}` must refuse this by its name: {outcome:?}");
}

/// The claim does not hold, and the engine's page says so. If it does hold, the case belongs under `passes`.
#[track_caller]
fn differs(engine: Engine, case: fn(Engine) -> stage::Outcome) {
    let outcome = std::panic::catch_unwind(|| case(engine));
    assert!(outcome.is_err(), "`{engine}` is said to differ in this: {outcome:?}");
}

cases! { jump: world::Engine::Jump;
    passes {
        streams::what_is_sent_comes_back_after_the_latency_of_both_ways,
        streams::a_megabyte_each_way_arrives_whole_and_in_order,
        streams::small_reads_after_a_pause_do_not_stall_the_writer,
        streams::a_writer_waits_for_its_reader,
        streams::an_end_of_file_leaves_the_other_direction_open,
        streams::a_host_can_talk_to_itself,
        streams::a_connect_is_refused_where_nobody_listens_and_fails_where_nobody_is,
        streams::a_port_is_taken_once_and_free_again_when_its_listener_goes,
        streams::one_who_writes_to_a_closed_connection_is_told_so,
        hosts::a_kill_closes_connections_and_refuses_new_ones,
        hosts::a_restarted_host_listens_again_while_old_connections_linger,
        hosts::a_power_loss_is_silence_and_a_restart_resets_whoever_has_spoken,
        hosts::a_machine_whose_process_was_killed_can_still_lose_its_power,
        hosts::bytes_sent_before_a_power_loss_arrive_and_their_reader_hears_no_more,
        hosts::a_machine_that_loses_power_with_bytes_unread_says_nothing,
        hosts::a_paused_host_runs_nothing_while_its_machine_takes_bytes,
        hosts::a_paused_host_can_be_killed_and_restarted,
        hosts::a_kill_drops_every_task_of_its_host_and_no_other,
        hosts::what_a_dying_task_starts_does_not_run,
        hosts::an_aborted_task_ends_at_its_next_await,
        hosts::a_program_that_ends_leaves_its_tasks_running,
        hosts::no_wake_is_lost_among_many_tasks,
        hosts::a_panic_of_a_task_ends_the_run,
        hosts::a_change_that_does_not_fit_is_refused_by_name,
        links::a_partition_holds_bytes_and_connects_until_it_heals,
        links::a_partition_does_not_touch_other_links,
        links::a_one_way_hold_lets_the_other_direction_flow,
        links::a_slowed_link_is_slow_in_its_direction_only,
        links::a_link_slowed_both_ways_slows_each_answer,
        links::bytes_keep_their_order_when_a_slow_link_becomes_fast,
        links::one_who_gave_up_connecting_is_not_heard_of_after_the_heal,
        links::one_who_never_heard_that_it_was_connected_is_not_accepted,
        links::handshakes_that_broke_leave_nothing_in_the_way_of_a_restart,
        seeds::ties_between_hosts_are_drawn_from_the_seed,
        seeds::the_same_seed_is_the_same_run,
        seeds::one_other_byte_on_the_wire_is_another_run,
        seeds::worlds_on_several_threads_do_not_disturb_each_other,
        seeds::a_thread_can_have_many_worlds_one_after_the_other,
        seeds::says_its_hash,
        seeds::another_process_has_the_same_hash,
        seeds::what_arrives_and_what_is_changed_is_recorded,
    }
}

cases! { turmoil: world::Engine::Turmoil;
    passes {
        streams::what_is_sent_comes_back_after_the_latency_of_both_ways,
        streams::a_megabyte_each_way_arrives_whole_and_in_order,
        streams::small_reads_after_a_pause_do_not_stall_the_writer,
        streams::an_end_of_file_leaves_the_other_direction_open,
        streams::a_host_can_talk_to_itself,
        streams::a_connect_is_refused_where_nobody_listens_and_fails_where_nobody_is,
        streams::a_port_is_taken_once_and_free_again_when_its_listener_goes,
        streams::one_who_writes_to_a_closed_connection_is_told_so,
        hosts::a_kill_closes_connections_and_refuses_new_ones,
        hosts::a_restarted_host_listens_again_while_old_connections_linger,
        hosts::a_kill_drops_every_task_of_its_host_and_no_other,
        hosts::what_a_dying_task_starts_does_not_run,
        hosts::an_aborted_task_ends_at_its_next_await,
        hosts::a_program_that_ends_leaves_its_tasks_running,
        hosts::no_wake_is_lost_among_many_tasks,
        hosts::a_panic_of_a_task_ends_the_run,
        hosts::a_change_that_does_not_fit_is_refused_by_name,
        links::a_partition_holds_bytes_and_connects_until_it_heals,
        links::a_partition_does_not_touch_other_links,
        links::a_link_slowed_both_ways_slows_each_answer,
        links::bytes_keep_their_order_when_a_slow_link_becomes_fast,
        links::one_who_gave_up_connecting_is_not_heard_of_after_the_heal,
        seeds::ties_between_hosts_are_drawn_from_the_seed,
        seeds::the_same_seed_is_the_same_run,
        seeds::one_other_byte_on_the_wire_is_another_run,
        seeds::worlds_on_several_threads_do_not_disturb_each_other,
        seeds::a_thread_can_have_many_worlds_one_after_the_other,
        seeds::says_its_hash,
        seeds::another_process_has_the_same_hash,
        seeds::what_arrives_and_what_is_changed_is_recorded,
    }
    refuses {
        hosts::a_power_loss_is_silence_and_a_restart_resets_whoever_has_spoken,
        hosts::a_machine_whose_process_was_killed_can_still_lose_its_power,
        hosts::bytes_sent_before_a_power_loss_arrive_and_their_reader_hears_no_more,
        hosts::a_machine_that_loses_power_with_bytes_unread_says_nothing,
        hosts::a_paused_host_runs_nothing_while_its_machine_takes_bytes,
        hosts::a_paused_host_can_be_killed_and_restarted,
        links::a_one_way_hold_lets_the_other_direction_flow,
        links::a_slowed_link_is_slow_in_its_direction_only,
        links::one_who_never_heard_that_it_was_connected_is_not_accepted,
        links::handshakes_that_broke_leave_nothing_in_the_way_of_a_restart,
    }
    differs {
        streams::a_writer_waits_for_its_reader,
    }
}
