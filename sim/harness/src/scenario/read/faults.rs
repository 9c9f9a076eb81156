//! `[[fault]]`: when, and exactly one of what.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use toml::de::DeTable;

use crate::scenario::diagnostic::{Invalid, did_you_mean, listed, position};
use crate::scenario::hosts::Hosts;
use crate::scenario::table::{Table, Value};
use crate::scenario::{
    BrokerChoice, Cluster, ELECTION, Fault, FaultKind, ServiceSettings, Start, Vocabulary, values,
};

/// What the words of a fault must match.
pub(super) struct World<'s> {
    pub(super) cluster: &'s Cluster,
    pub(super) services: &'s BTreeMap<String, ServiceSettings>,
    pub(super) hosts: &'s Hosts,
    pub(super) topics: &'s [String],
    pub(super) vocabulary: &'s Vocabulary,
}

const TIMES: [&str; 3] = ["at", "during", "every"];

pub(super) fn read(top: &Table<'_>, text: &str, world: &World<'_>) -> Result<Vec<Fault>, Invalid> {
    let Some(faults) = top.get("fault") else { return Ok(Vec::new()) };
    let tables = faults.tables("[[fault]]")?;
    tables.into_iter().map(|(entries, span)| fault(entries, span, text, world)).collect()
}

fn fault(entries: &DeTable<'_>, span: Range<usize>, text: &str, world: &World<'_>) -> Result<Fault, Invalid> {
    let line = position(text, span.start).0;
    let words = FaultKind::WORDS.iter().map(|(word, _)| *word);
    let known: Vec<&str> = TIMES.into_iter().chain(words.clone()).collect();
    let table = Table::new("a fault", entries, span, &known, &[])?;
    let what: Vec<Value<'_>> =
        table.entries().into_iter().filter(|entry| !TIMES.contains(&entry.key)).collect();
    let (first, more) = match what.as_slice() {
        [] => {
            let invalid = Invalid::new(table.span(), "this fault does nothing", "what happens is missing");
            return Err(invalid.help(format!("add one of {}", listed(words))));
        }
        [first, more @ ..] => (first, more),
    };
    if let Some(second) = more.first() {
        let says = format!("this fault is both `{}` and `{}`", first.key, second.key);
        let invalid = Invalid::new(second.key_span(), says, "a second kind in one fault");
        return Err(invalid.help("write a `[[fault]]` for each"));
    }
    let (kind, length) = kind(first, world)?;
    let (start, lasts) = times(&table, first, length)?;
    Ok(Fault { line, start, lasts, kind })
}

/// How long a fault lasts, as far as its own table says.
enum Length {
    /// So long.
    Own(Duration),
    /// As long as its `during`: only where a length may be left out.
    Window,
}

fn times(table: &Table<'_>, what: &Value<'_>, length: Length) -> Result<(Start, Duration), Invalid> {
    let (at, during, every) = (table.get("at"), table.get("during"), table.get("every"));
    let (start, window) = match (at, during) {
        (None, None) => {
            let invalid = Invalid::new(table.span(), "this fault has no time", "`at` or `during` is missing");
            return Err(invalid.help("add `at = \"5s\"` or `during = \"2s..20s\"`"));
        }
        (Some(_), Some(during)) => {
            let says = "this fault has both `at` and `during`";
            let help = "`at` is a moment; `during` is a window from which the seed draws one";
            return Err(Invalid::new(during.key_span(), says, "one too many").help(help));
        }
        (Some(at), None) => (Start::At(at.parse("at = \"5s\"", values::duration)?), None),
        (None, Some(during)) => {
            let span = during.parse("during = \"2s..20s\"", values::span)?;
            let (from, to) = span.into_inner();
            (Start::Within { from, to }, Some((from, to)))
        }
    };
    let lasts = match (length, window) {
        (Length::Own(lasts), _) => lasts,
        (Length::Window, Some((from, to))) => {
            if let Some(every) = every {
                let says =
                    format!("`{}` goes on for the whole of `during`, so that `every` says nothing", what.key);
                let invalid = Invalid::new(every.key_span(), says, "every so often, but for how long?");
                return Err(invalid.help(format!("add `for = \"1s\"` to `{}`", what.key)));
            }
            return Ok((Start::At(from), to - from));
        }
        (Length::Window, None) => {
            let says = format!("`{}` has a beginning, but no end", what.key);
            let invalid = Invalid::new(what.key_span(), says, "how long does it last?");
            return Err(invalid.help("give it a window, `during = \"2s..20s\"`, or a length, `for = \"5s\"`"));
        }
    };
    let Some(every) = every else { return Ok((start, lasts)) };
    let Some((from, to)) = window else {
        let says = "`every` repeats a fault within a window, and this one has none";
        return Err(Invalid::new(every.key_span(), says, "`during` is missing")
            .help("write `during` instead of `at`"));
    };
    let period = every.parse("every = \"5s\"", values::duration)?;
    if period <= lasts {
        let says = format!("this fault would begin again after {period:?}, but lasts {lasts:?}");
        return Err(
            Invalid::new(every.span(), says, "too often").help("raise `every`, or let each last less")
        );
    }
    Ok((Start::Every { from, to, every: period }, lasts))
}

