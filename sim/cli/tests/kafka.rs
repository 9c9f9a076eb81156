//! Scenario files on real Kafka: `cargo test -p shakedown --features kafka --test kafka`.
//!
//! The program starts its clusters itself (`SHAKEDOWN_KAFKA` and its relatives say which). Where none can be had, the tests
//! that need one show as ignored, with what is missing; with `SHAKEDOWN_REQUIRE_KAFKA=1` they fail. One at a time: each
//! needs the whole machine.

#![expect(clippy::disallowed_methods, reason = "real processes, files and time")]

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Outcome, Place, shakedown, top};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

/// What `.ci/run` holds on real Kafka: calm weather, each kind of process crashed, a restart of all brokers, records that
/// are there twice, a link that carries one way only.
const FILES: [&str; 6] = [
    "broker-crash",
    "duplicate-delivery",
    "every-service-crashed-once",
    "gateway-crash",
    "orchestrator-crash",
    "unheard-answers",
];

/// The same, but that no order takes longer than some seconds is claimed of a machine that does nothing else: the file is
/// run without that line.
const FILES_WITH_LATENCIES: [&str; 2] = ["calm-sea", "rolling-restart"];

/// A run that was ended from outside leaves nothing behind after so long.
const GONE_WITHIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let mut trials: Vec<Trial> = FILES
        .into_iter()
        .map(|file| Trial::ignorable_test(format!("holds::{file}"), move || holds(file)))
        .collect();
    trials.extend(FILES_WITH_LATENCIES.into_iter().map(|file| {
        Trial::ignorable_test(format!("holds_whatever_it_takes::{file}"), move || {
            holds_whatever_it_takes(file)
        })
    }));
    trials.extend([
        Trial::ignorable_test("a_service_that_is_cut_off_is_healed_and_charges_once", a_partition_holds),
        Trial::ignorable_test("a_planted_double_charge_is_found_by_the_same_check", planted_bug_is_found),
        Trial::test(
            "a_file_that_needs_a_power_loss_is_refused_alone_and_skipped_in_a_folder",
            refused_and_skipped,
        ),
        Trial::test("several_replicas_of_a_file_store_are_refused", replicas_are_refused),
    ]);
    for signal in ["INT", "TERM", "KILL"] {
        let name = format!("a_run_that_gets_sig{}_leaves_no_process_behind", signal.to_lowercase());
        trials.push(Trial::ignorable_test(name, move || nothing_is_left_after(signal)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn on_kafka(args: impl IntoIterator<Item = OsString>) -> Outcome {
    let args = ["run", "--backend", "kafka"].map(OsString::from).into_iter().chain(args);
    shakedown(args)
}

fn args(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

/// The run as it should be, or why it was none.
fn judged(outcome: Outcome, code: i32) -> Result<Completion, Failed> {
    if let Some(none) = missing(&outcome) {
        return Ok(Completion::ignored_with(none));
    }
    if outcome.code == Some(code) {
        return Ok(Completion::Completed);
    }
    Err(format!("exit code {:?} in place of {code}\n{}{}", outcome.code, outcome.out, outcome.err).into())
}

/// What is missing, where there is no real Kafka and none is required.
fn missing(outcome: &Outcome) -> Option<String> {
    let required = std::env::var("SHAKEDOWN_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
    let line = outcome.err.lines().find(|line| line.contains("no real Kafka is at hand"))?;
    (outcome.code == Some(69) && !required).then(|| line.to_owned())
}

fn holds(file: &str) -> Result<Completion, Failed> {
    judged(on_kafka(args(&[&format!("scenarios/{file}.toml"), "--seeds", "1"])), 0)
}

fn holds_whatever_it_takes(file: &str) -> Result<Completion, Failed> {
    let text = fs::read_to_string(top().join(format!("scenarios/{file}.toml")))?;
    let lines = text.lines().filter(|line| !line.starts_with("order_latency_max = \"<="));
    let without: String = lines.flat_map(|line| [line, "\n"]).collect();
    if without.len() >= text.len() {
        return Err(format!("`{file}` claims nothing of its latencies: it belongs to the other files").into());
    }
    judged(of_own(file, &without), 0)
}

/// A scenario of this test's own, on one seed.
fn of_own(name: &str, text: &str) -> Outcome {
    let place = Place::with(name, text);
    let (file, report) = (place.file.clone().into_os_string(), place.report().into_os_string());
    on_kafka([file, "--seeds".into(), "1".into(), "--report".into(), report])
}

fn a_partition_holds() -> Result<Completion, Failed> {
    let text = "claim = \"every order ends, and none is charged twice, when the payment service is cut off for 12 s\"\n\
        [run]\nseeds = 1\norders = 100\narrival = \"20/s\"\n\
        [[fault]]\nat = \"2s\"\npartition = { between = [\"payment-1\"], and = [\"broker-*\", \"gateway\"], for = \"12s\" }\n\
        [expect]\nsaga_success_rate = \"= 100%\"\norder_latency_max = \">= 10s\"\nrecovers_within = \"60s\"\n";
    judged(of_own("cut-off", text), 0)
}

fn planted_bug_is_found() -> Result<Completion, Failed> {
    let text = fs::read_to_string(top().join("examples/charged-twice.toml"))?;
    let outcome = of_own("charged-twice", &text);
    if missing(&outcome).is_none()
        && !outcome.out.contains("broken    charged_exactly_once, seed 0: order o-")
    {
        return Err(format!("not found\n{}{}", outcome.out, outcome.err).into());
    }
    judged(outcome, 100)
}

fn refused_and_skipped() -> Result<(), Failed> {
    let alone = on_kafka(args(&["scenarios/power-loss.toml"]));
    let says = "the backend `kafka` cannot take the power from broker-1";
    if alone.code != Some(69) || !alone.err.contains(says) {
        return Err(format!("{alone:?}").into());
    }
    // A folder in which nothing else can run: no cluster is started.
    let place = Place::with("dark", &fs::read_to_string(top().join("scenarios/power-loss.toml"))?);
    let folder = place.file.parent().expect("a file is in a folder").as_os_str().to_owned();
    let skipped = on_kafka([folder]);
    if skipped.code != Some(69) || !skipped.err.contains(&format!("skipped dark: {says}")) {
        return Err(format!("{skipped:?}").into());
    }
    Ok(())
}

fn replicas_are_refused() -> Result<(), Failed> {
    let outcome = on_kafka(args(&["scenarios/paused-consumer.toml"]));
    let says = "cannot run 2 replicas of `payment`: its file store belongs to one process";
    if outcome.code == Some(69) && outcome.err.contains(says) {
        Ok(())
    } else {
        Err(format!("{outcome:?}").into())
    }
}

/// All processes that come from this one, with the time of their start, by which a number that is used again is told.
fn descendants(of: u32) -> BTreeSet<(u32, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").expect("this system shows its processes").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // After the name, which may hold anything, in parentheses: state, parent, and as the 20th the start.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        if let (Some(parent), Some(start)) =
            (fields.get(1).and_then(|id| id.parse::<u32>().ok()), fields.get(19))
        {
            all.push((id, parent, (*start).to_owned()));
        }
    }
    let (mut found, mut parents) = (BTreeSet::new(), BTreeSet::from([of]));
    loop {
        let next: Vec<_> =
            all.iter().filter(|(id, parent, _)| parents.contains(parent) && !parents.contains(id)).collect();
        if next.is_empty() {
            return found;
        }
        for (id, _, start) in next {
            parents.insert(*id);
            found.insert((*id, start.clone()));
        }
    }
}

fn still_there(processes: &BTreeSet<(u32, String)>) -> Vec<String> {
    let alive = |(id, start): &&(u32, String)| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        // A zombie is gone but for its parent, who has not looked yet.
        fields.get(19) == Some(&start.as_str()) && fields.first() != Some(&"Z")
    };
    let name = |(id, _): &(u32, String)| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        format!("{id} {}", String::from_utf8_lossy(&line).replace('\0', " "))
    };
    processes.iter().filter(alive).map(name).collect()
}

/// Runs in the middle: services, brokers and their guardians are there.
fn begun(run: &mut Child) -> Result<Option<BTreeSet<(u32, String)>>, Failed> {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let there = descendants(run.id());
        let services = there.iter().filter(|(id, _)| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0host\0")
        });
        // Six services and three outside systems.
        if services.count() == 9 {
            return Ok(Some(there));
        }
        if run.try_wait()?.is_some() {
            return Ok(None);
        }
        if Instant::now() > deadline {
            return Err("the run did not begin within three minutes".into());
        }
        sleep(Duration::from_millis(50));
    }
}

