//! How messages are taken in.

use std::sync::Arc;
use std::time::Duration;

use broker::ProducerRecord;
use context::real::RealHost;
use context::{Context, Seed, Timestamp};
use kit::middleware::headers;
use kit::timer::Timer;
use kit::{
    Backoff, HandlerError, MemStore, Naive, NaiveSwitch, Policy, ReadTables, Service, ServiceConfig,
    StoreError, Subscription, Tables,
};
use proto::topics;

use crate::bed::{Bed, Cancelling, cancelled, cancelling, published, send_cancel};
use crate::fake::{FakeBroker, FakeKafka, Trouble, partition_of};

const COMMANDS: &str = topics::ORDER_COMMANDS;
const DEAD: &str = "order.commands.dlq";

fn plain() -> ServiceConfig {
    ServiceConfig::default()
}

fn caught_up(bed: &Bed) -> bool {
    bed.kafka.lag("svc", COMMANDS) == 0 && bed.depth() == 0
}

#[test]
fn a_message_is_applied_once_however_often_it_is_delivered() {
    let mut bed = cancelling(1, plain());
    for _ in 0..3 {
        send_cancel(&bed.kafka, "o-1", "again");
    }
    send_cancel(&bed.kafka, "o-1", "another message");
    bed.pass_until("all are handled", caught_up);
    assert_eq!(cancelled(&bed, "o-1"), 2);
    assert_eq!(published(&bed).len(), 2, "what follows from it is said once too");
    assert_eq!(bed.noted("a repeat, skipped"), 2);
}

#[test]
fn with_the_inbox_switched_off_every_delivery_is_applied_and_the_trace_says_so() {
    let naive = Naive::none().with(NaiveSwitch::NoInbox);
    let mut bed = cancelling(1, ServiceConfig { naive, ..plain() });
    for _ in 0..3 {
        send_cancel(&bed.kafka, "o-1", "again");
    }
    bed.pass_until("all are handled", caught_up);
    assert_eq!(cancelled(&bed, "o-1"), 3);
    assert_eq!(bed.noted("PLANTED DEFECTS: this service runs with no_inbox"), 1);
}

#[test]
fn what_cannot_be_handled_goes_to_the_dead_letters_with_its_origin_and_the_others_flow() {
    let mut bed = cancelling(1, plain());
    send_cancel(&bed.kafka, "o-1", "before");
    bed.kafka.append(ProducerRecord::new(COMMANDS, "o-1", "no headers"));
    send_cancel(&bed.kafka, "o-1", "business");
    send_cancel(&bed.kafka, "o-1", "panic");
    send_cancel(&bed.kafka, "o-1", "after");
    bed.pass_until("all are handled", caught_up);

    assert_eq!(cancelled(&bed, "o-1"), 2, "of what failed nothing is left");
    let details: Vec<_> = published(&bed).into_iter().map(|(_, detail)| detail).collect();
    assert_eq!(details, ["before", "after"]);

    let letters = bed.kafka.records(DEAD);
    let header = |letter: usize, name: &str| letters[letter].headers.text(name).unwrap().to_owned();
    let classes: Vec<_> = (0..letters.len()).map(|letter| header(letter, headers::CLASS)).collect();
    assert_eq!(classes, ["parse", "business", "panic"]);
    let origin = partition_of(COMMANDS, b"o-1");
    for letter in 0..letters.len() {
        assert_eq!(header(letter, headers::TOPIC), COMMANDS);
        assert_eq!(header(letter, headers::PARTITION), origin.partition.to_string());
        assert_eq!(header(letter, headers::OFFSET), (letter + 1).to_string());
        assert_eq!(header(letter, headers::GROUP), "svc");
    }
    assert_eq!(letters[0].value.as_deref(), Some(b"no headers".as_slice()), "the value is as it was");
    assert_eq!(header(1, "event-type"), "CancelOrder", "the headers are as they were");
    assert_eq!(bed.handle().metrics().panics(), 1);
    assert_eq!(bed.noted("PANIC in svc"), 1);
}

#[test]
fn a_dead_letter_that_the_broker_refuses_is_not_lost() {
    let mut bed = cancelling(1, plain());
    bed.kafka.trouble(DEAD, 6, Trouble::Refused);
    send_cancel(&bed.kafka, "o-1", "business");
    bed.pass_until("it is handled", |bed| bed.kafka.lag("svc", COMMANDS) == 0);
    assert_eq!(bed.kafka.records(DEAD).len(), 0);
    assert_eq!(bed.depth(), 1, "it waits in the outbox, though its offset is committed");
    bed.kill("svc-1");
    bed.pass_ms(500);
    bed.restart("svc-1");
    bed.pass_until("it is sent", caught_up);
    assert_eq!(bed.kafka.records(DEAD).len(), 1);
}

