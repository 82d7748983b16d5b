//! Walks a parsed TOML tree, collecting every error on the way instead of stopping at the first.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::rules::Finding;
use crate::value::Value;

/// The largest file: no honest one comes near, and parsing stays quick.
const FILE_BYTES_MAX: usize = 1 << 20;

/// A text with the errors found in it so far.
pub(crate) struct Source<'t> {
    file: &'t str,
    text: &'t str,
    errors: RefCell<Vec<Diagnostic>>,
    /// Where each value that was asked for stands, by its path (`slot.0.address.1.vrid`).
    places: RefCell<BTreeMap<String, Range<usize>>>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            errors: RefCell::default(),
            places: RefCell::default(),
        }
    }

    /// Parses the text. Syntax errors end the work here: what a broken file means is a guess.
    pub(crate) fn parse(&self) -> Result<Spanned<DeTable<'t>>, Diagnostics> {
        if self.text.len() > FILE_BYTES_MAX {
            let message = format!("the file is larger than {FILE_BYTES_MAX} bytes");
            return Err(Diagnostics::one(self.diagnostic(0..0, message, None)));
        }
        let (tree, errors) = DeTable::parse_recoverable(self.text);
        let errors = errors.iter().map(|error| {
            let end = self.text.len();
            let span = error.span().unwrap_or(end..end);
            self.diagnostic(span, error.message().to_owned(), None)
        });
        Diagnostics::collect(errors.collect()).map_or(Ok(tree), Err)
    }

    pub(crate) fn error(&self, span: Range<usize>, message: String, help: Option<String>) {
        let diagnostic = self.diagnostic(span, message, help);
        self.errors.borrow_mut().push(diagnostic);
    }

    /// Reports a contradiction at the place of the value it names.
    pub(crate) fn finding(&self, finding: Finding) {
        let places = self.places.borrow();
        let mut path = finding.path.as_str();
        let span = loop {
            if let Some(span) = places.get(path) {
                break span.clone();
            }
            // The value was left out: point at the table that should hold it.
            match path.rfind('.') {
                Some(at) => path = &path[..at],
                None => break 0..0,
            }
        };
        drop(places);
        self.error(span, finding.message, finding.help);
    }

    /// The value if there was no error, else all errors.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Diagnostics> {
        let fallback = self.diagnostic(0..0, "the file is incomplete".to_owned(), None);
        match (Diagnostics::collect(self.errors.into_inner()), value) {
            (None, Some(value)) => Ok(value),
            (Some(errors), _) => Err(errors),
            // Not reached: a missing value is always reported. Should it be, this is no panic.
            (None, None) => Err(Diagnostics::one(fallback)),
        }
    }

    pub(crate) fn diagnostic(
        &self,
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Diagnostic {
        Diagnostic::new(self.file, self.text, span, message, help)
    }
}

