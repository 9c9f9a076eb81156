//! Typed access to a TOML table that never loses the place in the file.
//!
//! serde reports an unknown key with its position, but a wrong meaning (a service that does not exist, two kinds of
//! fault at once) only where every value was wrapped; so the grammar walks the parsed table instead.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Invalid, did_you_mean, listed, nearest};
use super::values::Unfit;

/// Keys that later work brings: refused with a sentence, instead of as unknown.
pub(super) type Later = &'static [(&'static str, &'static str)];

/// A table whose keys are all known.
#[derive(Clone, Copy)]
pub(super) struct Table<'t> {
    /// How sentences call it: `[run]`.
    pub(super) title: &'t str,
    entries: &'t DeTable<'t>,
    span: (usize, usize),
}

/// A value with its key and both places.
#[derive(Clone, Copy)]
pub(super) struct Value<'t> {
    pub(super) key: &'t str,
    value: &'t Spanned<DeValue<'t>>,
    key_span: (usize, usize),
}

fn pair(span: Range<usize>) -> (usize, usize) {
    (span.start, span.end)
}

fn unknown_key(title: &str, word: &str, span: Range<usize>, known: &[&str]) -> Invalid {
    let says = format!("{title} has no `{word}`");
    let invalid = Invalid::new(span, says, did_you_mean(word, known.iter().copied()));
    // A page of names helps only whoever has no name at all.
    let overwhelming = known.len() > 12 && nearest(word, known.iter().copied()).is_some();
    match overwhelming {
        true => invalid,
        false => invalid.help(format!("{title} takes {}", listed(known.iter().copied()))),
    }
}

impl<'t> Table<'t> {
    /// Checks the keys; the first unknown one in the file is the error.
    pub(super) fn new(
        title: &'t str,
        entries: &'t DeTable<'t>,
        span: Range<usize>,
        known: &[&str],
        later: Later,
    ) -> Result<Table<'t>, Invalid> {
        let unknown = |key: &&Spanned<DeString<'_>>| !known.contains(&key.get_ref().as_ref());
        let mut keys: Vec<&Spanned<DeString<'_>>> = entries.keys().filter(unknown).collect();
        keys.sort_by_key(|key| key.span().start);
        if let Some(key) = keys.first() {
            let word: &str = key.get_ref();
            if let Some((_, sentence)) = later.iter().find(|(name, _)| *name == word) {
                return Err(Invalid::new(key.span(), *sentence, "not yet"));
            }
            return Err(unknown_key(title, word, key.span(), known));
        }
        Ok(Table { title, entries, span: pair(span) })
    }

    /// Where it begins in the file.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.0..self.span.1
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &str) -> Option<Value<'t>> {
        let (name, value) = self.entries.get_key_value(key)?;
        Some(Value { key: name.get_ref(), value, key_span: pair(name.span()) })
    }

    /// The value of a key that must be there.
    pub(super) fn need(&self, key: &str, example: &str) -> Result<Value<'t>, Invalid> {
        self.get(key).ok_or_else(|| {
            let says = format!("{} needs `{key}`", self.title);
            Invalid::new(self.span(), says, format!("`{key}` is missing"))
                .help(format!("write for example `{example}`"))
        })
    }

    /// All entries, in the order of the file.
    pub(super) fn entries(&self) -> Vec<Value<'t>> {
        let mut entries: Vec<Value<'t>> = self
            .entries
            .iter()
            .map(|(name, value)| Value { key: name.get_ref(), value, key_span: pair(name.span()) })
            .collect();
        entries.sort_by_key(|entry| entry.key_span);
        entries
    }
}

impl<'t> Value<'t> {
    /// Where the value stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    /// Where the key stands.
    pub(super) fn key_span(&self) -> Range<usize> {
        self.key_span.0..self.key_span.1
    }

    /// The error that this value is not what was expected.
    pub(super) fn unfit(&self, expected: &str, example: &str) -> Invalid {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with decimals",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let says = format!("`{}` must be {expected}, not {found}", self.key);
        Invalid::new(self.span(), says, format!("expected {expected}"))
            .help(format!("write for example `{example}`"))
    }

