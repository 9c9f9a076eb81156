//! What the customers want: every order of a run, drawn from the seed before time moves.
//!
//! So it is known beforehand which orders will be refused, exactly as many as the scenario says, and how much stock there
//! must be.

use std::collections::BTreeMap;
use std::time::Duration;

use context::{Rng, Seed};
use harness::scenario::Scenario;
use proto::order::{Address, CreateOrder, Item};
use proto::{OrderId, tokens};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

/// Pieces of each SKU beyond what all orders ask for.
const SPARE: u64 = 10;

/// Why an order will be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its payment method is one that the gateway declines.
    PaymentDeclined,
    /// It asks for something of which there is none.
    OutOfStock,
    /// Its address is one to which the carrier does not deliver.
    ShipmentRefused,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Refusal; 3] = [Refusal::PaymentDeclined, Refusal::OutOfStock, Refusal::ShipmentRefused];

    /// As `[refusals]` names it.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::PaymentDeclined => "payment_declined",
            Refusal::OutOfStock => "out_of_stock",
            Refusal::ShipmentRefused => "shipment_refused",
        }
    }
}

/// One order that a customer will place.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its id.
    pub id: OrderId,
    /// How long after the one before it.
    pub gap: Duration,
    /// The order.
    pub command: CreateOrder,
    /// Why it will be refused, if it will.
    pub refusal: Option<Refusal>,
}

/// Everything that the customers of a run want.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The orders, in the order in which they are placed.
    pub orders: Vec<Planned>,
    /// How much of each SKU inventory has at first: enough for all, but for the SKU that is sold out.
    pub initial_stock: BTreeMap<String, u64>,
}

impl Plan {
    /// Draws a plan.
    pub fn draw(scenario: &Scenario, seed: Seed) -> Plan {
        let mut rng = seed.stream("customers/plan");
        let catalogue = catalogue(scenario.run.items, &mut rng);
        let refusals = refusals(scenario, &mut rng);
        let gap_ms = u64::try_from(scenario.run.arrival.gap().as_millis()).unwrap_or(u64::MAX / 2);
        let orders: Vec<Planned> = (1..=scenario.run.orders)
            .zip(refusals)
            .map(|(number, refusal)| Planned {
                id: OrderId::new(format!("o-{number:04}")).expect("a numbered order has an id"),
                // Evenly from none to twice the mean: bursts and lulls, and the mean that the scenario asks for.
                gap: Duration::from_millis(rng.random_range(0..=2 * gap_ms)),
                command: order(number, scenario.run.customers, &catalogue, refusal, &mut rng),
                refusal,
            })
            .collect();
        let mut initial_stock: BTreeMap<String, u64> =
            catalogue.iter().map(|item| (item.sku.clone(), SPARE)).collect();
        for item in orders.iter().flat_map(|order| &order.command.items) {
            if let Some(stock) = initial_stock.get_mut(&item.sku) {
                *stock += u64::from(item.quantity);
            }
        }
        initial_stock.insert(tokens::SOLD_OUT_SKU.to_owned(), 0);
        Plan { orders, initial_stock }
    }
}

/// What the shop sells, each at a price of its own.
fn catalogue(items: u32, rng: &mut Rng) -> Vec<Item> {
    let item = |number| Item {
        sku: format!("sku-{number:03}"),
        name: format!("Article {number}"),
        quantity: 1,
        unit_price: rng.random_range(100..=20_000),
    };
    (1..=items.max(1)).map(item).collect()
}

/// For each order whether it will be refused and why; which ones is drawn.
fn refusals(scenario: &Scenario, rng: &mut Rng) -> Vec<Option<Refusal>> {
    let mut refusals = Vec::new();
    for refusal in Refusal::ALL {
        let count = scenario.refusals.get(refusal.name()).copied().unwrap_or(0);
        refusals.extend((0..count).map(|_| Some(refusal)));
    }
    let orders = scenario.run.orders as usize;
    assert!(refusals.len() <= orders, "{} refusals of {orders} orders", refusals.len());
    refusals.resize(orders, None);
    refusals.shuffle(rng);
    refusals
}