fn nothing_is_left_after(signal: &str) -> Result<Completion, Failed> {
    let mut run = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["run", "--backend", "kafka", "scenarios/calm-sea.toml", "--seeds", "1"])
        .current_dir(top())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let Some(there) = begun(&mut run)? else {
        let output = run.wait_with_output()?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        return judged(Outcome { code: output.status.code(), out: String::new(), err }, 130);
    };
    // The claim is of any moment, so nothing has to be waited for: the span only makes it likely that groups settle or orders
    // are under way, of which nothing is to be seen from outside.
    sleep(Duration::from_secs(2));
    let there: BTreeSet<_> = there.into_iter().chain(descendants(run.id())).collect();
    let sent = Command::new("kill").args([&format!("-{signal}"), &run.id().to_string()]).status()?;
    if !sent.success() {
        return Err(format!("SIG{signal} could not be sent: {sent}").into());
    }
    let deadline = Instant::now() + GONE_WITHIN;
    let status = run.wait()?;
    let expected = if signal == "KILL" { None } else { Some(130) };
    while !still_there(&there).is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(100));
    }
    let left = still_there(&there);
    if !left.is_empty() {
        return Err(format!("{GONE_WITHIN:?} after SIG{signal} there are still\n{}", left.join("\n")).into());
    }
    if status.code() != expected {
        return Err(format!("after SIG{signal} it ended with {status}").into());
    }
    Ok(Completion::Completed)
}