fn kind(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    match what.key {
        "crash_broker" => crash_broker(what, world),
        "crash_controller" => crash_controller(what),
        "rolling_restart" => rolling_restart(what, world),
        "crash_service" => crash_service(what, world),
        "crash_outside" => crash_outside(what, world),
        "pause" => pause(what, world),
        "partition" => partition(what, world),
        "hold" => hold(what, world),
        "latency" => latency(what, world),
        "duplicate_records" => duplicate_records(what, world),
        other => unreachable!("the fault `{other}` is listed among the words but has no grammar"),
    }
}

fn crash_broker(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "crash_broker = { broker = 1, down_for = \"12s\" }";
    let table =
        what.table("`crash_broker`", &["broker", "leader_of", "down_for", "power_loss"], &[], EXAMPLE)?;
    let broker = match (table.get("broker"), table.get("leader_of")) {
        (Some(broker), None) => {
            let number = broker.whole(0..=u32::MAX)?;
            let brokers = world.cluster.brokers;
            if !(1..=brokers).contains(&number) {
                let says =
                    format!("there is no broker {number}: the cluster has only brokers 1 to {brokers}");
                let help = "name another, or raise `brokers` under `[cluster]`";
                return Err(Invalid::new(broker.span(), says, "no such broker").help(help));
            }
            BrokerChoice::Number(number)
        }
        (None, Some(leader_of)) => leader_of_partition(&leader_of, world)?,
        (None, None) => {
            let invalid =
                Invalid::new(what.key_span(), "`crash_broker` does not say which broker", "which one?");
            return Err(invalid.help("add `broker = 1`, or `leader_of = \"payment.commands/0\"`"));
        }
        (Some(_), Some(second)) => {
            let says = "`crash_broker` names a broker twice";
            return Err(
                Invalid::new(second.key_span(), says, "one too many").help("keep `broker` or `leader_of`")
            );
        }
    };
    let power_loss = power_loss(&table)?;
    Ok((FaultKind::CrashBroker { broker, power_loss }, down_for(&table)?))
}

fn crash_controller(what: &Value<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "crash_controller = { down_for = \"3s\" }";
    let table = what.table("`crash_controller`", &["down_for"], &[], EXAMPLE)?;
    let is_drawn = table.get("down_for").is_none();
    let lasts = if is_drawn { Length::Own(*ELECTION.end()) } else { down_for(&table)? };
    Ok((FaultKind::CrashController { is_drawn }, lasts))
}

fn leader_of_partition(value: &Value<'_>, world: &World<'_>) -> Result<BrokerChoice, Invalid> {
    const EXAMPLE: &str = "leader_of = \"payment.commands/0\"";
    let text = value.string(EXAMPLE)?;
    let parts = text.rsplit_once('/').and_then(|(topic, number)| Some((topic, number.parse::<u32>().ok()?)));
    let Some((topic, partition)) = parts else {
        let invalid =
            Invalid::new(value.span(), format!("`{text}` is not a partition"), "expected topic/number");
        return Err(invalid.help(format!("write for example `{EXAMPLE}`")));
    };
    let topic = known_topic(topic, value.span(), world)?;
    let partitions = world.cluster.partitions;
    if partition >= partitions {
        let says = format!("`{topic}` has only the partitions 0 to {}", partitions - 1);
        let help = "name another, or raise `partitions` under `[cluster]`";
        return Err(Invalid::new(value.span(), says, "no such partition").help(help));
    }
    Ok(BrokerChoice::LeaderOf { topic, partition })
}

