//! A small shop without a world: two orders ran their sagas, and a test can plant what a defect would leave.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::{ConsumerRecord, Header, TopicPartition};
use context::real::RealHost;
use context::{Context, Seed, Timestamp};
use harness::check::client::{ClientAct, ClientEvent, ClientId};
use harness::check::{Breach, Breaches, Check, Moment, Occasion};
use harness::observer;
use inventory::reservation::{Reservation, Status};
use inventory::{RESERVATIONS, STOCK, Stock};
use kit::middleware::headers;
use kit::{Handler as _, HandlerError, Message, Outgoing, Prepared, StoreError, StoreExt, Unit, outbox};
use order::service::Orders;
use outside::gateway::ChargeRequest;
use outside::{carrier, gateway, mail};
use proto::inventory::{ReserveStock, StockCommitted, StockReleased, StockReserved};
use proto::notification::{CustomerNotified, NotifyCustomer};
use proto::order::{Address, CreateOrder, Item};
use proto::payment::{ChargePayment, PaymentCaptured, PaymentDeclined};
use proto::shipping::{ScheduleShipment, ShipmentScheduled};
use proto::{MessageId, OrderId, PaymentId, inventory as stock, tokens, topics};

use crate::six::archive::{Archive, Shared};
use crate::six::parts::Parts;
use crate::six::plan::{Plan, Planned, Refusal};

const SKU: &str = "sku-1";
const QUANTITY: u32 = 2;
const PRICE: i64 = 1_999;

/// The shop. Order o-0001 was confirmed, o-0002 declined by the gateway; o-0003 is planned to succeed, o-0004 to be
/// declined.
pub(crate) struct Shop {
    parts: Arc<Parts>,
    archive: Shared,
    context: Context,
    orders: Orders,
    relayed: u64,
    offset: i64,
    /// The payment service declines without asking the gateway.
    declines_by_itself: bool,
    /// The notification service says that it told the customer, and did not.
    tells_nobody: bool,
}

impl Shop {
    pub(crate) fn with_two_orders() -> Shop {
        let refusals = [None, Some(Refusal::PaymentDeclined), None, Some(Refusal::PaymentDeclined)];
        let planned = (1..).zip(refusals).map(|(number, refusal)| Planned {
            id: id(&format!("o-{number:04}")),
            gap: Duration::ZERO,
            command: create(&format!("o-{number:04}"), refusal),
            refusal,
        });
        let plan = Plan { orders: planned.collect(), initial_stock: BTreeMap::from([(SKU.to_owned(), 20)]) };
        let shop = Shop {
            parts: Arc::new(Parts::still(plan)),
            archive: Archive::shared(),
            context: RealHost::new("order-1", Seed(1)).into_context(),
            orders: Orders::new(order::Config::default()),
            relayed: 0,
            offset: 0,
            declines_by_itself: false,
            tells_nobody: false,
        };
        shop.write(&shop.parts.stores.inventory, |tables| {
            STOCK.put(tables, &SKU.to_owned(), &Stock::new(20))
        });
        let mut shop = shop;
        shop.complete("o-0001");
        shop.take("o-0002");
        shop.run();
        for order in ["o-0001", "o-0002"] {
            shop.parts.desk.accepted().insert(id(order), world::EPOCH);
        }
        shop
    }

    pub(crate) fn parts(&self) -> Arc<Parts> {
        self.parts.clone()
    }

    pub(crate) fn archive(&self) -> Shared {
        self.archive.clone()
    }

    /// Takes a planned order: its saga waits for its first answer.
    pub(crate) fn take(&mut self, order: &str) {
        let planned = self.parts.plan.orders.iter().find(|planned| planned.id.as_str() == order).unwrap();
        let message = self.message(Outgoing::of(&planned.command.clone()));
        self.handle(&message);
    }

    /// Runs an order to its end as if nothing were in its way.
    pub(crate) fn complete(&mut self, order: &str) {
        let message = self.message(Outgoing::of(&create(order, None)));
        self.handle(&message);
        self.run();
    }