#[test]
fn nothing_is_committed_past_a_message_whose_dead_letter_cannot_be_stored() {
    let mut bed = cancelling(1, plain());
    bed.pass_until("it is assigned", |bed| bed.noted("assigned") == 1);
    send_cancel(&bed.kafka, "o-1", "business");
    send_cancel(&bed.kafka, "o-1", "after");
    // The first transaction is the handler's own, whose error the store's hides; retries and the letter meet the rest.
    bed.store.fail(40);
    bed.pass(Duration::from_secs(30));
    assert_eq!(bed.kafka.commits(), [], "the store fails: {:?}", bed.notes());
    assert!(bed.noted("its partition waits for it") > 0);
    bed.pass_until("the store is back", caught_up);
    assert_eq!(bed.kafka.records(DEAD).len(), 1);
    assert_eq!(cancelled(&bed, "o-1"), 1, "what came after it was handled");
}

#[test]
fn a_transient_error_is_retried_in_place_while_other_partitions_flow() {
    let mut bed = cancelling(1, plain());
    send_cancel(&bed.kafka, "o-1", "busy 5");
    send_cancel(&bed.kafka, "o-1", "behind it");
    send_cancel(&bed.kafka, "o-2", "elsewhere");
    bed.pass_until("the other partition is done", |bed| cancelled(bed, "o-2") == 1);
    assert_eq!(cancelled(&bed, "o-1"), 0);
    bed.pass_until("all are handled", caught_up);
    let details: Vec<_> = published(&bed).into_iter().filter(|(order, _)| order == "o-1").collect();
    assert_eq!(
        details.iter().map(|(_, detail)| detail.as_str()).collect::<Vec<_>>(),
        ["busy 5", "behind it"]
    );
    assert_eq!(bed.noted("failed, again in"), 5);
    assert_eq!(bed.kafka.records(DEAD).len(), 0);
}

#[test]
fn a_transient_error_that_stays_ends_in_the_dead_letters() {
    let mut bed = Bed::new(1, plain(), |_, service| {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(50));
        let policy = Policy { tries_max: Some(4), backoff, ..Policy::default() };
        service.subscribe(Subscription::new("svc", [COMMANDS], Cancelling).policy(policy))
    });
    send_cancel(&bed.kafka, "o-1", "busy 1000000");
    send_cancel(&bed.kafka, "o-1", "behind it");
    bed.pass_until("all are handled", caught_up);
    let letters = bed.kafka.records(DEAD);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].headers.text(headers::CLASS), Some("transient"));
    assert_eq!(bed.noted("failed, again in"), 3, "four tries, three waits");
    assert_eq!(cancelled(&bed, "o-1"), 1);
}

#[test]
fn a_crash_between_the_effect_and_its_offset_changes_nothing() {
    let mut bed = cancelling(1, plain());
    send_cancel(&bed.kafka, "o-1", "once");
    bed.pass_until("it is applied", |bed| cancelled(bed, "o-1") == 1);
    assert_eq!(bed.kafka.commits(), [], "the offset is not committed yet");
    bed.kill("svc-1");
    bed.pass_ms(100);
    bed.restart("svc-1");
    bed.pass_until("it is delivered again", caught_up);
    assert_eq!(cancelled(&bed, "o-1"), 1);
    assert_eq!(bed.noted("a repeat, skipped"), 1);
    let ids: std::collections::BTreeSet<_> = bed
        .kafka
        .records(topics::ORDER_EVENTS)
        .into_iter()
        .map(|record| record.headers.get("message-id").map(<[u8]>::to_vec))
        .collect();
    assert_eq!(ids.len(), 1, "what follows from it is one message, however often it was sent");
}

#[test]
fn partitions_that_move_take_nothing_with_them_and_leave_nothing_behind() {
    let mut bed = cancelling(2, plain());
    let orders: Vec<_> = (0..40).map(|number| format!("o-{number}")).collect();
    for order in &orders {
        send_cancel(&bed.kafka, order, "slow 20");
    }
    bed.pass_ms(60);
    bed.kill("svc-2");
    bed.pass_ms(100);
    bed.restart("svc-2");
    bed.pass_until("all are handled", caught_up);
    for order in &orders {
        assert_eq!(cancelled(&bed, order), 1, "{order}");
    }
    assert!(
        bed.noted("svc-1: svc: assigned") >= 2 && bed.noted("svc-1: svc: revoked") >= 1,
        "{:?}",
        bed.notes()
    );
}

