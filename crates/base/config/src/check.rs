//! Files of any kind.

use vnfpool_model::PoolSpec;

use crate::diagnostic::Diagnostics;
use crate::element::{ElementConfig, ElementFile};
use crate::manager::{ManagerConfig, ManagerFile};
use crate::pool::PoolFile;
use crate::table::Source;

/// A file that was found sound.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Checked {
    /// A pool file.
    Pool(PoolSpec),
    /// An element's configuration.
    Element(Box<ElementConfig>),
    /// A manager's configuration.
    Manager(ManagerConfig),
}

impl Checked {
    /// The kind of the file in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Pool(_) => "pool",
            Self::Element(_) => "element",
            Self::Manager(_) => "manager",
        }
    }
}

/// Recognises what kind of file a text is by its keys, then parses and validates it.
///
/// # Errors
/// Everything that is wrong with the file, or that its kind cannot be told.
pub fn check_any(text: &str, file_name: &str) -> Result<Checked, Diagnostics> {
    let source = Source::new(file_name, text);
    let tree = source.parse()?;
    let entries = tree.get_ref();
    let is_table = |key| {
        entries
            .get(key)
            .is_some_and(|value| value.get_ref().is_table())
    };
    if is_table("pool") || entries.contains_key("slot") {
        return PoolFile::parse(text, file_name).map(Checked::Pool);
    }
    let has_any = |keys: &[&str]| keys.iter().any(|key| entries.contains_key(*key));
    if has_any(&["element", "lan", "path", "health", "gate"]) {
        let config = ElementFile::parse(text, file_name)?;
        return Ok(Checked::Element(Box::new(config)));
    }
    if has_any(&["trust_domain", "addresses"]) {
        return ManagerFile::parse(text, file_name).map(Checked::Manager);
    }
    let message = "this is no configuration of vnfpool".to_owned();
    let help = "a pool file has [pool], an element's file `element = \"…\"`, a manager's file \
                `trust_domain = \"…\"`";
    source.error(0..0, message, Some(help.to_owned()));
    source.finish(None)
}