    /// A string.
    pub(super) fn string(&self, example: &str) -> Result<&'t str, Invalid> {
        self.value.get_ref().as_str().ok_or_else(|| self.unfit("a string", example))
    }

    /// A string in one of the small languages.
    pub(super) fn parse<T>(
        &self,
        example: &str,
        parse: impl Fn(&str) -> Result<T, Unfit>,
    ) -> Result<T, Invalid> {
        let text = self.string(example)?;
        parse(text).map_err(|unfit| {
            Invalid::new(self.span(), format!("`{}`: {}", self.key, unfit.says), unfit.says).help(unfit.help)
        })
    }

    /// True or false.
    pub(super) fn boolean(&self) -> Result<bool, Invalid> {
        self.value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.unfit("true or false", &format!("{} = true", self.key)))
    }

    /// The text of a whole number as an integer, if it is one at all.
    pub(super) fn integer(&self) -> Option<i64> {
        let integer = self.value.get_ref().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A whole number in a range.
    pub(super) fn whole(&self, range: RangeInclusive<u32>) -> Result<u32, Invalid> {
        if !self.value.get_ref().is_integer() {
            return Err(self.unfit("a whole number", &format!("{} = {}", self.key, range.start())));
        }
        let number = self.integer().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let says = format!("`{}` must be from {} to {}", self.key, range.start(), range.end());
            Invalid::new(self.span(), says, "out of range")
        })
    }

    /// Whether it is a list, of whatever.
    pub(super) fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// A list of strings, each with its place; not empty.
    pub(super) fn strings(&self, example: &str) -> Result<Vec<(&'t str, Range<usize>)>, Invalid> {
        let Some(array) = self.value.get_ref().as_array() else {
            return Err(self.unfit("a list of names", example));
        };
        if array.is_empty() {
            let says = format!("`{}` is empty", self.key);
            return Err(Invalid::new(self.span(), says, "nothing here")
                .help(format!("write for example `{example}`")));
        }
        let item = |value: &'t Spanned<DeValue<'t>>| {
            let item = Value { key: self.key, value, key_span: self.key_span };
            item.string(example).map(|text| (text, value.span()))
        };
        array.iter().map(item).collect()
    }

    /// A table with these keys.
    pub(super) fn table(
        &self,
        title: &'t str,
        known: &[&str],
        later: Later,
        example: &str,
    ) -> Result<Table<'t>, Invalid> {
        match self.value.get_ref().as_table() {
            Some(entries) => Table::new(title, entries, self.key_span(), known, later),
            None => Err(self.unfit("a table", example)),
        }
    }

    /// A table whose keys are names, to be judged by the caller.
    pub(super) fn named(&self, title: &'t str, example: &str) -> Result<Table<'t>, Invalid> {
        match self.value.get_ref().as_table() {
            Some(entries) => Ok(Table { title, entries, span: pair(self.key_span()) }),
            None => Err(self.unfit("a table", example)),
        }
    }

    /// A table of broker settings. A key is a setting's name, perhaps with the number of the one broker that it is for in
    /// front: `2:broker.rack`.
    pub(super) fn broker_settings(
        &self,
        title: &'t str,
        known: &[&str],
        example: &str,
    ) -> Result<Table<'t>, Invalid> {
        let table = self.named(title, example)?;
        for entry in table.entries() {
            let name = entry.key.split_once(':').map_or(entry.key, |(_, name)| name);
            if !known.contains(&name) {
                return Err(unknown_key(title, name, entry.key_span(), known));
            }
        }
        Ok(table)
    }

    /// The tables of a `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, example: &str) -> Result<Vec<(&'t DeTable<'t>, Range<usize>)>, Invalid> {
        let Some(array) = self.value.get_ref().as_array() else {
            return Err(self.unfit("a list of tables", example));
        };
        let table = |value: &'t Spanned<DeValue<'t>>| match value.get_ref().as_table() {
            Some(table) => Ok((table, value.span())),
            None => Err(Value { key: self.key, value, key_span: self.key_span }.unfit("a table", example)),
        };
        array.iter().map(table).collect()
    }

    /// A setting of any simple kind, as the text that Kafka would read.
    pub(super) fn setting(&self) -> Result<String, Invalid> {
        match self.value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Boolean(truth) => Ok(truth.to_string()),
            DeValue::Integer(_) => match self.integer() {
                Some(number) => Ok(number.to_string()),
                None => {
                    Err(Invalid::new(self.span(), format!("`{}` is too large", self.key), "out of range"))
                }
            },
            DeValue::Float(number) => Ok(number.as_str().to_owned()),
            DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(self.unfit("a setting", &format!("\"{}\" = 9000", self.key)))
            }
        }
    }
}
