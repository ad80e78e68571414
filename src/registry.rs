//! Tables of values: each source, format, statement and function is one static entry of its folder's table.
//! Here is what all tables share: finding an entry by name, with "did you mean" when there is none.

use crate::error::Result;
use crate::options;

/// An entry of a table.
pub trait Entry {
    /// The name users write, in lower case.
    fn name(&self) -> &'static str;
    /// Other spellings that mean the same.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }
    /// One line for help texts and the README.
    fn summary(&self) -> &'static str;
}

/// The entry called `name` (any case). `what` is the word for errors, such as `format`.
pub fn find<'a, E: Entry>(table: &'a [&'a E], what: &str, name: &str) -> Result<&'a E> {
    let lower = name.to_ascii_lowercase();
    let found = table.iter().find(|e| e.name() == lower || e.aliases().contains(&lower.as_str()));
    found.copied().ok_or_else(|| {
        options::unknown(what, name, table.iter().map(|e| e.name()))
            .with_detail(format!("There are: {}.", options::list(table.iter().map(|e| e.name()))))
    })
}