fn rolling_restart(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "rolling_restart = { hosts = [\"broker-*\"], down_for = \"2s\", gap = \"12s\" }";
    let keys = ["hosts", "down_for", "gap", "power_loss", "clean"];
    let table = what.table("`rolling_restart`", &keys, &[], EXAMPLE)?;
    let hosts = world.hosts.all(&table.need("hosts", EXAMPLE)?.strings(EXAMPLE)?)?;
    if let Some(host) = hosts.iter().find(|host| !may_crash(host, world)) {
        return Err(cannot_crash(host, table.need("hosts", EXAMPLE)?.span()));
    }
    let gap = table.need("gap", "gap = \"12s\"")?.parse("gap = \"12s\"", values::duration)?;
    let power_loss = power_loss(&table)?;
    let clean = match table.get("clean") {
        Some(clean) if power_loss && clean.boolean()? => {
            let says = "`clean` and `power_loss` exclude each other: a machine without power ends nothing";
            return Err(Invalid::new(clean.key_span(), says, "one too many").help("keep one of the two"));
        }
        Some(clean) => clean.boolean()?,
        None => !power_loss,
    };
    Ok((FaultKind::RollingRestart { hosts, gap, power_loss, clean }, down_for(&table)?))
}

fn crash_service(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "crash_service = { service = \"payment\", down_for = \"3s\" }";
    let table =
        what.table("`crash_service`", &["service", "replica", "down_for", "power_loss"], &[], EXAMPLE)?;
    let service = table.need("service", EXAMPLE)?;
    let name = service.string(EXAMPLE)?;
    let names = || world.services.keys().map(String::as_str);
    let Some(settings) = world.services.get(name) else {
        let invalid = Invalid::new(
            service.span(),
            format!("there is no service `{name}`"),
            did_you_mean(name, names()),
        );
        return Err(invalid.help(format!("the services are {}", listed(names()))));
    };
    let replicas = match table.get("replica") {
        None => 1..=settings.replicas,
        Some(replica) => {
            let number = replica.whole(0..=u32::MAX)?;
            if !(1..=settings.replicas).contains(&number) {
                let says = format!("`{name}` has only the replicas 1 to {}", settings.replicas);
                let help = format!("name another, or raise `replicas` under `[services.{name}]`");
                return Err(Invalid::new(replica.span(), says, "no such replica").help(help));
            }
            number..=number
        }
    };
    let hosts = replicas.map(|replica| format!("{name}-{replica}")).collect();
    let power_loss = power_loss(&table)?;
    Ok((FaultKind::CrashService { hosts, power_loss }, down_for(&table)?))
}

fn crash_outside(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "crash_outside = { system = \"gateway\", down_for = \"3s\" }";
    let table = what.table("`crash_outside`", &["system", "down_for"], &[], EXAMPLE)?;
    let system = table.need("system", EXAMPLE)?;
    let name = system.string(EXAMPLE)?;
    let names = || world.vocabulary.outside.iter().map(String::as_str);
    if !names().any(|known| known == name) {
        let says = format!("there is no outside system `{name}`");
        let help = format!("the outside systems are {}", listed(names()));
        return Err(Invalid::new(system.span(), says, did_you_mean(name, names())).help(help));
    }
    Ok((FaultKind::CrashOutside { system: name.to_owned() }, down_for(&table)?))
}

fn pause(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "pause = { host = \"payment-1\", for = \"12s\" }";
    let table = what.table("`pause`", &["host", "for"], &[], EXAMPLE)?;
    let value = table.need("host", EXAMPLE)?;
    let host = world.hosts.one(value.string(EXAMPLE)?, value.span())?;
    if world.vocabulary.others.contains(&host) {
        return Err(cannot_crash(&host, value.span()));
    }
    Ok((FaultKind::Pause { host }, lasts_for(&table)?))
}

fn partition(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "partition = { between = [\"broker-1\"], and = [\"payment-*\"], for = \"5s\" }";
    let table = what.table("`partition`", &["between", "and", "one_way", "for"], &[], EXAMPLE)?;
    let (between, and) = two_sides(&table, EXAMPLE, world)?;
    let one_way = table.get("one_way").map(|value| value.boolean()).transpose()?.unwrap_or(false);
    Ok((FaultKind::Partition { between, and, one_way }, lasts_for(&table)?))
}

fn hold(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "hold = { from = [\"broker-*\"], to = [\"payment-*\"], for = \"5s\" }";
    let table = what.table("`hold`", &["from", "to", "for"], &[], EXAMPLE)?;
    let from = world.hosts.all(&table.need("from", EXAMPLE)?.strings(EXAMPLE)?)?;
    let to = world.hosts.all(&table.need("to", EXAMPLE)?.strings(EXAMPLE)?)?;
    if from.len() == 1 && from == to {
        let invalid = Invalid::new(what.key_span(), "`hold` needs two hosts", "a host has no link to itself");
        return Err(invalid.help(format!("write for example `{EXAMPLE}`")));
    }
    Ok((FaultKind::Hold { from, to }, lasts_for(&table)?))
}