#[test]
fn a_message_in_work_when_its_partition_is_taken_away_is_handled_by_the_next_owner() {
    let mut bed = cancelling(2, plain());
    bed.pass_until("both are there", |bed| bed.noted("assigned") >= 2);
    bed.kill("svc-2");
    bed.pass_until("one has all", |bed| bed.noted("svc-1: svc: assigned") >= 2);
    for order in ["o-1", "o-2", "o-3", "o-4"] {
        send_cancel(&bed.kafka, order, "slow 3000");
    }
    bed.pass_ms(1_000);
    bed.restart("svc-2");
    bed.pass_until("half of them moved", |bed| bed.noted("svc-2: svc: assigned") >= 2);
    bed.pass_until("all are handled", caught_up);
    for order in ["o-1", "o-2", "o-3", "o-4"] {
        assert_eq!(cancelled(&bed, order), 1, "{order}");
    }
}

#[test]
fn a_full_lane_pauses_its_partition_and_goes_on_when_there_is_room() {
    let mut bed = cancelling(1, plain());
    for number in 0..1_000 {
        send_cancel(&bed.kafka, "o-1", &format!("slow 5 {number}"));
    }
    bed.pass_until("it is paused", |bed| bed.kafka.paused() == [partition_of(COMMANDS, b"o-1")]);
    send_cancel(&bed.kafka, "o-2", "elsewhere");
    bed.pass_until("the other partition flows", |bed| cancelled(bed, "o-2") == 1);
    assert!(cancelled(&bed, "o-1") < 1_000);
    bed.pass_until("all are handled", caught_up);
    assert_eq!(bed.kafka.paused(), []);
    let details: Vec<_> = published(&bed).into_iter().filter(|(order, _)| order == "o-1").collect();
    let expected: Vec<_> = (0..1_000).map(|number| ("o-1".to_owned(), format!("slow 5 {number}"))).collect();
    assert_eq!(details, expected, "in order");
}

#[test]
fn a_close_ends_what_is_in_work_commits_it_and_leaves_the_rest() {
    let mut bed = cancelling(1, plain());
    for number in 0..10 {
        send_cancel(&bed.kafka, "o-1", &format!("slow 1000 {number}"));
    }
    bed.pass_until("one is done", |bed| cancelled(bed, "o-1") == 1);
    bed.pass_ms(100);
    bed.close_all();
    bed.pass_until("it has closed", Bed::all_closed);
    assert_eq!(cancelled(&bed, "o-1"), 2, "the one in work has ended, the next was not begun");
    assert_eq!(bed.kafka.lag("svc", COMMANDS), 8, "what is done is committed");
    assert_eq!(bed.depth(), 0, "what was decided is said");
    assert_eq!(published(&bed).len(), 2);
    assert!(!bed.handle().health().is_live());
    bed.pass(Duration::from_secs(10));
    assert_eq!(cancelled(&bed, "o-1"), 2, "nothing goes on after it");
}

/// A timer that panics when it is due.
struct Broken;

impl Timer for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn next(&self, _: &dyn ReadTables) -> Result<Option<Timestamp>, StoreError> {
        Ok(Some(Timestamp::ZERO))
    }

    fn fire(&self, _: &Context, _: &mut dyn Tables, _: Timestamp) -> Result<(), HandlerError> {
        panic!("planted");
    }
}

/// On a real host: in a simulated world any panic ends the run.
#[tokio::test]
async fn a_service_with_a_dead_timer_closes_in_order_instead_of_looking_healthy() {
    let context = RealHost::new("svc-1", Seed(1)).into_context();
    let broker = Arc::new(FakeBroker::new(FakeKafka::default(), context.clone()));
    let service = Service::new(context, broker, Arc::new(MemStore::new("svc")), plain())
        .subscribe(Subscription::new("svc", [COMMANDS], Cancelling))
        .timer(Arc::new(Broken));
    let handle = service.handle();
    assert!(handle.health().is_live() && !handle.health().is_ready());
    service.run().await;
    assert!(!handle.health().is_live() && !handle.health().is_ready());
}

#[test]
fn a_service_is_ready_once_its_consumer_polls() {
    let mut bed = cancelling(1, plain());
    bed.pass_until("it is ready", |bed| bed.now() > world::EPOCH && bed.handle().health().is_ready());
    assert!(bed.handle().health().is_live());
    send_cancel(&bed.kafka, "o-1", "measured");
    bed.pass_until("it is handled", caught_up);
    let text = bed.handle().metrics().text();
    assert!(text.contains(r#"messages_handled_total{topic="order.commands"} 1"#), "{text}");
    assert!(text.contains("outbox_relayed_total 1"), "{text}");
}
