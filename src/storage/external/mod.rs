//! Tables that others write: directories of Parquet files and Delta tables, on this machine or on S3.
//!
//! Receives a location and hands on a relation. What always holds:
//! - The columns are those of the moment at which the relation was made (or declared): views are planned with them.
//! - The files are looked up anew by each query, so what others add is in the next result. A query reads one listing,
//!   or one version, to its end.
//! - Nothing is ever written here.
//!
//! | file | holds |
//! |---|---|
//! | `place.rs` | where something lies: location to object store and URL |
//! | `parquet.rs` | Parquet files as a relation, with columns from their directories' names |
//! | `partition.rs` | what `year=2026/month=11` says |
//! | `delta.rs` | a Delta table as a relation |
//! | `missing.rs` | what stands in for a table that could not be opened at start-up |

mod delta;
mod missing;
mod parquet;
mod partition;
mod place;

use arrow::datatypes::{DataType, Schema};

pub use delta::Delta;
pub use missing::Missing;
pub use parquet::Parquet;
pub use partition::NULL;
pub use place::{Place, failed};

/// What a statement says about the columns of a table of files.
#[derive(Debug, Default)]
pub struct Declared {
    /// Names and types, those of the partitions among them; empty: the files know.
    pub columns: Vec<(String, DataType)>,
    /// The columns that stand in the names of the directories, outermost first; empty: those that are found there.
    pub partitioned_by: Vec<String>,
}

impl Declared {
    fn type_of(&self, column: &str) -> Option<&DataType> {
        self.columns.iter().find(|(name, _)| name == column).map(|(_, data_type)| data_type)
    }

    /// The columns of the files themselves, without these of their directories.
    fn of_files(&self, partitions: &[String]) -> Option<Schema> {
        let own = self.columns.iter().filter(|(name, _)| !partitions.contains(name));
        let own: Vec<_> =
            own.map(|(name, data_type)| arrow::datatypes::Field::new(name, data_type.clone(), true)).collect();
        (!own.is_empty()).then(|| Schema::new(own))
    }
}