/// A table being read: it remembers which keys were asked for, so that the rest is unknown.
pub(crate) struct Table<'a> {
    source: &'a Source<'a>,
    entries: &'a DeTable<'a>,
    span: Range<usize>,
    path: String,
    title: String,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    pub(crate) fn root(source: &'a Source<'a>, tree: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            source,
            entries: tree.get_ref(),
            span: 0..0,
            path: String::new(),
            title: "this file".to_owned(),
            known: RefCell::default(),
        }
    }

    /// The value of a key that may be left out.
    pub(crate) fn optional<T: Value>(&self, key: &'static str) -> Option<T> {
        let value = self.get(key)?;
        match T::read(value) {
            Ok(value) => Some(value),
            Err(faults) => {
                for fault in faults {
                    let message = format!("{key}: {}", fault.message);
                    self.source.error(fault.span, message, fault.help);
                }
                None
            }
        }
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T: Value>(&self, key: &'static str) -> Option<T> {
        if self.get(key).is_none() {
            self.missing(
                &format!("key `{key}`"),
                &format!("add {key} = {}", T::EXAMPLE),
            );
        }
        self.optional(key)
    }

    /// The subtable `[key]`, if it is there.
    pub(crate) fn table(&self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        let title = format!("[{}]", self.dotted_title(key));
        self.child(value, self.child_path(key), title)
    }

    /// The subtable `[key]`, which must be there.
    pub(crate) fn required_table(&self, key: &'static str) -> Option<Self> {
        if self.get(key).is_none() {
            self.missing(&format!("table [{}]", self.dotted_title(key)), "add it");
        }
        self.table(key)
    }

    /// The subtables `[[key]]`.
    pub(crate) fn tables(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let title = format!("[[{}]]", self.dotted_title(key));
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!("{key}: expected {title}, found a {}", type_name(value));
            self.source.error(value.span(), message, None);
            return Vec::new();
        };
        let path = self.child_path(key);
        let children = items.iter().enumerate();
        children
            .filter_map(|(index, item)| self.child(item, format!("{path}.{index}"), title.clone()))
            .collect()
    }

    /// All pairs of a table of texts, such as `[labels]`.
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (key, value) in self.entries {
            match value.get_ref() {
                DeValue::String(text) => {
                    texts.insert(key.get_ref().to_string(), text.to_string());
                }
                _ => {
                    let message = format!(
                        "{}: expected a text in quotes, found a {}",
                        key.get_ref(),
                        type_name(value)
                    );
                    self.source.error(value.span(), message, None);
                }
            }
        }
        texts
    }

    /// Reports an error at a key of this table, or at the table if the key was left out.
    pub(crate) fn error(&self, key: &str, message: impl Into<String>, help: Option<&str>) {
        let span = self
            .entries
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        self.source
            .error(span, message.into(), help.map(str::to_owned));
    }

    /// Reports an error at the value of a path from the top of the file.
    pub(crate) fn contradiction(&self, path: &str, message: String) {
        self.source.finding(Finding {
            path: path.to_owned(),
            message,
            help: None,
        });
    }

    pub(crate) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Reports the keys that nobody asked for.
    pub(crate) fn finish(self) {
        let known = self.known.into_inner();
        for key in self.entries.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let help = closest(name, &known).map_or_else(
                || format!("expected one of: {}", known.join(", ")),
                |known| format!("did you mean `{known}`?"),
            );
            let message = format!("unknown key `{name}` in {}", self.title);
            self.source.error(key.span(), message, Some(help));
        }
    }

    fn get(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        let value = self.entries.get(key)?;
        let path = self.child_path(key);
        self.source.places.borrow_mut().insert(path, value.span());
        Some(value)
    }

    fn child(&self, value: &'a Spanned<DeValue<'a>>, path: String, title: String) -> Option<Self> {
        let span = value.span();
        self.source
            .places
            .borrow_mut()
            .insert(path.clone(), span.clone());
        let DeValue::Table(entries) = value.get_ref() else {
            let message = format!("expected the table {title}, found a {}", type_name(value));
            self.source.error(span, message, None);
            return None;
        };
        Some(Self {
            source: self.source,
            entries,
            span,
            path,
            title,
            known: RefCell::default(),
        })
    }

    fn missing(&self, what: &str, help: &str) {
        let message = format!("missing {what} in {}", self.title);
        self.source
            .error(self.span.clone(), message, Some(help.to_owned()));
    }

    fn child_path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The path without indices, as it stands between brackets: `slot.address`.
    fn dotted_title(&self, key: &str) -> String {
        let path = self.child_path(key);
        let is_name = |part: &&str| part.parse::<usize>().is_err();
        path.split('.')
            .filter(is_name)
            .collect::<Vec<_>>()
            .join(".")
    }
}

/// The known word that was probably meant.
pub(crate) fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let score = |known: &&&str| strsim::damerau_levenshtein(word, known);
    let best = known.iter().min_by_key(score)?;
    let distance = strsim::damerau_levenshtein(word, best);
    let is_near = distance <= 1 + best.len() / 4;
    let is_part = word.len() >= 4 && (best.contains(word) || word.contains(*best));
    (is_near || is_part).then_some(*best)
}

/// What a value is, in the words of TOML.
pub(crate) fn type_name(value: &Spanned<DeValue<'_>>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "whole number",
        DeValue::Float(_) => "fraction",
        DeValue::Boolean(_) => "truth value",
        DeValue::Datetime(_) => "date",
        DeValue::Array(_) => "list",
        DeValue::Table(_) => "table",
    }
}
