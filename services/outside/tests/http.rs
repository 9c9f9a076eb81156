//! The three systems over real TCP: what their HTTP says, and that their ledgers outlive the hosts that serve them.

use std::sync::Arc;
use std::time::Duration;

use context::real::RealHost;
use context::{Context, Seed};
use kit::http::{Client, StatusCode};
use kit::store::journal::Write;
use kit::{MemStore, Store, StoreError, StoreExt as _};
use serde_json::{Value, json};
use shakedown_outside::{Carrier, Gateway, Ledger, Mail, Provider};

/// A host that serves `provider`, and a client of it.
async fn serve<L: Ledger>(provider: &Arc<Provider<L>>) -> (Client, Arc<RealHost>) {
    let (server, host) = RealHost::new("server", Seed(1)).start();
    let port = server.listen(0).await.expect("loopback has a free port").port();
    server.spawn("serve", {
        let (provider, server) = (provider.clone(), server.clone());
        async move { provider.run_on(server, port).await.expect("the port is free") }
    });
    let context = RealHost::new("client", Seed(2)).with_name("server", "127.0.0.1").into_context();
    let client = Client::new(context.clone(), "server", port);
    until(&context, async || client.get("/").await.is_ok()).await;
    (client, host)
}

async fn until(context: &Context, holds: impl AsyncFn() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        context.sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to hold");
}

async fn post(client: &Client, path: &str, key: Option<&str>, body: Value) -> (StatusCode, Value) {
    let response = client.post(path, key, &body).await.expect("an answer");
    (response.status, response.decode().expect("JSON"))
}

async fn get(client: &Client, path: &str) -> (StatusCode, Value) {
    let response = client.get(path).await.expect("an answer");
    (response.status, response.decode().expect("JSON"))
}

fn charge(card_token: &str, amount_minor: i64) -> Value {
    json!({
        "payment_id": "pay-o-1", "order_id": "o-1", "amount_minor": amount_minor, "currency": "EUR",
        "card_token": card_token,
    })
}