    /// The same, but the mail is never sent.
    pub(crate) fn complete_untold(&mut self, order: &str) {
        self.tells_nobody = true;
        self.complete(order);
    }

    /// The payment service declines an order on its own.
    pub(crate) fn refuse_without_cause(&mut self, order: &str) {
        self.declines_by_itself = true;
        self.complete(order);
    }

    /// The gateway takes money.
    pub(crate) fn charge(&self, order: &str, amount_minor: i64, key: &str) {
        let charge = charge(order, amount_minor, tokens::GOOD_PAYMENT_METHOD);
        self.parts.gateway.ledger().handle(at(4), gateway::Request::Charge { key: key.into(), charge });
    }

    /// The carrier books.
    pub(crate) fn ship(&self, order: &str, key: &str) {
        let address = carrier::Address {
            street: "1 Harbour Road".into(),
            city: "Kiel".into(),
            postal_code: "24103".into(),
            country: "DE".into(),
        };
        let booking = carrier::BookingRequest { order_id: order.into(), address };
        self.parts.carrier.ledger().handle(at(3), carrier::Request::Book { key: key.into(), booking });
    }

    /// The mail provider sends.
    pub(crate) fn tell(&self, order: &str, kind: &str, key: &str) {
        let notice = mail::NoticeRequest {
            order_id: order.into(),
            kind: kind.into(),
            to: "c-1".into(),
            text: kind.into(),
        };
        self.parts.mail.ledger().handle(at(5), mail::Request::Send { key: key.into(), notice });
    }

    /// What inventory has written down for an order; the shelves stay as they are.
    pub(crate) fn reservation(&self, order: &str, status: Status) {
        let reservation = Reservation {
            order_id: order.into(),
            lines: BTreeMap::from([(SKU.to_owned(), u64::from(QUANTITY))]),
            expires_at_ms: 0,
            status,
        };
        self.write(&self.parts.stores.inventory, |tables| RESERVATIONS.put(tables, &id(order), &reservation));
    }

    /// Moves pieces on the shelf.
    pub(crate) fn change_stock(&self, change: impl FnOnce(&mut Stock)) {
        self.write(&self.parts.stores.inventory, |tables| {
            let mut stock = STOCK.get(tables, &SKU.to_owned())?.unwrap();
            change(&mut stock);
            STOCK.put(tables, &SKU.to_owned(), &stock)
        });
    }

    /// The read side hears of all order events, once more.
    pub(crate) fn project(&mut self) {
        for message in self.archive.lock().messages([topics::ORDER_EVENTS]) {
            let event = proto::order::Event::decode(&message.kind, &message.payload).unwrap();
            let order = event.order_id().unwrap();
            self.write(&self.parts.stores.order, |tables| order::view::project(tables, &order, &event));
        }
    }

    /// Analytics hears of all events.
    pub(crate) fn add_up(&mut self) {
        for message in self.archive.lock().messages(topics::EVENTS) {
            let event = analytics::Event::decode(message.topic(), &message.kind, &message.payload).unwrap();
            let order = event.order_id().unwrap();
            self.write(&self.parts.stores.analytics, |tables| {
                analytics::service::learn(tables, &order, &event)
            });
        }
    }

    /// A command for payment that could not be handled.
    pub(crate) fn dead_letter(&self, order: &str, class: &str) {
        let header =
            |key: &str, value: &str| Header { key: key.into(), value: Some(value.to_owned().into()) };
        let record = ConsumerRecord {
            partition: TopicPartition::new("payment.commands.dlq", 0),
            offset: 0,
            leader_epoch: None,
            timestamp: at(6),
            key: Some(order.to_owned().into()),
            value: None,
            headers: broker::Headers(vec![
                header(headers::TOPIC, topics::PAYMENT_COMMANDS),
                header(headers::PARTITION, "0"),
                header(headers::OFFSET, "17"),
                header(headers::GROUP, payment::GROUP),
                header(headers::CLASS, class),
                header(headers::ERROR, "the value is null"),
            ]),
        };
        self.read_by_the_observer(record);
    }

