//! The relations of schema `public`, by name. A name always leads to one relation: replacing it leaves no moment in which
//! it leads to none.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{Result as DfResult, exec_err};
use parking_lot::RwLock;

/// See the file header.
#[derive(Default)]
pub struct Relations {
    tables: RwLock<BTreeMap<String, Arc<dyn TableProvider>>>,
    /// Found by those who name them, unless there is one of that name above, and listed nowhere: what PostgreSQL has on its
    /// search path.
    behind: RwLock<BTreeMap<&'static str, Arc<dyn TableProvider>>>,
}

impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relations({:?})", self.tables.read().keys())
    }
}

impl Relations {
    pub fn get(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.tables.read().get(name).cloned()
    }

    /// Puts a relation under `name`; gives back the one that was there.
    pub fn put(&self, name: &str, table: Arc<dyn TableProvider>) -> Option<Arc<dyn TableProvider>> {
        self.tables.write().insert(name.to_string(), table)
    }

    /// Lets a relation of another schema be found without its schema.
    pub fn put_behind(&self, name: &'static str, table: Arc<dyn TableProvider>) {
        self.behind.write().insert(name, table);
    }

    /// Lets go of all relations. They hold streams, and streams and views hold sessions, which hold these relations.
    pub fn clear(&self) {
        let tables = std::mem::take(&mut *self.tables.write());
        // What ends with them takes its time: not under the lock.
        drop(tables);
    }
}

#[async_trait]
impl SchemaProvider for Relations {
    fn table_names(&self) -> Vec<String> {
        self.tables.read().keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.get(name).or_else(|| self.behind.read().get(name).cloned()))
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let mut tables = self.tables.write();
        if tables.contains_key(&name) {
            return exec_err!("relation \"{name}\" already exists");
        }
        Ok(tables.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        Ok(self.tables.write().remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.tables.read().contains_key(name)
    }
}
