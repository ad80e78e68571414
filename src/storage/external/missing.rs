//! A table of files that could not be opened when the engine started: its disk is not mounted, its bucket not reachable.
//! The engine starts all the same; who reads the table is told why there is nothing to read.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::logical_expr::Expr;

use super::Declared;
use crate::error::Error;
use crate::opaque::{Scanned, scan_at_once};

/// See the file header.
#[derive(Debug)]
pub struct Missing {
    columns: SchemaRef,
    why: Error,
}

impl Missing {
    pub fn new(declared: &Declared, why: Error) -> Missing {
        let columns = declared.columns.iter().map(|(name, data_type)| Field::new(name, data_type.clone(), true));
        let hint = "When it is there again, restart the server, or drop the external table and create it again.";
        Missing { columns: Arc::new(Schema::new(columns.collect::<Vec<_>>())), why: why.with_hint(hint) }
    }
}

impl TableProvider for Missing {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    scan_at_once!(Missing);
}

impl Missing {
    fn plan_scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Scanned {
        Err(self.why.clone().into())
    }
}
