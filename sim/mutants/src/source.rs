//! A copy of the repository in which every mutant sleeps, to be woken by an environment variable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::table::Mutant;

/// Names the mutant that is awake.
pub(crate) const AWAKE: &str = "SHAKEDOWN_MUTANT";

/// What the copy's `sim/kafka` has besides its own: the switch.
const SWITCH: &str = r#"

/// Whether the mutant of this name is awake in this process.
#[allow(missing_docs, clippy::all, reason = "not part of the sources")]
pub fn mutant(name: &str) -> bool {
    static AWAKE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    AWAKE.get_or_init(|| std::env::var("{AWAKE}").ok()).as_deref() == Some(name)
}
"#;

/// A replaced expression stands between parentheses, of which not all are needed.
const LINTS: &str = "[workspace.lints.rust]\n";
const QUIET: &str = "[workspace.lints.rust]\nunused_parens = \"allow\"\n";

/// The top of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("the crate is two folders deep")
        .to_owned()
}

/// The copy.
pub(crate) struct Tree {
    /// The top of its sources.
    pub(crate) sources: PathBuf,
    /// The target folder in which they are built.
    pub(crate) build: PathBuf,
}

impl Tree {
    /// Copies the sources as they are now, committed or not, with these mutants. What is the same as in the last copy is
    /// left alone, so that builds stay warm.
    pub(crate) fn make(root: &Path, mutants: &[Mutant]) -> Result<Tree, String> {
        let folder = root.join("target/mutants");
        let tree = Tree { sources: folder.join("tree"), build: folder.join("build") };
        let mut wanted = sources(root)?;
        let manifest = wanted.get_mut(Path::new("Cargo.toml")).ok_or("there is no Cargo.toml")?;
        *manifest = String::from_utf8_lossy(manifest).replacen(LINTS, QUIET, 1).into_bytes();
        for (file, changed) in changed(root, mutants)? {
            wanted.insert(PathBuf::from(file), changed.into_bytes());
        }
        for (name, bytes) in &wanted {
            let to = tree.sources.join(name);
            if fs::read(&to).is_ok_and(|there| there == *bytes) {
                continue;
            }
            let folder = to.parent().ok_or("a file is in a folder")?;
            fs::create_dir_all(folder).and_then(|()| fs::write(&to, bytes)).map_err(told(&to))?;
        }
        let wanted = wanted.keys().map(|name| tree.sources.join(name)).collect();
        remove_others(&tree.sources, &wanted)?;
        Ok(tree)
    }
}

fn told(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

/// All that git knows of or would add, by its path from the top.
fn sources(root: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, String> {
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .map_err(|error| format!("git: {error}"))?;
    if !listed.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr)));
    }
    let mut sources = BTreeMap::new();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = PathBuf::from(String::from_utf8_lossy(name).into_owned());
        let from = root.join(&name);
        match fs::read(&from) {
            Ok(bytes) => _ = sources.insert(name, bytes),
            // Deleted, and the deletion is not committed yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(told(&from)(error)),
        }
    }
    Ok(sources)
}

/// What was deleted since the last copy is deleted there too: Cargo would take a stale test for one of ours.
fn remove_others(folder: &Path, wanted: &BTreeSet<PathBuf>) -> Result<(), String> {
    for entry in fs::read_dir(folder).map_err(told(folder))? {
        let path = entry.map_err(told(folder))?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path).map_err(told(&path))?;
        }
    }
    Ok(())
}

/// The files that hold mutants, with them, by their path from the top. An error tells of every place that is amiss.
pub(crate) fn changed(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<&'static str, String>, String> {
    let mut by_file: BTreeMap<&'static str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_file.entry(mutant.file).or_default().push(mutant);
    }
    let (mut changed, mut errors) = (BTreeMap::new(), Vec::new());
    let read = |file: &str| fs::read_to_string(root.join(file)).map_err(told(&root.join(file)));
    for (file, mutants) in by_file {
        match with_mutants(file, &read(file)?, &mutants) {
            Ok(text) => _ = changed.insert(file, text),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let library = "sim/kafka/src/lib.rs";
    let text = changed.remove(library).map_or_else(|| read(library), Ok)?;
    changed.insert(library, text + &SWITCH.replace("{AWAKE}", AWAKE));
    Ok(changed)
}

/// One file with its mutants. Those of one place make one chain; places that overlap otherwise are refused.
fn with_mutants(file: &str, before: &str, mutants: &[&Mutant]) -> Result<String, String> {
    let mut places: BTreeMap<(usize, usize), Vec<&Mutant>> = BTreeMap::new();
    let mut errors = Vec::new();
    for mutant in mutants {
        match place(before, mutant) {
            Ok(Range { start, end }) => places.entry((start, end)).or_default().push(mutant),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors.join("\n"));
    }
    let switch = if file.starts_with("sim/kafka/src/") { "crate::mutant" } else { "kafka::mutant" };
    let (mut after, mut done) = (String::new(), 0);
    for ((start, end), mutants) in places {
        if start < done {
            return Err(format!("the places of `{}` and another mutant in {file} overlap", mutants[0].name));
        }
        after.push_str(&before[done..start]);
        after.push('(');
        for mutant in mutants {
            after.push_str(&format!("if {switch}({:?}) {{ {} }} else ", mutant.name, mutant.becomes));
        }
        after.push_str(&format!("{{ {} }})", &before[start..end]));
        done = end;
    }
    after.push_str(&before[done..]);
    Ok(after)
}

/// Where the expression is that the mutant replaces.
fn place(text: &str, mutant: &Mutant) -> Result<Range<usize>, String> {
    let (name, file) = (mutant.name, mutant.file);
    let parts: Vec<&str> = mutant.place.split(['«', '»']).collect();
    let [before, expression, after] = parts[..] else {
        return Err(format!("mutant `{name}`: its place has no «expression»"));
    };
    let whole = [before, expression, after].concat();
    let mut found = text.match_indices(&whole).map(|(at, _)| at + before.len());
    match (found.next(), found.count()) {
        (Some(start), 0) => Ok(start..start + expression.len()),
        (first, more) => {
            let times = first.map_or(0, |_| more + 1);
            Err(format!("mutant `{name}`: its place is {times} times in {file}, not once; mend the table"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MUTANT: Mutant = Mutant {
        name: "unchecked",
        breaks: "nothing is checked",
        file: "sim/client/src/x.rs",
        place: "if «a < b» {",
        becomes: "false",
        red: &[],
    };

    fn woven(before: &str, mutants: &[Mutant]) -> Result<String, String> {
        with_mutants("sim/client/src/x.rs", before, &mutants.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_mutant_sleeps_beside_what_it_replaces() {
        let other = Mutant { name: "inverted", becomes: "b < a", ..MUTANT };
        assert_eq!(
            woven("x(); if a < b { y() }", &[MUTANT, other]).unwrap(),
            "x(); if (if kafka::mutant(\"unchecked\") { false } else if kafka::mutant(\"inverted\") { b < a } else \
             { a < b }) { y() }"
        );
    }

    #[test]
    fn a_place_that_is_not_there_once_is_refused() {
        for before in ["if a <= b {", "if a < b {} if a < b {}"] {
            let refused = woven(before, &[MUTANT]).unwrap_err();
            assert!(refused.contains("mend the table"), "{refused}");
        }
        let whole = Mutant { place: "«if a < b {}»", ..MUTANT };
        assert!(woven("if a < b {}", &[MUTANT, whole]).unwrap_err().contains("overlap"));
    }
}
