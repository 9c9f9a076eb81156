//! What was seen of a story, and how two accounts are compared.
//!
//! An account is lines of `seconds  track  text`. Tracks are compared by their kind:
//! - a timeline (`partition`, `high watermark`, `story`, `answers …`, `records …`; what repeats is one line): the same texts in the
//!   same order as in one of the recorded runs, each at its time within [`TOLERANCE`]. Between two of them may stand what is
//!   missing on the other side, if it holds for less than the tolerance, once: whoever looks ten times a second at brokers
//!   that learn at their own pace sees such a state in one telling and not in the next;
//! - `span …`: seconds, within [`TOLERANCE`] of one of the recorded runs;
//! - `codes …`: every code that all recorded runs saw, and none that no run saw;
//! - `fact …`: the same as in one of the recorded runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

/// How far a time may be from the recorded one: so many seconds, or so large a part of it, whichever is more. Heartbeats
/// come every 2 s and sessions end on the next look, so that even one cluster differs from itself by about a second.
pub const TOLERANCE: (f64, f64) = (1.5, 0.15);

/// One line.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    at: Option<f64>,
    track: String,
    text: String,
}

/// What was seen of one telling.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    lines: Vec<Line>,
}

impl Account {
    /// Something that holds from `seconds` into the story on. What repeats the track's last text is left out.
    pub fn state(&mut self, seconds: f64, track: &str, text: impl Into<String>) {
        let text = text.into();
        let last = self.lines.iter().rev().find(|line| line.track == track);
        if last.is_none_or(|line| line.text != text) {
            self.lines.push(Line { at: Some(tenths(seconds)), track: track.into(), text });
        }
    }

    /// How long something took, in seconds.
    pub fn span(&mut self, what: &str, seconds: f64) {
        self.untimed(format!("span {what}"), format!("{:.1}", tenths(seconds)));
    }

    /// The error codes that were seen, `NONE` left out.
    pub fn codes(&mut self, what: &str, codes: &BTreeSet<String>) {
        let codes: Vec<&str> = codes.iter().map(String::as_str).filter(|code| *code != "NONE").collect();
        self.untimed(format!("codes {what}"), codes.join(" "));
    }

    /// Something that does not depend on when.
    pub fn fact(&mut self, what: &str, value: impl ToString) {
        self.untimed(format!("fact {what}"), value.to_string());
    }

    fn untimed(&mut self, track: String, text: String) {
        self.lines.push(Line { at: None, track, text });
    }

    fn tracks(&self) -> BTreeMap<&str, Vec<&Line>> {
        let mut tracks: BTreeMap<&str, Vec<&Line>> = BTreeMap::new();
        for line in &self.lines {
            tracks.entry(&line.track).or_default().push(line);
        }
        tracks
    }

    /// As text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let at = line.at.map_or(String::new(), |at| format!("{at:.1}"));
            writeln!(text, "{at:>6}  {:<28}  {}", line.track, line.text).expect("text can be written");
        }
        text
    }

    fn parse(line: &str) -> Option<Line> {
        let (at, rest) = line.split_at_checked(6)?;
        let at = match at.trim() {
            "" => None,
            at => Some(at.parse().ok()?),
        };
        let (track, text) = rest.trim_start().split_once("  ")?;
        Some(Line { at, track: track.trim().into(), text: text.trim().into() })
    }
}

/// The accounts of several tellings to real Kafka.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    runs: Vec<Account>,
}

impl Recording {
    /// A recording of these runs.
    pub fn new(runs: Vec<Account>) -> Recording {
        Recording { runs }
    }

    /// As text, with a heading.
    pub fn render(&self, heading: &str) -> String {
        let mut text = format!("# {heading}\n");
        for (number, run) in (1..).zip(&self.runs) {
            write!(text, "\nrun {number}\n{}", run.render()).expect("text can be written");
        }
        text
    }

