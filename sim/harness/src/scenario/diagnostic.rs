//! What is wrong with a scenario file, shown with the place in the file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

/// Why a scenario cannot run. Its text is complete: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file or folder cannot be read. Exit code 66.
    #[error("error: cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// What was named.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder without a scenario in it. Exit code 66.
    #[error(
        "error: there is no scenario in `{}`\n  = help: a folder means its own `*.toml` files, not its subfolders'",
        folder.display()
    )]
    NoScenario {
        /// The folder.
        folder: PathBuf,
    },
    /// The file does not say what can be run. Exit code 65.
    #[error("{shown}")]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The first sentence of `shown`.
        says: String,
        /// The whole: sentence, place, excerpt, what to do.
        shown: String,
    },
}

/// Something wrong at one place of a file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    /// Bytes of the text.
    pub(super) span: Range<usize>,
    /// What is wrong; a sentence without a full stop.
    pub(super) says: String,
    /// What stands beside the caret.
    pub(super) label: String,
    /// What to do.
    pub(super) help: Option<String>,
}

impl Invalid {
    pub(super) fn new(span: Range<usize>, says: impl Into<String>, label: impl Into<String>) -> Invalid {
        Invalid { span, says: says.into(), label: label.into(), help: None }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Invalid {
        self.help = Some(help.into());
        self
    }

    /// Points at the place in the file.
    pub(super) fn show(self, file: &Path, text: &str) -> ScenarioError {
        // A span may end beyond the text when something is missing at its end.
        let span = self.span.start.min(text.len())..self.span.end.min(text.len());
        let (line, column) = position(text, span.start);
        let path = file.display().to_string();
        let snippet =
            Snippet::source(text).path(path).annotation(AnnotationKind::Primary.span(span).label(self.label));
        let mut group = Level::ERROR.primary_title(self.says.as_str()).element(snippet);
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let shown = Renderer::plain().render(&[group]);
        ScenarioError::Invalid { file: file.to_owned(), line, column, says: self.says, shown }
    }
}

/// Line and column of a byte, both from 1, the column in characters.
pub(super) fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    (line, column)
}

/// The name that was probably meant; `None` if none is near.
pub(super) fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(f64, &str)> = None;
    for name in names {
        let likeness = strsim::jaro_winkler(word, name);
        if likeness > best.map_or(0.75, |(most, _)| most) {
            best = Some((likeness, name));
        }
    }
    best.map(|(_, name)| name)
}

/// The label beside a word that does not exist.
pub(super) fn did_you_mean<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "not known".to_owned(),
    }
}

/// `a, b, c`, each in backticks.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_not_bytes() {
        assert_eq!(position("ä = 1\nöü = 2", 9), (2, 2));
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("a\n", 99), (2, 1));
    }

    #[test]
    fn a_word_that_resembles_nothing_gets_no_suggestion() {
        assert_eq!(nearest("paymnet", ["order", "payment"]), Some("payment"));
        assert_eq!(nearest("zebra", ["order", "payment"]), None);
    }
}
