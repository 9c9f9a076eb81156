//! The life of a program: stores and ports first, then Kafka, then work, and an end in order.
//!
//! # The start
//! What is missing on this machine (a folder, a port, a store that another process has) ends the program at once. Kafka it waits
//! for, so that all can be started together.
//!
//! # The end
//! The first SIGINT or SIGTERM closes each service in order: no new messages, those in work come to their end, offsets are
//! committed and the groups left (so that others need not wait for a session to time out), the outbox is emptied, the store is
//! closed. A second signal ends the process where it stands, which loses nothing either: it is a crash. An outside system
//! just ends: what it answered is in its journal, and who had no answer asks again.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use broker::{Broker, Properties};
use context::real::RealHost;
use context::{Context, Seed, Task};
use futures_util::future::{FutureExt as _, join_all, select_all};
use kit::store::{RedbStore, Survives};
use kit::{Service, ServiceConfig, ServiceHandle, Store};
use outside::{Carrier, Gateway, Ledger, Mail, Provider};

use crate::monitor::Monitor;
use crate::part::Part;
use crate::signals::Signals;
use crate::{Config, exit, log, topics};

/// Runs `parts` until a signal; gives the exit code.
pub(crate) async fn run(config: &Config, parts: &[Part]) -> u8 {
    // Before anything takes time, so that no signal is missed.
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return exit::complain(&error, exit::UNAVAILABLE),
    };
    let opened: Result<Vec<Opened>, String> = data_folder(config)
        .map_err(|error| format!("the data folder `{}` cannot be had: {error}", config.data.display()))
        .and_then(|()| parts.iter().map(|part| Opened::open(config, *part)).collect());
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return exit::complain(&error, exit::UNAVAILABLE),
    };
    // All at once, so that each can be asked for its health while it waits for Kafka.
    let mut running: Vec<Running> = opened.into_iter().map(Running::new).collect();
    let ended = tokio::select! {
        number = signals.next() => {
            tracing::info!("signal {number}: closes");
            None
        }
        (ended, ..) = select_all(running.iter_mut().map(|running| running.live(config).boxed())) => Some(ended),
    };
    let code = stop(running, &mut signals).await;
    match ended {
        None => code,
        Some((why, code)) => exit::complain(&why, code),
    }
}

