//! `[expect]`: what must hold, and whether the file leaves time for it.

use std::time::Duration;

use crate::scenario::diagnostic::{Invalid, did_you_mean, listed};
use crate::scenario::table::{Table, Value};
use crate::scenario::{Bound, Cluster, Comparison, Expect, Fault, FaultKind, Statistic, Vocabulary, values};

/// Long enough for every timeout that the six services wait out by default; a claim about recovery names its own.
const RECOVERS_WITHIN: Duration = Duration::from_secs(120);

const KEYS: &[&str] = &[
    "saga_success_rate",
    "completed_sagas",
    "compensated_sagas",
    "stuck_sagas",
    "exactly_once",
    "recovers_within",
    "breaks",
    "may_break",
    "order_latency_mean",
    "order_latency_p50",
    "order_latency_p95",
    "order_latency_p99",
    "order_latency_max",
    "saga_duration_mean",
    "saga_duration_p50",
    "saga_duration_p95",
    "saga_duration_p99",
    "saga_duration_max",
];

pub(super) fn read(
    top: &Table<'_>,
    faults: &[Fault],
    cluster: &Cluster,
    vocabulary: &Vocabulary,
) -> Result<Expect, Invalid> {
    let waits = Waits::of(faults, cluster, vocabulary);
    let mut expect = Expect {
        saga_success_rate: None,
        completed_sagas: None,
        compensated_sagas: None,
        stuck_sagas: 0,
        order_latency: Default::default(),
        saga_duration: Default::default(),
        exactly_once: true,
        recovers_within: RECOVERS_WITHIN.max(waits.longest() * 2),
        breaks: Vec::new(),
        may_break: Vec::new(),
    };
    let Some(section) = top.get("expect") else { return Ok(expect) };
    let section = section.table("`[expect]`", KEYS, &[], "[expect]")?;
    if let Some(rate) = section.get("saga_success_rate") {
        const EXAMPLE: &str = "saga_success_rate = \">= 95%\"";
        expect.saga_success_rate =
            Some(rate.parse(EXAMPLE, |text| values::bound(text, EXAMPLE, values::percent))?);
    }
    expect.completed_sagas = section.get("completed_sagas").map(|value| number(&value)).transpose()?;
    expect.compensated_sagas = section.get("compensated_sagas").map(|value| number(&value)).transpose()?;
    if let Some(stuck) = section.get("stuck_sagas") {
        expect.stuck_sagas = u64::from(stuck.whole(0..=1_000_000)?);
    }
    for statistic in Statistic::ALL {
        if let Some(value) = section.get(&format!("order_latency_{statistic}")) {
            expect.order_latency.insert(statistic, time(&value)?);
        }
        if let Some(value) = section.get(&format!("saga_duration_{statistic}")) {
            expect.saga_duration.insert(statistic, time(&value)?);
        }
    }
    if let Some(once) = section.get("exactly_once") {
        expect.exactly_once = once.boolean()?;
    }
    if let Some(within) = section.get("recovers_within") {
        expect.recovers_within = recovery(&within, &waits)?;
    }
    if let Some(check) = section.get("breaks") {
        expect.breaks = checks_that_run(&check, &expect, vocabulary)?;
    }
    if let Some(check) = section.get("may_break") {
        expect.may_break = checks_that_run(&check, &expect, vocabulary)?;
        if expect.breaks.is_empty() {
            let help = "a claim that holds has no check that may break; name in `breaks` the one that must";
            return Err(Invalid::new(check.span(), "nothing breaks here", "beside what?").help(help));
        }
        if let Some(name) = expect.may_break.iter().find(|name| expect.breaks.contains(name)) {
            let says = format!("`{name}` is in `breaks` as well");
            return Err(Invalid::new(check.span(), says, "it must break, and need not be let"));
        }
    }
    Ok(expect)
}

/// Checks of a list, which `exactly_once` does not leave out.
fn checks_that_run(
    value: &Value<'_>,
    expect: &Expect,
    vocabulary: &Vocabulary,
) -> Result<Vec<String>, Invalid> {
    let checks = known_checks(value, vocabulary)?;
    let runs = |name: &String| expect.exactly_once || !vocabulary.exactly_once_checks.contains(name);
    if let Some(name) = checks.iter().find(|name| !runs(name)) {
        let says = format!("`{name}` never breaks here: `exactly_once = false` leaves it out");
        let help = "leave `exactly_once` out, and the check runs";
        return Err(Invalid::new(value.span(), says, "this check does not run").help(help));
    }
    Ok(checks)
}

