//! Scenario files on real Kafka: `cargo test -p shakedown --features kafka --test kafka`.
//!
//! The program starts its clusters itself (`SHAKEDOWN_KAFKA` and its relatives say which). Where none can be had, the tests
//! that need one show as ignored, with what is missing; with `SHAKEDOWN_REQUIRE_KAFKA=1` they fail. One at a time: each
//! needs the whole machine.

#![expect(clippy::disallowed_methods, reason = "real processes, files and time")]

mod common;
#[path = "common/serving.rs"]
mod serving;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use broker::{Broker as _, Properties};
use common::{Outcome, Place, shakedown, top};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serving::Serving;

/// What `.ci/run` holds on real Kafka: each kind of process crashed, a broker that stands still, a restart of all brokers,
/// records that are there twice, a link that carries one way only.
const FILES: [&str; 6] = [
    "broker-crash",
    "duplicate-delivery",
    "every-service-crashed-once",
    "gateway-crash",
    "paused-leader",
    "unheard-answers",
];

/// The same, but that no order takes longer than some seconds is claimed of a machine that does nothing else: the file is
/// run without that line.
const FILES_WITH_LATENCIES: [&str; 1] = ["rolling-restart"];

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
        Trial::ignorable_test("pauses_that_overlap_and_slow_links_are_felt", pauses_and_slow_links_are_felt),
        Trial::ignorable_test("a_planted_double_charge_is_found_by_the_same_check", planted_bug_is_found),
        Trial::ignorable_test(
            "a_broker_that_dies_by_itself_ends_the_run_and_its_log_is_kept",
            a_dead_broker_ends_the_run,
        ),
        Trial::test(
            "a_file_that_needs_a_power_loss_is_refused_alone_and_skipped_in_a_folder",
            refused_and_skipped,
        ),
        Trial::test("what_it_cannot_run_so_is_refused", replicas_and_other_clients_are_refused),
        Trial::test("a_latency_of_all_links_is_refused", latency_is_refused),
        Trial::test("what_a_given_cluster_is_not_is_refused_by_name", a_given_cluster_is_as_it_is),
        Trial::test(
            "a_run_on_a_given_cluster_holds_and_leaves_no_name_there",
            a_given_cluster_is_left_as_it_was,
        ),
        Trial::test(
            "a_run_on_a_given_cluster_that_is_ended_at_once_says_what_it_leaves",
            a_hasty_guest_says_what_it_leaves,
        ),
        Trial::test(
            "an_engine_that_cannot_bring_the_other_side_is_refused_up_front",
            the_other_side_is_refused,
        ),
    ]);
    for signal in ["INT", "TERM", "KILL"] {
        let name = format!("a_run_that_gets_sig{}_leaves_nothing_behind", signal.to_lowercase());
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
    let line = outcome.err.lines().find(|line| line.contains("no real Kafka: "))?;
    (outcome.code == Some(69) && !required).then(|| line.to_owned())
}

fn holds(file: &str) -> Result<Completion, Failed> {
    judged(of_own(file, &text_of(file)?), 0)
}

fn holds_whatever_it_takes(file: &str) -> Result<Completion, Failed> {
    let text = text_of(file)?;
    let lines = text.lines().filter(|line| !line.starts_with("order_latency_max = \"<="));
    let without: String = lines.flat_map(|line| [line, "\n"]).collect();
    if without.len() >= text.len() {
        return Err(format!("`{file}` claims nothing of its latencies: it belongs to the other files").into());
    }
    judged(of_own(file, &without), 0)
}

/// A file's text for one seed, which then is as many as it asks for: so each of its faults must be felt on that one.
fn text_of(file: &str) -> Result<String, Failed> {
    let text = fs::read_to_string(top().join(format!("scenarios/{file}.toml")))?;
    let seeds = text.lines().find(|line| line.starts_with("seeds = "));
    let seeds = seeds.ok_or_else(|| format!("`{file}` does not say how many seeds it runs"))?;
    Ok(unhurried(&text.replacen(seeds, "seeds = 1", 1)))
}

/// The text for a machine that may be busy: while a Java process starts on it, or a session ends, an order's step would time out, and
/// the order be undone.
fn unhurried(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("recovers_within = "));
    let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
    let text = lines.replace("[expect]\n", "[expect]\nrecovers_within = \"5min\"\n");
    // A file without orders has no steps.
    if text.contains("saga_success_rate") && !text.contains("[services.order]") {
        format!("{text}[services.order]\nstep_timeout = \"5min\"\n")
    } else {
        text
    }
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
        [expect]\nsaga_success_rate = \"= 100%\"\norder_latency_max = \">= 10s\"\n";
    judged(of_own("cut-off", &unhurried(text)), 0)
}

