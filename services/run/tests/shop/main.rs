//! The shop as it runs on somebody's machine: nine processes, real sockets, stores in files, SIGKILL and SIGTERM.
//!
//! Against the simulated Kafka on loopback (the cores and the shell of `shakedown serve`), and against real Kafka where there is
//! some. What must hold is said by `services audit`: ledgers, stock, notices and read models agree to the unit.

#![expect(clippy::disallowed_methods, reason = "real processes, files, ports and time")]

mod shop;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use broker::{Broker as _, Properties};
use client::WireBroker;
use cluster::{RealKafka, Shared, Spec, trials};
use context::Seed;
use context::real::RealHost;
use kafka::loopback::{Loopback, own_address};
use kafka::{Cluster, ClusterConfig};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use shakedown_services::Part;
use shop::Shop;

/// What goes through.
const ORDERS: u32 = 1_000;
/// Of them, so many are refused, each for a reason of its own.
const REFUSED: [(&str, u32); 3] = [("--declined", 20), ("--sold-out", 15), ("--unserved", 10)];
/// Between two kills. The orders take a little longer than all kills do.
const KILL_EVERY: Duration = Duration::from_millis(1_000);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has nine processes of its own.
    arguments.test_threads = Some(1);
    let real = Arc::new(Shared::new(Spec::for_tests(3)));
    let trials = vec![
        Trial::test("what_cannot_run_says_why", what_cannot_run_says_why),
        Trial::test("served::a_thousand_orders_survive_a_kill_of_each_part", || {
            let kafka = Served::start(21_000);
            a_thousand_orders_survive_a_kill_of_each_part(&kafka.bootstrap, 22_000)
        }),
        Trial::test("served::a_service_that_is_told_to_end_leaves_at_once_and_loses_nothing", || {
            let kafka = Served::start(21_100);
            a_service_that_is_told_to_end_leaves_at_once_and_loses_nothing(&kafka.bootstrap, 22_100)
        }),
        Trial::test("served::one_process_is_the_whole_shop_and_ends_in_order_under_load", || {
            let kafka = Served::start(21_200);
            one_process_is_the_whole_shop_and_ends_in_order_under_load(&kafka.bootstrap, 22_400)
        }),
        Trial::test("served::a_service_whose_kafka_is_gone_lives_and_is_not_ready", || {
            a_service_whose_kafka_is_gone_lives_and_is_not_ready(Served::start(21_300), 22_500)
        }),
        trials::trial("real::a_thousand_orders_survive_a_kill_of_each_part", &real, |kafka| {
            of_ours(kafka, |kafka| a_thousand_orders_survive_a_kill_of_each_part(kafka, 22_200))
        }),
        // After the one before, whose topics it finds, with nothing left to do in them.
        trials::trial(
            "real::a_service_that_is_told_to_end_leaves_at_once_and_loses_nothing",
            &real,
            |kafka| {
                of_ours(kafka, |kafka| {
                    a_service_that_is_told_to_end_leaves_at_once_and_loses_nothing(kafka, 22_600)
                })
            },
        ),
    ];
    trials::run(&arguments, trials, real)
}

/// On a cluster that this test started: names of topics and groups are the shop's own.
fn of_ours(kafka: &RealKafka, trial: impl FnOnce(&str) -> Result<(), Failed>) -> Result<Completion, Failed> {
    if !kafka.is_ours() {
        return Ok(Completion::ignored_with("the given Kafka may have the topics of another shop"));
    }
    trial(&kafka.bootstrap_servers()).map(|()| Completion::Completed)
}

/// The simulated Kafka on sockets of this process.
struct Served {
    bootstrap: String,
    nodes: Option<Loopback>,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(first_port: u16) -> Served {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let config = ClusterConfig::simulated(3).at(own_address(), first_port);
        let config = config.with("group.initial.rebalance.delay.ms", 0);
        let cluster = Cluster::new(config).expect("the configuration is sound");
        let bootstrap = cluster.bootstrap_servers();
        let nodes = runtime.block_on(async { Loopback::start(cluster, Seed(1)) });
        Served { bootstrap, nodes: Some(nodes), runtime }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let nodes = self.nodes.take().expect("it is dropped once");
        self.runtime.block_on(nodes.kill_all());
    }
}

fn a_thousand_orders_survive_a_kill_of_each_part(bootstrap: &str, first_port: u16) -> Result<(), Failed> {
    // Long steps: a killed service is away for a session, and no saga shall give up because of it.
    let mut shop = Shop::open(
        bootstrap,
        first_port,
        "step_timeout = \"5m\"\n[consumer]\n\"session.timeout.ms\" = 6000\n",
    );
    shop.start_all()?;
    let began = Instant::now();
    let orders = ORDERS.to_string();
    let mut place = vec!["place", &orders, "--per-second", "100"];
    let refused = REFUSED.map(|(flag, count)| (flag, count.to_string()));
    for (flag, count) in &refused {
        place.extend([*flag, count]);
    }
    let customers = shop.begin(&place);
    for part in Part::all() {
        sleep(KILL_EVERY);
        shop.kill(part)?;
        shop.start(part);
    }
    customers.must_succeed()?;
    let placed = began.elapsed();
    shop.command(&["settle", "--orders", &orders, "--within", "3m"]).must_succeed()?;
    println!("{ORDERS} orders placed in {placed:.1?}, all at rest after {:.1?}", began.elapsed());
    shop.end_all()?;
    let books = shop.command(&["audit", "--orders", &orders]).must_succeed()?;
    let cancelled: u32 = REFUSED.iter().map(|(_, count)| count).sum();
    let expected = format!("orders     {ORDERS}: {} confirmed, {cancelled} cancelled", ORDERS - cancelled);
    assert!(books.contains(&expected), "{expected}, but:\n{books}");
    Ok(())
}