    /// Reads what [`Recording::render`] wrote.
    ///
    /// # Errors
    /// The line that is none.
    pub fn parse(text: &str) -> Result<Recording, String> {
        let mut runs: Vec<Account> = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if line.starts_with("run ") {
                runs.push(Account::default());
                continue;
            }
            let run = runs.last_mut().ok_or_else(|| format!("before the first run: {line}"))?;
            run.lines.push(Account::parse(line).ok_or_else(|| format!("no line of an account: {line}"))?);
        }
        Ok(Recording { runs })
    }

    /// Where an account differs from what real Kafka did; empty if nowhere.
    pub fn differences(&self, account: &Account) -> Vec<String> {
        let mut differences = Vec::new();
        let told = account.tracks();
        let recorded: Vec<_> = self.runs.iter().map(Account::tracks).collect();
        let names: BTreeSet<&str> =
            told.keys().copied().chain(recorded.iter().flat_map(|run| run.keys().copied())).collect();
        for name in names {
            let ours = told.get(name).cloned().unwrap_or_default();
            let theirs: Vec<Vec<&Line>> =
                recorded.iter().map(|run| run.get(name).cloned().unwrap_or_default()).collect();
            let same = match name.split(' ').next() {
                Some("codes") => codes_agree(&ours, &theirs),
                Some("span") => theirs.iter().any(|run| spans_agree(&ours, run)),
                Some("fact") => theirs.iter().any(|run| texts(&ours) == texts(run)),
                _ => theirs.iter().any(|run| timelines_agree(&ours, run)),
            };
            if !same {
                let show = |lines: &[&Line]| {
                    let show = |line: &&Line| match line.at {
                        Some(at) => format!("{at:.1} {}", line.text),
                        None => line.text.clone(),
                    };
                    lines.iter().map(show).collect::<Vec<_>>().join(" | ")
                };
                let mut text = format!("{name}\n  simulated: {}", show(&ours));
                for run in &theirs {
                    write!(text, "\n  real:      {}", show(run)).expect("text can be written");
                }
                differences.push(text);
            }
        }
        differences
    }
}

fn texts<'a>(lines: &[&'a Line]) -> Vec<&'a str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// Whether the two can be laid side by side, with nothing left out but what [may be](may_be_missing).
fn timelines_agree(ours: &[&Line], theirs: &[&Line]) -> bool {
    let alike = |our: usize, their: usize| {
        let (our, their) = (ours[our], theirs[their]);
        our.text == their.text && close(our.at.unwrap_or(0.0), their.at.unwrap_or(0.0))
    };
    // So many lines of each that can be laid side by side, the last of one beside the last of the other.
    let mut laid: Vec<(usize, usize)> = vec![(0, 0)];
    let mut next = 0;
    while let Some(&(our, their)) = laid.get(next) {
        next += 1;
        let so_far = our.checked_sub(1).map(|last| ours[last].text.as_str());
        let is_soon_over = |our_end: usize, their_end: usize| {
            may_be_missing(ours, our..our_end, so_far) && may_be_missing(theirs, their..their_end, so_far)
        };
        if is_soon_over(ours.len(), theirs.len()) {
            return true;
        }
        for (our_end, their_end) in
            (our..ours.len()).flat_map(|our| (their..theirs.len()).map(move |their| (our, their)))
        {
            let place = (our_end + 1, their_end + 1);
            if alike(our_end, their_end) && is_soon_over(our_end, their_end) && !laid.contains(&place) {
                laid.push(place);
            }
        }
    }
    false
}

/// Whether these lines may be missing on the other side: each is soon over, but for what was `so_far` and holds again. What
/// comes twice flaps, and that is something else than a state that was missed.
fn may_be_missing(lines: &[&Line], range: Range<usize>, so_far: Option<&str>) -> bool {
    let mut seen = BTreeSet::new();
    range.into_iter().all(|at| {
        let line = lines[at];
        let lasts = lines.get(at + 1).map(|next| next.at.unwrap_or(0.0) - line.at.unwrap_or(0.0));
        let is_short = lasts.is_some_and(|seconds| seconds < TOLERANCE.0);
        seen.insert(line.text.as_str()) && (is_short || so_far == Some(&line.text))
    })
}

fn spans_agree(ours: &[&Line], theirs: &[&Line]) -> bool {
    let seconds = |line: &&Line| line.text.parse().unwrap_or(f64::NAN);
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(ours, theirs)| close(seconds(ours), seconds(theirs)))
}