/// The data folder, which is there after a power loss when its parent says so on the disk.
fn data_folder(config: &Config) -> io::Result<()> {
    fs::create_dir_all(&config.data)?;
    match config.data.canonicalize()?.parent() {
        Some(parent) if config.survives == Survives::PowerLoss => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// A part that has its store and its port.
struct Opened {
    part: Part,
    store: RedbStore,
    context: Context,
    host: Arc<RealHost>,
}

impl Opened {
    fn open(config: &Config, part: Part) -> Result<Opened, String> {
        let store = RedbStore::open(part.name(), config.store(part), config.survives)
            .map_err(|error| error.to_string())?;
        let port = config.ports[&part];
        let at = (config.host.as_str(), port);
        let listener = TcpListener::bind(at)
            .map_err(|error| format!("{part} cannot listen on {}:{port}: {error}", config.host))?;
        // By name and start, so that two parts of one process draw apart, and a restart makes no id again.
        let Seed(seed) = crate::seed()?;
        let host = RealHost::new(part.name(), Seed(seed).child(part.name()))
            .bind_to(&config.host)
            .with_recorder(Arc::new(log::Recorder))
            .with_listener(listener)
            .map_err(|error| error.to_string())?;
        let (context, host) = host.start();
        Ok(Opened { part, store, context, host })
    }
}

/// A part from its start to its end.
struct Running {
    part: Part,
    store: RedbStore,
    context: Context,
    host: Arc<RealHost>,
    /// What it does, while it does it.
    work: Option<Task<()>>,
    service: Option<ServiceHandle>,
}

impl Running {
    fn new(Opened { part, store, context, host }: Opened) -> Running {
        Running { part, store, context, host, work: None, service: None }
    }

    /// Starts it and lets it live. Ends when it must not go on, with why and the exit code.
    async fn live(&mut self, config: &Config) -> (String, u8) {
        let (part, store) = (self.part, self.store.clone());
        let life = async {
            let started = match part {
                Part::Gateway => self.provide(config, Gateway::new()),
                Part::Carrier => self.provide(config, Carrier::new()),
                Part::Mail => self.provide(config, Mail::new()),
                _ => self.serve(config).await,
            };
            if let Err(error) = started {
                return (format!("{part}: {error}"), exit::UNAVAILABLE);
            }
            if let Some(work) = &mut self.work {
                work.await;
            }
            self.work = None;
            (format!("{part}: its work has ended by itself"), exit::WRONG)
        };
        tokio::select! {
            failure = store.failure() => (format!("{part}: {failure}"), exit::WRONG),
            ended = life => ended,
        }
    }

    fn provide<L: Ledger>(&mut self, config: &Config, ledger: L) -> Result<(), String> {
        let (part, port) = (self.part, config.ports[&self.part]);
        let provider = Provider::open(ledger, Arc::new(self.store.clone()));
        let provider = Arc::new(provider.map_err(|error| format!("its ledger: {error}"))?);
        let serving = provider.run_on(self.context.clone(), port);
        self.work = Some(self.context.spawn("provider", async move {
            if let Err(error) = serving.await {
                tracing::error!("{part}: {error}");
            }
        }));
        tracing::info!("{part}: serves on {}:{port}", config.host);
        Ok(())
    }

    /// Starts a service, which waits for Kafka here.
    async fn serve(&mut self, config: &Config) -> Result<(), String> {
        let (part, port) = (self.part, config.ports[&self.part]);
        let shared: Arc<dyn Store> = Arc::new(self.store.clone());
        let kafka = crate::broker(config, &self.context);
        let monitor = Arc::new(Monitor::new(shared.clone(), kafka.statistics()));
        let watching = kit::http::serve(self.context.clone(), port, monitor.clone());
        self.context.spawn("monitor", async move {
            if let Err(error) = watching.await {
                tracing::error!("{part}: nobody can ask for its health: {error}");
            }
        });
        topics::ensure(config, &self.context).await.map_err(|error| error.to_string())?;
        let admin = kafka.admin(&Properties::new()).await.map_err(|error| error.to_string())?;
        let replica = replica(part, config, &self.context, Arc::new(kafka), shared);
        let replica = replica.map_err(|error| error.to_string())?;
        let service = replica.handle();
        monitor.started(service.clone(), admin);
        self.service = Some(service);
        self.work = Some(self.context.spawn("service", replica.run()));
        tracing::info!("{part}: runs, health and metrics on {}:{port}", config.host);
        Ok(())
    }

    /// Closes it in order.
    async fn stop(mut self) {
        if let (Some(service), Some(work)) = (&self.service, self.work.take()) {
            service.close();
            // A panic of its own, which the log has, or the end.
            work.await;
        }
        self.host.stop().await;
        tracing::info!("{}: has ended", self.part);
    }
}

/// A service as it is configured.
fn replica(
    part: Part,
    config: &Config,
    context: &Context,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
) -> Result<Service, kit::StoreError> {
    let service = ServiceConfig {
        consumer: config.consumer.clone(),
        producer: config.producer.clone(),
        close_within: config.close_within,
        ..ServiceConfig::default()
    };
    let context = context.clone();
    let at = |part: Part| (config.outside[&part].host.clone(), config.outside[&part].port);
    Ok(match part {
        Part::Order => {
            let timing = order::saga::Timing::all(config.step_timeout);
            order::replica(context, broker, store, order::Config { service, timing, ..Default::default() })
        }
        Part::Payment => {
            let (gateway_host, gateway_port) = at(Part::Gateway);
            let config = payment::Config { service, gateway_host, gateway_port, ..Default::default() };
            payment::replica(context, broker, store, config)
        }
        Part::Inventory => {
            let initial_stock = config.stock.clone();
            let config = inventory::Config { service, initial_stock, ..Default::default() };
            inventory::open(&context, &*store, &config)?;
            inventory::replica(context, broker, store, config)
        }
        Part::Notification => {
            let (mail_host, mail_port) = at(Part::Mail);
            let config = notification::Config { service, mail_host, mail_port, ..Default::default() };
            notification::replica(context, broker, store, config)
        }
        Part::Shipping => {
            let (carrier_host, carrier_port) = at(Part::Carrier);
            let config = shipping::Config { service, carrier_host, carrier_port, ..Default::default() };
            shipping::replica(context, broker, store, config)
        }
        Part::Analytics => analytics::replica(context, broker, store, service),
        Part::Gateway | Part::Carrier | Part::Mail => unreachable!("{part} is no service"),
    })
}

/// Closes all: the services side by side, then the outside systems, whom messages in work may still call. A signal meanwhile
/// ends the process.
async fn stop(running: Vec<Running>, signals: &mut Signals) -> u8 {
    let (services, outside): (Vec<_>, Vec<_>) =
        running.into_iter().partition(|running| running.service.is_some());
    let closing = async {
        join_all(services.into_iter().map(Running::stop)).await;
        join_all(outside.into_iter().map(Running::stop)).await;
    };
    tokio::select! {
        () = closing => exit::DONE,
        number = signals.next() => {
            tracing::warn!("signal {number}: ends without waiting");
            128 + number
        }
    }
}
