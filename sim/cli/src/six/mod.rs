//! The six services as the harness's system under test, with what must be true of a shop.
//!
//! [`system`] is what the program `shakedown` tests. Start reading at [`parts`], which is everything that outlives a
//! host (stores, ledgers, what the customers want), then [`checks`], the claims. [`plan`] draws the workload from the
//! seed, [`customers`] sends it, [`archive`] keeps what the harness read from the topics at the end, [`measure`] times
//! sagas and hops. [`process`] is a host in a process of its own, and how its store and ledger are seen from here.
//!
//! Absent on purpose: anything about faults, time or Kafka, which is the harness's.

pub mod archive;
pub mod checks;
pub mod customers;
pub mod measure;
pub mod parts;
pub mod plan;
mod process;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use context::Program;
use harness::check::Check;
use harness::scenario::{Scenario, ServiceWords};
use harness::system::{
    CheckWords, Deployment, Group, Home, Measurements, News, Progress, Role, Setup, System, SystemHost,
};
use kit::NaiveSwitch;
use proto::topics;
use reports::Evidence;

use archive::Archive;
use parts::Parts;
use plan::Refusal;

/// The services, with what each does.
const SERVICES: [(&str, &str); 6] = [
    ("order", "takes orders and runs their sagas; shows how they stand"),
    ("payment", "charges and refunds through the gateway"),
    ("inventory", "reserves, commits and releases stock"),
    ("notification", "tells customers, once for each kind and order"),
    ("shipping", "books a carrier, or says why there is none"),
    ("analytics", "totals over all events"),
];

/// The six, to be tested.
pub fn system() -> &'static dyn System {
    &Six
}

struct Six;

impl System for Six {
    fn services(&self) -> BTreeMap<String, ServiceWords> {
        let words = |(name, about): (&str, &str)| {
            let mut flaws: BTreeMap<String, String> = NaiveSwitch::ALL
                .into_iter()
                .map(|switch| (switch.name().to_owned(), flaw(switch).to_owned()))
                .collect();
            if name == "order" {
                let own = order::Defect::ALL.into_iter();
                flaws.extend(own.map(|defect| (defect.name().to_owned(), defect.about().to_owned())));
            }
            (name.to_owned(), ServiceWords { about: about.to_owned(), flaws, has_steps: name == "order" })
        };
        SERVICES.into_iter().map(words).collect()
    }

    fn outside(&self) -> Vec<String> {
        [outside::gateway::HOST, outside::carrier::HOST, outside::mail::HOST].map(str::to_owned).to_vec()
    }

    fn workload(&self) -> Vec<String> {
        vec![customers::HOST.to_owned()]
    }

    fn topics(&self) -> Vec<String> {
        topics::all()
    }

    fn groups(&self, _scenario: &Scenario) -> Vec<Group> {
        let group = |id: &str, topics: &[&str]| Group {
            id: id.to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        };
        vec![
            group(order::GROUP, &order::service::TOPICS),
            group(order::VIEW_GROUP, &[topics::ORDER_EVENTS]),
            group(payment::GROUP, &[topics::PAYMENT_COMMANDS]),
            group(inventory::GROUP, &[topics::INVENTORY_COMMANDS]),
            group(notification::GROUP, &[topics::NOTIFICATION_COMMANDS]),
            group(shipping::GROUP, &[topics::SHIPPING_COMMANDS]),
            group(analytics::GROUP, &topics::EVENTS),
        ]
    }

    fn refusals(&self) -> Vec<String> {
        Refusal::ALL.map(|refusal| refusal.name().to_owned()).to_vec()
    }

    fn checks(&self) -> Vec<CheckWords> {
        checks::WORDS.to_vec()
    }

    fn consumer_session_timeout(&self) -> Duration {
        kit::router::SESSION_TIMEOUT
    }

    fn process(&self, setup: &Setup<'_>, host: &str, home: Home) -> Result<Program, String> {
        process::program(setup, host, &home)
    }

    fn start(&self, setup: &Setup<'_>) -> Box<dyn Deployment> {
        Box::new(Shop {
            parts: Arc::new(Parts::new(setup)),
            archive: Archive::shared(),
            clients: setup.clients.clone(),
            replicas: SERVICES
                .iter()
                .map(|(name, _)| (*name, setup.scenario.services[*name].replicas))
                .collect(),
        })
    }
}

fn flaw(switch: NaiveSwitch) -> &'static str {
    match switch {
        NaiveSwitch::NoInbox => "handles every delivery as if it were the first",
        NaiveSwitch::FreshKeys => "calls the outside with a new idempotency key each time",
    }
}

/// The six in one run.
struct Shop {
    parts: Arc<Parts>,
    archive: archive::Shared,
    clients: harness::system::Clients,
    replicas: Vec<(&'static str, u32)>,
}

impl Deployment for Shop {
    fn hosts(&mut self) -> Vec<SystemHost> {
        let mut hosts = Vec::new();
        for (name, program) in self.parts.outside_programs() {
            hosts.push(SystemHost { name: name.to_owned(), role: Role::Outside, program });
        }
        for (service, replicas) in &self.replicas {
            for replica in 1..=*replicas {
                let store = self.parts.store(service);
                let program = self.parts.service_program(service, &self.clients, store);
                let name = format!("{service}-{replica}");
                hosts.push(SystemHost { name, role: Role::Service, program });
            }
        }
        let program = customers::program(self.parts.clone(), self.clients.clone());
        hosts.push(SystemHost { name: customers::HOST.to_owned(), role: Role::Workload, program });
        hosts
    }

    fn checks(&mut self) -> Vec<Box<dyn Check>> {
        checks::all(&self.parts, &self.archive)
    }

    fn progress(&self) -> Progress {
        self.parts.progress()
    }

    fn unfinished(&self) -> Vec<Evidence> {
        measure::unfinished(&self.parts)
    }

    fn measurements(&self) -> Measurements {
        measure::all(&self.parts, &self.archive)
    }

    fn mirror(&self, host: &str, news: News<'_>) -> Result<Option<String>, String> {
        self.parts.mirror.hear(&self.parts, host, news)
    }
}