/// Each of these faults must have an effect of its own, or the run ends with 104. The second pause goes on when the first is
/// over: what is paused twice is paused until both are over.
fn pauses_and_slow_links_are_felt() -> Result<Completion, Failed> {
    let text = "claim = \"every order ends when payment stands still twice, the gateway once, and inventory is far and restarted\"\n\
        [run]\nseeds = 1\norders = 100\narrival = \"20/s\"\n\
        [[fault]]\nat = \"1s\"\npause = { host = \"payment-1\", for = \"2s\" }\n\
        [[fault]]\nat = \"2s\"\npause = { host = \"payment-1\", for = \"2s\" }\n\
        [[fault]]\nat = \"2s\"\npause = { host = \"gateway\", for = \"2s\" }\n\
        [[fault]]\nat = \"1s\"\nrolling_restart = { hosts = [\"inventory-1\", \"shipping-1\"], down_for = \"1s\", gap = \"2s\" }\n\
        [[fault]]\nat = \"0s\"\nlatency = { between = [\"inventory-1\"], and = [\"broker-*\"], range = \"50ms..150ms\", for = \"5s\" }\n\
        [expect]\nsaga_success_rate = \"= 100%\"\norder_latency_max = \">= 2s\"\n";
    let outcome = of_own("stands-still", &unhurried(text));
    if missing(&outcome).is_none() {
        for effect in ["milliseconds paused", "bytes slowed"] {
            if !outcome.out.contains(effect) {
                return Err(format!("nothing tells of `{effect}`\n{}{}", outcome.out, outcome.err).into());
            }
        }
    }
    judged(outcome, 0)
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
    // And a program is told of it as well.
    for (format, part) in [("json", "\"why\": \""), ("junit", "<skipped message=\"")] {
        let folder = place.file.parent().expect("a file is in a folder").as_os_str().to_owned();
        let skipped = on_kafka([folder, "--format".into(), format.into()]);
        if skipped.code != Some(69) || !skipped.out.contains(&format!("{part}{says}")) {
            return Err(format!("{skipped:?}").into());
        }
    }
    Ok(())
}

fn latency_is_refused() -> Result<(), Failed> {
    let place = Place::with("far", "claim = \"c\"\n[network]\nlatency = \"20ms..50ms\"\n");
    refused(&on_kafka([place.file.clone().into_os_string()]), "cannot set `latency` under `[network]`")
}

fn refused(outcome: &Outcome, says: &str) -> Result<(), Failed> {
    if outcome.code == Some(69) && outcome.err.contains(says) && outcome.out.is_empty() {
        return Ok(());
    }
    Err(format!("not refused with `{says}`: {outcome:?}").into())
}

fn a_given_cluster_is_as_it_is() -> Result<(), Failed> {
    let somebodys = Serving::start(2, &[]);
    for (text, says) in [
        (
            "[cluster]\nbrokers = 2\nconfig = { \"group.max.size\" = 7 }",
            "cannot set `group.max.size` to 7: the cluster that KAFKA_BOOTSTRAP_SERVERS names",
        ),
        (
            "[cluster]\nbrokers = 2\ntransaction_version = 1",
            "cannot set the feature `transaction.version` to 1: the cluster that KAFKA_BOOTSTRAP_SERVERS names",
        ),
        (
            "[cluster]\nbrokers = 3",
            "cannot make 3 brokers of 2: the cluster that KAFKA_BOOTSTRAP_SERVERS names",
        ),
        (
            "[cluster]\nbrokers = 2\n[[fault]]\nat = \"1s\"\ncrash_broker = { broker = 1, down_for = \"1s\" }",
            "cannot kill broker-1: the cluster that KAFKA_BOOTSTRAP_SERVERS names is not ours",
        ),
        (
            "[cluster]\nbrokers = 2\n[[fault]]\nat = \"1s\"\n\
                 partition = { between = [\"payment-1\"], and = [\"broker-1\"], for = \"1s\" }",
            "the brokers that KAFKA_BOOTSTRAP_SERVERS names advertise their own addresses",
        ),
    ] {
        let place = Place::with("other", &format!("claim = \"c\"\n{text}\n"));
        refused(&on_given(&somebodys, place.file.clone().into_os_string()), says)?;
    }
    Ok(())
}