/// `9` or `"<= 9"`.
fn number(value: &Value<'_>) -> Result<Bound<u64>, Invalid> {
    if value.integer().is_some() {
        let limit = u64::from(value.whole(0..=1_000_000)?);
        return Ok(Bound { comparison: Comparison::Equal, limit });
    }
    let example = format!("{} = \">= 9\"", value.key);
    value.parse(&example, |text| values::bound(text, &example, values::count))
}

fn time(value: &Value<'_>) -> Result<Bound<Duration>, Invalid> {
    let example = format!("{} = \"<= 15s\"", value.key);
    value.parse(&example, |text| values::bound(text, &example, values::duration))
}

/// One check, or a list of several.
fn known_checks(value: &Value<'_>, vocabulary: &Vocabulary) -> Result<Vec<String>, Invalid> {
    const EXAMPLE: &str = "breaks = \"no_acknowledged_loss\"";
    let names = || vocabulary.checks.iter().map(String::as_str);
    let asked = match value.is_list() {
        true => value.strings("breaks = [\"no_acknowledged_loss\", \"one_offset_one_value\"]")?,
        false => vec![(value.string(EXAMPLE)?, value.span())],
    };
    let mut known: Vec<String> = Vec::new();
    for (name, span) in asked {
        if !names().any(|check| check == name) {
            let says = format!("there is no check `{name}`");
            let invalid = Invalid::new(span, says, did_you_mean(name, names()));
            return Err(invalid.help(format!("the checks are {}", listed(names()))));
        }
        if known.iter().any(|other| other == name) {
            return Err(Invalid::new(span, format!("`{name}` is named twice"), "one too many"));
        }
        known.push(name.to_owned());
    }
    Ok(known)
}

fn recovery(value: &Value<'_>, waits: &Waits) -> Result<Duration, Invalid> {
    let within = value.parse("recovers_within = \"60s\"", values::duration)?;
    for (setting, wait, line) in &waits.0 {
        if within < *wait {
            let says = format!(
                "`recovers_within` is {within:?}, but the fault in line {line} is noticed only after {wait:?}"
            );
            let invalid = Invalid::new(value.span(), says, format!("shorter than `{setting}`"));
            return Err(invalid.help(format!("allow more than {wait:?}: nobody can recover before noticing")));
        }
    }
    Ok(within)
}

/// The timeouts that must run out before the system can notice a fault that is already healed: setting, time, line.
///
/// Only a crash leaves one: the coordinator keeps a dead consumer's partitions until its session is over, although a
/// new one is there, and the controller a dead broker's until its session is. What was paused or cut off goes on.
struct Waits(Vec<(&'static str, Duration, usize)>);

impl Waits {
    fn of(faults: &[Fault], cluster: &Cluster, vocabulary: &Vocabulary) -> Waits {
        const BROKER: &str = "broker.session.timeout.ms";
        // The controller's word counts: it ends sessions.
        let (settings, _) = cluster.settings();
        let broker = Duration::from_millis(u64::from(settings.broker_session_timeout_ms.unsigned_abs()));
        let consumer = vocabulary.consumer_session_timeout;
        let mut waits = Vec::new();
        for fault in faults {
            let of_host = |host: &String| match host.starts_with("broker-") {
                true => (BROKER, broker, fault.line),
                false => ("session.timeout.ms", consumer, fault.line),
            };
            match &fault.kind {
                FaultKind::CrashBroker { .. } => waits.push((BROKER, broker, fault.line)),
                // Clean or not: a broker that does not end when it is asked to is killed.
                FaultKind::CrashService { hosts, .. } | FaultKind::RollingRestart { hosts, .. } => {
                    waits.extend(hosts.iter().map(of_host));
                }
                FaultKind::CrashController { .. }
                | FaultKind::CrashOutside { .. }
                | FaultKind::Pause { .. }
                | FaultKind::Partition { .. }
                | FaultKind::Hold { .. }
                | FaultKind::Latency { .. }
                | FaultKind::DuplicateRecords { .. } => {}
            }
        }
        Waits(waits)
    }

    fn longest(&self) -> Duration {
        self.0.iter().map(|(_, wait, _)| *wait).max().unwrap_or_default()
    }
}