    fn write(
        &self,
        store: &kit::MemStore,
        work: impl FnOnce(&mut dyn kit::Tables) -> Result<(), StoreError>,
    ) {
        store.transact_with(&self.context, work).unwrap();
    }

    fn read_by_the_observer(&self, record: ConsumerRecord) {
        let records = [record];
        let act = ClientAct::Polled(&records);
        let event = ClientEvent { client: ClientId(1), host: observer::HOST, act };
        self.archive.hear(Occasion::Client(&event));
    }

    /// A message as it would be read; it is in the archive too.
    fn message(&mut self, outgoing: Outgoing) -> Message {
        let id = MessageId::derived(&format!("shop/{}", self.offset));
        self.read(outgoing.into_record(id, id, None, self.context.now()))
    }

    fn read(&mut self, record: broker::ProducerRecord) -> Message {
        self.offset += 1;
        let record = ConsumerRecord {
            partition: TopicPartition::new(record.topic, 0),
            offset: self.offset,
            leader_epoch: None,
            timestamp: record.timestamp.unwrap_or_default(),
            key: record.key,
            value: record.value,
            headers: record.headers,
        };
        let message = Message::parse(&record).unwrap();
        self.read_by_the_observer(record);
        message
    }

    fn handle(&mut self, message: &Message) {
        let (context, orders) = (&self.context, &self.orders);
        self.parts
            .stores
            .order
            .transact_with::<_, HandlerError>(context, |tables| {
                let mut unit = Unit::caused_by(context, tables, order::GROUP, message);
                orders.apply(&mut unit, message, Prepared::nothing())
            })
            .unwrap();
    }

    /// Lets everyone do what is asked of them, until nobody asks any more.
    fn run(&mut self) {
        loop {
            let rows = self
                .parts
                .stores
                .order
                .read_with::<_, StoreError>(|tables| outbox::pending(tables, self.relayed, 100));
            let rows = rows.unwrap();
            if rows.is_empty() {
                return;
            }
            for (sequence, record) in rows {
                self.relayed = sequence + 1;
                let message = self.read(record);
                if message.topic() != topics::ORDER_EVENTS {
                    let mut answer = self.answer(&message);
                    answer.saga_id.clone_from(&message.saga_id);
                    answer.step.clone_from(&message.step);
                    let answer = self.message(answer);
                    self.handle(&answer);
                }
            }
        }
    }

    /// What the participants do, to their ledgers and tables.
    fn answer(&self, message: &Message) -> Outgoing {
        let order_id = message.key.clone();
        let lines = || vec![stock::Line { sku: SKU.into(), quantity: QUANTITY }];
        match message.kind.as_str() {
            "ReserveStock" => {
                assert_eq!(message.decode::<ReserveStock>().unwrap().lines, lines());
                self.reservation(&order_id, Status::Reserved);
                self.change_stock(|stock| {
                    stock.available -= u64::from(QUANTITY);
                    stock.reserved += u64::from(QUANTITY);
                });
                Outgoing::of(&StockReserved { order_id, lines: lines(), ..StockReserved::default() })
            }
            "CommitStock" => {
                self.reservation(&order_id, Status::Committed);
                self.change_stock(|stock| {
                    stock.reserved -= u64::from(QUANTITY);
                    stock.shipped += u64::from(QUANTITY);
                });
                Outgoing::of(&StockCommitted { order_id, lines: lines(), ..StockCommitted::default() })
            }
            "ReleaseStock" => {
                self.reservation(&order_id, Status::Released);
                self.change_stock(|stock| {
                    stock.reserved -= u64::from(QUANTITY);
                    stock.available += u64::from(QUANTITY);
                });
                Outgoing::of(&StockReleased { order_id, lines: lines(), ..StockReleased::default() })
            }
            "ChargePayment" => self.pay(&message.decode().unwrap()),
            "ScheduleShipment" => {
                let shipment_id = message.decode::<ScheduleShipment>().unwrap().shipment_id;
                self.ship(&order_id, &shipment_id);
                Outgoing::of(&ShipmentScheduled { order_id, shipment_id, tracking: "T-1".into() })
            }
            "NotifyCustomer" => {
                let notify = message.decode::<NotifyCustomer>().unwrap();
                let kind = notification::word(notify.kind()).unwrap();
                if !self.tells_nobody {
                    self.tell(&order_id, kind, &format!("{order_id}/{kind}"));
                }
                let (customer_id, kind) = (notify.customer_id, notify.kind);
                Outgoing::of(&CustomerNotified { order_id, customer_id, kind })
            }
            other => panic!("nobody answers a `{other}`"),
        }
    }

