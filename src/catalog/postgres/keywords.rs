//! Which words cannot be names without quotes? Those that PostgreSQL reserves, in part or whole (`pg_get_keywords`).

use std::collections::HashSet;
use std::sync::LazyLock;

use super::base::base;
use super::value::Value;

/// Whether a name of these letters has to be quoted.
pub fn is_reserved(word: &str) -> bool {
    static RESERVED: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let rows = base().relation("functions", "pg_get_keywords").map(|(_, list)| list.rows.rows());
        let reserved = |row: &&Vec<Value>| row.get(1).and_then(Value::as_str) != Some("U");
        let word = |row: &Vec<Value>| row.first().and_then(Value::as_str).map(str::to_string);
        rows.unwrap_or_default().iter().filter(reserved).filter_map(word).collect()
    });
    RESERVED.contains(word)
}
