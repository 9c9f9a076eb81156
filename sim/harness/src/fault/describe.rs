//! Faults in a few words, the same on every seed.

use std::time::Duration;

use crate::scenario::{BrokerChoice, ELECTION, Fault, FaultKind};

/// `crash_broker broker-1 for 12s`.
pub(super) fn describe(fault: &Fault) -> String {
    let lasts = span(fault.lasts);
    let power = |power_loss: &bool| if *power_loss { " by power loss" } else { "" };
    let what = match &fault.kind {
        FaultKind::CrashBroker { broker, power_loss } => format!("{}{}", choice(broker), power(power_loss)),
        FaultKind::RollingRestart { hosts, gap, power_loss, clean } => {
            let (hosts, gap) = (names(hosts), span(*gap));
            let how = if *clean { ", asked to end" } else { power(power_loss) };
            return format!("{} {hosts}{how}, each for {lasts}, {gap} apart", fault.kind.word());
        }
        FaultKind::CrashService { hosts, power_loss } => format!("{}{}", names(hosts), power(power_loss)),
        FaultKind::CrashController { is_drawn: true } => {
            let (shortest, longest) = (span(*ELECTION.start()), span(*ELECTION.end()));
            return format!("{} for {shortest} to {longest}", fault.kind.word());
        }
        FaultKind::CrashController { is_drawn: false } => {
            return format!("{} for {lasts}", fault.kind.word());
        }
        FaultKind::CrashOutside { system } => system.clone(),
        FaultKind::Pause { host } => host.clone(),
        FaultKind::Partition { between, and, one_way } => {
            let arrow = if *one_way { "->" } else { "<->" };
            format!("{} {arrow} {}", names(between), names(and))
        }
        FaultKind::Hold { from, to } => format!("{} -> {}", names(from), names(to)),
        FaultKind::Latency { between, and, range } => {
            let (min, max) = (span(range.min), span(range.max));
            format!("{} <-> {} at {min}..{max}", names(between), names(and))
        }
        FaultKind::DuplicateRecords { topic, probability_ppm } => {
            format!("{topic} with a chance of {} %", f64::from(*probability_ppm) / 10_000.0)
        }
    };
    format!("{} {what} for {lasts}", fault.kind.word())
}

fn choice(broker: &BrokerChoice) -> String {
    match broker {
        BrokerChoice::Number(number) => format!("broker-{number}"),
        BrokerChoice::LeaderOf { topic, partition } => format!("leader of {topic}/{partition}"),
    }
}

/// The hosts, or how many more there are than fit on a line.
fn names(hosts: &[String]) -> String {
    match hosts {
        [first, second, third, fourth, rest @ ..] if !rest.is_empty() => {
            format!("{first}, {second}, {third}, {fourth} and {} more", rest.len())
        }
        hosts => hosts.join(", "),
    }
}

/// In the unit that a scenario file would take.
pub(super) fn span(span: Duration) -> String {
    match span.as_millis() {
        millis if millis % 1_000 == 0 => format!("{}s", millis / 1_000),
        millis => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Start;
    use world::LatencyRange;

    fn described(kind: FaultKind) -> String {
        let lasts = Duration::from_millis(1_500);
        describe(&Fault { line: 1, start: Start::At(Duration::ZERO), lasts, kind })
    }

    fn hosts(count: usize) -> Vec<String> {
        (1..=count).map(|number| format!("h-{number}")).collect()
    }

    #[test]
    fn a_fault_is_told_in_a_few_words() {
        let leader = BrokerChoice::LeaderOf { topic: "t".into(), partition: 3 };
        let crash = FaultKind::CrashBroker { broker: leader, power_loss: true };
        assert_eq!(described(crash), "crash_broker leader of t/3 by power loss for 1500ms");
        let partition = FaultKind::Partition { between: hosts(2), and: hosts(6), one_way: true };
        assert_eq!(described(partition), "partition h-1, h-2 -> h-1, h-2, h-3, h-4 and 2 more for 1500ms");
        let slow =
            FaultKind::Latency { between: hosts(1), and: hosts(1), range: LatencyRange::millis(10, 2_000) };
        assert_eq!(described(slow), "latency h-1 <-> h-1 at 10ms..2s for 1500ms");
        let copies = FaultKind::DuplicateRecords { topic: "t".into(), probability_ppm: 2_500 };
        assert_eq!(described(copies), "duplicate_records t with a chance of 0.25 % for 1500ms");
        let rolling = |power_loss, clean| {
            let (hosts, gap) = (hosts(2), Duration::from_secs(3));
            described(FaultKind::RollingRestart { hosts, gap, power_loss, clean })
        };
        assert_eq!(rolling(false, false), "rolling_restart h-1, h-2, each for 1500ms, 3s apart");
        assert_eq!(rolling(false, true), "rolling_restart h-1, h-2, asked to end, each for 1500ms, 3s apart");
        assert_eq!(rolling(true, false), "rolling_restart h-1, h-2 by power loss, each for 1500ms, 3s apart");
        let controller = |is_drawn| described(FaultKind::CrashController { is_drawn });
        assert_eq!(controller(false), "crash_controller for 1500ms");
        assert_eq!(controller(true), "crash_controller for 2s to 5s");
    }
}
