//! What an engine may use as one database among others, and what it uses now. What it takes from its settings when it is
//! opened (memory) stays; the rest changes while it runs.

use std::sync::{Arc, Weak};

use super::Engine;
use crate::config::Config;
use crate::database::Databases;
use crate::error::{Error, Kind, Result};
use crate::reach::{Bounds, Limits};

/// What a database uses now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// On the disk, in bytes.
    pub kept: u64,
    /// Of its queries, in bytes.
    pub query_memory: u64,
    /// Of the states of its views, in bytes.
    pub state_memory: u64,
    /// Queries that compute, and how many may.
    pub queries: usize,
    pub most_queries: usize,
}

impl Engine {
    /// Says of which databases it is one. Once, after it has been opened.
    pub fn set_home(&self, databases: Weak<Databases>) {
        let _ = self.home.set(databases);
    }

    /// The databases of the server; `None` for an engine by itself.
    pub fn databases(&self) -> Option<Arc<Databases>> {
        self.home.get().and_then(Weak::upgrade)
    }

    /// Whether the role is one of the server's operators, who may enter this tenant.
    pub fn is_operator(&self, role: &str) -> bool {
        !self.is_main() && self.databases().is_some_and(|databases| databases.is_operator(role))
    }

    /// Fails for a name that a role of this database cannot have: whoever logs in by it is an operator.
    pub fn check_role_name(&self, name: &str) -> Result<()> {
        match self.is_operator(name) && !self.is_restoring() {
            true => Err(Error::new(Kind::DuplicateObject, format!("role name \"{name}\" is reserved"))),
            false => Ok(()),
        }
    }

    /// What statements of this database may reach, if they are not those of an operator.
    pub fn bounds(&self) -> Bounds {
        if self.is_main() {
            return None;
        }
        let own = self.databases().and_then(|databases| databases.find(self.database()));
        // Nothing, while the server ends.
        Some(own.map(|database| database.bounds()).unwrap_or_else(|| Arc::new(Limits::nothing())))
    }

    /// Other limits from now on: bytes of lines each second, bytes kept on the disk, queries that compute at one time.
    pub fn limit(&self, ingest_rate: Option<u64>, bytes_kept: Option<u64>, max_queries: usize) {
        if let Some(durable) = &self.durable {
            durable.space.rate.set(ingest_rate);
            durable.space.set_limit(bytes_kept);
        }
        self.places.resize(max_queries);
    }

    /// The settings that it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn usage(&self) -> Usage {
        Usage {
            kept: self.durable.as_ref().map_or(0, |durable| durable.space.used()),
            query_memory: self.context.runtime_env().memory_pool.reserved() as u64,
            state_memory: self.memory.budget.used() as u64,
            queries: self.places.taken(),
            most_queries: self.places.count(),
        }
    }
}
