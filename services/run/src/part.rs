//! What can run: six services, three outside systems.

use std::fmt;

use clap::ValueEnum;

/// A service or an outside system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Takes orders and runs their sagas.
    Order,
    /// Charges and refunds.
    Payment,
    /// Keeps the stock.
    Inventory,
    /// Tells customers.
    Notification,
    /// Books carriers.
    Shipping,
    /// Adds everything up.
    Analytics,
    /// The payment gateway.
    Gateway,
    /// The carrier.
    Carrier,
    /// The mail provider.
    Mail,
}

impl Part {
    /// The six services.
    pub const SERVICES: [Part; 6] =
        [Part::Order, Part::Payment, Part::Inventory, Part::Notification, Part::Shipping, Part::Analytics];
    /// The three outside systems.
    pub const OUTSIDE: [Part; 3] = [Part::Gateway, Part::Carrier, Part::Mail];

    /// All nine.
    pub fn all() -> impl Iterator<Item = Part> {
        Part::SERVICES.into_iter().chain(Part::OUTSIDE)
    }

    /// Its name: of its host, its store's file, its key in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Part::Order => "order",
            Part::Payment => "payment",
            Part::Inventory => "inventory",
            Part::Notification => "notification",
            Part::Shipping => "shipping",
            Part::Analytics => "analytics",
            Part::Gateway => "gateway",
            Part::Carrier => "carrier",
            Part::Mail => "mail",
        }
    }

    /// Whether it is one of the six, hence speaks to Kafka.
    pub fn is_service(self) -> bool {
        Part::SERVICES.contains(&self)
    }

    /// Its port if the configuration does not say: a service's answers for its health, an outside system's for its business.
    pub fn port(self) -> u16 {
        match self {
            Part::Order => 8081,
            Part::Payment => 8082,
            Part::Inventory => 8083,
            Part::Notification => 8084,
            Part::Shipping => 8085,
            Part::Analytics => 8086,
            Part::Gateway => 8091,
            Part::Carrier => 8092,
            Part::Mail => 8093,
        }
    }

    /// What was asked for, each once, in their order.
    pub fn resolve(wanted: &[Wanted]) -> Vec<Part> {
        let is_wanted = |part: &Part| {
            wanted.iter().any(|wanted| match wanted {
                Wanted::One(one) => one == part,
                Wanted::All => part.is_service(),
                Wanted::Outside => !part.is_service(),
            })
        };
        Part::all().filter(is_wanted).collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `services run` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One part.
    One(Part),
    /// The six services.
    All,
    /// The three outside systems.
    Outside,
}

impl ValueEnum for Wanted {
    fn value_variants<'a>() -> &'a [Wanted] {
        const ALL: [Wanted; 11] = [
            Wanted::One(Part::Order),
            Wanted::One(Part::Payment),
            Wanted::One(Part::Inventory),
            Wanted::One(Part::Notification),
            Wanted::One(Part::Shipping),
            Wanted::One(Part::Analytics),
            Wanted::All,
            Wanted::One(Part::Gateway),
            Wanted::One(Part::Carrier),
            Wanted::One(Part::Mail),
            Wanted::Outside,
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Wanted::One(part) => part.name().into(),
            Wanted::All => clap::builder::PossibleValue::new("all").help("the six services"),
            Wanted::Outside => clap::builder::PossibleValue::new("outside").help("the three outside systems"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_can_be_asked_for_by_its_name_and_comes_once() {
        for part in Part::all() {
            let wanted = Wanted::from_str(part.name(), false).expect("its name is a value");
            assert_eq!(Part::resolve(&[wanted, wanted]), [part]);
        }
        let everything = [Wanted::Outside, Wanted::One(Part::Mail), Wanted::All];
        assert_eq!(Part::resolve(&everything), Part::all().collect::<Vec<_>>());
    }

    #[test]
    fn no_two_parts_have_the_same_port() {
        let ports: std::collections::BTreeSet<u16> = Part::all().map(Part::port).collect();
        assert_eq!(ports.len(), Part::all().count());
    }
}
