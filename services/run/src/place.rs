//! `services place`: the customers.
//!
//! Orders are drawn from a seed, so that the same seed places the same orders again, under the same ids: to repeat what may
//! have been done changes nothing. An order is placed when Kafka has acknowledged it.

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker as _, Producer, Properties};
use context::{Context, Seed};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kit::Outgoing;
use proto::order::{Address, CreateOrder, Item};
use proto::{MessageId, tokens};
use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use crate::args::PlaceArgs;
use crate::config::{ARTICLES, sku};
use crate::{Config, exit};

/// Orders on their way to Kafka at a time.
const IN_FLIGHT: usize = 1_000;
/// How long a customer waits before an order that was not acknowledged is placed again.
const PAUSE: Duration = Duration::from_secs(1);

/// Places the orders, waits for each acknowledgement.
pub(crate) async fn command(config: &Config, wanted: &PlaceArgs) -> u8 {
    let refused = u64::from(wanted.declined) + u64::from(wanted.sold_out) + u64::from(wanted.unserved);
    if refused > u64::from(wanted.orders) {
        let error =
            format!("{refused} orders to be refused are more than the {} to be placed", wanted.orders);
        return exit::complain(&error, exit::USAGE);
    }
    match place_all(config, wanted).await {
        Ok((took, tries)) => {
            let tries = if tries == 0 { String::new() } else { format!(", {tries} of them more than once") };
            tracing::info!("{} orders are acknowledged after {took:?}{tries}", wanted.orders);
            exit::DONE
        }
        Err(error) => exit::complain(&error, exit::UNAVAILABLE),
    }
}

async fn place_all(config: &Config, wanted: &PlaceArgs) -> Result<(Duration, u64), String> {
    let context = crate::errand("customers")?;
    let properties = Properties::new().set("enable.idempotence", true).set("acks", "all");
    let producer = crate::broker(config, &context).producer(&properties).await;
    let producer = producer.map_err(|error| error.to_string())?;
    let began = context.now();
    let (mut under_way, mut again) = (FuturesUnordered::new(), 0);
    for (number, order) in (0_u32..).zip(orders(wanted)) {
        if let Some(rate) = wanted.per_second {
            let due = Duration::from_secs(1) * number / rate;
            context.sleep_until(began + due).await;
        }
        under_way.push(place(context.clone(), producer.clone(), order));
        while under_way.len() >= IN_FLIGHT {
            again += under_way.next().await.unwrap_or(Ok(0))?;
        }
        // Those that are acknowledged meanwhile make room.
        while let Some(Some(tries)) = futures_util::FutureExt::now_or_never(under_way.next()) {
            again += tries?;
        }
    }
    while let Some(tries) = under_way.next().await {
        again += tries?;
    }
    Ok((context.now().since(began), again))
}

/// Places one order until it is acknowledged; gives 1 if it took more than one try.
///
/// # Errors
/// What no further try would change: a refused authorization, a record that is too large, a producer that cannot go on.
async fn place(context: Context, producer: Arc<dyn Producer>, order: CreateOrder) -> Result<u64, String> {
    let id = MessageId::derived(&format!("customers/{}", order.order_id));
    let mut again = 0;
    loop {
        let record = Outgoing::of(&order).into_record(id, id, None, context.now());
        match producer.send(record).await {
            Ok(_) => return Ok(again),
            Err(error) if !error.is_retriable() => {
                return Err(format!("{} cannot be placed: {error}", order.order_id));
            }
            Err(error) => {
                again = 1;
                context
                    .trouble(format_args!("{} is not placed, again in {PAUSE:?}: {error}", order.order_id));
                context.sleep(PAUSE).await;
            }
        }
    }
}

/// What will become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Confirmed,
    Declined,
    SoldOut,
    Unserved,
}

/// The orders of a seed.
fn orders(wanted: &PlaceArgs) -> Vec<CreateOrder> {
    let mut rng = Seed(wanted.seed).stream("customers");
    let prices: Vec<i64> = (0..ARTICLES).map(|_| rng.random_range(100..=20_000)).collect();
    let refused = [
        (Fate::Declined, wanted.declined),
        (Fate::SoldOut, wanted.sold_out),
        (Fate::Unserved, wanted.unserved),
    ];
    let refused = refused.into_iter().flat_map(|(fate, count)| (0..count).map(move |_| fate));
    let mut fates: Vec<Fate> = refused.collect();
    fates.resize(wanted.orders as usize, Fate::Confirmed);
    fates.shuffle(&mut rng);
    let order = |(number, fate): (u32, Fate)| {
        let item = |rng: &mut context::Rng| {
            let article = rng.random_range(1..=ARTICLES);
            Item {
                sku: sku(article),
                name: format!("Article {article}"),
                quantity: rng.random_range(1..=3),
                unit_price: prices[article as usize - 1],
            }
        };
        let mut items: Vec<Item> = (0..rng.random_range(1..=3)).map(|_| item(&mut rng)).collect();
        if fate == Fate::SoldOut {
            items[0].sku = tokens::SOLD_OUT_SKU.to_owned();
        }
        let declined = fate == Fate::Declined;
        let customer = rng.random_range(1..=100);
        CreateOrder {
            order_id: format!("o-{}-{number:06}", wanted.seed),
            customer_id: format!("c-{customer:03}"),
            items,
            currency: "EUR".into(),
            payment_method: if declined {
                tokens::DECLINED_PAYMENT_METHOD
            } else {
                tokens::GOOD_PAYMENT_METHOD
            }
            .into(),
            address: Some(Address {
                street: format!("{customer} Harbour Road"),
                city: "Kiel".into(),
                postal_code: if fate == Fate::Unserved { tokens::UNSERVED_POSTAL_CODE } else { "24103" }
                    .into(),
                country: "DE".into(),
            }),
        }
    };
    (1..).zip(fates).map(order).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(seed: u64) -> PlaceArgs {
        PlaceArgs { orders: 100, seed, declined: 5, sold_out: 3, unserved: 2, per_second: None }
    }

    #[test]
    fn a_seed_places_the_same_orders_again_and_another_seed_others() {
        assert_eq!(orders(&wanted(7)), orders(&wanted(7)));
        let ids = |seed| orders(&wanted(seed)).into_iter().map(|order| order.order_id);
        assert!(ids(7).all(|id| !ids(8).any(|other| other == id)));
    }

    #[test]
    fn as_many_orders_are_refused_as_were_asked_for() {
        let orders = orders(&wanted(7));
        let count = |holds: fn(&&CreateOrder) -> bool| orders.iter().filter(holds).count();
        assert_eq!(count(|order| order.payment_method == tokens::DECLINED_PAYMENT_METHOD), 5);
        assert_eq!(count(|order| order.items.iter().any(|item| item.sku == tokens::SOLD_OUT_SKU)), 3);
        let unserved = |order: &&CreateOrder| {
            order.address.as_ref().is_some_and(|address| address.postal_code == tokens::UNSERVED_POSTAL_CODE)
        };
        assert_eq!(count(unserved), 2);
    }
}
