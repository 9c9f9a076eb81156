//! What outlives the hosts of a run: the services' stores, the ledgers outside, and the customers' desk.

use std::sync::Arc;

use context::{Program, Timestamp};
use harness::scenario::ServiceSettings;
use harness::system::{Clients, Progress, Setup};
use kit::{MemStore, Naive, NaiveSwitch, ServiceConfig, Store, StoreError, StoreExt, outbox};
use outside::{Carrier, Gateway, Mail, Provider};

use super::customers::Desk;
use super::plan::Plan;
use super::process::Mirror;

/// Everything of a run that is not a host.
#[derive(Debug)]
pub struct Parts {
    /// The run's beginning, from which its times count.
    pub began: Timestamp,
    /// What the customers want.
    pub plan: Plan,
    /// What they have sent and heard.
    pub desk: Desk,
    /// The payment gateway: the truth about money.
    pub gateway: Arc<Provider<Gateway>>,
    /// The carrier: the truth about shipments.
    pub carrier: Arc<Provider<Carrier>>,
    /// The mail provider: the truth about notices.
    pub mail: Arc<Provider<Mail>>,
    /// The stores.
    pub stores: Stores,
    /// What processes of their own keep beside these.
    pub(super) mirror: Mirror,
    settings: Settings,
}

/// One store for each service; its replicas share it.
#[derive(Clone, Debug)]
pub struct Stores {
    /// The order service's.
    pub order: MemStore,
    /// The payment service's.
    pub payment: MemStore,
    /// The inventory service's.
    pub inventory: MemStore,
    /// The notification service's.
    pub notification: MemStore,
    /// The shipping service's.
    pub shipping: MemStore,
    /// The analytics service's.
    pub analytics: MemStore,
}

/// How each service runs.
#[derive(Clone, Debug)]
struct Settings {
    order: order::Config,
    payment: payment::Config,
    inventory: inventory::Config,
    notification: notification::Config,
    shipping: shipping::Config,
    analytics: ServiceConfig,
}

impl Stores {
    /// Empty ones.
    pub fn new() -> Stores {
        Stores {
            order: MemStore::new("order"),
            payment: MemStore::new("payment"),
            inventory: MemStore::new("inventory"),
            notification: MemStore::new("notification"),
            shipping: MemStore::new("shipping"),
            analytics: MemStore::new("analytics"),
        }
    }

    /// All of them, with the names of their services.
    pub fn all(&self) -> [(&'static str, &MemStore); 6] {
        [
            ("order", &self.order),
            ("payment", &self.payment),
            ("inventory", &self.inventory),
            ("notification", &self.notification),
            ("shipping", &self.shipping),
            ("analytics", &self.analytics),
        ]
    }
}

impl Default for Stores {
    fn default() -> Stores {
        Stores::new()
    }
}

impl Parts {
    /// What a run needs before its first event.
    pub fn new(setup: &Setup<'_>) -> Parts {
        let plan = Plan::draw(setup.scenario, setup.seed);
        let settings = Settings::of(setup, &plan);
        Parts::made(setup.began, plan, settings)
    }

    fn made(began: Timestamp, plan: Plan, settings: Settings) -> Parts {
        Parts {
            began,
            desk: Desk::default(),
            gateway: Arc::new(Provider::new(Gateway::new())),
            carrier: Arc::new(Provider::new(Carrier::new())),
            mail: Arc::new(Provider::new(Mail::new())),
            stores: Stores::new(),
            mirror: Mirror::new(),
            plan,
            settings,
        }
    }

    /// Parts of a run that nothing drives, for the tests of checks.
    #[cfg(test)]
    pub(crate) fn still(plan: Plan) -> Parts {
        let settings = Settings {
            order: order::Config::default(),
            payment: payment::Config::default(),
            inventory: inventory::Config::default(),
            notification: notification::Config::default(),
            shipping: shipping::Config::default(),
            analytics: ServiceConfig::default(),
        };
        Parts::made(world::EPOCH, plan, settings)
    }

