//! Errors of a file: where, what, and the line itself.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One error, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// The file's name, as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line, made safe for a terminal and cut at 160 characters.
    pub excerpt: String,
    /// How many characters of the line are meant, from `column`; at least 1.
    pub width: usize,
}

impl Diagnostic {
    /// An error at a range of bytes of `text`.
    pub(crate) fn new(
        file: &str,
        text: &str,
        span: Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let width = text[start..end.min(line_end)].chars().count().max(1);
        Self {
            file: file.to_owned(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message: safe(&message, MESSAGE_CHARS_MAX),
            help: help.map(|help| safe(&help, MESSAGE_CHARS_MAX)),
            excerpt: safe(line, EXCERPT_CHARS_MAX),
            width,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let message = &self.message;
        writeln!(f, "{}:{}:{}: {message}", self.file, self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.excerpt)?;
        write!(f, "{margin} |")?;
        if self.column <= EXCERPT_CHARS_MAX {
            let room = EXCERPT_CHARS_MAX + 1 - self.column;
            let carets = "^".repeat(self.width.min(room));
            write!(f, " {}{carets}", " ".repeat(self.column - 1))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n{margin} = help: {help}")?;
        }
        Ok(())
    }
}

/// All errors of a file, in the order of their places; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts errors by place and keeps the first 50; none if there is no error.
    pub(crate) fn collect(mut list: Vec<Diagnostic>) -> Option<Self> {
        if list.is_empty() {
            return None;
        }
        list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        list.dedup();
        list.truncate(DIAGNOSTICS_MAX);
        Some(Self(list))
    }

    /// A single error.
    pub(crate) fn one(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }

    /// The errors.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The longest part of a line that is shown.
const EXCERPT_CHARS_MAX: usize = 160;

/// More errors than this in one file help nobody.
const DIAGNOSTICS_MAX: usize = 50;

/// The longest message; what a file holds is quoted in it.
const MESSAGE_CHARS_MAX: usize = 400;

/// Cuts a text and makes it safe for one line: a tab becomes one space, so that the caret stands
/// where it should; control characters, which a hostile file could use against the reader's
/// terminal, become a replacement character.
fn safe(text: &str, chars_max: usize) -> String {
    let printable = |c: char| match c {
        '\t' | '\n' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().take(chars_max).map(printable).collect()
}

fn floor_char_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}
