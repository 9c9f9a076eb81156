//! Who spent how much processor time, as Linux counts it for processes.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{AddAssign, Sub};
use std::time::Duration;

/// Processor time of everybody who takes part.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    /// The six services.
    pub(crate) services: Duration,
    /// Gateway, carrier and mail provider.
    pub(crate) outside: Duration,
    /// Kafka: this process, where it is the simulated one; the other processes that it has started, where it is real.
    pub(crate) kafka: Duration,
    /// The customers, who have ended.
    pub(crate) customers: Duration,
}

impl Spent {
    /// So far. `services` and `outside` are processes; the customers' was waited for.
    ///
    /// # Panics
    /// Without `/proc`.
    pub(crate) fn so_far(services: u32, outside: u32) -> Spent {
        let all = processes();
        let own = std::process::id();
        let kafka = all.keys().filter(|pid| ![services, outside].contains(pid) && is_of(&all, **pid, own));
        Spent {
            services: all[&services].spent,
            outside: all[&outside].spent,
            kafka: kafka.map(|pid| all[pid].spent).sum(),
            customers: all[&own].by_children,
        }
    }

    /// All of it.
    pub(crate) fn total(self) -> Duration {
        self.services + self.outside + self.kafka + self.customers
    }
}

impl Sub for Spent {
    type Output = Spent;

    fn sub(self, before: Spent) -> Spent {
        Spent {
            services: self.services - before.services,
            outside: self.outside - before.outside,
            kafka: self.kafka - before.kafka,
            customers: self.customers - before.customers,
        }
    }
}

impl AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.services += more.services;
        self.outside += more.outside;
        self.kafka += more.kafka;
        self.customers += more.customers;
    }
}

struct Process {
    parent: u32,
    spent: Duration,
    by_children: Duration,
}

/// Whether `pid` is `ancestor`, or was started by it or by one that was.
fn is_of(all: &BTreeMap<u32, Process>, mut pid: u32, ancestor: u32) -> bool {
    while pid != ancestor {
        match all.get(&pid) {
            Some(process) => pid = process.parent,
            None => return false,
        }
    }
    true
}

fn processes() -> BTreeMap<u32, Process> {
    let tick =
        Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("a rate");
    let process = |pid: u32| {
        // One that has ended meanwhile has no file any more.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Its name, in brackets, may hold anything; from there on there are numbers.
        let numbers: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |at: usize| tick * numbers[at].parse::<u32>().expect("ticks are a number");
        let parent = numbers[1].parse().expect("a process has a parent");
        Some((pid, Process { parent, spent: ticks(11) + ticks(12), by_children: ticks(13) + ticks(14) }))
    };
    let pids = fs::read_dir("/proc")
        .expect("this is Linux")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(process).collect()
}