    fn pay(&self, command: &ChargePayment) -> Outgoing {
        let ChargePayment { order_id, payment_id, amount, currency, payment_method } = command.clone();
        let declined = Outgoing::of(&PaymentDeclined {
            order_id: order_id.clone(),
            payment_id: payment_id.clone(),
            reason: "no".into(),
        });
        if self.declines_by_itself {
            return declined;
        }
        let charge = charge(&order_id, amount, &payment_method);
        let request = gateway::Request::Charge { key: payment_id.clone(), charge };
        let gateway::Response::Captured { charge, .. } = self.parts.gateway.ledger().handle(at(2), request)
        else {
            return declined;
        };
        let captured = payment::payment::Captured {
            charge_id: charge.charge_id,
            amount_minor: amount,
            currency: currency.clone(),
        };
        let payment = payment::Payment {
            payment_id: payment_id.clone(),
            order_id: order_id.clone(),
            status: payment::Status::Captured(captured),
        };
        self.write(&self.parts.stores.payment, |tables| {
            payment::PAYMENTS.put(tables, &PaymentId::new(&payment_id).unwrap(), &payment)
        });
        Outgoing::of(&PaymentCaptured { order_id, payment_id, amount, currency })
    }
}

fn id(order: &str) -> OrderId {
    OrderId::new(order).unwrap()
}

fn at(second: u64) -> Timestamp {
    world::EPOCH + Duration::from_secs(second)
}

fn charge(order: &str, amount_minor: i64, card_token: &str) -> ChargeRequest {
    ChargeRequest {
        payment_id: PaymentId::of(&id(order)).into(),
        order_id: order.into(),
        amount_minor,
        currency: "EUR".into(),
        card_token: card_token.into(),
    }
}

fn create(order: &str, refusal: Option<Refusal>) -> CreateOrder {
    let payment_method = match refusal {
        Some(Refusal::PaymentDeclined) => tokens::DECLINED_PAYMENT_METHOD,
        _ => tokens::GOOD_PAYMENT_METHOD,
    };
    CreateOrder {
        order_id: order.into(),
        customer_id: "c-1".into(),
        items: vec![Item { sku: SKU.into(), name: "Lamp".into(), quantity: QUANTITY, unit_price: PRICE }],
        currency: "EUR".into(),
        payment_method: payment_method.into(),
        address: Some(Address { postal_code: "24103".into(), ..Address::default() }),
    }
}

/// Shows a check two steps and the end of a run at rest; gives what it found.
pub(crate) fn breaches(check: &mut dyn Check) -> Vec<Breach> {
    let mut breaches = Breaches::default();
    for occasion in [Occasion::Step, Occasion::Step, Occasion::End { at_rest: true }] {
        check.look(Moment::default(), occasion, &mut breaches);
    }
    breaches.take()
}

/// The same, without the evidence.
pub(crate) fn broken(check: &mut dyn Check) -> Vec<String> {
    breaches(check).into_iter().map(|breach| breach.says).collect()
}

/// The check finds nothing.
pub(crate) fn holds(check: &mut dyn Check) {
    assert_eq!(breaches(check), []);
}