#[tokio::test]
async fn the_gateway_tells_the_fate_of_every_key() {
    let gateway = Arc::new(Provider::new(Gateway::new()));
    let (client, _host) = serve(&gateway).await;

    let (status, first) = post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await;
    assert_eq!((status, &first["status"]), (StatusCode::OK, &json!("captured")));
    assert_eq!(
        post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await,
        (status, first.clone())
    );
    assert_eq!(get(&client, "/charges/k-1").await, (status, first.clone()));
    assert_eq!(post(&client, "/charges/k-1/void", None, json!({})).await, (status, first.clone()));

    let (status, reused) = post(&client, "/charges", Some("k-1"), charge("tok_visa", 1)).await;
    assert_eq!((status, &reused["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("key_reused")));

    let (status, declined) = post(&client, "/charges", Some("k-2"), charge("tok_declined", 1999)).await;
    assert_eq!((status, &declined["status"]), (StatusCode::OK, &json!("declined")));
    assert_eq!(declined["decline"]["reason"], "insufficient_funds");

    let (_, voided) = post(&client, "/charges/k-3/void", None, json!({})).await;
    assert_eq!(voided["status"], "voided");
    let (_, late) = post(&client, "/charges", Some("k-3"), charge("tok_visa", 1999)).await;
    assert_eq!(late["status"], "voided");

    let refund = json!({ "charge_id": first["charge"]["charge_id"], "amount_minor": 1999 });
    let (status, refunded) = post(&client, "/refunds", Some("r-1"), refund.clone()).await;
    assert_eq!((status, &refunded["status"]), (StatusCode::OK, &json!("refunded")));
    let (status, more) = post(&client, "/refunds", Some("r-2"), refund).await;
    assert_eq!((status, &more["error"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("more_than_is_left")));

    let ledger = gateway.ledger();
    assert_eq!((ledger.charges().len(), ledger.refunds().len(), ledger.declines().len()), (1, 1, 1));
}

#[tokio::test]
async fn what_is_no_request_does_nothing() {
    let gateway = Arc::new(Provider::new(Gateway::new()));
    let (client, _host) = serve(&gateway).await;
    let error =
        |(status, body): (StatusCode, Value)| (status.as_u16(), body["error"].as_str().unwrap().to_owned());

    let keyless = error(post(&client, "/charges", None, charge("tok_visa", 1999)).await);
    assert_eq!(keyless, (400, "key_missing".to_owned()));
    let bodyless = error(post(&client, "/charges", Some("k"), json!({ "amount": 1 })).await);
    assert_eq!(bodyless, (400, "body_malformed".to_owned()));
    let nothing = error(post(&client, "/charges", Some("k"), charge("tok_visa", 0)).await);
    assert_eq!(nothing, (400, "invalid".to_owned()));
    assert_eq!(error(get(&client, "/charges/never").await), (404, "key_unknown".to_owned()));
    assert_eq!(error(get(&client, "/money").await), (404, "route_unknown".to_owned()));
    let unknown = json!({ "charge_id": "ch_9", "amount_minor": 1 });
    assert_eq!(
        error(post(&client, "/refunds", Some("r"), unknown).await),
        (404, "charge_unknown".to_owned())
    );
    assert!(gateway.ledger().charges().is_empty());
}

#[tokio::test]
async fn the_carrier_books_refuses_and_cancels() {
    let carrier = Arc::new(Provider::new(Carrier::new()));
    let (client, _host) = serve(&carrier).await;
    let booking = |postal_code: &str| {
        let address = json!({
            "street": "1 Quay Street", "city": "Galway", "postal_code": postal_code, "country": "IE"
        });
        json!({ "order_id": "o-1", "address": address })
    };
    let (_, booked) = post(&client, "/shipments", Some("s-1"), booking("H91")).await;
    assert_eq!(booked["status"], "booked");
    assert!(booked["shipment"]["tracking_number"].as_str().unwrap().starts_with("TRACK-"), "{booked}");
    assert_eq!(get(&client, "/shipments/s-1").await.1, booked);
    assert_eq!(post(&client, "/shipments", Some("s-1"), booking("H92")).await.1["error"], "key_reused");
    assert_eq!(post(&client, "/shipments/s-1/cancel", None, json!({})).await.1["status"], "cancelled");
    assert_eq!(post(&client, "/shipments", Some("s-2"), booking("00000")).await.1["status"], "refused");
    assert_eq!(get(&client, "/shipments/never").await.1["error"], "key_unknown");
    assert!(carrier.ledger().shipments()[0].cancelled_at.is_some());
}

#[tokio::test]
async fn the_mail_provider_sends_a_notice_once() {
    let mail = Arc::new(Provider::new(Mail::new()));
    let (client, _host) = serve(&mail).await;
    let notice = json!({ "order_id": "o-1", "kind": "confirmed", "to": "ada", "text": "on its way" });
    let (_, sent) = post(&client, "/notices", Some("o-1.confirmed"), notice.clone()).await;
    assert_eq!(sent["status"], "sent");
    assert_eq!(post(&client, "/notices", Some("o-1.confirmed"), notice).await.1, sent);
    assert_eq!(get(&client, "/notices/o-1.confirmed").await.1, sent);
    assert_eq!(get(&client, "/notices/never").await.1["error"], "key_unknown");
    assert_eq!(mail.ledger().notices().len(), 1);
}

#[tokio::test]
async fn a_ledger_outlives_its_host() {
    let gateway = Arc::new(Provider::new(Gateway::new()));
    let (client, host) = serve(&gateway).await;
    let (_, before) = post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await;
    host.shutdown();
    let (client, _host) = serve(&gateway).await;
    assert_eq!(post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await.1, before);
    assert_eq!(gateway.ledger().charges().len(), 1);
}

/// A new program with the journal of one that is gone.
fn reopen<L: Ledger>(ledger: L, store: &MemStore) -> Arc<Provider<L>> {
    let journal = MemStore::load("journal", store.dump());
    Arc::new(Provider::open(ledger, Arc::new(journal)).expect("the journal reads"))
}

#[tokio::test]
async fn a_system_that_keeps_a_journal_forgets_nothing_with_its_program() {
    let store = MemStore::new("journal");
    let gateway = Arc::new(Provider::open(Gateway::new(), Arc::new(store.clone())).unwrap());
    let (client, host) = serve(&gateway).await;
    let (_, captured) = post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await;
    let refund = json!({ "charge_id": captured["charge"]["charge_id"], "amount_minor": 99 });
    let (_, refunded) = post(&client, "/refunds", Some("r-1"), refund.clone()).await;
    let (_, declined) = post(&client, "/charges", Some("k-2"), charge("tok_declined", 5)).await;
    let (_, voided) = post(&client, "/charges/k-3/void", None, json!({})).await;
    host.shutdown();

    let again = reopen(Gateway::new(), &store);
    {
        // Times and ids included: the ledger is what it was.
        let (before, after) = (gateway.ledger(), again.ledger());
        assert_eq!(after.charges(), before.charges());
        assert_eq!(after.refunds(), before.refunds());
        assert_eq!(after.declines(), before.declines());
    }
    // Another process that hears of the journal's commits has the same ledger.
    let follower = Provider::new(Gateway::new());
    let commits =
        store.dump().into_iter().map(|(table, key, value)| Write { table, key, value: Some(value) });
    commits.for_each(|write| follower.follow(&[write]).expect("the journal reads"));
    assert_eq!(follower.ledger().charges(), gateway.ledger().charges());
    assert_eq!(follower.ledger().refunds(), gateway.ledger().refunds());
    assert_eq!(follower.ledger().declines(), gateway.ledger().declines());

    let (client, _host) = serve(&again).await;
    assert_eq!(
        post(&client, "/charges", Some("k-1"), charge("tok_visa", 1999)).await.1["charge"],
        captured["charge"]
    );
    assert_eq!(post(&client, "/refunds", Some("r-1"), refund).await.1, refunded);
    assert_eq!(post(&client, "/charges", Some("k-2"), charge("tok_declined", 5)).await.1, declined);
    assert_eq!(post(&client, "/charges", Some("k-3"), charge("tok_visa", 5)).await.1, voided);
    assert_eq!(again.ledger().charges().len(), 1);
}

/// A store that reads and does not write: a full disk.
struct Full;

impl Store for Full {
    fn transact(&self, _: &Context, _: kit::store::Work<'_>) -> Result<(), StoreError> {
        Err(StoreError::Failed("no space left on device".into()))
    }

    fn read(&self, work: kit::store::ReadWork<'_>) -> Result<(), StoreError> {
        MemStore::new("empty").read(work)
    }

    fn changed(&self) -> Arc<tokio::sync::Notify> {
        Arc::default()
    }
}

#[tokio::test]
async fn a_system_whose_journal_cannot_be_written_does_nothing_and_says_that_it_cannot_now() {
    let mail = Arc::new(Provider::open(Mail::new(), Arc::new(Full)).unwrap());
    let (client, _host) = serve(&mail).await;
    let notice = json!({ "order_id": "o-1", "kind": "confirmed", "to": "ada", "text": "on its way" });
    let (status, body) = post(&client, "/notices", Some("o-1.confirmed"), notice).await;
    assert_eq!((status, &body["error"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("journal_failed")));
    assert_eq!(get(&client, "/notices/o-1.confirmed").await.1["error"], "key_unknown");
    assert!(mail.ledger().notices().is_empty());
}

#[test]
fn a_journal_that_does_not_read_is_refused() {
    let store = MemStore::new("journal");
    let context = RealHost::new("host", Seed(1)).into_context();
    let put = |tables: &mut dyn kit::Tables| tables.put("journal", &0_u64.to_be_bytes(), b"\xff");
    store.transact_with::<_, StoreError>(&context, put).unwrap();
    let refused = Provider::open(Gateway::new(), Arc::new(store)).unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
}
