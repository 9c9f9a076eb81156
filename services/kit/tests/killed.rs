//! A store's file in a process that is killed (SIGKILL): nothing that it said was committed is lost, and nothing is torn.
//!
//! The program is its own victim: started with the path of a file it commits to it for ever, and says so after each commit.

#![expect(clippy::disallowed_methods, reason = "a real process with a real file is what is tested")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use context::Context;
use context::Seed;
use context::real::RealHost;
use kit::store::{Json, RedbStore, Survives};
use kit::{StoreError, StoreExt as _, Table};
use libtest_mimic::{Arguments, Failed, Trial};
use shakedown_kit as kit;

const STATE: Table<u64, String, Json> = Table::new("state");
const INBOX: Table<u64, String, Json> = Table::new("inbox");
const OUTBOX: Table<u64, String, Json> = Table::new("outbox");

/// Kills of one file, each after more commits than the one before.
const KILLS: u64 = 12;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("victim") {
        victim(Path::new(&arguments.next().expect("a victim is told its file")));
        return;
    }
    let trials = vec![
        Trial::test("a_commit_that_was_reported_survives_a_kill", || {
            kills(Survives::PowerLoss)?;
            kills(Survives::ProcessCrash)
        }),
        Trial::test("a_file_in_another_process_is_refused_until_that_one_is_gone", another_process),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn context() -> Context {
    RealHost::new("host", Seed(1)).into_context()
}

fn open(path: &Path, survives: Survives) -> RedbStore {
    RedbStore::open("store", path, survives).expect("the file opens")
}

/// Commits numbers, each to three tables at once, from where the file is, and says each.
fn victim(path: &Path) {
    let survives = if path.ends_with("fast") { Survives::ProcessCrash } else { Survives::PowerLoss };
    let store = open(path, survives);
    let context = context();
    let from = store.read_with::<_, StoreError>(|tables| STATE.count(tables)).expect("a count");
    for number in from.. {
        let text = "x".repeat(100 + number as usize % 4_000);
        store
            .transact_with::<_, StoreError>(&context, |tables| {
                STATE.put(tables, &number, &text)?;
                INBOX.put(tables, &number, &text)?;
                OUTBOX.put(tables, &number, &text)
            })
            .expect("a commit");
        println!("{number}");
        std::io::stdout().flush().expect("its parent listens");
    }
}

/// Starts a victim on `path`, and gives what it says.
fn start(path: &Path) -> (std::process::Child, impl Iterator<Item = String>) {
    let program = std::env::current_exe().expect("this program has a path");
    let mut victim =
        Command::new(program).arg("victim").arg(path).stdout(Stdio::piped()).spawn().expect("a child");
    let said = BufReader::new(victim.stdout.take().expect("its output is a pipe"));
    (victim, said.lines().map_while(Result::ok))
}

fn kills(survives: Survives) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join(if survives == Survives::PowerLoss { "slow" } else { "fast" });
    for kill in 1..=KILLS {
        let (mut victim, mut said) = start(&path);
        let mut last = said.nth(kill as usize * 3).ok_or("the victim died by itself")?;
        victim.kill()?;
        victim.wait()?;
        // It went on until the kill came.
        last = said.last().unwrap_or(last);
        let last: u64 = last.parse()?;

        let store = open(&path, survives);
        let state = store.read_with::<_, StoreError>(|tables| STATE.all(tables))?;
        let numbers: Vec<u64> = state.iter().map(|(number, _)| *number).collect();
        let committed = numbers.len() as u64;
        assert_eq!(numbers, (0..committed).collect::<Vec<_>>(), "no commit is left out");
        assert!(committed > last, "{last} was reported, and the file holds only {committed}");
        assert!(committed <= last + 2, "at most one commit was under way at the kill");
        for table in [INBOX, OUTBOX] {
            let other = store.read_with::<_, StoreError>(|tables| table.all(tables))?;
            assert_eq!(other, state, "`{}` was committed with the state", table.name());
        }
    }
    Ok(())
}

fn another_process() -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("slow");
    let (mut victim, mut said) = start(&path);
    said.next().ok_or("the victim died by itself")?;
    let refused = RedbStore::open("store", &path, Survives::PowerLoss).expect_err("the file is taken");
    assert!(refused.to_string().contains("a file belongs to one process"), "{refused}");
    victim.kill()?;
    victim.wait()?;
    open(&path, Survives::PowerLoss);
    Ok(())
}
