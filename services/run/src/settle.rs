//! `services settle`: waits until the shop is at rest.
//!
//! It is when every saga has come to its end, no outbox has a record waiting, and no group has one to read. The first two the
//! services tell (`/metrics`), the last Kafka does. It must be so twice in a row: a record that was read and not yet answered
//! is in none of the three.

use std::time::Duration;

use broker::{Admin, Broker as _, Properties};
use context::Context;
use kit::http::Client;

use crate::args::SettleArgs;
use crate::part::Part;
use crate::{Config, exit};

/// How often to look. Longer than the services take to commit what they have read.
const LOOK: Duration = Duration::from_millis(500);

/// The groups, and what they read.
fn groups() -> [(&'static str, Vec<&'static str>); 7] {
    [
        (order::GROUP, order::service::TOPICS.to_vec()),
        (order::VIEW_GROUP, vec![proto::topics::ORDER_EVENTS]),
        (payment::GROUP, vec![proto::topics::PAYMENT_COMMANDS]),
        (inventory::GROUP, vec![proto::topics::INVENTORY_COMMANDS]),
        (notification::GROUP, vec![proto::topics::NOTIFICATION_COMMANDS]),
        (shipping::GROUP, vec![proto::topics::SHIPPING_COMMANDS]),
        (analytics::GROUP, proto::topics::EVENTS.to_vec()),
    ]
}

/// Waits, and says what is open when time is up.
pub(crate) async fn command(config: &Config, patience: &SettleArgs) -> u8 {
    match settle(config, patience).await {
        Ok(Ok(took)) => {
            tracing::info!("the shop is at rest after {took:?}");
            exit::DONE
        }
        Ok(Err(open)) => {
            exit::complain(&format!("not at rest after {:?}: {open}", patience.within), exit::WRONG)
        }
        Err(error) => exit::complain(&error, exit::UNAVAILABLE),
    }
}

async fn settle(config: &Config, patience: &SettleArgs) -> Result<Result<Duration, String>, String> {
    let context = crate::errand("settle")?;
    let admin = crate::broker(config, &context).admin(&Properties::new()).await;
    let admin = admin.map_err(|error| error.to_string())?;
    let began = context.now();
    let mut at_rest = 0;
    loop {
        let open = open(config, &context, &*admin, patience.orders).await;
        at_rest = if open.is_some() { 0 } else { at_rest + 1 };
        let took = context.now().since(began);
        match open {
            None if at_rest == 2 => return Ok(Ok(took)),
            Some(open) if took >= patience.within => return Ok(Err(open)),
            _ => context.sleep(LOOK).await,
        }
    }
}

/// What is open, if anything is.
async fn open(config: &Config, context: &Context, admin: &dyn Admin, orders: u64) -> Option<String> {
    for part in Part::SERVICES {
        let client = Client::new(context.clone(), &config.host, config.ports[&part]);
        let numbers = match client.get("/metrics").await {
            Ok(answer) if answer.status.is_success() => String::from_utf8_lossy(&answer.body).into_owned(),
            Ok(answer) => return Some(format!("{part} answers {}", answer.status)),
            Err(error) => return Some(format!("{part} does not answer: {error}")),
        };
        let waiting = number(&numbers, "outbox_waiting");
        if waiting != Some(0) {
            return Some(format!("{part} has {waiting:?} records to send"));
        }
        if part == Part::Order {
            let (started, open) = (number(&numbers, "sagas_started"), number(&numbers, "sagas_open"));
            if open != Some(0) || started.is_none_or(|started| started < orders) {
                return Some(format!("of {started:?} sagas {open:?} are open, and there must be {orders}"));
            }
        }
    }
    for (group, topics) in groups() {
        match admin.lag(group, &topics).await {
            Ok(lag) => {
                let unread: i64 = lag.values().sum();
                if unread != 0 {
                    return Some(format!("{group} has {unread} records to read"));
                }
            }
            Err(error) => return Some(format!("Kafka does not say how far {group} is: {error}")),
        }
    }
    None
}

/// A number of the metrics.
fn number(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_where_the_kit_writes_it() {
        let text = kit::Metrics::new().text();
        for name in ["outbox_waiting", "sagas_started", "sagas_open"] {
            assert_eq!(number(&text, name), Some(0), "{name} in {text}");
        }
        assert_eq!(number(&text, "sagas"), None);
    }
}