fn codes_agree(ours: &[&Line], theirs: &[Vec<&Line>]) -> bool {
    let set = |lines: &[&Line]| -> BTreeSet<String> {
        lines.iter().flat_map(|line| line.text.split_whitespace().map(str::to_owned)).collect()
    };
    let ours = set(ours);
    let theirs: Vec<_> = theirs.iter().map(|run| set(run)).collect();
    let some: BTreeSet<_> = theirs.iter().flatten().cloned().collect();
    let all = some.iter().filter(|code| theirs.iter().all(|run| run.contains(*code)));
    ours.is_subset(&some) && all.into_iter().all(|code| ours.contains(code))
}

fn close(ours: f64, theirs: f64) -> bool {
    let (seconds, part) = TOLERANCE;
    (ours - theirs).abs() <= seconds.max(theirs.abs() * part)
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(leads_at: f64, codes: &[&str], lost: u32) -> Account {
        let mut account = Account::default();
        account.state(0.0, "partition", "A leads, epoch 0");
        account.state(leads_at, "partition", "B leads, epoch 1");
        account.span("without an answer", leads_at - 3.0);
        account.codes("writer", &codes.iter().map(|&code| code.to_owned()).collect());
        account.fact("lost", lost);
        account
    }

    fn recording() -> Recording {
        Recording::new(vec![account(12.0, &["X", "Y"], 0), account(12.4, &["X"], 0)])
    }

    #[test]
    fn a_recording_reads_back_as_it_was_written() {
        assert_eq!(Recording::parse(&recording().render("a heading")).unwrap(), recording());
    }

    #[test]
    fn what_agrees_with_a_run_agrees() {
        assert_eq!(recording().differences(&account(11.0, &["X"], 0)), Vec::<String>::new());
        assert_eq!(recording().differences(&account(13.0, &["X", "Y"], 0)), Vec::<String>::new());
    }

    #[test]
    fn what_is_soon_over_may_be_seen_or_not() {
        let told = |states: &[(f64, &str)]| {
            let mut account = Account::default();
            for &(at, text) in states {
                account.state(at, "partition", text);
            }
            account
        };
        let agree = |one: &[(f64, &str)], other: &[(f64, &str)]| {
            let agree = Recording::new(vec![told(one)]).differences(&told(other)).is_empty();
            assert_eq!(agree, Recording::new(vec![told(other)]).differences(&told(one)).is_empty());
            agree
        };
        let plain = [(0.0, "A leads"), (10.0, "B leads")];
        assert!(agree(&plain, &[(0.0, "A leads"), (10.0, "nobody leads"), (11.0, "B leads")]));
        assert!(agree(&plain, &[(0.0, "A leads"), (3.0, "C leads"), (4.0, "A leads"), (10.0, "B leads")]));
        assert!(
            !agree(&plain, &[(0.0, "A leads"), (9.0, "nobody leads"), (10.9, "B leads")]),
            "1.9 s are seen"
        );
        assert!(!agree(&plain, &[(0.0, "A leads"), (10.0, "B leads"), (20.0, "A leads")]), "the end counts");
        assert!(!agree(&plain, &[(0.0, "A leads")]));
        let flapping: Vec<(f64, &str)> = (0..8)
            .map(|second| (f64::from(second), if second % 2 == 0 { "A leads" } else { "nobody leads" }))
            .chain([(10.0, "B leads")])
            .collect();
        assert!(!agree(&plain, &flapping), "each is soon over, but it comes again and again");
        assert!(!agree(&plain, &[(0.0, "B leads"), (10.0, "A leads")]));
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        let tracks = |account: &Account| -> Vec<String> {
            let differences = recording().differences(account);
            differences.iter().map(|text| text.lines().next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(tracks(&account(20.0, &["X"], 0)), ["partition", "span without an answer"]);
        assert_eq!(
            tracks(&account(12.0, &["Y"], 0)),
            ["codes writer"],
            "a code that every run saw is missing"
        );
        assert_eq!(tracks(&account(12.0, &["X", "Z"], 0)), ["codes writer"], "a code that no run saw");
        assert_eq!(tracks(&account(12.0, &["X"], 1)), ["fact lost"]);
        let mut more = account(12.0, &["X"], 0);
        more.state(15.0, "partition", "C leads, epoch 2");
        assert_eq!(tracks(&more), ["partition"]);
    }
}