fn latency(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "latency = { between = [\"broker-1\"], range = \"50ms..200ms\" }";
    let table = what.table("`latency`", &["between", "and", "range", "for"], &[], EXAMPLE)?;
    let (between, and) = two_sides(&table, EXAMPLE, world)?;
    let range =
        table.need("range", "range = \"50ms..200ms\"")?.parse("range = \"50ms..200ms\"", values::latency)?;
    Ok((FaultKind::Latency { between, and, range }, lasts_for(&table)?))
}

fn duplicate_records(what: &Value<'_>, world: &World<'_>) -> Result<(FaultKind, Length), Invalid> {
    const EXAMPLE: &str = "duplicate_records = { topic = \"payment.commands\", probability = \"1%\" }";
    let table = what.table("`duplicate_records`", &["topic", "probability", "for"], &[], EXAMPLE)?;
    let topic = table.need("topic", EXAMPLE)?;
    let topic = known_topic(topic.string(EXAMPLE)?, topic.span(), world)?;
    let probability = table.need("probability", "probability = \"1%\"")?;
    let probability_ppm = probability.parse("probability = \"1%\"", values::percent)?;
    if probability_ppm == 0 {
        let invalid =
            Invalid::new(probability.span(), "`probability` is 0%, so that nothing happens", "never");
        return Err(invalid.help("raise it, or leave the fault out"));
    }
    Ok((FaultKind::DuplicateRecords { topic, probability_ppm }, lasts_for(&table)?))
}

/// `between` and `and`; without `and` the other side is everyone else.
fn two_sides(
    table: &Table<'_>,
    example: &str,
    world: &World<'_>,
) -> Result<(Vec<String>, Vec<String>), Invalid> {
    let between = table.need("between", example)?;
    let one = world.hosts.all(&between.strings(example)?)?;
    let Some(and) = table.get("and") else {
        let other = world.hosts.others(&one);
        if other.is_empty() {
            let says = "`between` holds every host, so that there is no other side";
            return Err(Invalid::new(between.span(), says, "all hosts").help("name fewer"));
        }
        return Ok((one, other));
    };
    let other = world.hosts.all(&and.strings(example)?)?;
    match one.iter().find(|host| other.contains(host)) {
        Some(host) => {
            let invalid = Invalid::new(and.span(), format!("`{host}` is on both sides"), "meets `between`");
            Err(invalid.help("a host cannot be cut off from itself: take it out of `between` or `and`"))
        }
        None => Ok((one, other)),
    }
}

fn known_topic(name: &str, span: Range<usize>, world: &World<'_>) -> Result<String, Invalid> {
    let names = || world.topics.iter().map(String::as_str);
    if names().any(|topic| topic == name) {
        return Ok(name.to_owned());
    }
    let invalid = Invalid::new(span, format!("there is no topic `{name}`"), did_you_mean(name, names()));
    Err(invalid.help(format!("the topics are {}", listed(names()))))
}

fn down_for(table: &Table<'_>) -> Result<Length, Invalid> {
    const EXAMPLE: &str = "down_for = \"3s\"";
    let value = table.need("down_for", EXAMPLE)?;
    Ok(Length::Own(some_time(&value, EXAMPLE)?))
}

fn lasts_for(table: &Table<'_>) -> Result<Length, Invalid> {
    match table.get("for") {
        Some(value) => Ok(Length::Own(some_time(&value, "for = \"5s\"")?)),
        None => Ok(Length::Window),
    }
}

fn some_time(value: &Value<'_>, example: &str) -> Result<Duration, Invalid> {
    let time = value.parse(example, values::duration)?;
    if time.is_zero() {
        let says = format!("`{}` is no time at all, so that nothing happens", value.key);
        return Err(
            Invalid::new(value.span(), says, "nothing").help(format!("write for example `{example}`"))
        );
    }
    Ok(time)
}

fn power_loss(table: &Table<'_>) -> Result<bool, Invalid> {
    Ok(table.get("power_loss").map(|value| value.boolean()).transpose()?.unwrap_or(false))
}

/// The workload and the observer are the harness's own.
fn may_crash(host: &str, world: &World<'_>) -> bool {
    !world.vocabulary.others.iter().any(|other| other == host)
}

fn cannot_crash(host: &str, span: Range<usize>) -> Invalid {
    let says = format!("`{host}` belongs to the harness and takes no harm");
    Invalid::new(span, says, "names it").help("take it out")
}
