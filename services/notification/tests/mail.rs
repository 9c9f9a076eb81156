//! The handler against the mail provider's ledger, over loopback TCP: a customer is told once for each kind and order.

use std::sync::Arc;
use std::time::Duration;

use broker::TopicPartition;
use context::real::RealHost;
use context::{Seed, Timestamp};
use kit::{
    Handler, HandlerError, MemStore, Message, Naive, NaiveSwitch, Scope, StoreError, StoreExt, Unit, http,
    outbox,
};
use outside::{Provider, ServiceTime};
use prost::Message as _;
use proto::notification::{CustomerNotified, NoticeKind, NotifyCustomer};
use proto::{Contract, MessageId};
use shakedown_notification::{Mail, NOTICES, Notices};

/// A notification service and its mail provider.
struct Bench {
    handler: Notices,
    scope: Scope,
    store: MemStore,
    outside: Arc<Provider<outside::Mail>>,
    /// Its tasks end with it.
    _host: Arc<RealHost>,
}

impl Bench {
    async fn new(naive: Naive) -> Bench {
        let outside = Arc::new(
            Provider::new(outside::Mail::new()).with_service_time(ServiceTime { ms_min: 0, ms_max: 0 }),
        );
        let (server, host) = RealHost::new("mail", Seed(1)).start();
        let port = server.listen(0).await.expect("loopback has a free port").port();
        let serving = outside.clone().run_on(server.clone(), port);
        server.spawn("serve", async move { serving.await.expect("the port is free") });
        let context = RealHost::new("notification-1", Seed(2)).with_name("mail", "127.0.0.1").into_context();
        let client = http::Client::new(context.clone(), "mail", port);
        while client.get("/").await.is_err() {
            context.sleep(Duration::from_millis(1)).await;
        }
        let store = MemStore::new("notification");
        let group = "notification".into();
        Bench {
            handler: Notices::new(Mail::new(client)),
            scope: Scope { context, store: Arc::new(store.clone()), group, attempt: 0, naive },
            store,
            outside,
            _host: host,
        }
    }

    /// Handles a command to its end, and gives what is told. There is no inbox: every delivery is handled.
    async fn handle(&self, order_id: &str, kind: NoticeKind) -> Result<CustomerNotified, HandlerError> {
        let message = message(order_id, kind);
        let prepared = self.handler.prepare(&self.scope, &message).await?;
        self.store.transact_with::<_, HandlerError>(&self.scope.context, |tables| {
            let mut unit = Unit::caused_by(&self.scope.context, tables, &self.scope.group, &message);
            self.handler.apply(&mut unit, &message, prepared)
        })?;
        let pending = self.store.read_with::<_, StoreError>(|tables| outbox::pending(tables, 0, usize::MAX));
        let (_, record) = pending.unwrap().pop().expect("every command is answered");
        Ok(CustomerNotified::decode(record.value.unwrap()).unwrap())
    }

    fn sent(&self) -> Vec<(String, String)> {
        let ledger = self.outside.ledger();
        ledger.notices().iter().map(|notice| (notice.order_id.clone(), notice.kind.clone())).collect()
    }
}

fn message(order_id: &str, kind: NoticeKind) -> Message {
    let command = NotifyCustomer {
        order_id: order_id.into(),
        customer_id: "ada".into(),
        kind: kind.into(),
        text: "about your order".into(),
    };
    Message {
        id: MessageId::derived(order_id),
        kind: NotifyCustomer::KIND.into(),
        key: order_id.into(),
        correlation_id: MessageId::derived("request"),
        causation_id: None,
        saga_id: None,
        step: None,
        schema_version: 1,
        timestamp: Timestamp::ZERO,
        partition: TopicPartition::new(NotifyCustomer::TOPIC, 0),
        offset: 0,
        payload: command.encode_to_vec().into(),
    }
}

#[tokio::test]
async fn each_kind_is_told_once_for_an_order_and_answered_every_time() {
    let bench = Bench::new(Naive::none()).await;
    for order_id in ["o-1", "o-1", "o-2"] {
        let told = bench.handle(order_id, NoticeKind::Confirmed).await.unwrap();
        assert_eq!((told.order_id.as_str(), told.kind()), (order_id, NoticeKind::Confirmed));
    }
    bench.handle("o-1", NoticeKind::Cancelled).await.unwrap();
    let sent = bench.sent();
    let expected = [("o-1", "confirmed"), ("o-2", "confirmed"), ("o-1", "cancelled")];
    assert_eq!(sent, expected.map(|(order_id, kind)| (order_id.to_owned(), kind.to_owned())));
    let known = bench.store.read_with::<_, StoreError>(|tables| NOTICES.count(tables)).unwrap();
    assert_eq!(known, 3);
}

#[tokio::test]
async fn a_notice_whose_answer_was_lost_is_not_sent_again() {
    let bench = Bench::new(Naive::none()).await;
    drop(bench.handler.prepare(&bench.scope, &message("o-1", NoticeKind::Confirmed)).await.unwrap());
    bench.handle("o-1", NoticeKind::Confirmed).await.unwrap();
    assert_eq!(bench.sent().len(), 1);
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_a_parse_error_and_sends_nothing() {
    let bench = Bench::new(Naive::none()).await;
    let error = bench.handle("o-1", NoticeKind::Unspecified).await.unwrap_err();
    assert!(matches!(error, HandlerError::Parse(_)), "{error:?}");
    assert!(bench.sent().is_empty());
}

/// The defect that the harness must find: it has to be one.
#[tokio::test]
async fn fresh_keys_tell_twice() {
    let bench = Bench::new(Naive::none().with(NaiveSwitch::FreshKeys)).await;
    bench.handle("o-1", NoticeKind::Confirmed).await.unwrap();
    bench.handle("o-1", NoticeKind::Confirmed).await.unwrap();
    assert_eq!(bench.sent().len(), 2);
}