/// A run there holds, a service that crashes included, and leaves no topic and no group.
fn a_given_cluster_is_left_as_it_was() -> Result<(), Failed> {
    let text = "claim = \"every order ends when the payment service crashes\"\n\
        [run]\nseeds = 1\norders = 60\narrival = \"20/s\"\n\
        [[fault]]\nat = \"1s\"\ncrash_service = { service = \"payment\", down_for = \"1s\" }\n\
        [expect]\nsaga_success_rate = \"= 100%\"\nrecovers_within = \"60s\"\n";
    let place = Place::with("guest", text);
    let somebodys = Serving::start(3, &[]);
    let outcome = on_given(&somebodys, place.file.clone().into_os_string());
    if outcome.code != Some(0) {
        return Err(format!("{outcome:?}").into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Any broker is asked, and one may hear late of what is gone.
    let deadline = Instant::now() + Duration::from_secs(30);
    let left = loop {
        let left = runtime.block_on(names_in(&somebodys))?;
        if left.is_empty() || Instant::now() > deadline {
            break left;
        }
        sleep(Duration::from_millis(200));
    };
    if !left.is_empty() || outcome.err.contains("may be left") {
        return Err(format!("these are left: {left:?}\n{}", outcome.err).into());
    }
    Ok(())
}

/// Told twice to end, it ends at once, and does not hide what it leaves.
fn a_hasty_guest_says_what_it_leaves() -> Result<(), Failed> {
    let somebodys = Serving::start(3, &[]);
    let place = Place::with("hasty", CALM);
    let mut run = run_of(&place).env("KAFKA_BOOTSTRAP_SERVERS", somebodys.bootstrap()).spawn()?;
    let has_begun = begun(&mut run)?.is_some();
    // Two of the same might be taken for one.
    send("INT", &run.id().to_string())?;
    send("TERM", &run.id().to_string())?;
    let output = run.wait_with_output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    if !has_begun || output.status.code() != Some(130) || !err.contains("may be left in the cluster") {
        return Err(format!("{}\n{err}", output.status).into());
    }
    Ok(())
}

/// Topics that are not Kafka's own, and groups.
async fn names_in(cluster: &Serving) -> Result<Vec<String>, broker::Error> {
    let admin = cluster.broker().admin(&Properties::new()).await?;
    let (topics, groups) = (admin.describe_topics(&[]).await?, admin.list_groups().await?);
    let topics = topics.iter().map(|topic| topic.name.to_string()).filter(|name| !name.starts_with("__"));
    Ok(topics.chain(groups.into_iter().map(|group| group.group_id)).collect())
}

/// Runs a file on a cluster that was given.
fn on_given(cluster: &Serving, file: OsString) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_shakedown"))
        .args(["run", "--backend", "kafka", "--report"])
        .arg(PathBuf::from(&file).with_file_name("out"))
        .arg(file)
        .env("KAFKA_BOOTSTRAP_SERVERS", cluster.bootstrap())
        .current_dir(top())
        .output()
        .expect("the program was built for this test");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn the_other_side_is_refused() -> Result<(), Failed> {
    let place = Place::with(
        "still",
        "claim = \"c\"\n[[fault]]\nat = \"1s\"\npause = { host = \"payment-1\", for = \"1s\" }\n",
    );
    let file = place.file.clone().into_os_string();
    let outcome = on_kafka([file, "--side-by-side".into(), "--engine".into(), "turmoil".into()]);
    refused(&outcome, "`turmoil`")
}

fn replicas_and_other_clients_are_refused() -> Result<(), Failed> {
    for (file, says) in [
        (
            "scenarios/paused-consumer.toml",
            "cannot run 2 replicas of `payment`: its file store belongs to one process",
        ),
        (
            "scenarios/delayed-commit-protocol-2.toml",
            "cannot set `shakedown.client.habits` to java for the probe: its client there is librdkafka",
        ),
    ] {
        let outcome = on_kafka(args(&[file]));
        if outcome.code != Some(69) || !outcome.err.contains(says) {
            return Err(format!("{file}: {outcome:?}").into());
        }
    }
    Ok(())
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

/// A broker asked to end waits for a controller, and there is none: whoever interrupts does so in the middle of that.
const ENDS_SLOWLY: &str = "claim = \"c\"\n[run]\nseeds = 1\norders = 2000\narrival = \"20/s\"\n\
    [[fault]]\nat = \"0s\"\ncrash_controller = { down_for = \"60s\" }\n\
    [[fault]]\nat = \"1s\"\nrolling_restart = { hosts = [\"broker-1\"], down_for = \"1s\", gap = \"1s\" }\n";

/// A run of nothing but orders.
const CALM: &str = "claim = \"c\"\n[run]\nseeds = 1\norders = 2000\narrival = \"20/s\"\n";

/// A run that the test does something to, in a process group of its own, as a shell starts it.
fn start(place: &Place) -> Result<Child, Failed> {
    Ok(run_of(place).spawn()?)
}

fn run_of(place: &Place) -> Command {
    let mut run = Command::new(env!("CARGO_BIN_EXE_shakedown"));
    run.args(["run", "--backend", "kafka", "--seeds", "1"])
        .arg(&place.file)
        .arg("--report")
        .arg(place.report())
        .current_dir(top())
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    run
}

/// The run has ended before it began: there is no Kafka, or it failed.
fn not_begun(run: Child, code: i32) -> Result<Completion, Failed> {
    let output = run.wait_with_output()?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    judged(Outcome { code: output.status.code(), out: String::new(), err }, code)
}

/// The process that runs a node, and its log.
fn node(number: u32, among: &BTreeSet<(u32, String)>) -> Result<(u32, PathBuf), Failed> {
    let properties = format!("/node-{number}.properties");
    for (id, _) in among {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let arguments: Vec<&str> = line.split('\0').filter(|argument| !argument.is_empty()).collect();
        if let [program, .., last] = arguments[..]
            && program.ends_with("java")
            && last.ends_with(&properties)
        {
            return Ok((*id, PathBuf::from(last).with_extension("log")));
        }
    }
    Err(format!("no process runs node {number}").into())
}

fn send(signal: &str, to: &str) -> Result<(), Failed> {
    let sent = Command::new("kill").args([&format!("-{signal}"), "--", to]).status()?;
    if sent.success() { Ok(()) } else { Err(format!("SIG{signal} could not be sent: {sent}").into()) }
}

fn a_dead_broker_ends_the_run() -> Result<Completion, Failed> {
    let place = Place::with("lonely", CALM);
    let mut run = start(&place)?;
    let Some(there) = begun(&mut run)? else { return not_begun(run, 69) };
    let (broker, log) = node(2, &there)?;
    send("KILL", &broker.to_string())?;
    let output = run.wait_with_output()?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() != Some(69) || !err.contains("node 2 is not there: its process has ended") {
        return Err(format!("{}\n{err}", output.status).into());
    }
    let folder = log.parent().expect("a log is in a folder");
    if !err.contains(&format!("the brokers' logs are kept in `{}`", folder.display())) {
        return Err(format!("nobody says that `{}` is kept:\n{err}", folder.display()).into());
    }
    let kept = fs::metadata(&log)?.len();
    fs::remove_dir_all(folder)?;
    let trace = fs::read_to_string(place.report().join("lonely/seed-0/trace.txt"))?;
    if kept == 0 || !trace.contains("the services may start") {
        return Err(format!("the log has {kept} bytes, and the trace is\n{trace}").into());
    }
    Ok(Completion::Completed)
}

/// The containers of clusters that test runs started, as the engine that the environment names has them: nobody else uses it.
fn containers() -> Result<Vec<String>, Failed> {
    let listed = Command::new("docker")
        .args(["ps", "--all", "--filter", "label=shakedown.cluster", "--format", "{{.Names}}"])
        .output()?;
    if !listed.status.success() {
        return Err(format!("the engine does not say which containers there are: {listed:?}").into());
    }
    Ok(String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect())
}

fn nothing_is_left_after(signal: &str) -> Result<Completion, Failed> {
    // SIGINT as a terminal sends it, to all of the group; the others to the program alone.
    let is_terminal = signal == "INT";
    let on_containers = std::env::var("SHAKEDOWN_KAFKA").is_ok_and(|kind| kind == "containers");
    let place = Place::with("interrupted", if is_terminal { ENDS_SLOWLY } else { CALM });
    let mut run = start(&place)?;
    let Some(there) = begun(&mut run)? else { return not_begun(run, 130) };
    if on_containers && containers()?.len() < 4 {
        return Err(format!("these are not three brokers and a controller: {:?}", containers()?).into());
    }
    if is_terminal && !on_containers {
        let (_, log) = node(1, &there)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !fs::read_to_string(&log)?.contains("to SHUTTING_DOWN") {
            if Instant::now() > deadline {
                return Err("the broker was not asked to end within a minute".into());
            }
            sleep(Duration::from_millis(100));
        }
    } else {
        // The claim is of any moment, so nothing has to be waited for: the span only makes it likely that groups settle or
        // orders are under way, of which nothing is to be seen from outside.
        sleep(Duration::from_secs(2));
    }
    let there: BTreeSet<_> = there.into_iter().chain(descendants(run.id())).collect();
    send(signal, &format!("{}{}", if is_terminal { "-" } else { "" }, run.id()))?;
    let deadline = Instant::now() + GONE_WITHIN;
    let status = run.wait()?;
    let ended = Instant::now();
    let expected = if signal == "KILL" { None } else { Some(130) };
    let left = || -> Result<Vec<String>, Failed> {
        let mut left = still_there(&there);
        left.extend(if on_containers { containers()? } else { Vec::new() });
        Ok(left)
    };
    while !left()?.is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(100));
    }
    let left = left()?;
    if !left.is_empty() {
        return Err(format!("{GONE_WITHIN:?} after SIG{signal} there are still\n{}", left.join("\n")).into());
    }
    if status.code() != expected {
        return Err(format!("after SIG{signal} it ended with {status}").into());
    }
    if ended > deadline {
        return Err(format!("it ended {GONE_WITHIN:?} after SIG{signal}").into());
    }
    Ok(Completion::Completed)
}
