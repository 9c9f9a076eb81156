//! The text of a checkpoint file, as Kafka's `CheckpointFile` writes it: a version, how many entries, and one a line.

/// Why a checkpoint file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedCheckpoint {
    /// The first line is no version that is known.
    #[error("version `{0}` of the checkpoint file is not 0")]
    Version(String),
    /// The second line is no number of entries, or not the right one.
    #[error("the checkpoint file says `{said}` entries and has {found}")]
    Count {
        /// As it is written.
        said: String,
        /// How many lines follow.
        found: usize,
    },
    /// A line is no entry.
    #[error("`{0}` is no entry of a checkpoint file")]
    Entry(String),
}

/// The text for `entries`, each of them a line.
pub(crate) fn write(entries: &[String]) -> String {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        text.push_str(entry);
        text.push('\n');
    }
    text
}

/// The entries of a text, each parsed by `parse` from its words.
///
/// # Errors
/// [`MalformedCheckpoint`].
pub(crate) fn read<T>(
    text: &str,
    parse: impl Fn(&[&str]) -> Option<T>,
) -> Result<Vec<T>, MalformedCheckpoint> {
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version != "0" {
        return Err(MalformedCheckpoint::Version(version.to_owned()));
    }
    let said = lines.next().unwrap_or_default();
    let mut entries = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        entries.push(parse(&words).ok_or_else(|| MalformedCheckpoint::Entry(line.to_owned()))?);
    }
    if said.parse() != Ok(entries.len()) {
        return Err(MalformedCheckpoint::Count { said: said.to_owned(), found: entries.len() });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(words: &[&str]) -> Option<(i32, i64)> {
        let [epoch, offset] = words else { return None };
        Some((epoch.parse().ok()?, offset.parse().ok()?))
    }

    #[test]
    fn entries_read_back_as_written() {
        let text = write(&["1 10".to_owned(), "3 25".to_owned()]);
        assert_eq!(text, "0\n2\n1 10\n3 25\n");
        assert_eq!(read(&text, numbers), Ok(vec![(1, 10), (3, 25)]));
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        assert!(matches!(read("0\n2\n1 10\n", numbers), Err(MalformedCheckpoint::Count { .. })));
        assert!(matches!(read("0\n1\n1 x\n", numbers), Err(MalformedCheckpoint::Entry(_))));
        assert!(matches!(read("", numbers), Err(MalformedCheckpoint::Version(_))));
    }
}