fn a_service_that_is_told_to_end_leaves_at_once_and_loses_nothing(
    bootstrap: &str,
    first_port: u16,
) -> Result<(), Failed> {
    // A session that nobody left would keep its member, and hold up its successor, for longer than all of this takes.
    let settings = "step_timeout = \"10m\"\n[consumer]\n\"session.timeout.ms\" = 300000\n";
    let mut shop = Shop::open(bootstrap, first_port, settings);
    shop.start_all()?;
    let customers = shop.begin(&["place", "400", "--per-second", "80"]);
    for (part, groups) in GROUPS {
        sleep(Duration::from_millis(500));
        shop.end(part)?;
        for group in groups {
            assert_eq!(members(bootstrap, group), 0, "{part} has ended, and is still in {group}");
        }
        assert_eq!(shop.outbox(part), 0, "{part} has ended, and has something left to say");
        shop.start(part);
        shop.until(part, "/health/ready", 200)?;
    }
    customers.must_succeed()?;
    shop.command(&["settle", "--orders", "400", "--within", "2m"]).must_succeed()?;
    shop.end_all()?;
    shop.command(&["audit", "--orders", "400"]).must_succeed()?;
    Ok(())
}

/// The outside systems end last: messages in work call them.
fn one_process_is_the_whole_shop_and_ends_in_order_under_load(
    bootstrap: &str,
    first_port: u16,
) -> Result<(), Failed> {
    let mut shop = Shop::open(bootstrap, first_port, "step_timeout = \"10m\"\n");
    for round in 0..2 {
        shop.start_as(Part::Order, &["all", "outside"]);
        Part::SERVICES.into_iter().try_for_each(|part| shop.until(part, "/health/ready", 200))?;
        if round == 0 {
            let customers = shop.begin(&["place", "300", "--per-second", "150"]);
            // The end may come at any moment; the span only makes it likely that orders are under way, half of them yet to come.
            sleep(Duration::from_secs(1));
            shop.end(Part::Order)?;
            assert!(!shop.logged(Part::Order).contains("closes with"), "something was left in work");
            customers.must_succeed()?;
        }
    }
    shop.command(&["settle", "--orders", "300", "--within", "2m"]).must_succeed()?;
    shop.end_all()?;
    shop.command(&["audit", "--orders", "300"]).must_succeed()?;
    Ok(())
}

fn a_service_whose_kafka_is_gone_lives_and_is_not_ready(
    kafka: Served,
    first_port: u16,
) -> Result<(), Failed> {
    let mut shop = Shop::open(&kafka.bootstrap, first_port, "");
    shop.start(Part::Analytics);
    shop.until(Part::Analytics, "/health/ready", 200)?;
    drop(kafka);
    shop.until(Part::Analytics, "/health/ready", 503)?;
    shop.until(Part::Analytics, "/health/live", 200)
}

/// The groups of each service.
const GROUPS: [(Part, &[&str]); 6] = [
    (Part::Order, &[order::GROUP, order::VIEW_GROUP]),
    (Part::Payment, &[payment::GROUP]),
    (Part::Inventory, &[inventory::GROUP]),
    (Part::Notification, &[notification::GROUP]),
    (Part::Shipping, &[shipping::GROUP]),
    (Part::Analytics, &[analytics::GROUP]),
];

/// How many members a group has.
fn members(bootstrap: &str, group: &str) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let context = RealHost::new("tester", Seed(7)).into_context();
        let broker = WireBroker::new(context, Properties::new().set("bootstrap.servers", bootstrap));
        let admin = broker.admin(&Properties::new()).await.expect("an admin client");
        let described = admin.describe_groups(&[group]).await.expect("its coordinator answers");
        described[0].members.len()
    })
}

fn what_cannot_run_says_why() -> Result<(), Failed> {
    let nobody = format!("{}:1", own_address());
    let mut shop = Shop::open(&nobody, 22_300, "");
    shop.start(Part::Gateway);
    shop.until(Part::Gateway, "/charges/none", 404)?;

    let refused = shop.command(&["run", "gateway"]).must_fail(69);
    assert!(refused.contains("gateway.redb` is open already: a file belongs to one process"), "{refused}");
    let refused = shop.with("SERVICES_DATA", "elsewhere").command(&["run", "gateway"]).must_fail(69);
    assert!(refused.contains("gateway cannot listen on"), "{refused}");
    let refused = shop.with("SERVICES_DTA", "elsewhere").command(&["run", "gateway"]).must_fail(78);
    assert!(refused.contains("`SERVICES_DTA` in the environment; did you mean `data`?"), "{refused}");
    let refused = shop.with("SERVICES_KAFKA_NO_SUCH_THING", "1").command(&["run", "order"]).must_fail(69);
    assert!(refused.contains("no.such.thing"), "{refused}");
    let refused = shop.command(&["audit"]).must_fail(69);
    assert!(refused.contains("there is no store"), "{refused}");
    shop.command(&["run", "everything"]).must_fail(2);

    // Without Kafka a service lives and waits, and ends when it is told to.
    shop.start(Part::Payment);
    shop.until(Part::Payment, "/health/live", 200)?;
    shop.until(Part::Payment, "/health/ready", 503)?;
    shop.end(Part::Payment)?;
    shop.end(Part::Gateway)
}