fn order(
    number: u32,
    customers: u32,
    catalogue: &[Item],
    refusal: Option<Refusal>,
    rng: &mut Rng,
) -> CreateOrder {
    let mut items: Vec<Item> = (0..rng.random_range(1..=3))
        .map(|_| {
            let item = &catalogue[rng.random_range(0..catalogue.len())];
            Item { quantity: rng.random_range(1..=3), ..item.clone() }
        })
        .collect();
    // Drawn whether it is used or not: a refusal must not move what the orders after it draw.
    let sold_out_at = rng.random_range(0..items.len());
    let customer = rng.random_range(1..=customers.max(1));
    if refusal == Some(Refusal::OutOfStock) {
        items[sold_out_at].sku = tokens::SOLD_OUT_SKU.to_owned();
    }
    let payment_method = match refusal {
        Some(Refusal::PaymentDeclined) => tokens::DECLINED_PAYMENT_METHOD,
        _ => tokens::GOOD_PAYMENT_METHOD,
    };
    let postal_code = match refusal {
        Some(Refusal::ShipmentRefused) => tokens::UNSERVED_POSTAL_CODE,
        _ => "24103",
    };
    CreateOrder {
        order_id: format!("o-{number:04}"),
        customer_id: format!("c-{customer:03}"),
        items,
        currency: "EUR".into(),
        payment_method: payment_method.into(),
        address: Some(Address {
            street: format!("{customer} Harbour Road"),
            city: "Kiel".into(),
            postal_code: postal_code.into(),
            country: "DE".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn plan(refusals: &str, seed: u64) -> Plan {
        let text =
            format!("claim = \"a test\"\n[run]\norders = 150\narrival = \"20/s\"\n[refusals]\n{refusals}");
        let vocabulary = harness::vocabulary(crate::six::system());
        Plan::draw(&Scenario::parse(Path::new("test.toml"), &text, &vocabulary).unwrap(), Seed(seed))
    }

    #[test]
    fn a_plan_has_exactly_the_refusals_that_were_asked_for_and_the_seed_draws_which() {
        let refusals = "payment_declined = 9\nout_of_stock = 5\nshipment_refused = 3\n";
        let plan = |seed| plan(refusals, seed);
        let of = |refusal| move |order: &&Planned| order.refusal == Some(refusal);
        let seven = plan(7);
        let count = |refusal| seven.orders.iter().filter(of(refusal)).count();
        assert_eq!(Refusal::ALL.map(count), [9, 5, 3]);
        assert_eq!(seven, plan(7));
        let declined = |plan: &Plan| -> Vec<OrderId> {
            plan.orders.iter().filter(of(Refusal::PaymentDeclined)).map(|order| order.id.clone()).collect()
        };
        assert_ne!(declined(&seven), declined(&plan(8)));
    }

    #[test]
    fn there_is_stock_for_every_order_but_those_that_must_find_none() {
        let plan = plan("out_of_stock = 5\n", 7);
        let mut left = plan.initial_stock.clone();
        for order in &plan.orders {
            let sold_out = order.command.items.iter().any(|item| item.sku == tokens::SOLD_OUT_SKU);
            assert_eq!(sold_out, order.refusal == Some(Refusal::OutOfStock), "{}", order.id);
            for item in order.command.items.iter().filter(|item| item.sku != tokens::SOLD_OUT_SKU) {
                let left = left.get_mut(&item.sku).expect("the shop sells what is ordered");
                *left = left.checked_sub(u64::from(item.quantity)).expect("there is enough for all");
            }
        }
        assert_eq!(plan.initial_stock[tokens::SOLD_OUT_SKU], 0);
    }

    #[test]
    fn orders_arrive_about_as_often_as_the_scenario_says() {
        let plan = plan("", 7);
        let span: Duration = plan.orders.iter().map(|order| order.gap).sum();
        assert!((Duration::from_secs(6)..Duration::from_secs(9)).contains(&span), "150 at 20/s in {span:?}");
    }
}