    /// The hosts of the outside systems.
    pub fn outside_programs(&self) -> [(&'static str, Program); 3] {
        [
            (outside::gateway::HOST, self.gateway.program()),
            (outside::carrier::HOST, self.carrier.program()),
            (outside::mail::HOST, self.mail.program()),
        ]
    }

    /// A service's store.
    ///
    /// # Panics
    /// If there is no such service.
    pub fn store(&self, service: &str) -> Arc<dyn Store> {
        let store = self.stores.all().into_iter().find(|(name, _)| *name == service);
        let (_, store) = store.unwrap_or_else(|| panic!("there is no service `{service}`"));
        Arc::new(store.clone())
    }

    /// What a replica of a service runs, on a store.
    ///
    /// # Panics
    /// If there is no such service.
    pub fn service_program(&self, service: &str, clients: &Clients, store: Arc<dyn Store>) -> Program {
        let Settings { order, payment, inventory, notification, shipping, analytics } = self.settings.clone();
        let clients = clients.clone();
        match service {
            "order" => context::program(move |context| {
                let broker = clients.broker(&context);
                order::run(context, broker, store.clone(), order.clone())
            }),
            "payment" => context::program(move |context| {
                let broker = clients.broker(&context);
                payment::run(context, broker, store.clone(), payment.clone())
            }),
            "inventory" => context::program(move |context| {
                let broker = clients.broker(&context);
                inventory::run(context, broker, store.clone(), inventory.clone())
            }),
            "notification" => context::program(move |context| {
                let broker = clients.broker(&context);
                notification::run(context, broker, store.clone(), notification.clone())
            }),
            "shipping" => context::program(move |context| {
                let broker = clients.broker(&context);
                shipping::run(context, broker, store.clone(), shipping.clone())
            }),
            "analytics" => context::program(move |context| {
                let broker = clients.broker(&context);
                analytics::run(context, broker, store.clone(), analytics.clone())
            }),
            other => panic!("there is no service `{other}`"),
        }
    }

    /// How far the run is. Asked after each step of time, so it counts and decodes nothing.
    pub fn progress(&self) -> Progress {
        let sagas = |tables: &dyn kit::ReadTables| {
            Ok::<_, StoreError>((kit::saga::started(tables)?, kit::saga::open(tables)?))
        };
        let sagas = self.stores.order.read_with(sagas);
        let (sagas_started, sagas_open) = sagas.expect("a store in memory can be read");
        let depth = |store| outbox::depth(store).expect("a store in memory can be read");
        let calls = self.gateway.open_calls() + self.carrier.open_calls() + self.mail.open_calls();
        Progress {
            workload_sent: self.desk.all_sent(&self.plan),
            sagas_started,
            sagas_open,
            outbox_rows: self.stores.all().iter().map(|(_, store)| depth(*store)).sum(),
            calls_open: calls as u64 + self.mirror.calls_open(),
        }
    }
}

impl Settings {
    fn of(setup: &Setup<'_>, plan: &Plan) -> Settings {
        let settings = |service: &str| &setup.scenario.services[service];
        let kit = |service: &str| kit_config(settings(service));
        let timing = settings("order").step_timeout.map(order::saga::Timing::all).unwrap_or_default();
        let defects = order::Defect::ALL.into_iter();
        let defects =
            defects.filter(|defect| settings("order").naive.iter().any(|name| name == defect.name()));
        Settings {
            order: order::Config {
                service: kit("order"),
                timing,
                defects: defects.collect(),
                ..order::Config::default()
            },
            payment: payment::Config { service: kit("payment"), ..payment::Config::default() },
            inventory: inventory::Config {
                service: kit("inventory"),
                initial_stock: plan.initial_stock.clone(),
                ..inventory::Config::default()
            },
            notification: notification::Config {
                service: kit("notification"),
                ..notification::Config::default()
            },
            shipping: shipping::Config { service: kit("shipping"), ..shipping::Config::default() },
            analytics: kit("analytics"),
        }
    }
}

/// The kit's part of a service's settings. Names of defects were checked when the scenario was read; those that are not
/// the kit's are the service's own.
fn kit_config(settings: &ServiceSettings) -> ServiceConfig {
    let switches = NaiveSwitch::ALL.into_iter();
    let on = switches.filter(|switch| settings.naive.iter().any(|name| name == switch.name()));
    ServiceConfig { naive: on.fold(Naive::none(), Naive::with), ..ServiceConfig::default() }
}
